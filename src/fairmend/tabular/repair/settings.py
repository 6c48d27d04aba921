"""How a tabular network is to be repaired: every choice, with the default that was measured to work best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fairmend.costs import Cost, PenalisedBias, UtilityFloor
from fairmend.errors import InputError
from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Space
from fairmend.search import SEARCH_NAMES, SearchName
from fairmend.tabular.fairness.metrics import find_objective, find_utility
from fairmend.tabular.networks.networks import DROPS, DropName, Network

SearchOn = Literal["validation", "train+validation"]
Threshold = Literal["joint", "fixed"]
SEARCH_ON: tuple[SearchOn, ...] = ("train+validation", "validation")
THRESHOLDS: tuple[Threshold, ...] = ("joint", "fixed")
DEFAULT_STATES = 15_000
_SHARE_DROPPED = 0.375  # default size limit: about the share that the published runs allowed


@dataclass(frozen=True)
class RepairSettings:
    """All choices of a repair.

    Attributes:
        search: the searcher, see `fairmend.search.SEARCH_NAMES`.
        states: masks to measure; None with `seconds` plans as many as fit.
        seconds: time limit of the search.
        min_drop, max_drop: size limits of the dropped set; `max_drop=None` allows three eighths of the neurons.
        objective, utility: what to make fair and what to keep, see `fairmend.tabular.fairness.metrics`.
        keep: the least share of the utility on the search rows that a repair may have (NeuFair: 0.98); for log-loss,
            which is better lower, 1 / keep is the most.
        penalty: NeuFair's penalty multiplier for masks below that floor.
        drop: what a dropped neuron emits, see `fairmend.tabular.networks.networks.emitted`.
        search_on: the rows that the search sees; "train+validation" generalises better, "validation" is as published.
        threshold: "joint" also shifts the decision threshold (baked into the output bias), "fixed" is as published.
        restarts, chains: of annealing and the random walk.
        finalists: near-best masks among which the choice is made, see `fairmend.tabular.repair.choice`; 1 takes the
            best.
        rows_per_cell: rows of each (group, label) cell that the search measures on, see `TabularEvaluator`; the
            choice among the finalists and all reported figures use every row. None searches on every row.
        seed: of everything random.
        options: further options of the searcher.
    """

    search: SearchName = "annealing"
    states: int | None = None
    seconds: float | None = None
    min_drop: int = 0
    max_drop: int | None = None
    objective: str = "equalized_odds_difference"
    utility: str = "f1"
    keep: float = 0.98
    penalty: float = 3.0
    drop: DropName = "output"
    search_on: SearchOn = "train+validation"
    threshold: Threshold = "joint"
    restarts: int = 1
    chains: int = 1
    finalists: int = 100
    rows_per_cell: int | None = 4000
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _choose("search", self.search, SEARCH_NAMES)
        _choose("search_on", self.search_on, SEARCH_ON)
        _choose("threshold", self.threshold, THRESHOLDS)
        _choose("drop", self.drop, DROPS)
        find_objective(self.objective)
        if self.utility != "log_loss":
            find_utility(self.utility)
        for name in ("states", "finalists", "rows_per_cell", "restarts", "chains"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value!r}")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise InputError(f"seconds must be a positive number, got {self.seconds!r}")
        if not 0 < self.keep <= 1:
            raise InputError(f"keep must lie in (0, 1], got {self.keep!r}: 0.98 keeps 98 % of the utility")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise InputError(f"penalty must be a number of at least 0, got {self.penalty!r}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed!r}")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the search sees."""
        return ("train", "validation") if self.search_on == "train+validation" else ("validation",)

    def space(self, network: Network) -> Space:
        """The masks to search."""
        largest = self.max_drop
        if largest is None:
            largest = max(self.min_drop, 1, math.floor(_SHARE_DROPPED * network.n_units))
        dials = network.threshold_dials() if self.threshold == "joint" else ()
        return network.space(self.min_drop, largest, dials=dials)

    def floor(self, figures: Figures, reference: Measurement) -> UtilityFloor:
        """The least utility, relative to the untouched network's."""
        ratio = self.keep if figures.utility.better == "higher" else 1 / self.keep
        return UtilityFloor.relative(figures, reference, ratio)

    def cost(self, figures: Figures, reference: Measurement) -> Cost:
        """NeuFair's cost relative to the untouched network's measurement."""
        return PenalisedBias(self.floor(figures, reference), reference.bias, self.penalty)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `RepairSettings(**it)` reads it back."""
        return asdict(self)


def _choose(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
