"""The command `fairmend lm compare`, and what `fairmend resume` and `show` do with its folder."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairmend.cli.display import Screen, opened
from fairmend.cli.language.inputs import (
    LanguageInputs,
    absolute,
    measuring,
    open_language_inputs,
    reopen_language_inputs,
    stored_settings,
)
from fairmend.cli.language.options import (
    COLLECTED,
    MEASURED,
    SCORED,
    SCORES_HELP,
    SEARCHED,
    ComparisonOptions,
    MeasureOptions,
    Model,
    ModelOptions,
)
from fairmend.cli.language.repair import read_scores
from fairmend.cli.language.runs import language_run
from fairmend.cli.options import RARE, CommonOptions, Given, levels, real
from fairmend.cli.trust import TrustOptions, read_back
from fairmend.errors import InputError

if TYPE_CHECKING:
    from fairmend.language.scores.head_scores import HeadScores
    from fairmend.language.studies.compare import ComparisonSettings
    from fairmend.language.studies.comparison import MethodComparison
    from fairmend.language.studies.equal_cost import EqualCostSettings
    from fairmend.language.studies.equal_cost_report import CostComparison


def compare(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    compared: ComparisonOptions,
    given: Annotated[Given, MEASURED, SCORED, COLLECTED, SEARCHED],
    scores: Annotated[Path | None, typer.Option("--scores", metavar="FILE.csv", help=SCORES_HELP), RARE] = None,
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
    """Compare methods: at equal numbers of heads, or, with --tokens, whole repairs at an equal number of tokens.

    At equal numbers of heads: every head is scored once, on the search half of prompts and text, and all methods share
    the scores; FASP is shown at every alpha and gamma. Every set of heads is then measured on the judging half, which
    no score saw, with the same prompts and the same noise; sets that coincide are measured once. Nothing is chosen
    among the lines: whoever picks the best of them has chosen on the judging half.

    At an equal number of generated tokens (--tokens): every method repairs the model several times (--seeds), as
    fairmend lm repair does, each time with other prompts, noise and random numbers, and all repairs are judged on the
    same held-out prompts and text.

    Written to --out: compare.csv, compare.json, compare.png and .svg (bias against perplexity), and run.sqlite, which
    has every measurement. Ctrl-C keeps everything measured so far; the same command or `fairmend resume DIR` goes on
    with it.

    Example: `fairmend lm compare smollm2 --scorer lexical --alpha 0.05,0.1 --gamma 0.3,0.6 --out compared`

    Or: `fairmend lm compare smollm2 --scorer lexical --method fasp,active --tokens 100000 --out costs`
    """
    with opened(common) as screen:
        settings = _settings(compared, measure, given, common.seed)
        if scores is not None and compared.tokens is not None:
            raise InputError("--scores is for comparisons at equal numbers of heads: with --tokens scores are paid for")
        table = read_scores(scores)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        folder = out or Path(f"fairmend-compare-{_slug(inputs.lm.name)}")
        _compare(folder, inputs, settings, options, table, scores, screen)


def resume(folder: Path, header: Mapping[str, Any], trust: TrustOptions, screen: Screen) -> None:
    """Go on with the comparison in a folder, whose store has this header, or show it if it is finished."""
    from fairmend.language.studies.compare import ComparisonSettings
    from fairmend.language.studies.comparison_files import COST_KIND, RESULT, load_comparison
    from fairmend.language.studies.equal_cost import EqualCostSettings

    if (folder / RESULT).is_file():
        screen.note(f"Note: the comparison in {folder} is finished; there is nothing to go on with.")
        with read_back(folder):
            _present(load_comparison(folder), {}, screen)
        return
    at_cost = header["kind"] == COST_KIND
    settings: ComparisonSettings | EqualCostSettings = (
        stored_settings(EqualCostSettings.from_json, header)
        if at_cost
        else stored_settings(ComparisonSettings.from_json, header)
    )
    inputs, options = reopen_language_inputs(header, folder, trust, screen, settings.shared.seed)
    scores = header["request"].get("scores")
    path = None if scores is None else Path(scores)
    _compare(folder, inputs, settings, options, read_scores(path), path, screen)


def show(folder: Path, screen: Screen) -> None:
    """Show the comparison saved in a folder."""
    from fairmend.language.studies.comparison_files import load_comparison

    _present(load_comparison(folder), {}, screen)


def _settings(
    compared: ComparisonOptions, measure: MeasureOptions, given: Given, seed: int
) -> ComparisonSettings | EqualCostSettings:
    """The settings that the options amount to.

    Raises:
        InputError: an option outside its range, or one that does not go with the others.
    """
    from fairmend.language.repair.settings import SUBSET_METHODS
    from fairmend.language.studies.compare import ComparisonSettings
    from fairmend.language.studies.equal_cost import EqualCostSettings

    lists = {
        "methods": None if compared.method is None else tuple(levels("--method", compared.method, str)),
        "alphas": None if compared.alpha is None else tuple(levels("--alpha", compared.alpha, real)),
        "gammas": None if compared.gamma is None else tuple(levels("--gamma", compared.gamma, real)),
    }
    named: dict[str, Any] = {name: value for name, value in lists.items() if value is not None}
    if compared.tokens is None:
        searching_subsets = sorted(set(named.get("methods", ())) & set(SUBSET_METHODS))
        if searching_subsets:
            raise InputError(
                f"--method {searching_subsets[0]} measures as many subsets as it may, so it is compared at equal cost: "
                "add --tokens N, such as --tokens 100000"
            )
        return ComparisonSettings(**named, random_draws=compared.random_draws, shared=measuring(measure, seed, given))
    rule: dict[str, float] = {}
    for name, option in (("alphas", "alpha"), ("gammas", "gamma")):
        values = named.pop(name, ())
        if len(values) > 1:
            raise InputError(f"--tokens compares whole repairs with one --{option}, got {len(values)}: give one")
        rule |= dict.fromkeys([option] if values else [], *values)
    shared = measuring(measure, seed, given, **rule)
    return EqualCostSettings(**named, tokens=compared.tokens, seeds=compared.seeds, shared=shared)


def _compare(
    out: Path,
    inputs: LanguageInputs,
    settings: ComparisonSettings | EqualCostSettings,
    options: ModelOptions,
    scores: HeadScores | None,
    scores_file: Path | None,
    screen: Screen,
) -> None:
    from fairmend.language.studies.compare import ComparisonSettings, compare_methods
    from fairmend.language.studies.comparison_files import COST_KIND, KIND, load_comparison, save_comparison
    from fairmend.language.studies.equal_cost import compare_at_equal_cost

    request = {**inputs.request, "scores": None if scores_file is None else absolute(scores_file)}
    at_heads = isinstance(settings, ComparisonSettings)
    kind = KIND if at_heads else COST_KIND
    with language_run(out, inputs, settings, screen, kind=kind, request=request, scores=scores) as store:
        shared = {"store": store, "progress": screen.steps, "batch_size": options.batch_size, **inputs.subject}
        found: MethodComparison | CostComparison
        if isinstance(settings, ComparisonSettings):
            found = compare_methods(inputs.lm, settings=settings, scores=scores, **shared)
        else:
            found = compare_at_equal_cost(inputs.lm, settings=settings, **shared)
        screen.steps.close()
        command_line = shlex.join(["fairmend", *sys.argv[1:]])
        files = save_comparison(found, inputs.lm, settings, out, request=request, command=command_line)
    _present(load_comparison(out), files, screen)


def _present(result: Mapping[str, Any], files: Mapping[str, Path], screen: Screen) -> None:
    from fairmend.cli.language.tables import compare_parts, cost_parts

    written = {name: str(path) for name, path in files.items()}
    screen.document({**result, "files": written} if written else result)
    for note in result["notes"]:
        screen.note(f"Note: {note}")
    screen.show(*(cost_parts(result) if "tokens" in result else compare_parts(result)))
    if written:
        screen.show("Written:", *(f"  {path}" for path in written.values()))


def _slug(name: str) -> str:
    """A model's name as part of a folder's name."""
    return re.sub(r"[^\w.-]+", "-", Path(name).name).strip("-.") or "model"
