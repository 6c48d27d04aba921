"""What further objectives say of the finalists of a repair: which may be chosen, and what became of held-out items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.language.measurement.logbook import Logbook, in_turn
from fairmend.language.models.models import LanguageModel
from fairmend.language.repair.objectives import Objective, ObjectiveEvaluator
from fairmend.masks import Mask
from fairmend.statistics import Interval, paired_t_interval


@dataclass(frozen=True)
class ObjectiveChange:
    """An objective with and without the dropped heads, on items that the choice did not see.

    Attributes:
        before, after: means over the items; `after` is NaN when the model is broken.
        change: after - before, with its interval, items compared in pairs.
        n: items.
    """

    before: float
    after: float
    change: float
    interval: Interval
    n: int


@dataclass(frozen=True, eq=False)
class MeasuredObjective:
    """An objective of the untouched model and of every finalist.

    Attributes:
        name: of the objective.
        ratio: how many times the untouched model's figure a set of heads may have to be chosen.
        before: of the untouched model.
        finalists: of each set.
    """

    name: str
    ratio: float
    before: Measurement
    finalists: Mapping[Mask, Measurement]

    @property
    def limit(self) -> float:
        """The largest mean over the items searched with that a set may have."""
        return self.ratio * self.before.bias

    def admits(self, mask: Mask) -> bool:
        """Whether a set of heads keeps the limit; one that breaks the model does not."""
        return self.of(mask).bias <= self.limit

    def of(self, mask: Mask) -> Measurement:
        """The measurement of the untouched model or of a finalist."""
        return self.before if mask.is_untouched else self.finalists[mask]

    def change(self, mask: Mask) -> ObjectiveChange:
        """What became of the items that are judged on."""
        before, after = (np.array(made.parts)[1::2] for made in (self.before, self.of(mask)))
        if not np.isfinite(after).all():
            unknown = Interval(math.nan, math.nan)
            return ObjectiveChange(float(before.mean()), math.nan, math.nan, unknown, len(before))
        found = paired_t_interval(before, after)
        return ObjectiveChange(float(before.mean()), float(after.mean()), found.mean, found.interval, len(before))

    def to_json(self, chosen: Mask) -> dict[str, Any]:
        """Figures of the chosen set on both halves of the items, and of all finalists, JSON-ready."""
        return {
            "name": self.name,
            "search": {
                "before": self.before.bias,
                "after": self.of(chosen).bias,
                "limit": self.limit,
                "n": self.before.n,
                "finalists": [made.bias for made in self.finalists.values()],
                "vetoed": sum(not self.admits(mask) for mask in self.finalists),
            },
            "held_out": asdict(self.change(chosen)),
        }


def begin_objectives(lm: LanguageModel, objectives: Sequence[Objective]) -> tuple[ObjectiveEvaluator, ...]:
    """What measures the objectives; each is tried on the untouched model, so that what cannot work fails early.

    Raises:
        InputError: two objectives of one name, or one that does not work, see `ObjectiveEvaluator`.
    """
    names = [objective.name for objective in objectives]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the objective {twice[0]} was given twice: give every objective once")
    return tuple(ObjectiveEvaluator(lm, objective) for objective in objectives)


def measure_objectives(
    evaluators: Sequence[ObjectiveEvaluator],
    masks: Sequence[Mask],
    ratio: float,
    log: Logbook,
) -> tuple[MeasuredObjective, ...]:
    """Measure every objective of every set of heads, or look it up.

    Args:
        evaluators: from `begin_objectives`.
        masks: the finalists.
        ratio: how many times the untouched model's figure a set may have to be chosen.
        log: where measurements are kept.

    Raises:
        InputError: an objective fails, see `ObjectiveEvaluator.measure`.
        RunError: an objective gives other numbers for the untouched model than when the run began.
        KeyboardInterrupt: Ctrl-C; what was measured is kept.
    """
    found = []
    for evaluator in evaluators:
        runner = log.runner(f"objective {evaluator.objective.name}", evaluator)
        runner.finish(*in_turn(evaluator, masks))
        made = {mask: runner.collection[mask] for mask in masks}
        found.append(MeasuredObjective(evaluator.objective.name, ratio, evaluator.reference, made))
    return tuple(found)
