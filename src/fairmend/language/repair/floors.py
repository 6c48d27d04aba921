"""What a repair must keep on the search half: perplexity, knowledge and the words it would have said."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fairmend.costs import UtilityFloor
from fairmend.evaluation import Measurement
from fairmend.language.measurement.drift import mean_drift
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.knowledge import mean_preference
from fairmend.language.repair.settings import RepairSettings


@dataclass(frozen=True, slots=True)
class Floors(UtilityFloor):
    """The largest perplexity and drift and the least knowledge that a repair may have.

    Args:
        evaluator: tells knowledge and drift of a measurement, where it has any.
        knowledge: the least mean preference for the right answer, nats.
        drift: the largest mean drift, nats per token.
    """

    evaluator: LanguageEvaluator
    knowledge: float = -math.inf
    drift: float = math.inf

    def admits(self, measurement: Measurement) -> bool:
        """Whether the figures are finite and every one is within its limit; what was not measured has none."""
        if not UtilityFloor.admits(self, measurement):
            return False
        known, drifts = self.evaluator.knowing(measurement), self.evaluator.drifting(measurement)
        items = self.evaluator.knowledge
        knows = items is None or not known.size or mean_preference(items, known) >= self.knowledge
        return knows and (not drifts.size or mean_drift(self.evaluator.reading.windows, drifts).value <= self.drift)


def floors_of(evaluator: LanguageEvaluator, reference: Measurement, settings: RepairSettings) -> Floors:
    """The floors of `settings` relative to the untouched model's measurement by the same evaluator.

    A model that prefers the wrong answers has no knowledge to keep.
    """
    least, known = -math.inf, evaluator.knowing(reference)
    if settings.keep_knowledge is not None and evaluator.knowledge is not None and known.size:
        mean = mean_preference(evaluator.knowledge, known)
        least = settings.keep_knowledge * mean if mean > 0 else -math.inf
    perplexity = settings.floor(evaluator.figures, reference)
    drift = math.inf if settings.max_drift is None else settings.max_drift
    return Floors(perplexity.limit, perplexity.better, evaluator, least, drift)
