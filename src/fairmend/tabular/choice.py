"""The choice among the finalists of a search: the least unfair mask that is so for a reason.

The cheapest of thousands of measured masks is cheapest partly by luck: a few people happen to lie on the right side of
the threshold. A mask that stays fair when the threshold is nudged owes less to that luck. So the finalists are
measured again, on every row that the search may see and at thresholds around their own, and the smallest mean
unfairness wins.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairmend.costs import UtilityFloor
from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask
from fairmend.tabular.evaluator import TabularEvaluator
from fairmend.tabular.settings import RepairSettings

NUDGES = (-0.30, -0.15, 0.15, 0.30)  # in log-odds, beside the mask's own threshold
_MARGINS = (0.0, 0.15, 0.3, 0.5, 0.75, 1.0)  # higher floors, as shares of the utility that may be lost

_NEAR = 0.25  # of the gain that a finalist may give up against the cheapest

Measured = Sequence[tuple[Mask, Measurement]]


@dataclass(frozen=True)
class Choice:
    """The chosen mask with its measurement, the untouched network's, and the utility floor, all on the same rows."""

    mask: Mask
    chosen: Measurement
    reference: Measurement
    floor: UtilityFloor


def choose(measured: Measured, figures: Figures, evaluator: TabularEvaluator, settings: RepairSettings) -> Choice:
    """The finalist with the smallest mean unfairness over thresholds around its own; untouched if none is admitted.

    Admitted is what keeps the utility floor and is less unfair than the untouched network on all rows. A search on
    a sample of rows may see a utility above the floor that lies below it on all of them, so finalists are picked above
    higher and higher floors until enough are admitted. Those that give up much of the gain are then left out.

    Args:
        measured: everything the search measured, in order; the untouched mask first.
        figures: what these measurements mean.
        evaluator: measures all rows, in a space with threshold dials.
        settings: the utility floor and the number of finalists.
    """
    untouched = evaluator.space.untouched()
    (reference,) = evaluator.measure([untouched])
    floor = settings.floor(evaluator.figures, reference)
    admitted: dict[int, tuple[Mask, Measurement]] = {}
    for margin in _MARGINS:
        for position in _fairest(measured, figures, settings, margin):
            mask = measured[position][0]
            if position in admitted or mask.is_untouched:
                continue
            mask = mask.turn(mask.dials or untouched.dials)
            (measurement,) = evaluator.measure([mask])
            if floor.admits(measurement) and measurement.bias < reference.bias:
                admitted[position] = mask, measurement
        if 2 * len(admitted) >= settings.finalists:
            break
    if not admitted:
        return Choice(untouched, reference, reference, floor)
    least = min(measurement.bias for _, measurement in admitted.values())
    limit = least + _NEAR * (reference.bias - least)
    candidates = [admitted[position] for position in sorted(admitted) if admitted[position][1].bias <= limit]
    mask, measurement = candidates[0]
    if len(candidates) > 1:
        mask, measurement = min(candidates, key=lambda pair: _nudged(pair[0], pair[1], evaluator))
    return Choice(mask, measurement, reference, floor)


def _fairest(measured: Measured, figures: Figures, settings: RepairSettings, margin: float) -> list[int]:
    """Positions of the least unfair masks above the floor raised by `margin`, in the order of their measurement."""
    reference = measured[0][1]
    floor = replace(settings, keep=settings.keep + margin * (1 - settings.keep)).floor(figures, reference)
    biased = (
        (measurement.bias, position)
        for position, (_, measurement) in enumerate(measured)
        if floor.admits(measurement) and measurement.bias <= reference.bias
    )
    return sorted(position for _, position in heapq.nsmallest(settings.finalists, biased))


def _nudged(mask: Mask, measurement: Measurement, evaluator: TabularEvaluator) -> float:
    """Mean unfairness at the mask's threshold and around it."""
    nudges = [nudge * axis for axis in np.eye(len(mask.dials)) for nudge in NUDGES]
    around = [mask.turn(tuple(np.add(mask.dials, nudge).tolist())) for nudge in nudges]
    return float(np.mean([measurement.bias, *(nudged.bias for nudged in evaluator.measure(around))]))
