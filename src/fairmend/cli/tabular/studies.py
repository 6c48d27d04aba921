"""The commands `fairmend tabular compare`, `reproduce` and `sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fairmend.cli.display import Interrupted, Screen, opened
from fairmend.cli.options import CommonOptions, SourceOptions, command, whole
from fairmend.cli.tables import present_study
from fairmend.cli.tabular.inputs import make_settings, open_inputs
from fairmend.cli.tabular.study_options import ComparedOptions, ReproducedOptions, StudyOptions, SweepOptions, levels
from fairmend.errors import InputError

if TYPE_CHECKING:
    from fairmend.search import SearchName
    from fairmend.tabular.repair.settings import Threshold
    from fairmend.tabular.studies.outcomes import TabularStudy


def register(app: typer.Typer) -> None:
    """Add the three commands to the group `fairmend tabular`."""
    for function in (compare, reproduce, sweep):
        app.command()(function)


@command
def compare(
    *,
    source: SourceOptions,
    search: ComparedOptions,
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

        searches = levels("--search", search.search, str)
        settings = make_settings(replace(search, search="annealing"), common.seed, source.preset)
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
        _present(found, out, screen)


@command
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
    search: ReproducedOptions,
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

        both = search.threshold == "both"
        settings = make_settings(replace(search, threshold="joint") if both else search, common.seed)
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
        _present(found, out, screen)


@command
def sweep(
    *,
    source: SourceOptions,
    grid: SweepOptions,
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
        from fairmend.tabular.repair.settings import RepairSettings
        from fairmend.tabular.studies.sweep import sweep_settings

        shared: Mapping[str, Any] = grid.shared()
        if shared.get("drop") == "clamp":
            raise InputError("--drop must be output or weights, got 'clamp'")
        settings = RepairSettings(**shared, seed=common.seed)
        axes = grid.grid()
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
        _present(found, out, screen)


def _present(study: TabularStudy, out: Path, screen: Screen) -> None:
    """Write the files of a study, show it, and end with Ctrl-C's exit code if that ended it."""
    from fairmend.report.study import load_study, save_study

    files = save_study(study, out)
    present_study(load_study(out, study.kind), screen, files)
    if study.interrupted:
        screen.warn("Stopped by Ctrl-C. Every finished repair is kept: the same command again goes on with the rest.")
        raise Interrupted
