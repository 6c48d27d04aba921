"""The command `fairmend lm compare`, and what `fairmend resume` and `show` do with its folder."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fairmend.cli.display import Screen, opened
from fairmend.cli.language_inputs import (
    LanguageInputs,
    absolute,
    measuring,
    open_language_inputs,
    reopen_language_inputs,
    stored_settings,
)
from fairmend.cli.language_options import SCORES_HELP, ComparisonOptions, MeasureOptions, Model, ModelOptions
from fairmend.cli.language_repair import read_scores
from fairmend.cli.language_runs import language_run
from fairmend.cli.options import CommonOptions, command, real
from fairmend.cli.study_options import levels

if TYPE_CHECKING:
    from fairmend.language.compare import ComparisonSettings
    from fairmend.language.head_scores import HeadScores


def register(app: typer.Typer) -> None:
    """Add the command to the group `fairmend lm`."""
    app.command()(compare)


@command
def compare(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    compared: ComparisonOptions,
    scores: Annotated[Path | None, typer.Option("--scores", metavar="FILE.csv", help=SCORES_HELP)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the result; made if need be. One that holds this very comparison goes on with it. "
            "Default: ./fairmend-compare-NAME, NAME being the model.",
        ),
    ] = None,
    common: CommonOptions,
) -> None:
    """Prune by several methods at equal numbers of heads, and by FASP at every alpha and gamma: one table, one picture.

    Every head is scored once, on the search half of prompts and text, and all methods share the scores. Every set of
    heads is then measured on the judging half, which no score saw, with the same prompts and the same noise; sets that
    coincide are measured once. Nothing is chosen among the lines: whoever picks the best of them has chosen on the
    judging half. Written to --out: compare.csv, compare.json, compare.png and .svg (bias against perplexity), and
    run.sqlite, which has every measurement.

    Ctrl-C keeps everything measured so far; the same command or `fairmend resume DIR` goes on with it.

    Example: `fairmend lm compare smollm2 --scorer lexical --alpha 0.05,0.1 --gamma 0.3,0.6 --out compared`
    """
    with opened(common) as screen:
        from fairmend.language.compare import ComparisonSettings
        from fairmend.search import Method

        settings = ComparisonSettings(
            methods=tuple(cast(Method, name) for name in levels("--method", compared.method, str)),
            alphas=tuple(levels("--alpha", compared.alpha, real)),
            gammas=tuple(levels("--gamma", compared.gamma, real)),
            random_draws=compared.random_draws,
            shared=measuring(measure, common.seed, compared),
        )
        table = read_scores(scores)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        folder = out or Path(f"fairmend-compare-{_slug(inputs.lm.name)}")
        _compare(folder, inputs, settings, options, table, scores, screen)


def resume(folder: Path, header: Mapping[str, Any], screen: Screen) -> None:
    """Go on with the comparison in a folder, whose store has this header, or show it if it is finished."""
    from fairmend.language.compare import ComparisonSettings
    from fairmend.language.comparison_files import RESULT, load_comparison

    if (folder / RESULT).is_file():
        screen.note(f"Note: the comparison in {folder} is finished; there is nothing to go on with.")
        _present(load_comparison(folder), {}, screen)
        return
    request = header.get("request") or {}
    settings = stored_settings(ComparisonSettings.from_json, header)
    scores = request.get("scores")
    path = None if scores is None else Path(scores)
    inputs, options = reopen_language_inputs(request, screen, settings.shared.seed)
    _compare(folder, inputs, settings, options, read_scores(path), path, screen)


def show(folder: Path, screen: Screen) -> None:
    """Show the comparison saved in a folder."""
    from fairmend.language.comparison_files import load_comparison

    _present(load_comparison(folder), {}, screen)


def _compare(
    out: Path,
    inputs: LanguageInputs,
    settings: ComparisonSettings,
    options: ModelOptions,
    scores: HeadScores | None,
    scores_file: Path | None,
    screen: Screen,
) -> None:
    from fairmend.language.compare import compare_methods
    from fairmend.language.comparison_files import KIND, load_comparison, save_comparison

    request = {**inputs.request, "scores": None if scores_file is None else absolute(scores_file)}
    with language_run(out, inputs, settings, screen, kind=KIND, request=request, scores=scores) as store:
        found = compare_methods(
            inputs.lm,
            settings=settings,
            scores=scores,
            store=store,
            progress=screen.steps,
            batch_size=options.batch_size,
            **inputs.subject,
        )
        screen.steps.close()
        command_line = shlex.join(["fairmend", *sys.argv[1:]])
        files = save_comparison(found, inputs.lm, settings, out, request=request, command=command_line)
    _present(load_comparison(out), files, screen)


def _present(result: Mapping[str, Any], files: Mapping[str, Path], screen: Screen) -> None:
    from fairmend.cli.language_tables import compare_parts

    written = {name: str(path) for name, path in files.items()}
    screen.document({**result, "files": written} if written else result)
    for note in result["notes"]:
        screen.note(f"Note: {note}")
    screen.show(*compare_parts(result))
    if written:
        screen.show("Written:", *(f"  {path}" for path in written.values()))


def _slug(name: str) -> str:
    """A model's name as part of a folder's name."""
    return re.sub(r"[^\w.-]+", "-", Path(name).name).strip("-.") or "model"
