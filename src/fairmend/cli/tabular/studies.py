"""The commands `fairmend tabular compare`, `reproduce` and `sweep`, and what `resume` and `show` do for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fairmend.cli.display import Interrupted, Screen, opened
from fairmend.cli.options import CommonOptions, Given, levels, of, whole
from fairmend.cli.tables import leave_report, present_study
from fairmend.cli.tabular.inputs import absolute, make_settings, open_inputs, request_of, source_of, title_of
from fairmend.cli.tabular.options import GRID, LIMITED, SEARCHED, SourceOptions, StudyOptions
from fairmend.cli.trust import TrustOptions, recalled, require_paths, require_trust, stored
from fairmend.search.names import SEARCH_NAMES
from fairmend.tabular.repair.settings import RepairSettings

if TYPE_CHECKING:
    from fairmend.report.page import Page
    from fairmend.search.names import SearchName
    from fairmend.tabular.studies.outcomes import TabularStudy
    from fairmend.tabular.studies.trials import Session

_COMPARED = (SEARCHED.without("search"), LIMITED)
_REPRODUCED = (SEARCHED, LIMITED.without("threshold"))
_SHARED = of(
    RepairSettings, "min_drop", "search_on", "objective", "utility", "drop", "threshold", panel="Search", basic=False
)


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
    given: Annotated[Given, *_COMPARED],
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
    number of tests. Written to --out: compare.json, compare.csv, compare.png and .svg, and run.sqlite,
    which keeps every repair.

    Ctrl-C keeps what is finished; the same command again goes on.

    Example: `fairmend tabular compare --preset compas-race --states 3000 --seeds 5 --workers 2`
    """
    with opened(common, study) as screen:
        plan = _Plan(seeds=seeds, seed=common.seed)
        request = {"source": request_of(source), "search": search, "given": given, "plan": asdict(plan)}
        _run(_compare, request, study.out or Path(f"fairmend-compare-{title_of(source)}"), screen)


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
    given: Annotated[Given, *_REPRODUCED],
    study: StudyOptions,
    common: CommonOptions,
) -> None:
    """Repair the published networks, and show the published table beside ours.

    One row per setting: the published original, annealing (SA) and random walk (RW) of one hour, and DICE; ours with
    its 95 % t-interval over networks on test rows that no search saw; the rivals untouched and threshold only; the
    noise floor; F1 before and after; what was infeasible or worse on the search rows; dropped neurons and processor
    seconds per network. A setting without networks or data is named as missing. Written to --out: reproduce.json,
    settings.csv, networks.csv, reproduce.png and .svg, and run.sqlite,
    which keeps every repair.

    Ctrl-C keeps what is finished; the same command again goes on.

    Example: `fairmend tabular reproduce --networks neufair --data tables --threshold both --workers 2`
    """
    with opened(common, study) as screen:
        tables = None if data is None else absolute(data)
        plan = _Plan(networks=absolute(networks), data=tables, only=only, seed=common.seed)
        request = {"threshold": threshold, "given": given, "plan": asdict(plan)}
        _run(_reproduce, request, study.out or Path("fairmend-reproduce"), screen)


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
    .svg (the effect of each axis over all the others), and run.sqlite,
    which keeps every repair.

    Ctrl-C keeps what is finished; the same command again goes on.

    Example: `fairmend tabular sweep --preset compas-race --keep 0.95,0.98,1 --states 1000,10000 --workers 2`
    """
    with opened(common, study) as screen:
        plan = _Plan(seeds=seeds, seed=common.seed)
        request = {
            "source": request_of(source),
            "grid": grid,
            "schedule": schedule,
            "given": given,
            "plan": asdict(plan),
        }
        _run(_sweep, request, study.out or Path(f"fairmend-sweep-{title_of(source)}"), screen)


def resume(folder: Path, header: Mapping[str, Any], trust: TrustOptions, screen: Screen) -> None:
    """Go on with the study in a folder, whose store has this header."""
    require_trust(trust, header["request"], folder)
    study = {"tabular compare": _compare, "tabular reproduce": _reproduce, "tabular sweep": _sweep}[header["kind"]]
    _run(study, header["request"], folder, screen)


def show(folder: Path, screen: Screen) -> None:
    """Show the study saved in a folder."""
    present_study(_saved(folder), screen)


def page(folder: Path) -> Page:
    """The report of the study saved in a folder."""
    from fairmend.report.study import study_page

    return study_page(_saved(folder), folder)


def _saved(folder: Path) -> Mapping[str, Any]:
    from fairmend.report.study import load_study
    from fairmend.tabular.studies.compare import SearchComparison
    from fairmend.tabular.studies.reproduction import Reproduction
    from fairmend.tabular.studies.sweep import Sweep

    return load_study(folder, SearchComparison, Reproduction, Sweep)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What belongs to a study beside its groups of options; paths are absolute."""

    networks: str | None = None
    data: str | None = None
    only: str | None = None
    seeds: int = 1
    seed: int


def _compare(request: Mapping[str, Any], plan: _Plan, session: Session, screen: Screen) -> TabularStudy:
    from fairmend.tabular.studies.compare import compare_searches

    source = stored(lambda: source_of(request["source"]))
    searches = levels("--search", str(request.get("search")), str)
    settings = make_settings(recalled(request.get("given"), *_COMPARED), plan.seed, source.preset)
    inputs = open_inputs(source, screen, settings.objective)
    return compare_searches(
        inputs.network,
        inputs.dataset,
        settings,
        searches=cast("list[SearchName]", searches),
        seeds=plan.seeds,
        session=session,
    )


def _reproduce(request: Mapping[str, Any], plan: _Plan, session: Session, screen: Screen) -> TabularStudy:
    from fairmend.tabular.studies.reproduce import reproduce_published

    both = request.get("threshold") == "both"
    threshold = "joint" if both else request.get("threshold")
    settings = make_settings(recalled(request.get("given"), *_REPRODUCED), plan.seed, threshold=threshold)
    return reproduce_published(
        Path(str(plan.networks)),
        None if plan.data is None else Path(plan.data),
        settings,
        thresholds=("joint", "fixed") if both else (settings.threshold,),
        only=[] if plan.only is None else levels("--only", plan.only, str),
        session=session,
    )


def _sweep(request: Mapping[str, Any], plan: _Plan, session: Session, screen: Screen) -> TabularStudy:
    from fairmend.tabular.studies.sweep import sweep_settings

    source = stored(lambda: source_of(request["source"]))
    settings = make_settings(recalled(request.get("given"), _SHARED), plan.seed)
    axes = recalled(request.get("grid"), GRID).levels()
    if request.get("schedule") is not None:
        axes["schedule"] = levels("--schedule", str(request.get("schedule")), str)
    if not axes:
        axes = {"keep": [0.95, 0.98, 1.0], "schedule": ["geometric", "logarithmic"]}
    inputs = open_inputs(source, screen, settings.objective)
    return sweep_settings(inputs.network, inputs.dataset, axes, settings, seeds=plan.seeds, session=session)


def _run(
    study: Callable[[Mapping[str, Any], _Plan, Session, Screen], TabularStudy],
    request: Mapping[str, Any],
    out: Path,
    screen: Screen,
) -> None:
    """Run a study, write its files, show it, and end with Ctrl-C's exit code if that ended it."""
    from fairmend.report.study import describe_study, save_study
    from fairmend.tabular.studies.trials import Session

    plan = stored(lambda: _Plan(**request["plan"]))
    require_paths(asdict(plan), ("networks", "data"))
    found = study(request, plan, Session(out, screen.workers, screen.steps, request), screen)
    files = save_study(found, out)
    present_study(describe_study(found), screen, {**files, **leave_report(out, page, screen)})
    if found.interrupted:
        screen.warn("Stopped by Ctrl-C. Every finished repair is kept: the same command again goes on with the rest.")
        raise Interrupted
