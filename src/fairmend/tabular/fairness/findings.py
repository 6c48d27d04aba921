"""What is known about a predictor's fairness: records of figures with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

from fairmend.evaluation import Direction
from fairmend.statistics import Interval
from fairmend.tabular.fairness.confusion import GroupRates


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
