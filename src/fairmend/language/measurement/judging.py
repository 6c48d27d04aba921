"""Before against after on prompts and text that the search never saw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairmend.errors import ModelError
from fairmend.language.backend.forward import why_not_finite
from fairmend.language.bias.bias import paired_change, verdict, verdict_on_change
from fairmend.language.bias.records import BiasChange
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.logbook import Logbook
from fairmend.language.measurement.perplexity import Perplexity, perplexity_ratio
from fairmend.masks import Mask
from fairmend.records import derived
from fairmend.runs.collection import Collection
from fairmend.statistics import Interval


@dataclass(frozen=True)
class PerplexityChange:
    """Perplexity before and after on the same text.

    Attributes:
        before, after: with their standard errors in `before_error` and `after_error`.
        ratio: after / before.
        interval: of the ratio, from the same windows.
        n_tokens: tokens scored.
        protocol: name of the protocol.
    """

    before: float
    after: float
    before_error: float
    after_error: float
    ratio: float
    interval: Interval
    n_tokens: int
    protocol: str


@derived("verdict_before", "verdict_on_change")
@dataclass(frozen=True)
class AxisJudgement:
    """What a repair did to one axis.

    Attributes:
        axis: what the groups differ in.
        repaired_for: whether the repair was made for this axis; the prompts are others than those searched with.
        change: of the bias, paired by prompt; None when the repaired model is broken on these prompts.
        source, licence: of the prompts.
    """

    axis: str
    repaired_for: bool
    change: BiasChange | None
    source: str
    licence: str

    @property
    def verdict_before(self) -> str | None:
        """In words whether there was anything to repair; None where `change` is."""
        return None if self.change is None else verdict(self.change.before)

    @property
    def verdict_on_change(self) -> str:
        """In words what the repair changed."""
        return "the model is broken on these prompts" if self.change is None else verdict_on_change(self.change)


@dataclass(frozen=True)
class Judgement:
    """Held-out figures: one entry per axis, the repaired one first, and the perplexity."""

    axes: tuple[AxisJudgement, ...]
    perplexity: PerplexityChange

    @property
    def main(self) -> AxisJudgement:
        """The axis that was repaired."""
        return self.axes[0]


def judge_sets(
    evaluators: Sequence[LanguageEvaluator], masks: Sequence[Mask], log: Logbook, seed: int
) -> dict[Mask, Judgement]:
    """Judge the untouched model and every mask on prompts and text that their search never saw.

    Args:
        evaluators: one per axis, of one text, the repaired axis first.
        masks: sets of heads; the untouched model is judged too.
        log: where measurements are kept.
        seed: of the resamples.

    Raises:
        ModelError: the untouched model is broken.
        KeyboardInterrupt: Ctrl-C; what was measured is kept, half a table would compare unlike things.
    """
    measured = measure_held_out(evaluators, masks, log)
    return {mask: judge(measured, mask, seed) for mask in dict.fromkeys([evaluators[0].space.untouched(), *masks])}


def measure_held_out(
    evaluators: Sequence[LanguageEvaluator], masks: Sequence[Mask], log: Logbook
) -> dict[LanguageEvaluator, Collection]:
    """Measure the untouched model and every mask by every evaluator; see `judge_sets`.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was measured is kept.
    """
    return {each: log.measure(f"held-out {each.prompts.axis}", each, masks) for each in evaluators}


def judge(measured: Mapping[LanguageEvaluator, Collection], mask: Mask, seed: int) -> Judgement:
    """Compare the untouched model with `mask` under several evaluators of one text, the repaired axis first.

    Args:
        measured: from `measure_held_out`.
        mask: the dropped heads.
        seed: of the resamples.

    Raises:
        ModelError: the untouched model is broken.
    """
    axes, reads = [], []
    for number, (evaluator, collection) in enumerate(measured.items()):
        before = collection[evaluator.space.untouched()]
        if not before.is_finite:
            raise ModelError(
                f"{evaluator.lm.name} gives logits that are not finite without any mask: "
                f"{why_not_finite(evaluator.lm.model)}"
            )
        prompts, after = evaluator.prompts, collection[mask]
        change = None
        if math.isfinite(after.bias):
            change = paired_change(
                evaluator.scores(before),
                evaluator.scores(after),
                prompts.groups,
                prompts.group_names,
                rng=np.random.default_rng([seed, 1]),
                protocol=evaluator.protocol,
                scorer=evaluator.scorer.name,
            )
        axes.append(AxisJudgement(prompts.axis, number == 0, change, prompts.source, prompts.licence))
        reads.append((evaluator.perplexity(before), evaluator.perplexity(after)))
    return Judgement(tuple(axes), perplexity_change(*reads[0]))


def perplexity_change(before: Perplexity, after: Perplexity) -> PerplexityChange:
    """Compare two perplexities of the same text, window by window.

    Raises:
        InputError: they are of different protocols or texts.
    """
    ratio = perplexity_ratio(before, after)
    return PerplexityChange(
        before=before.value,
        after=after.value,
        before_error=before.standard_error,
        after_error=after.standard_error,
        ratio=ratio.value,
        interval=Interval.normal(ratio.value, ratio.standard_error),
        n_tokens=before.n_tokens,
        protocol=before.protocol,
    )
