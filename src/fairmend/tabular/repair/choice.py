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
from fairmend.tabular.counting.evaluator import TabularEvaluator
from fairmend.tabular.repair.settings import RepairSettings

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
    known: dict[int, tuple[Mask, Measurement]] = {}
    admitted: dict[int, tuple[Mask, Measurement]] = {}
    for margin in _MARGINS:
        fairest = [each for each in _fairest(measured, figures, settings, margin) if not measured[each][0].is_untouched]
        new = {each: measured[each][0].turn(measured[each][0].dials or untouched.dials) for each in fairest}
        new = {position: mask for position, mask in new.items() if position not in known}
        # Asked together: on very many rows, one pass over them serves all masks.
        found = evaluator.measure(list(new.values()))
        known |= dict(zip(new, zip(new.values(), found, strict=True), strict=True))
        for position in fairest:
            measurement = known[position][1]
            if floor.admits(measurement) and measurement.bias < reference.bias:
                admitted[position] = known[position]
        if 2 * len(admitted) >= settings.finalists:
            break
    if not admitted:
        return Choice(untouched, reference, reference, floor)
    least = min(measurement.bias for _, measurement in admitted.values())
    limit = least + _NEAR * (reference.bias - least)
    candidates = [admitted[position] for position in sorted(admitted) if admitted[position][1].bias <= limit]
    mask, measurement = candidates[0]
    if len(candidates) > 1:
        biases = _nudged(candidates, evaluator)
        mask, measurement = candidates[biases.index(min(biases))]
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


def _nudged(candidates: Measured, evaluator: TabularEvaluator) -> list[float]:
    """Mean unfairness of every mask at its own threshold and around it."""
    around = [
        mask.turn(tuple(np.add(mask.dials, nudge * axis).tolist()))
        for mask, _ in candidates
        for axis in np.eye(len(mask.dials))
        for nudge in NUDGES
    ]
    biases = [measurement.bias for measurement in evaluator.measure(around)]
    each = len(biases) // len(candidates)
    return [
        float(np.mean([measurement.bias, *biases[place * each : (place + 1) * each]]))
        for place, (_, measurement) in enumerate(candidates)
    ]
