"""Sweep the design questions of NeuFair as a grid: what does each setting do to fairness and utility?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fairmend.errors import InputError
from fairmend.report.figures import Panel, Series, draw_panels
from fairmend.report.study import study_kind
from fairmend.report.tables import Column, Table, fixed
from fairmend.search.schedules import SCHEDULES
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.metrics import title_of
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.settings import RepairSettings
from fairmend.tabular.studies.outcomes import (
    TEST_ROWS,
    THRESHOLD_ONLY,
    Outcome,
    StudyRow,
    TabularStudy,
    point_of,
    unfairness_title,
)
from fairmend.tabular.studies.trials import Session, run_on_one

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = ("keep", "penalty", "max_drop", "states", "schedule")
"""What can be varied: settings by name, and the cooling schedule of annealing."""

MOST_REPAIRS = 10_000

Level = float | int | str
Grid = Mapping[str, Sequence[Level]]


@dataclass(frozen=True)
class Sweep(TabularStudy):
    """What a grid of settings did to one network.

    Attributes:
        dataset: its name.
        grid: levels by axis, in the order given.
        rows: one per point of the grid that has results; value by axis tells them apart.
        effects: by axis with more than one level: one row per level, over all levels of the other axes.
    """

    kind = study_kind("tabular sweep", "sweep")
    dataset: str
    grid: Grid
    rows: tuple[StudyRow, ...]
    effects: Mapping[str, tuple[StudyRow, ...]]

    @property
    def rival(self) -> Outcome | None:
        """The threshold-only outcome; None while missing."""
        return self.finished.results.get(THRESHOLD_ONLY)

    def remarks(self) -> list[str]:
        """What a reader of the table must know."""
        said = [
            f"Test figures are of rows that no search saw; figures of the {self.settings.search_on} rows are what the "
            "search optimised, and flatter. Choosing the best point of a grid by its test figure flatters too.",
            "± is the half-width of the 95 % t-interval over seeds of the search, on this network and this split.",
        ]
        if self.rival is not None:
            before, after, utility = self.rival.test.before, self.rival.test.after, self.settings.utility
            title = title_of(utility)
            said.append(
                f"Untouched: {before.unfairness:.4f} at {title} {before.utilities[utility].value:.4f}. "
                f"Threshold only: {after.unfairness:.4f} at {title} {after.utilities[utility].value:.4f}."
            )
        return said

    def tables(self) -> tuple[Table, ...]:
        """One line per point of the grid."""
        title, utility = unfairness_title(self.settings.objective), title_of(self.settings.utility)
        columns = (
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
        )
        heading = f"{self.dataset}: {title} and {utility} by setting"
        return (Table(heading, columns, tuple(row.cells() for row in self.rows), self.notes()),)

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready but for NaN."""
        return super().to_json() | {
            "dataset": self.dataset,
            "grid": {axis: list(levels) for axis, levels in self.grid.items()},
            "rows": [row.cells() for row in self.rows],
            "effects": {axis: [row.cells() for row in rows] for axis, rows in self.effects.items()},
        }

    def draw(self) -> Figure | None:
        """Unfairness and utility by setting, search rows beside test rows: one column per swept setting."""
        if not self.rows:
            return None
        # A grid of one point has no effects to show; its one level of the first axis then stands alone.
        effects = self.effects or dict.fromkeys(list(self.grid)[:1], self.rows)
        sources = {TEST_ROWS: "test", f"{self.settings.search_on} rows (optimised)": "search"}

        def panel(axis: str, rows: Sequence[StudyRow], what: str, figure: str) -> Panel:
            lines = [
                Series(label, {str(row.levels[axis]): point_of(getattr(row, f"{source}_{figure}")) for row in rows})
                for label, source in sources.items()
            ]
            return Panel(axis.replace("_", " "), "", what, lines)

        titles = {
            "unfairness": unfairness_title(self.settings.objective),
            "utility": title_of(self.settings.utility),
        }
        return draw_panels(
            [[panel(axis, rows, title, figure) for axis, rows in effects.items()] for figure, title in titles.items()],
            title=f"{self.dataset}: effect of each setting, over all the others",
        )


def sweep_settings(
    network: Network,
    dataset: Dataset,
    grid: Grid,
    settings: RepairSettings | None = None,
    *,
    seeds: int = 3,
    session: Session | None = None,
) -> Sweep:
    """Repair one network at every point of a grid of settings, with several seeds.

    Args:
        network: a trained network.
        dataset: rows with groups and splits, test rows among them.
        grid: levels by axis, see `AXES`; every combination is repaired.
        settings: what all repairs share; the seeds count up from its seed.
        seeds: runs per point.
        session: how to run it, and where the results are kept so that it can be gone on with.

    Raises:
        InputError: an axis that does not exist, repeated or missing levels, a level that the settings refuse, or a
            grid of more than 10,000 repairs.
        DataError: a data set that does not fit the network, or has no test rows.
        RunError: the directory belongs to something else, or cannot be written.
    """
    settings = settings or RepairSettings()
    points = _points(grid, settings, seeds)
    planned = {
        _name(levels, seed): (levels, replace(own, seed=seed))
        for levels, own in points
        for seed in range(settings.seed, settings.seed + seeds)
    }
    repairs = {name: own for name, (_, own) in planned.items()}
    finished = run_on_one(Sweep.kind, network, dataset, repairs, settings, session)

    def rows(axes: Sequence[str]) -> tuple[StudyRow, ...]:
        """One per combination of levels of these axes that has results, over all levels of the others."""
        groups: dict[tuple[Level, ...], list[Outcome]] = {}
        for name, (levels, _) in planned.items():
            if name in finished.results:
                groups.setdefault(tuple(levels[axis] for axis in axes), []).append(finished.results[name])
        return tuple(
            StudyRow.of(dict(zip(axes, levels, strict=True)), group, settings.utility)
            for levels, group in groups.items()
        )

    effects = {axis: rows([axis]) for axis in grid if len(grid[axis]) > 1}
    return Sweep(settings, finished, dataset.name, grid, rows(list(grid)), effects)


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
