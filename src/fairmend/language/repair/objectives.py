"""Further objectives of a repair, of a user's own: a figure that must not get worse when heads are dropped.

An objective is a function of a model and its tokenizer that gives one number per item of its own, lower is better, such
as what typing errors in a text cost. Its mean is the figure. Items with even numbers are searched with: a set of heads
that makes their mean worse than a limit is not chosen. Items with odd numbers are judged on, before against after in
pairs. Objectives are evaluators like that of bias and perplexity, so that stores and runners treat them alike.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import fairmend
from fairmend.errors import InputError
from fairmend.evaluation import Figure, Figures, Measurement, array_digest
from fairmend.language.heads.gates import masked
from fairmend.language.measurement.logbook import Logbook, in_turn
from fairmend.language.models.models import LanguageModel
from fairmend.language.toxicity.custom_functions import as_numbers, called, load_function, source_digest
from fairmend.masks import Mask
from fairmend.statistics import Interval, paired_t_interval, t_interval

Floats = npt.NDArray[np.float64]

_LEAST_ITEMS = 4  # two to search with and two to judge on: one has no standard error
_PACKAGES = ("torch", "transformers", "numpy")


class Objective:
    """A function that takes a transformers model and its tokenizer and gives one number per item, lower is better.

    The items and their order must be the same at every call, and so must the numbers for the same model: whatever is
    random needs a seed of its own. The model has its heads switched off already and must be left as it is.

    Args:
        function: called once per set of heads.
        name: what the figures are labelled with; error messages name it.
    """

    def __init__(self, function: Callable[[Any, Any], Any], name: str) -> None:
        self.name = name
        self._function = function

    def items(self, lm: LanguageModel, mask: Mask) -> Floats:
        """The number of every item with the heads of `mask` dropped, (n_items,); NaN where the model is broken.

        Raises:
            InputError: the function fails, or gives anything but one number per item.
        """
        who, expected = f"the objective {self.name}", "it must give a flat list of numbers, one per item"
        with masked(lm.model, mask, lm.head_map):
            given = called(self._function, who, lm.model, lm.tokenizer)
        items = as_numbers(given, who, expected)
        if items.ndim != 1 or len(items) < _LEAST_ITEMS:
            raise InputError(f"{who} gave an array of shape {items.shape}: {expected}, at least {_LEAST_ITEMS}")
        return items

    def __reduce__(self) -> tuple[Any, ...]:
        is_named = self.name.startswith("python:")
        return (load_objective, (self.name,)) if is_named else (Objective, (self._function, self.name))

    def fingerprint(self) -> dict[str, Any]:
        """The function's name and the SHA-256 of the file that defines it, null when it has none."""
        return {"name": self.name, "source_sha256": source_digest(self._function)}


def load_objective(spec: str) -> Objective:
    """The objective that "python:MODULE:FUNCTION" names; modules in the working directory are found.

    Raises:
        InputError: there is no such function.
    """
    return Objective(load_function(spec, "objective", ("model", "tokenizer")), spec)


class ObjectiveEvaluator:
    """Measures one objective of a language model whose heads are dropped.

    The bias of a measurement is the objective's mean over the items that are searched with, its utility the mean over
    those that are judged on; the parts are all items. Building it calls the function once, without a mask.

    Args:
        lm: the model.
        objective: what to measure.
        gains: whether masks turn heads, see `HeadMap.space`.

    Raises:
        InputError: the function fails on the untouched model, gives no numbers, or a negative mean, of which a multiple
            is no limit.
    """

    masks_at_once = 1

    def __init__(self, lm: LanguageModel, objective: Objective, gains: bool = False) -> None:
        self.lm = lm
        self.space = lm.head_map.space(gains=gains)
        self.objective = objective
        begun = perf_counter()
        items = objective.items(lm, self.space.untouched())
        if not bool(np.isfinite(items).all()):
            wrong = np.flatnonzero(~np.isfinite(items))
            raise InputError(
                f"the objective {objective.name} gave {items[wrong[0]]} for item {wrong[0]} of the model as it is, and "
                f"{wrong.size} of {len(items)} numbers are not finite: it must give finite ones"
            )
        if items[::2].mean() < 0:
            raise InputError(
                f"the objective {objective.name} is {items[::2].mean():g} for the model as it is: it must not be "
                "negative, because sets of heads may have so many times as much; lower must be better"
            )
        self.reference = self._measurement(items, perf_counter() - begun)

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectiveEvaluator, (self.lm, self.objective, bool(self.space.dials))

    @cached_property
    def figures(self) -> Figures:
        """What the measurements mean."""
        name = self.objective.name
        return Figures(
            bias=Figure(f"{name}, items searched with", "lower", "mean over the items with even numbers"),
            utility=Figure(f"{name}, items judged on", "lower", "mean over the items with odd numbers"),
            parts=tuple(f"item {number}" for number in range(len(self.reference.parts))),
        )

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement per mask, in order; NaN where the mask broke the model.

        Raises:
            InputError: the function fails, or gives another number of items than without a mask.
        """
        return [self.reference if mask.is_untouched else self._measured(mask) for mask in masks]

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the figures depend on, as far as it is known, JSON-ready: the untouched model's numbers too."""
        return {
            "objective": self.objective.fingerprint(),
            "model": self.lm.fingerprint(),
            "untouched_sha256": array_digest(np.array(self.reference.parts)),
            "versions": {"fairmend": fairmend.__version__}
            | {package: importlib.metadata.version(package) for package in _PACKAGES},
        }

    def _measured(self, mask: Mask) -> Measurement:
        begun = perf_counter()
        items = self.objective.items(self.lm, mask)
        if len(items) != len(self.reference.parts):
            raise InputError(
                f"the objective {self.objective.name} gave {len(items)} numbers with heads dropped and "
                f"{len(self.reference.parts)} without: it must have the same items at every call"
            )
        return self._measurement(items, perf_counter() - begun)

    @staticmethod
    def _measurement(items: Floats, seconds: float) -> Measurement:
        halves = [items[start::2] for start in (0, 1)]
        means = [t_interval(half) if np.isfinite(half).all() else None for half in halves]
        (search, search_error), (judge, judge_error) = (
            (math.nan, math.nan) if mean is None else (mean.mean, mean.standard_error) for mean in means
        )
        return Measurement(
            bias=search,
            utility=judge,
            parts=tuple(items.tolist()),
            n=len(halves[0]),
            bias_se=search_error,
            utility_se=judge_error,
            seconds=seconds,
        )


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


def begin_objectives(
    lm: LanguageModel, objectives: Sequence[Objective], gains: bool = False
) -> tuple[ObjectiveEvaluator, ...]:
    """What measures the objectives; each is tried on the untouched model, so that what cannot work fails early.

    Raises:
        InputError: two objectives of one name, or one that does not work, see `ObjectiveEvaluator`.
    """
    names = [objective.name for objective in objectives]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the objective {twice[0]} was given twice: give every objective once")
    return tuple(ObjectiveEvaluator(lm, objective, gains) for objective in objectives)


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
