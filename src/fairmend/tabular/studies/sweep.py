"""Sweep the design questions of NeuFair as a grid: what does each setting do to fairness and utility?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fairmend import __version__
from fairmend.errors import InputError
from fairmend.report.tables import Cell, Column, Table, fixed, spread
from fairmend.runs.progress import Progress
from fairmend.search.schedules import SCHEDULES
from fairmend.statistics import Mean, t_interval
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.repair import require_fit
from fairmend.tabular.repair.settings import RepairSettings
from fairmend.tabular.studies.outcomes import THRESHOLD_ONLY, Outcome, require_test_split, title_of, unfairness_title
from fairmend.tabular.studies.trials import Loaded, Trial, run_trials

KIND = "tabular sweep"
AXES = ("keep", "penalty", "max_drop", "states", "schedule")
"""What can be varied: settings by name, and the cooling schedule of annealing."""

MOST_REPAIRS = 10_000
_SUBJECT = "network"

Level = float | int | str
Grid = Mapping[str, Sequence[Level]]


@dataclass(frozen=True)
class SweepRow:
    """One point of the grid, or one level of one axis over all the others; figures are means over seeds.

    Attributes:
        levels: value by axis.
        test_unfairness, search_unfairness: on the test rows, and on the rows that the search optimised.
        test_utility, search_utility: likewise.
        dropped, cpu_seconds: means.
        infeasible: results below the utility floor on the search rows.
        repairs: number of results.
    """

    levels: Mapping[str, Level]
    test_unfairness: Mean
    search_unfairness: Mean
    test_utility: Mean
    search_utility: Mean
    dropped: float
    cpu_seconds: float
    infeasible: int
    repairs: int

    def cells(self) -> dict[str, Cell]:
        """The row as raw values."""
        return {
            **self.levels,
            **spread("test_unfairness", self.test_unfairness),
            **spread("search_unfairness", self.search_unfairness),
            **spread("test_utility", self.test_utility),
            **spread("search_utility", self.search_utility),
            "dropped": self.dropped,
            "cpu_seconds": self.cpu_seconds,
            "infeasible": self.infeasible,
            "repairs": self.repairs,
        }


@dataclass(frozen=True)
class Sweep:
    """What a grid of settings did to one network.

    Attributes:
        dataset: its name.
        settings: what all repairs share.
        grid: levels by axis, in the order given.
        rows: one per point of the grid that has results.
        effects: by axis with more than one level: one row per level, over all levels of the other axes.
        rival: the threshold-only outcome; None while missing.
        outcomes: the repairs behind the rows.
        planned: number of repairs of the whole sweep.
        interrupted: whether repairs are missing because of Ctrl-C.
    """

    dataset: str
    settings: RepairSettings
    grid: Grid
    rows: tuple[SweepRow, ...]
    effects: Mapping[str, tuple[SweepRow, ...]]
    rival: Outcome | None
    outcomes: tuple[Outcome, ...]
    planned: int
    interrupted: bool

    def notes(self) -> tuple[str, ...]:
        """What a reader of the table must know."""
        rows = self.settings.search_on
        said = [
            f"Test figures are of rows that no search saw; figures of the {rows} rows are what the search optimised, "
            "and flatter. Choosing the best point of a grid by its test figure flatters too.",
            "± is the half-width of the 95 % t-interval over seeds of the search, on this network and this split.",
        ]
        if self.rival is not None:
            before, after, utility = self.rival.test.before, self.rival.test.after, self.settings.utility
            title = title_of(utility)
            said += [
                f"Untouched: {before.unfairness:.4f} at {title} {before.utilities[utility].value:.4f}. "
                f"Threshold only: {after.unfairness:.4f} at {title} {after.utilities[utility].value:.4f}."
            ]
        if self.interrupted:
            said.append(f"Stopped by Ctrl-C: {len(self.outcomes)} of {self.planned} repairs are in.")
        return tuple(said)

    def tables(self) -> tuple[Table, ...]:
        """For people."""
        return (self.table(),)

    def table(self) -> Table:
        """One line per point of the grid."""
        title, utility = unfairness_title(self.settings.objective), title_of(self.settings.utility)
        return Table(
            f"{self.dataset}: {title} and {utility} by setting",
            (
                *(Column(axis, axis.replace("_", " ")) for axis in self.grid),
                Column("test_unfairness", "unfairness, test", fixed(4)),
                Column("test_unfairness_half_width", "± (95 %)", fixed(4)),
                Column("search_unfairness", f"on {self.settings.search_on}", fixed(4)),
                Column("test_utility", f"{utility}, test", fixed(4)),
                Column("search_utility", f"on {self.settings.search_on}", fixed(4)),
                Column("dropped", "dropped", fixed(1)),
                Column("cpu_seconds", "CPU s", fixed(2)),
                Column("infeasible", "infeasible"),
                Column("repairs", "runs"),
            ),
            tuple(row.cells() for row in self.rows),
            self.notes(),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready but for NaN."""
        return {
            "kind": KIND,
            "fairmend": __version__,
            "dataset": self.dataset,
            "settings": self.settings.to_json(),
            "grid": {axis: list(levels) for axis, levels in self.grid.items()},
            "interrupted": self.interrupted,
            "planned": self.planned,
            "rows": [row.cells() for row in self.rows],
            "effects": {axis: [row.cells() for row in rows] for axis, rows in self.effects.items()},
            "notes": list(self.notes()),
            "repairs": [outcome.to_json() for outcome in self.outcomes],
        }


def sweep_settings(
    network: Network,
    dataset: Dataset,
    grid: Grid,
    settings: RepairSettings | None = None,
    *,
    seeds: int = 3,
    out: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Sweep:
    """Repair one network at every point of a grid of settings, with several seeds.

    Args:
        network: a trained network.
        dataset: rows with groups and splits, test rows among them.
        grid: levels by axis, see `AXES`; every combination is repaired.
        settings: what all repairs share; the seeds count up from its seed.
        seeds: runs per point.
        out: directory for the record, so that the sweep can be gone on with.
        workers: number of processes.
        progress: counts finished repairs.

    Raises:
        InputError: an axis that does not exist, repeated or missing levels, a level that the settings refuse, or a
            grid of more than 10,000 repairs.
        DataError: a data set that does not fit the network, or has no test rows.
        RunError: the directory belongs to something else, or cannot be written.
    """
    settings = settings or RepairSettings()
    points = _points(grid, settings, seeds)
    require_fit(network, dataset)
    require_test_split(dataset)
    for _, point in points:
        point.space(network)  # refuses size limits that the network cannot meet
    trials = [
        Trial(_name(levels, seed), _SUBJECT, replace(point, seed=seed))
        for levels, point in points
        for seed in range(settings.seed, settings.seed + seeds)
    ]
    trials.append(Trial(THRESHOLD_ONLY, _SUBJECT, settings, rival=True))
    subjects = {_SUBJECT: Loaded(network, dataset)}
    finished = run_trials(KIND, trials, subjects, out, workers=workers, progress=progress)
    by_point = [
        (levels, [finished.outcomes[name] for name in names if name in finished.outcomes])
        for levels, _ in points
        for names in [[_name(levels, seed) for seed in range(settings.seed, settings.seed + seeds)]]
    ]
    return Sweep(
        dataset=dataset.name,
        settings=settings,
        grid=grid,
        rows=tuple(_row(levels, outcomes, settings) for levels, outcomes in by_point if outcomes),
        effects={axis: _effect(axis, grid[axis], by_point, settings) for axis in grid if len(grid[axis]) > 1},
        rival=finished.outcomes.get(THRESHOLD_ONLY),
        outcomes=tuple(finished.outcomes.values()),
        planned=finished.planned,
        interrupted=finished.interrupted,
    )


def _points(grid: Grid, settings: RepairSettings, seeds: int) -> list[tuple[dict[str, Level], RepairSettings]]:
    unknown = [axis for axis in grid if axis not in AXES]
    if unknown or not grid:
        raise InputError(f"a sweep varies some of {', '.join(AXES)}; got {', '.join(unknown) or 'nothing to vary'}")
    for axis, levels in grid.items():
        if not levels or len(set(levels)) < len(levels):
            raise InputError(f"the axis {axis} needs at least one level, each once; got {list(levels)}")
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}")
    schedules = [level for level in grid.get("schedule", ()) if level not in SCHEDULES]
    if schedules:
        raise InputError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedules[0]!r}")
    if "schedule" in grid and settings.search != "annealing":
        raise InputError(f"the schedule is annealing's: it cannot be swept with the {settings.search} search")
    repairs = seeds * int(np.prod([len(levels) for levels in grid.values()]))
    if repairs > MOST_REPAIRS:
        raise InputError(f"this grid takes {repairs:,} repairs, at most {MOST_REPAIRS:,} are run: thin it out")
    points = []
    for combination in itertools.product(*grid.values()):
        point = dict(zip(grid, combination, strict=True))
        points.append((point, _settings_at(point, settings)))
    return points


def _settings_at(levels: Mapping[str, Level], settings: RepairSettings) -> RepairSettings:
    plain: dict[str, Any] = {axis: level for axis, level in levels.items() if axis != "schedule"}
    if "schedule" in levels:
        plain["options"] = {**settings.options, "schedule": levels["schedule"]}
    return replace(settings, **plain)


def _name(levels: Mapping[str, Level], seed: int) -> str:
    return ", ".join([*(f"{axis} {level}" for axis, level in levels.items()), f"seed {seed}"])


def _row(levels: Mapping[str, Level], outcomes: Sequence[Outcome], settings: RepairSettings) -> SweepRow:
    """Means over seeds; results of one seed are averaged first, because they are not independent."""
    seeds = sorted({outcome.seed for outcome in outcomes})

    def over_seeds(figures: Sequence[float]) -> Mean:
        pairs = list(zip(outcomes, figures, strict=True))
        return t_interval([np.mean([figure for each, figure in pairs if each.seed == seed]) for seed in seeds])

    return SweepRow(
        levels=dict(levels),
        test_unfairness=over_seeds([outcome.test.after.unfairness for outcome in outcomes]),
        search_unfairness=over_seeds([outcome.search.bias_after for outcome in outcomes]),
        test_utility=over_seeds([outcome.test.after.utilities[settings.utility].value for outcome in outcomes]),
        search_utility=over_seeds([outcome.search.utility_after for outcome in outcomes]),
        dropped=float(np.mean([outcome.dropped for outcome in outcomes])),
        cpu_seconds=float(np.mean([outcome.cpu_seconds for outcome in outcomes])),
        infeasible=sum(not outcome.search.feasible for outcome in outcomes),
        repairs=len(outcomes),
    )


def _effect(
    axis: str,
    levels: Sequence[Level],
    by_point: Sequence[tuple[Mapping[str, Level], Sequence[Outcome]]],
    settings: RepairSettings,
) -> tuple[SweepRow, ...]:
    rows = []
    for level in levels:
        outcomes = [outcome for point, group in by_point if point[axis] == level for outcome in group]
        if outcomes:
            rows.append(_row({axis: level}, outcomes, settings))
    return tuple(rows)
