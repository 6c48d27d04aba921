"""How far a ranking would repeat on another sample, and how large a sample would make it repeat."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.statistics import split_half_reliability

Floats = npt.NDArray[np.float64]

ENOUGH = 0.5
TARGET = 0.8
N_SPLITS = 20


@dataclass(frozen=True, slots=True)
class Reliability:
    """The share of the spread of scores that would repeat on another sample of the same size.

    Attributes:
        value: 1 for scores that repeat exactly, about 0 for noise, NaN when the sample is too small to tell.
        n: size of the sample.
        unit: what was sampled: "prompts", "items" of choices, or "windows".
    """

    value: float
    n: int
    unit: str = "prompts"

    @property
    def needed(self) -> int | None:
        """Sample size for a reliability of `TARGET`; None when it cannot be told."""
        return None if math.isnan(self.value) else size_needed(self.value, self.n)

    @property
    def warning(self) -> str | None:
        """What to say beside the ranking when it is mostly noise."""
        if self.value >= ENOUGH:
            return None
        if math.isnan(self.value):
            return f"this ranking has no known reliability: {self.n} {self.unit} are too few, or no score differs"
        advice = "no number can be told" if self.needed is None else f"about {self.needed:,} would give {TARGET}"
        return f"this ranking is mostly noise: reliability {self.value:.2f} with {self.n:,} {self.unit}; {advice}"

    def __str__(self) -> str:
        value = "unknown" if math.isnan(self.value) else f"{self.value:.2f}"
        return f"{value} ({self.n:,} {self.unit})"


def size_needed(reliability: float, n: int, target: float = TARGET) -> int | None:
    """Give the sample size for a target reliability by the Spearman-Brown prophecy formula.

    A sample k times as large has reliability k r / (1 + (k - 1) r); solved for k.

    Args:
        reliability: measured with a sample of `n`.
        n: size of the sample.
        target: wanted reliability, in (0, 1).

    Returns:
        None when the measured reliability is 0 or less: no signal was seen that could be made clearer.

    Raises:
        InputError: a target outside (0, 1), a reliability outside [-1, 1], or an empty sample.
    """
    if not 0 < target < 1 or not -1 <= reliability <= 1 or n < 1:
        raise InputError(
            f"reliability={reliability}, n={n}, target={target}: need a reliability in [-1, 1], a sample and a "
            "target strictly between 0 and 1"
        )
    if reliability <= 0:
        return None
    return max(1, math.ceil(n * target * (1 - reliability) / (reliability * (1 - target)) - 1e-9))


def split_reliability(
    score: Callable[[npt.NDArray[np.int64]], Floats],
    strata: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    unit: str = "prompts",
    n_splits: int = N_SPLITS,
) -> Reliability:
    """Split a sample in two halves at random, score with each, and see how far the scores agree.

    Args:
        score: gives the scores `(n_items,)` that the members of a half, positions in ascending order, amount to.
        strata: stratum of each member, `(n,)`; every one is split in half.
        rng: of the splits.
        unit: what the members are.
        n_splits: how many random splits are averaged, because one alone is noisy.

    Returns:
        The mean over splits of the Spearman-Brown stepped-up correlation; NaN when a stratum has fewer than 4 members.
        Items without a finite score in a half are left out.
    """
    codes = np.asarray(strata)
    members = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    if min(len(part) for part in members) < 4:
        return Reliability(math.nan, len(codes), unit)
    found = []
    for _ in range(n_splits):
        halves: tuple[list[Floats], list[Floats]] = ([], [])
        for part in members:
            mixed = rng.permutation(part)
            middle = (len(part) + int(rng.integers(2))) // 2  # the odd one out goes to either half
            halves[0].append(mixed[:middle])
            halves[1].append(mixed[middle:])
        first, second = (score(np.sort(np.concatenate(half)).astype(np.int64)) for half in halves)
        finite = np.isfinite(first) & np.isfinite(second)
        found.append(split_half_reliability(first[finite], second[finite]) if finite.sum() > 1 else math.nan)
    return Reliability(float(np.mean(found)), len(codes), unit)
