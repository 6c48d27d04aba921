"""Costs: pure functions from a measurement to one number to minimise. Multi-objective searchers take none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from fairmend.errors import InputError
from fairmend.evaluation import Direction, Figures, Measurement


class Cost(Protocol):
    """A number to minimise; infinite for a measurement that is not finite."""

    def __call__(self, measurement: Measurement) -> float: ...


@dataclass(frozen=True, slots=True)
class UtilityFloor:
    """The least utility a repair may have, relative to the model as it was.

    Args:
        limit: the worst admissible utility, on the same data as the measurements.
        better: which direction of the utility is better.
    """

    limit: float
    better: Direction

    @classmethod
    def relative(cls, figures: Figures, reference: Measurement, ratio: float) -> UtilityFloor:
        """The floor at `ratio` times the reference: 0.98 keeps 98 % of F1, 1.25 allows 1.25 times the perplexity.

        Raises:
            InputError: a ratio on the wrong side of 1, which would forbid the model as it is.
        """
        better = figures.utility.better
        if not (0 < ratio <= 1 if better == "higher" else ratio >= 1):
            allowed = "0 < ratio <= 1" if better == "higher" else "ratio >= 1"
            raise InputError(f"the utility floor for {figures.utility.name} needs {allowed}, got {ratio!r}")
        return cls(reference.utility * ratio, better)

    @property
    def most_loss(self) -> float:
        """The limit as a loss to minimise, see `Figures.loss`."""
        return self.limit if self.better == "lower" else -self.limit

    def admits(self, measurement: Measurement) -> bool:
        """Whether the figures are finite and the utility is at the limit or better."""
        if not measurement.is_finite:
            return False
        return measurement.utility >= self.limit if self.better == "higher" else measurement.utility <= self.limit


@dataclass(frozen=True, slots=True)
class PenalisedBias:
    """NeuFair's cost (Dasu et al., ISSTA 2024, section 4): bias + penalty * reference bias when below the floor.

    Args:
        floor: the utility floor.
        reference_bias: bias of the model as it was.
        penalty: the multiplier p; 3.0 in the published runs.
    """

    floor: UtilityFloor
    reference_bias: float
    penalty: float = 3.0

    def __call__(self, measurement: Measurement) -> float:
        if not measurement.is_finite:
            return math.inf
        if self.floor.admits(measurement):
            return measurement.bias
        return measurement.bias + self.penalty * self.reference_bias


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """Attention Pruning's cost: epsilon * bias + (1 - epsilon) * loss, both scaled to [0, 1] over known ranges.

    Args:
        figures: what the measurements mean (the direction of the utility).
        epsilon: weight of the bias, in [0, 1].
        bias_range, loss_range: (smallest, largest) value that maps to 0 and 1.
    """

    figures: Figures
    epsilon: float
    bias_range: tuple[float, float]
    loss_range: tuple[float, float]

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise InputError(f"epsilon must lie in [0, 1], got {self.epsilon!r}")
        for name, (low, high) in (("bias_range", self.bias_range), ("loss_range", self.loss_range)):
            if not low < high:
                raise InputError(f"{name} must be (smallest, largest) with smallest < largest, got {(low, high)!r}")

    def __call__(self, measurement: Measurement) -> float:
        if not measurement.is_finite:
            return math.inf
        bias = _unit(measurement.bias, self.bias_range)
        loss = _unit(self.figures.loss(measurement), self.loss_range)
        return self.epsilon * bias + (1 - self.epsilon) * loss


def _unit(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return (value - low) / (high - low)
