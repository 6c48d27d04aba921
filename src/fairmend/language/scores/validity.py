"""Whether scores order heads and sets as measuring them does. A ranking can repeat perfectly and yet be of something
else: first-order effects come from one step of the gradient, dropping a head is a long way, and effects do not add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairmend.masks import Mask

ENOUGH = 0.5
LEAST = 5  # of fewer the correlation says nothing
HEADS_TO_ABLATE = 20
_DOUBTS = {
    "heads": "what the ranking says of heads that were not ablated is a guess",
    "sets": "the ranking does not say what dropping heads together does",
}


@dataclass(frozen=True, slots=True)
class Validity:
    """How far estimates order heads, or sets of them, as measurements do.

    Noise of the measurements lowers it like errors of the estimates do.

    Attributes:
        what: what was held against what.
        value: Spearman's rank correlation; NaN for fewer than `LEAST`, or when nothing differs.
        n: how many have both.
        unit: "heads" or "sets".
    """

    what: str
    value: float
    n: int
    unit: str = "heads"

    @property
    def warning(self) -> str | None:
        """What to say beside the ranking when it is not of what was measured."""
        return f"{self}: {_DOUBTS.get(self.unit, _DOUBTS['heads'])}" if self.value < ENOUGH else None

    def __str__(self) -> str:
        unknown = f"too few {self.unit}" if self.n < LEAST else "unknown, nothing differs"
        return f"{self.what} of {self.n:,} {self.unit}: {unknown if math.isnan(self.value) else f'{self.value:.2f}'}"


def heads_to_ablate(effects: npt.ArrayLike, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The heads that estimates are tried on, ascending; all where there are no more than `HEADS_TO_ABLATE`.

    A quarter has the lowest effects, which a repair would drop, a quarter the highest, the others are drawn. Extremes
    raise a correlation: for the pronouns of smollm2 it is .96 of such heads and .66 of 60 that are drawn from all.

    Args:
        effects: the estimates, `(n_heads,)`.
        rng: draws.
    """
    order = np.argsort(np.asarray(effects, dtype=np.float64), kind="stable")
    if len(order) <= HEADS_TO_ABLATE:
        return np.sort(order)
    extreme = HEADS_TO_ABLATE // 4
    drawn = rng.choice(order[extreme:-extreme], HEADS_TO_ABLATE - 2 * extreme, replace=False)
    return np.sort(np.concatenate([order[:extreme], drawn, order[-extreme:]]))


def rank_validity(estimated: npt.ArrayLike, measured: npt.ArrayLike, what: str, unit: str = "heads") -> Validity:
    """Hold estimates against measurements of the same heads or sets, both `(n,)`; those not finite are left out."""
    from scipy.stats import spearmanr  # takes long to import

    pairs = np.stack([np.asarray(each, dtype=np.float64).reshape(-1) for each in (estimated, measured)])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    n = pairs.shape[1]
    if n < LEAST or not np.ptp(pairs, axis=1).all():
        return Validity(what, math.nan, n, unit)
    return Validity(what, float(spearmanr(*pairs).statistic), n, unit)


def sum_validity(effects: npt.ArrayLike, changes: Iterable[tuple[Mask, float]], what: str) -> Validity:
    """Hold summed effects of single heads against the measured changes of sets of them.

    Args:
        effects: what a figure gains without each head, `(n_heads,)`.
        changes: sets of dropped heads, each with what the figure gained without them all; sets without heads are left
            out.
        what: which figure.
    """
    values = np.asarray(effects, dtype=np.float64)
    sets = {mask: change for mask, change in changes if mask.size}
    sums = [float(values[list(mask.units())].sum()) for mask in sets]
    return rank_validity(sums, list(sets.values()), f"sums of {what} effects against measured changes", "sets")


def validity_in_words(found: Sequence[Validity]) -> str:
    """All of them in a line; empty when there is none."""
    return f"Validity (rank correlation): {'; '.join(map(str, found))}." if found else ""
