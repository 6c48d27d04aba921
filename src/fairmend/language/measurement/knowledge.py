"""What a model knows about groups and must keep: items whose right answer is `a`.

A model that has forgotten that mothers are women shows no gender stereotype either. So the preference for the right
answer is measured beside the bias, every group weighing alike: a model that always says "he" knows nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairmend.language.prompts.choices import ChoiceSet
from fairmend.records import derived
from fairmend.statistics import Interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class KnowledgeFigures:
    """What a model knows.

    Attributes:
        mean: preference for the right answer, nats, averaged within groups and then over them.
        standard_error: of the mean, over items.
        accuracy: share of items whose right answer is preferred, averaged likewise.
        n: items.
        source: where they are from.
    """

    mean: float
    standard_error: float
    accuracy: float
    n: int
    source: str


@derived("kept")
@dataclass(frozen=True, slots=True)
class KnowledgeChange:
    """What a repair left of it, on the same items.

    Attributes:
        before, after: the figures of each.
        interval: of `kept`, items compared in pairs; undefined where `kept` is.
    """

    before: KnowledgeFigures
    after: KnowledgeFigures
    interval: Interval

    @property
    def kept(self) -> float:
        """The mean preference for the right answer as a share of the original's; NaN if that preferred the wrong."""
        return self.after.mean / self.before.mean if self.before.mean > 0 else math.nan


def summarise_knowledge(items: ChoiceSet, preferences: Floats) -> KnowledgeFigures:
    """The figures that the preferences for the right answer `(n_items,)` amount to."""
    mean, error = _mean(items, preferences)
    right, _ = _mean(items, (preferences > 0).astype(np.float64))
    return KnowledgeFigures(mean, error, right, len(items), items.source)


def knowledge_change(items: ChoiceSet, before: Floats, after: Floats) -> KnowledgeChange:
    """Compare the preferences for the right answer of two models on the same items, `(n_items,)` each."""
    old, new = summarise_knowledge(items, before), summarise_knowledge(items, after)
    if old.mean <= 0:
        return KnowledgeChange(old, new, Interval(math.nan, math.nan))
    # The delta method for a ratio of means over the same items.
    _, error = _mean(items, (after - new.mean / old.mean * before) / old.mean)
    return KnowledgeChange(old, new, Interval.normal(new.mean / old.mean, error))


def mean_preference(items: ChoiceSet, preferences: Floats) -> float:
    """The preference for the right answer, averaged within groups and then over them."""
    return _mean(items, preferences)[0]


def _mean(items: ChoiceSet, values: Floats) -> tuple[float, float]:
    """Mean over groups of weighted group means, and its standard error over items."""
    mean, variance, n_groups = 0.0, 0.0, len(items.group_names)
    for code in range(n_groups):
        own = items.groups == code
        weights = items.weights[own] / items.weights[own].sum()
        centre = float(weights @ values[own])
        mean += centre / n_groups
        n = int(own.sum())
        spread = float((weights**2 @ (values[own] - centre) ** 2) * n / (n - 1)) if n > 1 else np.nan
        variance += spread / n_groups**2
    return mean, float(np.sqrt(variance))
