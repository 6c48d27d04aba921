"""What is known about a predictor's fairness: records of figures with their uncertainty, and what they say in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fairmend.evaluation import Direction
from fairmend.statistics import Interval, two_digits, written_p_value
from fairmend.tabular.fairness.confusion import GroupRates
from fairmend.tabular.fairness.metrics import OBJECTIVES, UTILITIES


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval and the direction that is better."""

    value: float
    interval: Interval
    better: Direction


@dataclass(frozen=True, slots=True)
class FairnessFigures:
    """How unfair and how good a predictor is on one split.

    Attributes:
        objective: fairlearn's name of the fairness figure.
        value: its raw value, with its interval and direction.
        unfairness: the same as something to minimise: the difference, 1 - ratio, 1 - accuracy.
        floor: mean unfairness of a network without any group difference on as many people (shuffled group labels).
        excess: unfairness - floor.
        p_value: of the permutation test against "no group difference".
        n, n_compared: number of rows, and of those within the compared groups.
        rows_needed: compared rows at which a difference of this size would be told from chance with power 0.8;
            None when it is already, or when there is no difference.
        utilities: by name.
        groups: rates of every compared group with counts.
        n_boot, n_perm: numbers of bootstrap and permutation draws.
    """

    objective: str
    value: Estimate
    unfairness: float
    floor: float
    excess: float
    p_value: float
    n: int
    n_compared: int
    rows_needed: int | None
    utilities: dict[str, Estimate]
    groups: tuple[GroupRates, ...]
    n_boot: int
    n_perm: int

    @property
    def is_significant(self) -> bool:
        """Whether the group difference can be told from chance at the interval's level."""
        return self.p_value <= 1 - self.value.interval.level

    @property
    def least(self) -> float:
        """The lower end of the interval of the unfairness; NaN without an interval."""
        interval = self.value.interval
        return interval.low if self.value.better == "lower" else 1.0 - interval.high


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two predictors on the same rows.

    Attributes:
        before, after: the figures of each.
        change: after - before of the objective's raw value.
        utility_changes: after - before of every utility, by name.
    """

    before: FairnessFigures
    after: FairnessFigures
    change: Estimate
    utility_changes: dict[str, Estimate]

    def figures(self) -> dict[str, tuple[Estimate, Estimate, Estimate]]:
        """Before, after and change of every figure by name, the objective first."""
        before, after = self.before, self.after
        return {
            before.objective: (before.value, after.value, self.change),
            **{
                name: (before.utilities[name], after.utilities[name], change)
                for name, change in self.utility_changes.items()
            },
        }


def verdict(figures: FairnessFigures) -> str:
    """Say whether there is anything to repair, with the figures that say so."""
    title, value = OBJECTIVES[figures.objective].title, figures.value
    if math.isnan(value.value):
        return f"{title} is not defined on these rows: every rate it compares is 0, or a group has nobody to rate."
    rows = (
        f"{figures.n_compared:,} rows" if figures.n_compared == figures.n else f"{figures.n_compared:,} compared rows"
    )
    floor = figures.floor if value.better == "lower" else 1 - figures.floor
    opening = (
        f"{title} {value.value:.3f} {value.interval}; a network without any group difference would show "
        f"{floor:.3f} on these {rows}"
    )
    if figures.is_significant:
        return f"{opening}; {written_p_value(figures.p_value)}: there is something to repair."
    closing = (
        f"not distinguishable from chance ({written_p_value(figures.p_value)}): nothing to repair at this sample size"
    )
    if figures.rows_needed is None:
        return f"{opening}; {closing}."
    needed = f"about {two_digits(figures.rows_needed):,} rows would be needed to see a difference of this size"
    return f"{opening}; {closing}; {needed}."


def verdict_on_change(comparison: Comparison) -> str:
    """Say what a repair changed, and which of the changes can be told from chance."""
    return " ".join(_change(figure_title(name), *figure) for name, figure in comparison.figures().items())


def figure_title(name: str) -> str:
    """An objective or a utility at the beginning of a sentence."""
    if name in OBJECTIVES:
        return OBJECTIVES[name].title
    return UTILITIES[name].title if name in UTILITIES else "Log-loss"


def _change(title: str, before: Estimate, after: Estimate, change: Estimate) -> str:
    if math.isnan(change.value):
        return f"{title} is not defined for both networks."
    figures = f"{title} {before.value:.3f} -> {after.value:.3f}, a change of {change.value:+.3f} {change.interval}"
    if math.isnan(change.interval.half_width):
        return f"{figures}: too few defined draws for an interval."
    if change.interval.contains(0.0):
        return f"{figures}: not distinguishable from no change."
    improved = (change.value < 0) == (change.better == "lower")
    return f"{figures}: {'better' if improved else 'worse'}."
