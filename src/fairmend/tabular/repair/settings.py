"""How a tabular network is to be repaired: every setting with its default, limits and help, stated once.

Nothing heavy is imported here: the command line reads its options off these settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fairmend.errors import InputError
from fairmend.search.names import SEARCH_NAMES, SearchName
from fairmend.settings import Auto, check, documented, setting
from fairmend.tabular.names import (
    DROPS,
    OBJECTIVE_NAMES,
    SEARCH_ON,
    THRESHOLDS,
    UTILITY_NAMES,
    DropName,
    SearchOn,
    Threshold,
)

if TYPE_CHECKING:
    from fairmend.costs import Cost, UtilityFloor
    from fairmend.evaluation import Figures, Measurement
    from fairmend.masks import Space
    from fairmend.tabular.networks.networks import Network

DEFAULT_STATES = 15_000
_SHARE_DROPPED = 0.375  # default size limit: about the share that the published runs allowed


@documented
@dataclass(frozen=True)
class RepairSettings:
    """All choices of a repair.

    Raises:
        InputError: a setting outside its limits, or a search without an end.
    """

    search: SearchName = setting(
        "annealing",
        "annealing (NeuFair's), random-walk, genetic (NSGA-II), exhaustive (small networks and size limits only), dice "
        "(the best single neuron) or random (uniform sampling).",
        choices=SEARCH_NAMES,
    )
    states: int | Auto | None = setting(
        "auto",
        f"Masks to measure. auto: {DEFAULT_STATES}, or as many as fit into --seconds; none: as many as fit.",
        kind=int,
        least=1,
        none="none",
        basic=True,
    )
    seconds: float | None = setting(
        None,
        "Time limit of the search in seconds. Without --states it is turned into a number of states once, from the "
        "measured speed.",
        kind=float,
        above=0,
        none="none",
        metavar="S",
        basic=True,
    )
    min_drop: int = setting(
        0,
        "Fewest neurons to drop (dropping none at all always stays a candidate).",
        shown="the preset's published limit, else 0; 0 for dice, which drops one",
    )
    max_drop: int | Auto | None = setting(
        "auto",
        "Most neurons to drop. auto: three eighths of all; none: all.",
        kind=int,
        none="none",
        shown="the preset's published limit, else auto",
    )
    objective: str = setting(
        "equalized_odds_difference",
        f"What to make fair, by fairlearn's names: {', '.join(OBJECTIVE_NAMES)}.",
        choices=OBJECTIVE_NAMES,
        basic=True,
    )
    utility: str = setting("f1", "What to keep: f1, accuracy, balanced_accuracy or log_loss.", choices=UTILITY_NAMES)
    keep: float = setting(
        0.98,
        "Least share of the original utility on the search rows, above 0 up to 1: 0.98 gives up at most 2 %. For "
        "log_loss, which is better lower, 1 / keep is the most.",
        above=0,
        most=1,
        reason="0.98 keeps 98 % of the utility",
        metavar="SHARE",
        basic=True,
    )
    penalty: float = setting(
        3.0,
        "What falling below that floor costs while searching, in multiples of the original unfairness.",
        least=0,
        metavar="P",
    )
    drop: DropName = setting(
        "output",
        "What a dropped neuron emits. output: 0, as dropout does. weights: its incoming weights are zeroed and its "
        "bias kept, as in the published NeuFair artefact.",
        choices=DROPS,
        metavar="output|weights",
    )
    search_on: SearchOn = setting(
        "train+validation",
        "Rows that the search sees. More rows generalise better; validation is NeuFair as published. The test split is "
        "never searched on.",
        choices=SEARCH_ON,
    )
    threshold: Threshold = setting(
        "joint",
        "joint: the search also shifts everybody's decision threshold (saved in the output bias). fixed: the threshold "
        "stays, NeuFair as published.",
        choices=THRESHOLDS,
    )
    restarts: int = setting(1, "Times that annealing or the random walk starts over within its states.", least=1)
    chains: int = setting(1, "Chains that annealing or the random walk runs side by side, sharing its states.", least=1)
    finalists: int = setting(
        100,
        "Near-best masks among which the choice is made, see `fairmend.tabular.repair.choice`; 1 takes the best.",
        least=1,
        option="",
    )
    rows_per_cell: int | None = setting(
        4000,
        "Rows of each (group, label) cell that the search measures on, see `TabularEvaluator`; the choice among the "
        "finalists and all reported figures use every row. None searches on every row.",
        least=1,
        none="all",
        option="",
    )
    seed: int = setting(0, "Of everything random.", least=0, option="")
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the searcher."""

    def __post_init__(self) -> None:
        check(self)
        if self.states is None and self.seconds is None:
            raise InputError("states=None and seconds=None is a search without an end: limit one of them")

    @property
    def budget(self) -> int:
        """The number of states to measure; the default where none is given or planned yet."""
        return self.states if isinstance(self.states, int) else DEFAULT_STATES

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the search sees."""
        return ("train", "validation") if self.search_on == "train+validation" else ("validation",)

    def space(self, network: Network) -> Space:
        """The masks to search."""
        largest = self.max_drop
        if largest == "auto":
            largest = max(self.min_drop, 1, math.floor(_SHARE_DROPPED * network.n_units))
        dials = network.threshold_dials() if self.threshold == "joint" else ()
        return network.space(self.min_drop, largest, dials=dials)

    def floor(self, figures: Figures, reference: Measurement) -> UtilityFloor:
        """The least utility, relative to the untouched network's."""
        from fairmend.costs import UtilityFloor

        ratio = self.keep if figures.utility.better == "higher" else 1 / self.keep
        return UtilityFloor.relative(figures, reference, ratio)

    def cost(self, figures: Figures, reference: Measurement) -> Cost:
        """NeuFair's cost relative to the untouched network's measurement."""
        from fairmend.costs import PenalisedBias

        return PenalisedBias(self.floor(figures, reference), reference.bias, self.penalty)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `RepairSettings(**it)` reads it back."""
        return asdict(self)
