"""The choice among the finalists of a search: the least unfair mask that is so for a reason.

The cheapest of thousands of measured masks is cheapest partly by luck: a few people happen to lie on the right side of
the threshold. A mask that stays fair when the threshold is nudged owes less to that luck. So the finalists are
measured again at thresholds around their own, on the same rows, and the smallest mean unfairness wins.
Measured on 20 published networks (4 settings, 20,000 states): the mean test EOD over the settings fell from .0298 to
.0264 against taking the cheapest; see benchmarks/README.md.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np

from fairmend.costs import Cost, UtilityFloor
from fairmend.evaluation import Measurement
from fairmend.masks import Mask
from fairmend.tabular.evaluator import TabularEvaluator

NUDGES = (-0.30, -0.15, 0.15, 0.30)  # in log-odds, beside the mask's own threshold


def finalists(
    measured: Iterable[tuple[Mask, Measurement]],
    cost: Cost,
    floor: UtilityFloor,
    reference: Measurement,
    n: int,
) -> list[tuple[Mask, Measurement]]:
    """The `n` cheapest masks at or above the utility floor and no more unfair than the untouched network, in order."""
    admitted = (
        (cost(measurement), position, mask, measurement)
        for position, (mask, measurement) in enumerate(measured)
        if floor.admits(measurement) and measurement.bias <= reference.bias
    )
    return [(mask, measurement) for _, _, mask, measurement in heapq.nsmallest(n, admitted, key=lambda row: row[:2])]


def choose(
    candidates: list[tuple[Mask, Measurement]], evaluator: TabularEvaluator, space_dials: int
) -> tuple[Mask, Measurement]:
    """The candidate with the smallest mean unfairness over thresholds around its own; the earlier one at ties.

    Args:
        candidates: at least one mask with its measurement.
        evaluator: measures the same rows in a space with threshold dials.
        space_dials: how many dials the candidates have: 0 if the search kept the threshold fixed.
    """
    if len(candidates) == 1:
        return candidates[0]
    n_dials = len(evaluator.space.dials)
    scores = np.empty(len(candidates))
    for index, (mask, measurement) in enumerate(candidates):
        own = mask.dials if space_dials else (0.0,) * n_dials
        around = [mask.turn(tuple(np.add(own, step))) for dial in range(n_dials) for step in _steps(dial, n_dials)]
        scores[index] = np.mean([measurement.bias, *(m.bias for m in evaluator.measure(around))])
    return candidates[int(np.nanargmin(scores))]


def _steps(dial: int, n_dials: int) -> list[np.ndarray]:
    return [nudge * np.eye(n_dials)[dial] for nudge in NUDGES]
