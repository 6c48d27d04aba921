"""The cost that searches on surrogates minimise, in a form that a compiled annealer can compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from fairmend.costs import Cost, PenalisedBias, UtilityFloor, WeightedSum
from fairmend.errors import InputError
from fairmend.evaluation import Figures, Measurement

FLOOR_PENALTY = 3.0
FRONT_EPSILONS = (0.5, 0.1, 0.9, 0.3, 0.7)
"""Weights of the bias that together lead along the whole front."""


@dataclass(frozen=True, slots=True)
class FlooredSum:
    """Attention Pruning's weighted sum of scaled bias and loss, and a penalty below the utility floor.

    Args:
        weighted: the sum.
        floor: the utility floor; None for none, as published.
        penalty: what is added below the floor.
    """

    weighted: WeightedSum
    floor: UtilityFloor | None = None
    penalty: float = FLOOR_PENALTY

    def __call__(self, measurement: Measurement) -> float:
        value = self.weighted(measurement)
        if math.isfinite(value) and self.floor is not None and not self.floor.admits(measurement):
            value += self.penalty
        return value


def floored_sum(figures: Figures, epsilon: float, floor: float | None = None) -> Callable[[Measurement], FlooredSum]:
    """Build the cost relative to the untouched model: 1 is all of its bias, or a loss of utility as large as itself.

    Bias 0 and the untouched utility map to 0, so that the untouched model costs epsilon. A perplexity twice that of
    the untouched model, or an F1 of 0, maps to 1.

    Args:
        figures: what the measurements mean.
        epsilon: weight of the bias, in [0, 1].
        floor: utility floor relative to the untouched model, such as 1.25 times its perplexity; None for none.
    """

    def make(reference: Measurement) -> FlooredSum:
        loss, size = figures.loss(reference), abs(reference.utility)
        if reference.bias <= 0 or size == 0:
            raise InputError(
                f"the untouched model measures bias {reference.bias!r} and {figures.utility.name} "
                f"{reference.utility!r}: a cost relative to them needs both to differ from 0; without bias there is "
                "nothing to repair, so check how bias is measured, or measure on more samples"
            )
        weighted = WeightedSum(figures, epsilon, (0.0, reference.bias), (loss, loss + size))
        return FlooredSum(weighted, None if floor is None else UtilityFloor.relative(figures, reference, floor))

    return make


@dataclass(frozen=True, slots=True)
class Terms:
    """A cost as numbers: bias_weight * bias + loss_weight * loss + constant, and a penalty if the loss is too large.

    Attributes:
        limit: the largest loss without penalty; infinite without a floor.
    """

    bias_weight: float
    loss_weight: float
    constant: float
    limit: float
    penalty: float


def terms_of(cost: Cost) -> Terms:
    """The numbers of a cost.

    Raises:
        InputError: a cost of another kind, which only the plain searchers can minimise.
    """
    if isinstance(cost, PenalisedBias):
        return Terms(1.0, 0.0, 0.0, cost.floor.most_loss, cost.penalty * cost.reference_bias)
    if isinstance(cost, WeightedSum):
        cost = FlooredSum(cost)
    if not isinstance(cost, FlooredSum):
        raise InputError(
            f"annealing on surrogates minimises PenalisedBias, WeightedSum or FlooredSum, got {type(cost).__name__}: "
            "use one of them, or let search.Annealing search on a SurrogateEvaluator"
        )
    weighted = cost.weighted
    (bias_low, bias_high), (loss_low, loss_high) = weighted.bias_range, weighted.loss_range
    bias_weight = weighted.epsilon / (bias_high - bias_low)
    loss_weight = (1 - weighted.epsilon) / (loss_high - loss_low)
    limit = math.inf if cost.floor is None else cost.floor.most_loss
    return Terms(bias_weight, loss_weight, -bias_weight * bias_low - loss_weight * loss_low, limit, cost.penalty)


def with_epsilon(cost: Cost, epsilon: float) -> Cost:
    """The same cost with another weight of the bias, where it has one; else the cost itself."""
    if isinstance(cost, WeightedSum):
        return replace(cost, epsilon=epsilon)
    return replace(cost, weighted=replace(cost.weighted, epsilon=epsilon)) if isinstance(cost, FlooredSum) else cost


def costs_along_front(cost: Cost) -> list[Cost]:
    """The cost itself, and with other weights of bias and loss, so that what is cheap lies all along the front.

    A cost without weights stays alone.
    """
    return list(dict.fromkeys([cost, *(with_epsilon(cost, epsilon) for epsilon in FRONT_EPSILONS)]))
