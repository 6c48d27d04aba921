"""The command `fairmend lm sweep`, and what `fairmend resume` and `show` do with its folder."""

from __future__ import annotations

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
from fairmend.cli.language.judgement_tables import JUDGED, judged_cells
from fairmend.cli.language.options import COLLECTED, MEASURED, MeasureOptions, Model, ModelOptions
from fairmend.cli.language.repair import read_collection
from fairmend.cli.language.runs import language_run
from fairmend.cli.options import CommonOptions, Given, levels, of, real, whole
from fairmend.cli.tables import plain_table
from fairmend.cli.trust import TrustOptions, read_back
from fairmend.language.repair.settings import RepairSettings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fairmend.language.studies.sweep import SweepSettings

_SWEPT = "Swept (lists)"
_SEARCHED = of(RepairSettings, "subsets.surrogate", "max_perplexity", panel="Repair")
_ALONE = {0.0: " (perplexity only)", 1.0: " (bias only)"}


def sweep(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    given: Annotated[Given, MEASURED, COLLECTED, _SEARCHED],
    collected: Annotated[
        Path,
        typer.Option("--from", metavar="DIR", help="Folder of fairmend lm collect, made with the same options."),
    ],
    epsilon: Annotated[
        str,
        typer.Option(
            "--epsilon",
            metavar="WEIGHT[,WEIGHT]",
            rich_help_panel=_SWEPT,
            help="Weights of the bias against the perplexity, from 0 to 1. 0 and 1, one surrogate alone, are shown "
            "without the perplexity floor too.",
        ),
    ] = "0,0.25,0.5,0.75,1",
    subsets: Annotated[
        str | None,
        typer.Option(
            "--subsets",
            metavar="N[,N]",
            rich_help_panel=_SWEPT,
            help="Numbers of collected subsets to learn from, the first ones. Default: a quarter, half and all.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the result; made if need be. One that holds this very sweep goes on with it.",
        ),
    ],
    common: CommonOptions,
) -> None:
    """Answer the design questions of Attention Pruning from collected subsets: which weight, and how many of them?

    For every number of subsets and every weight, surrogates are fitted and annealed on, and the winner is measured on
    held-out prompts and text, each set of heads once. Written to --out: sweep.csv, sweep.json, sweep.png and .svg (bias
    and perplexity against the weight) and run.sqlite, which has every measurement.

    Ctrl-C keeps everything measured so far; the same command or `fairmend resume DIR` goes on with it.

    Example: `fairmend lm sweep smollm2 --scorer lexical --from collected --epsilon 0,0.5,1 --out swept`
    """
    with opened(common) as screen:
        from fairmend.language.studies.sweep import SweepSettings

        shared = measuring(measure, common.seed, given, method="attention-pruning")
        budgets = _quarters(collected, shared) if subsets is None else levels("--subsets", subsets, whole)
        settings = SweepSettings(tuple(budgets), tuple(levels("--epsilon", epsilon, real)), shared)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        _sweep(out, inputs, settings, options, absolute(collected), screen)


def resume(folder: Path, header: Mapping[str, Any], trust: TrustOptions, screen: Screen) -> None:
    """Go on with the sweep in a folder, whose store has this header, or show it if it is finished."""
    from fairmend.language.studies.sweep import SweepSettings
    from fairmend.language.studies.sweep_report import RESULT

    if (folder / RESULT).is_file():
        screen.note(f"Note: the sweep in {folder} is finished; there is nothing to go on with.")
        with read_back(folder):
            show(folder, screen)
        return
    settings = stored_settings(SweepSettings.from_json, header)
    inputs, options = reopen_language_inputs(header, folder, trust, screen, settings.shared.seed)
    _sweep(folder, inputs, settings, options, str(header["request"].get("from")), screen)


def show(folder: Path, screen: Screen) -> None:
    """Show the sweep saved in a folder."""
    _present(folder, {}, screen)


def _quarters(collected: Path, settings: RepairSettings) -> list[int]:
    """A quarter, half and all of the collected subsets."""
    with read_collection(str(collected), settings) as context:
        count = 0 if context is None else len(context)
    return sorted({max(2, count // 4), max(2, count // 2), max(2, count)})


def _sweep(
    out: Path, inputs: LanguageInputs, settings: SweepSettings, options: ModelOptions, collected: str, screen: Screen
) -> None:
    from fairmend.language.studies.study_files import save_study
    from fairmend.language.studies.sweep import sweep_subsets
    from fairmend.language.studies.sweep_report import KIND, STEM

    request = {**inputs.request, "from": collected}
    with (
        read_collection(collected, settings.shared) as context,
        language_run(out, inputs, settings, screen, kind=KIND, request=request) as store,
    ):
        assert context is not None
        found = sweep_subsets(
            inputs.lm,
            settings=settings,
            collected=context,
            store=store,
            progress=screen.steps,
            batch_size=options.batch_size,
            **inputs.subject,
        )
        screen.steps.close()
        command_line = shlex.join(["fairmend", *sys.argv[1:]])
        files = save_study(STEM, found, inputs.lm, settings, out, request=request, command=command_line)
    _present(out, files, screen)


def sweep_parts(result: Mapping[str, Any]) -> list[RenderableType]:
    """What a sweep says: one line per number of subsets and weight, on held-out data."""
    table = plain_table(
        f"{result['model']['name']}, {result['figures']['bias']['name']}: winners on held-out prompts and text",
        *("subsets", "epsilon", "floor", "heads", *JUDGED, "predicted bias"),
        tight=True,
    )
    table.add_row("untouched", "", "", "0", *judged_cells(result["untouched"], True), "")
    for row in result["rows"]:
        table.add_row(
            f"{row['subsets']:,}",
            f"{row['epsilon']:g}{_ALONE.get(row['epsilon'], '')}",
            f"{result['max_perplexity']:g} x" if row["floored"] else "none",
            str(len(row["dropped"])),
            *judged_cells(row, not row["dropped"]),
            f"{row['predicted_bias']:.4f}",
        )
    costs = {row["subsets"]: row for row in result["rows"]}
    cost = "; ".join(
        f"{count:,} subsets {row['tokens']:,} tokens, {row['seconds'] / 3600:.2g} hours" for count, row in costs.items()
    )
    caveat = str(result["caveat"])
    return [
        table,
        f"Surrogate: {result['surrogate']}. Generated to measure the subsets: {cost}.",
        f"{caveat[:1].upper()}{caveat[1:]}.\n",
    ]


def _present(folder: Path, files: Mapping[str, Path], screen: Screen) -> None:
    from fairmend.language.studies.sweep_report import RESULT, SCHEMA, SCHEMA_VERSION
    from fairmend.runs.directories import read_result

    result = read_result(folder / RESULT, {SCHEMA: SCHEMA_VERSION}, "finished sweep", "run the sweep")
    written = {name: str(path) for name, path in files.items()}
    screen.document({**result, "files": written} if written else result)
    screen.show(*sweep_parts(result))
    if written:
        screen.show("Written:", *(f"  {path}" for path in written.values()))
