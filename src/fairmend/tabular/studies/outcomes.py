"""What one repair of a study came to: the record that is written as soon as it is known, and read back."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from threadpoolctl import threadpool_limits

from fairmend.costs import UtilityFloor
from fairmend.errors import DataError
from fairmend.evaluation import Direction, Measurement
from fairmend.runs.progress import Progress
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.findings import Comparison
from fairmend.tabular.fairness.metrics import OBJECTIVES, UTILITIES
from fairmend.tabular.networks.baking import bake
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.judging import judge_splits
from fairmend.tabular.repair.repair import Repair, repair_network
from fairmend.tabular.repair.rivals import shift_threshold
from fairmend.tabular.repair.settings import RepairSettings

THRESHOLD_ONLY = "threshold only"
UNTOUCHED = "untouched"


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
        if not (math.isfinite(self.bias_after) and math.isfinite(self.utility_after)):
            return False
        return self.utility_after >= self.limit if self.better == "higher" else self.utility_after <= self.limit

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
        procedure: the search's name, or "threshold only".
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

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `from_json` reads it back."""
        plain: dict[str, Any] = {
            name: value for name, value in vars(self).items() if name not in ("search", "splits", "settings", "shift")
        }
        return plain | {
            "settings": dict(self.settings),
            "shift": list(self.shift),
            "search": asdict(self.search),
            "splits": {split: comparison.to_json() for split, comparison in self.splits.items()},
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_json` described."""
        read = dict(payload)
        read["search"] = SearchFigures(**payload["search"])
        read["splits"] = {split: Comparison.from_json(each) for split, each in payload["splits"].items()}
        read["shift"] = tuple(payload["shift"])
        return cls(**read)


def title_of(utility: str) -> str:
    """A utility in words, for tables and pictures."""
    return UTILITIES[utility].title if utility in UTILITIES else utility.replace("_", "-")


def unfairness_title(objective: str) -> str:
    """What is minimised, in words: a ratio or an accuracy is measured as what it lacks to 1."""
    target = OBJECTIVES[objective]
    return target.title if target.better == "lower" else f"1 - {target.title[:1].lower()}{target.title[1:]}"


def require_test_split(dataset: Dataset) -> None:
    """Make sure that there is a split that no search sees.

    Raises:
        DataError: no rows named "test".
    """
    if not len(dataset.splits.get("test", ())):
        raise DataError(
            f"data set {dataset.name} has no test rows (splits: {', '.join(dataset.splits)}): studies report figures "
            "of rows that no search saw; name some rows test"
        )


def measure_repair(
    trial: str,
    subject: str,
    network: Network,
    dataset: Dataset,
    settings: RepairSettings,
    progress: Progress | None = None,
) -> Outcome:
    """Repair a network and record what came of it.

    Raises:
        KeyboardInterrupt: the search was stopped by Ctrl-C: half a search is no result.
        FairmendError: as `repair_network`.
    """
    # The first repair of a process loads the compiled kernels, which is not what a repair takes.
    _uninterrupted(repair_network(network, dataset, replace(settings, states=3, seconds=None), judge=False))
    begun = time.process_time()
    repair = _uninterrupted(repair_network(network, dataset, settings, progress=progress))
    spent = time.process_time() - begun
    return Outcome(
        trial=trial,
        subject=subject,
        procedure=settings.search,
        settings=repair.settings.to_json(),
        search=_search_figures(repair.settings, repair.before, repair.after, repair.floor),
        splits=repair.splits,
        dropped=repair.mask.size,
        shift=repair.mask.dials,
        states=repair.run.asked,
        distinct=repair.measured,
        search_seconds=repair.run.seconds,
        cpu_seconds=spent,
    )


def _uninterrupted(repair: Repair) -> Repair:
    if repair.run.stopped == "interrupted":
        raise KeyboardInterrupt
    return repair


def _search_figures(
    settings: RepairSettings, before: Measurement, after: Measurement, floor: UtilityFloor
) -> SearchFigures:
    return SearchFigures(
        rows=settings.search_on,
        bias_before=before.bias,
        bias_after=after.bias,
        utility_before=before.utility,
        utility_after=after.utility,
        limit=floor.limit,
        better=floor.better,
    )


def measure_threshold_only(
    trial: str, subject: str, network: Network, dataset: Dataset, settings: RepairSettings
) -> Outcome:
    """Shift the threshold, drop nothing, and record what came of it.

    Raises:
        FairmendError: as `shift_threshold`.
    """
    with threadpool_limits(1):
        begun = time.process_time()
        shift = shift_threshold(network, dataset, settings)
        splits = judge_splits(dataset, settings, network.logits, bake(network, shift.mask).logits)
        spent = time.process_time() - begun
    return Outcome(
        trial=trial,
        subject=subject,
        procedure=THRESHOLD_ONLY,
        settings=settings.to_json(),
        search=_search_figures(settings, shift.before, shift.after, shift.floor),
        splits=splits,
        dropped=0,
        shift=shift.mask.dials,
        states=0,
        distinct=0,
        search_seconds=0.0,
        cpu_seconds=spent,
    )
