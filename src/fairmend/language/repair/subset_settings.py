"""How subsets of heads are searched, for the methods that measure subsets instead of ranking heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from fairmend.masks import Space
from fairmend.search.base import require_choice, require_count, require_number
from fairmend.settings import SURROGATE_NAMES

SubsetMethod = Literal["attention-pruning", "active", "genetic"]
Fraction = Literal["shared", "own"]
SUBSET_METHODS: tuple[SubsetMethod, ...] = get_args(SubsetMethod)

_LARGEST_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class SubsetSearch:
    """How subsets of heads are searched.

    Attributes:
        samples: subsets to measure, the empty one included.
        eta: share of the search half's prompts (stratified by group) and of its text that subsets are measured on.
        fraction: "shared" measures all subsets on the same share, so that they differ by their heads only; "own"
            draws one for every subset, as Attention Pruning does, see `OwnFractions`.
        epsilon: weight of the bias in Attention Pruning's cost; the rest weighs the perplexity.
        min_drop, max_drop: number of heads of a subset; None for the largest is 15 % of all.
        surrogate: one of `SURROGATE_NAMES`; "auto" is the published pair of networks for "attention-pruning" and
            "pairwise" for "active".
        finalists: subsets measured on the whole search half.

    Raises:
        InputError: an option outside its range.
    """

    samples: int = 300
    eta: float = 0.2
    fraction: Fraction = "shared"
    epsilon: float = 0.5
    min_drop: int = 1
    max_drop: int | None = None
    surrogate: str = "auto"
    finalists: int = 8

    def __post_init__(self) -> None:
        require_count("samples", self.samples, 2)
        require_number("eta", self.eta, 0, 1, positive=True)
        require_number("epsilon", self.epsilon, 0, 1)
        require_count("min_drop", self.min_drop, 0)
        require_count("finalists", self.finalists, 1)
        require_choice("fraction", self.fraction, get_args(Fraction))
        require_choice("surrogate", self.surrogate, ("auto", *SURROGATE_NAMES))

    def space(self, whole: Space) -> Space:
        """The subsets that are searched, of all heads.

        Raises:
            InputError: limits that leave no subset.
        """
        largest = max(1, round(_LARGEST_SHARE * whole.n_units)) if self.max_drop is None else self.max_drop
        return replace(whole, min_drop=min(self.min_drop, largest), max_drop=largest)
