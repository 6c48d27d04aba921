"""What one repair of a study came to, and what several of them are in one line."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairmend import __version__
from fairmend.costs import UtilityFloor
from fairmend.evaluation import Direction, Measurement
from fairmend.report.figures import Point
from fairmend.report.study import Study
from fairmend.report.tables import Cell, spread
from fairmend.runs.jobs import Finished
from fairmend.statistics import Interval, Mean, t_interval
from fairmend.tabular.fairness.findings import Comparison
from fairmend.tabular.fairness.metrics import OBJECTIVES
from fairmend.tabular.repair.settings import RepairSettings

THRESHOLD_ONLY = "threshold only"
UNTOUCHED = "untouched"
TEST_ROWS = "test rows (never searched on)"


@dataclass(frozen=True, slots=True)
class SearchFigures:
    """The search's own figures: optimistic, because the best of thousands was chosen by them.

    Attributes:
        rows: which rows the search saw: "train+validation".
        bias_before, bias_after: unfairness of the untouched network and of the chosen mask.
        utility_before, utility_after: likewise; better in the direction `better`.
        limit: the utility floor.
    """

    rows: str
    bias_before: float
    bias_after: float
    utility_before: float
    utility_after: float
    limit: float
    better: Direction

    @property
    def feasible(self) -> bool:
        """Whether the chosen mask keeps the utility floor."""
        return UtilityFloor(self.limit, self.better).admits(Measurement(self.bias_after, self.utility_after))

    @property
    def worse(self) -> bool:
        """Whether the chosen mask is more unfair than the untouched network."""
        return self.bias_after > self.bias_before

    @property
    def utility_ratio(self) -> float:
        """Utility after / before."""
        return self.utility_after / self.utility_before if self.utility_before else math.nan


@dataclass(frozen=True)
class Outcome:
    """One repair, or the rival of one, of one network.

    Attributes:
        trial, subject: what it was called, and the name of its network.
        procedure: the search's name, "threshold only" or "untouched".
        settings: as `RepairSettings.to_json`, with the planned number of states.
        search: the search's own figures.
        splits: before against after with intervals, on every split.
        dropped: number of dropped neurons.
        shift: by how much the decision threshold's logits were shifted, one number per dial.
        states, distinct: states told to the searcher, and distinct masks measured (the rival's grid counts as none).
        search_seconds: wall-clock seconds of the search loop.
        cpu_seconds: processor seconds of everything: search, choice, judgement; without loading data and code.
    """

    trial: str
    subject: str
    procedure: str
    settings: Mapping[str, Any]
    search: SearchFigures
    splits: Mapping[str, Comparison]
    dropped: int
    shift: tuple[float, ...]
    states: int
    distinct: int
    search_seconds: float
    cpu_seconds: float

    @property
    def test(self) -> Comparison:
        """Before against after on the split that the search never saw."""
        return self.splits["test"]

    @property
    def seed(self) -> int:
        """Seed of the search."""
        return int(self.settings["seed"])

    @property
    def states_per_second(self) -> float:
        """States per wall-clock second of the search loop; NaN where there was none."""
        return self.states / self.search_seconds if self.search_seconds > 0 else math.nan

    def undone(self) -> Outcome:
        """The untouched network in the place of the repaired one."""
        search = replace(self.search, bias_after=self.search.bias_before, utility_after=self.search.utility_before)
        splits = {split: replace(each, after=each.before) for split, each in self.splits.items()}
        nothing: dict[str, Any] = {"dropped": 0, "shift": (), "states": 0, "distinct": 0, "search_seconds": 0.0}
        made = replace(self, trial=UNTOUCHED, procedure=UNTOUCHED, search=search, splits=splits, **nothing)
        return replace(made, cpu_seconds=math.nan)


@dataclass(frozen=True)
class StudyRow:
    """Several outcomes of one network in one line; figures are means over seeds, unless they say otherwise.

    Attributes:
        levels: what tells the line from the others: {"search": "annealing"}, or value by axis.
        test_unfairness, test_utility: on the rows that no search saw.
        search_unfairness, search_utility: the search's own, on the rows that it saw.
        dropped, states, distinct_states, cpu_seconds, states_per_second: see `Outcome`.
        infeasible, worse_than_untouched: how many results are below the utility floor, or more unfair than the
            untouched network, on the search rows.
        repairs, seeds: number of results, and of different seeds among them.
    """

    levels: Mapping[str, Cell]
    test_unfairness: Mean
    test_utility: Mean
    search_unfairness: Mean
    search_utility: Mean
    dropped: float
    states: float
    distinct_states: float
    cpu_seconds: float
    states_per_second: float
    infeasible: int
    worse_than_untouched: int
    repairs: int
    seeds: int

    @classmethod
    def of(cls, levels: Mapping[str, Cell], outcomes: Sequence[Outcome], utility: str) -> StudyRow:
        """The line of at least one outcome that shows this utility."""
        seeds = sorted({outcome.seed for outcome in outcomes})

        def over_seeds(figure: Callable[[Outcome], float]) -> Mean:
            """Results of one seed are averaged first, because they are not independent."""
            return t_interval([mean_of([each for each in outcomes if each.seed == seed], figure) for seed in seeds])

        return cls(
            levels=dict(levels),
            test_unfairness=over_seeds(lambda each: each.test.after.unfairness),
            test_utility=over_seeds(lambda each: each.test.after.utilities[utility].value),
            search_unfairness=over_seeds(lambda each: each.search.bias_after),
            search_utility=over_seeds(lambda each: each.search.utility_after),
            dropped=mean_of(outcomes, lambda each: each.dropped),
            states=mean_of(outcomes, lambda each: each.states),
            distinct_states=mean_of(outcomes, lambda each: each.distinct),
            cpu_seconds=mean_of(outcomes, lambda each: each.cpu_seconds),
            states_per_second=mean_of(outcomes, lambda each: each.states_per_second),
            infeasible=sum(not each.search.feasible for each in outcomes),
            worse_than_untouched=sum(each.search.worse for each in outcomes),
            repairs=len(outcomes),
            seeds=len(seeds),
        )

    def cells(self) -> dict[str, Cell]:
        """The row as raw values."""
        return {**self.levels, **cells_of(self)}


@dataclass(frozen=True)
class TabularStudy(Study):
    """What the studies of tabular networks have in common.

    Attributes:
        settings: what all repairs share.
        finished: the repairs behind the rows.
    """

    settings: RepairSettings
    finished: Finished[Outcome]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The repairs behind the rows, rivals included."""
        return tuple(self.finished.results.values())

    @property
    def interrupted(self) -> bool:
        """Whether repairs are missing because of Ctrl-C."""
        return self.finished.interrupted

    @abstractmethod
    def remarks(self) -> list[str]:
        """What a reader of the table must know, whether or not the study is finished."""

    def notes(self) -> tuple[str, ...]:
        """What a reader of the table must know."""
        said = self.remarks()
        if self.interrupted:
            said.append(f"Stopped by Ctrl-C: {len(self.outcomes)} of {self.finished.planned} repairs are in.")
        return tuple(said)

    def to_json(self) -> dict[str, Any]:
        """What all studies have."""
        return {
            "fairmend": __version__,
            "settings": self.settings.to_json(),
            "interrupted": self.interrupted,
            "planned": self.finished.planned,
            "notes": self.notes(),
            "repairs": self.outcomes,
        }


def mean_of(outcomes: Sequence[Outcome], figure: Callable[[Outcome], float]) -> float:
    """The plain mean of a figure; NaN of nothing."""
    return float(np.mean([figure(outcome) for outcome in outcomes])) if outcomes else math.nan


def mean_over(outcomes: Sequence[Outcome], figure: Callable[[Outcome], float]) -> Mean:
    """The mean of a figure with its t-interval over independent outcomes; undefined of nothing."""
    if not outcomes:
        return Mean(math.nan, math.nan, Interval(math.nan, math.nan), 0)
    return t_interval([figure(outcome) for outcome in outcomes])


def cells_of(row: object) -> dict[str, Cell]:
    """The means, numbers and words of a row as raw values, by the names of its attributes."""
    cells: dict[str, Cell] = {}
    for name, value in vars(row).items():
        if isinstance(value, Mean):
            cells |= spread(name, value)
        elif isinstance(value, str | int | float):
            cells[name] = value
    return cells


def point_of(mean: Mean) -> Point:
    """A mean in a picture."""
    return Point.of(mean.mean, mean.interval)


def unfairness_title(objective: str) -> str:
    """What is minimised, in words: a ratio or an accuracy is measured as what it lacks to 1."""
    target = OBJECTIVES[objective]
    return target.title if target.better == "lower" else f"1 - {target.title[:1].lower()}{target.title[1:]}"
