"""The commands `fairmend tabular compare`, `reproduce` and `sweep`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

import typer

from fairmend.cli.display import Interrupted, Screen, opened
from fairmend.cli.options import CommonOptions, Given, levels, of, whole
from fairmend.cli.tables import table_parts
from fairmend.cli.tabular.inputs import make_settings, open_inputs
from fairmend.cli.tabular.options import GRID, LIMITED, SEARCHED, SourceOptions, StudyOptions
from fairmend.settings import SEARCH_NAMES
from fairmend.tabular.repair.settings import RepairSettings

if TYPE_CHECKING:
    from fairmend.report.tables import Table
    from fairmend.settings import SearchName
    from fairmend.tabular.names import Threshold

_SHARED = of(RepairSettings, "min_drop", "search_on", "objective", "utility", "drop", "threshold", panel="Search")


class Study(Protocol):
    """What the three studies have in common."""

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it early."""

    def tables(self) -> tuple[Table, ...]:
        """The result for people."""

    def to_json(self) -> dict[str, Any]:
        """The result for programs."""


def compare(
    *,
    source: SourceOptions,
    search: Annotated[
        str,
        typer.Option(
            "--search",
            metavar="NAME[,NAME]",
            rich_help_panel="Search",
            help=f"The searches to compare, all with the same --states: {', '.join(SEARCH_NAMES)}.",
        ),
    ] = "annealing,random-walk,genetic,random,dice",
    given: Annotated[Given, SEARCHED.without("search"), LIMITED],
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", parser=whole, help="Runs per search, with seeds from --seed up.")
    ] = 5,
    study: StudyOptions,
    common: CommonOptions,
) -> None:
    """Compare several searches at an equal number of measured states, with several seeds, on one network.

    One table: mean unfairness and utility on test rows that no search saw, with 95 % t-intervals over the seeds, the
    search's own figure beside it, dropped neurons, seconds and states per second; and two honest rivals: the network
    untouched, and with only its decision threshold shifted. Each row is tested against annealing, adjusted for the
    number of tests. Written to --out: compare.json, compare.csv, compare.png and .svg, and one file per repair.

    Ctrl-C keeps what is finished; the same command again goes on.

    Example: `fairmend tabular compare --preset compas-race --states 3000 --seeds 5 --workers 2`
    """
    with opened(common) as screen:
        from fairmend.tabular.studies.compare import compare_searches
        from fairmend.tabular.studies.study_files import write_comparison

        searches = levels("--search", search, str)
        settings = make_settings(given, common.seed, source.preset)
        inputs = open_inputs(source, screen, settings.objective)
        out = study.out or Path(f"fairmend-compare-{inputs.title}")
        found = compare_searches(
            inputs.network,
            inputs.dataset,
            settings,
            searches=cast("list[SearchName]", searches),
            seeds=seeds,
            out=out,
            workers=study.workers,
            progress=screen.steps,
        )
        _present(found, screen, lambda: write_comparison(found, out))


def reproduce(
    *,
    networks: Annotated[
        Path,
        typer.Option(
            "--networks",
            metavar="DIR",
            help='Folder with models.json, a list of {"dataset", "seed", "file"}, and the .safetensors it names.',
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder with the tables (adult.csv.gz, ...), itself or in its subfolder tabular. Default: the cache, "
            "and what can be fetched.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="NAME[,NAME]",
            help="Settings to reproduce, such as adult-sex,bank-age. Default: all seven.",
        ),
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(
            "--threshold",
            metavar="joint|fixed|both",
            rich_help_panel="Search",
            help="joint: the search also shifts everybody's decision threshold. fixed: the threshold stays, NeuFair as "
            "published. both: one row of each.",
        ),
    ] = "joint",
    given: Annotated[Given, SEARCHED, LIMITED.without("threshold")],
    study: StudyOptions,
    common: CommonOptions,
) -> None:
    """Repair the published networks, and show the published table beside ours.

    One row per setting: the published original, annealing (SA) and random walk (RW) of one hour, and DICE; ours with
    its 95 % t-interval over networks on test rows that no search saw; the rivals untouched and threshold only; the
    noise floor; F1 before and after; what was infeasible or worse on the search rows; dropped neurons and processor
    seconds per network. A setting without networks or data is named as missing. Written to --out: reproduce.json,
    settings.csv, networks.csv, reproduce.png and .svg, and one file per repair.

    Ctrl-C keeps what is finished; the same command again goes on.

    Example: `fairmend tabular reproduce --networks neufair --data tables --threshold both --workers 2`
    """
    with opened(common) as screen:
        from fairmend.tabular.studies.reproduce import reproduce_published
        from fairmend.tabular.studies.study_files import write_reproduction

        both = threshold == "both"
        settings = make_settings(given, common.seed, threshold="joint" if both else threshold)
        thresholds: tuple[Threshold, ...] = ("joint", "fixed") if both else (settings.threshold,)
        out = study.out or Path("fairmend-reproduce")
        found = reproduce_published(
            networks,
            data,
            settings,
            thresholds=thresholds,
            only=[] if only is None else levels("--only", only, str),
            out=out,
            workers=study.workers,
            progress=screen.steps,
        )
        _present(found, screen, lambda: write_reproduction(found, out))


def sweep(
    *,
    source: SourceOptions,
    grid: Annotated[Given, GRID],
    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule",
            metavar="NAME[,NAME]",
            rich_help_panel=GRID.panel,
            help="Cooling schedules of annealing: geometric, logarithmic, exponential.",
        ),
    ] = None,
    given: Annotated[Given, _SHARED],
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", parser=whole, help="Runs per point, with seeds from --seed up.")
    ] = 3,
    study: StudyOptions,
    common: CommonOptions,
) -> None:
    """Repair one network at every point of a grid of settings: NeuFair's design questions.

    The axes are --keep (the threshold multiplier), --penalty, --max-drop, --states and --schedule, each a list; without
    any, --keep 0.95,0.98,1 by --schedule geometric,logarithmic. Unfairness and utility are shown on test rows, which
    no search saw, and on the rows that the search optimised. Written to --out: sweep.json, sweep.csv, sweep.png and
    .svg (the effect of each axis over all the others), and one file per repair.

    Ctrl-C keeps what is finished; the same command again goes on.

    Example: `fairmend tabular sweep --preset compas-race --keep 0.95,0.98,1 --states 1000,10000 --workers 2`
    """
    with opened(common) as screen:
        from fairmend.tabular.studies.study_files import write_sweep
        from fairmend.tabular.studies.sweep import sweep_settings

        settings = make_settings(given, common.seed)
        axes = grid.levels()
        if schedule is not None:
            axes["schedule"] = levels("--schedule", schedule, str)
        if not axes:
            axes = {"keep": [0.95, 0.98, 1.0], "schedule": ["geometric", "logarithmic"]}
        inputs = open_inputs(source, screen, settings.objective)
        out = study.out or Path(f"fairmend-sweep-{inputs.title}")
        found = sweep_settings(
            inputs.network,
            inputs.dataset,
            axes,
            settings,
            seeds=seeds,
            out=out,
            workers=study.workers,
            progress=screen.steps,
        )
        _present(found, screen, lambda: write_sweep(found, out))


def _present(study: Study, screen: Screen, write: Callable[[], Mapping[str, Path]]) -> None:
    """Write the files of a study, show it, and end with Ctrl-C's exit code if that ended it."""
    from fairmend.report.tables import defined

    written = write()
    screen.document(defined(study.to_json()) | {"files": {name: str(path) for name, path in written.items()}})
    for table in study.tables():
        screen.show(*table_parts(table))
    screen.show("Written:", *(f"  {path}" for path in written.values()))
    if study.interrupted:
        screen.warn("Stopped by Ctrl-C. Every finished repair is kept: the same command again goes on with the rest.")
        raise Interrupted
