"""Before against after on prompts and text that the search never saw, and the words it is shown in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fairmend.errors import ModelError
from fairmend.evaluation import Measurement
from fairmend.language.backend.forward import why_not_finite
from fairmend.language.bias.bias import paired_change, verdict, verdict_on_change
from fairmend.language.bias.records import BiasChange
from fairmend.language.measurement.drift import Drift, mean_drift
from fairmend.language.measurement.evaluator import Floats, LanguageEvaluator
from fairmend.language.measurement.knowledge import KnowledgeChange, knowledge_change
from fairmend.language.measurement.logbook import Logbook
from fairmend.language.measurement.perplexity import Perplexity, perplexity_ratio
from fairmend.language.protocols import Averaged
from fairmend.masks import Mask
from fairmend.records import derived
from fairmend.report import figures as pictures
from fairmend.report.figures import Point, Spot
from fairmend.report.tables import Cell, Column, fixed
from fairmend.runs.collection import Collection
from fairmend.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_WIDE = 8.0  # times: perplexities further apart than this are drawn on a logarithmic axis


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


@derived("verdict_before", "verdict_on_change", "second_verdict")
@dataclass(frozen=True)
class AxisJudgement:
    """What a repair did to one axis.

    Attributes:
        axis: what the groups differ in.
        repaired_for: whether the repair was made for this axis; the prompts are others than those searched with.
        change: of the bias, paired by prompt; None when the repaired model is broken on these prompts.
        source, licence: of the prompts.
        second: `change` by a second scorer of the same continuations, always without their prompts; None if there was
            none.
    """

    axis: str
    repaired_for: bool
    change: BiasChange | None
    source: str
    licence: str
    second: BiasChange | None = None

    @property
    def verdict_before(self) -> str | None:
        """In words whether there was anything to repair; None where `change` is."""
        return None if self.change is None else verdict(self.change.before)

    @property
    def verdict_on_change(self) -> str:
        """In words what the repair changed."""
        return "the model is broken on these prompts" if self.change is None else verdict_on_change(self.change)

    @property
    def second_verdict(self) -> str | None:
        """In words what the repair changed by the second scorer: one that games the first shows."""
        if self.second is None:
            return None
        return f"By the second scorer {self.second.after.scorer}: {verdict_on_change(self.second)}"


@dataclass(frozen=True)
class Judgement:
    """Held-out figures.

    Attributes:
        axes: one entry per axis, the repaired one first.
        perplexity: of the text.
        drift: of the next tokens of the text from the original's.
        knowledge: what is left of it; None if there was none to keep, or the repaired model is broken.
    """

    axes: tuple[AxisJudgement, ...]
    perplexity: PerplexityChange
    drift: Drift
    knowledge: KnowledgeChange | None = None

    @property
    def main(self) -> AxisJudgement:
        """The axis that was repaired."""
        return self.axes[0]


def kept_in_words(judgement: Judgement) -> tuple[str, ...]:
    """What a repair left of the words and of the knowledge of the original, a sentence each."""
    drift, known = judgement.drift, judgement.knowledge
    said = f"Drift on {drift.n_tokens:,} tokens: {drift.value:.4f} nats per token from the original."
    if known is None:
        return (said,)
    before, after, sure = known.before, known.after, known.interval
    share = f"Knowledge kept: {known.kept:.0%} [{sure.low:.0%}, {sure.high:.0%}] of the preference for the right answer"
    if math.isnan(known.kept):
        share = "Knowledge: none to keep, the original does not prefer the right answers"
    return (
        said,
        f"{share}, {before.mean:.2f} -> {after.mean:.2f} nats; right in {before.accuracy:.0%} -> {after.accuracy:.0%} "
        f"of {after.n:,} items.",
    )


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
    return judge_measured(measured, [evaluators[0].space.untouched(), *masks], seed)


def measure_held_out(
    evaluators: Sequence[LanguageEvaluator], masks: Sequence[Mask], log: Logbook
) -> dict[LanguageEvaluator, Collection]:
    """Measure the untouched model and every mask by every evaluator; see `judge_sets`.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was measured is kept.
    """
    return {each: log.measure(f"held-out {each.prompts.axis}", each, masks) for each in evaluators}


def judge_measured(
    measured: Mapping[LanguageEvaluator, Collection], masks: Sequence[Mask], seed: int
) -> dict[Mask, Judgement]:
    """Judge every mask by what `measure_held_out` found, see `judge`."""
    return {mask: judge(measured, mask, seed) for mask in dict.fromkeys(masks)}


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
        opinions: list[tuple[Callable[[Measurement], Floats], Averaged, str]] = [
            (evaluator.scores, evaluator.answers.quantity, evaluator.answers.scorer)
        ]
        if evaluator.second is not None:
            opinions.append((evaluator.second_scores, "continuation", evaluator.second.name))
        changes = [
            paired_change(
                scores(before),
                scores(after),
                evaluator.design,
                rng=np.random.default_rng([seed, 1]),
                score=score,
                scorer=scorer,
            )
            for scores, score, scorer in opinions
            if math.isfinite(after.bias)
        ]
        change, second = (*changes, None, None)[:2]
        axes.append(AxisJudgement(prompts.axis, number == 0, change, prompts.source, prompts.licence, second))
        reads.append((evaluator.perplexity(before), evaluator.perplexity(after)))
    main = next(iter(measured))
    untouched, changed = (measured[main][each] for each in (main.space.untouched(), mask))
    knowledge = None
    if main.knowledge is not None and math.isfinite(changed.bias):
        knowledge = knowledge_change(main.knowledge, main.knowing(untouched), main.knowing(changed))
    drift = mean_drift(main.reading.windows, main.drifting(changed))
    return Judgement(tuple(axes), perplexity_change(*reads[0]), drift, knowledge)


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


class _Change(Column):
    """A change against the untouched model, of which the model itself shows none."""

    def text(self, row: Mapping[str, Cell]) -> str:
        """Its value for people, "" where no head is dropped."""
        return super().text(row) if row["heads"] else ""


JUDGED = (
    Column("bias", "bias", fixed(4), undefined="broken"),
    _Change("change", "change [95 %]", "{:+.4f}".format, interval=True, undefined=""),
    Column("perplexity", "perplexity", fixed(2), undefined="broken"),
    _Change("times", "times [95 %]", fixed(3), interval=True, undefined=""),
    _Change("drift", "drift", fixed(4), undefined=""),
    _Change("knowledge", "knowledge kept", "{:.0%}".format, undefined=""),
)
"""The columns that people see of `judgement_cells`; rows also need the number of dropped `heads`."""


def judgement_cells(judgement: Judgement) -> dict[str, Cell]:
    """Bias, perplexity and their changes, the repaired axis first; the columns of other axes end in [AXIS]."""
    others = (cells for axis in judgement.axes[1:] for cells in _bias_cells(axis, axis.axis).items())
    drift, known = judgement.drift, judgement.knowledge
    kept: dict[str, Cell] = {
        "drift": drift.value,
        "drift_error": drift.standard_error,
        "knowledge": None if known is None else known.kept,
        "knowledge_low": None if known is None else known.interval.low,
        "knowledge_high": None if known is None else known.interval.high,
    }
    return {**_bias_cells(judgement.main, ""), **_perplexity_cells(judgement.perplexity), **kept, **dict(others)}


def spot_of(label: str, judgement: Judgement, hollow: bool = False) -> Spot:
    """Perplexity and bias with their intervals; the bias of a broken model is NaN."""
    read, change = judgement.perplexity, judgement.main.change
    y = Point(math.nan) if change is None else Point.of(change.after.value, change.after.interval)
    return Spot(label, Point.of(read.after, Interval.normal(read.after, read.after_error)), y, hollow)


def draw_judged(panels: Mapping[str, Sequence[Spot]], *, bias: str, title: str = "") -> Figure:
    """Draw bias against perplexity on held-out data; broken models are left out.

    Args:
        panels: spots by the title of their panel.
        bias: name of the figure.
        title: above the picture.
    """
    drawn = {
        name: [spot for spot in spots if math.isfinite(spot.x.value + spot.y.value)] for name, spots in panels.items()
    }
    reads = [spot.x.value for spots in drawn.values() for spot in spots]
    return pictures.draw_trade_off(
        drawn,
        x_label="perplexity of held-out text (lower is better)",
        y_label=f"{bias} (lower is better)",
        title=title,
        log_x=max(reads) > _WIDE * min(reads),
    )


def _bias_cells(judged: AxisJudgement, axis: str) -> dict[str, Cell]:
    change = judged.change
    after = None if change is None else change.after
    cells: dict[str, Cell] = {
        "bias": None if after is None else after.value,
        "bias_low": None if after is None else after.interval.low,
        "bias_high": None if after is None else after.interval.high,
        "floor": None if after is None else after.floor,
        "p_value": None if after is None else after.p_value,
        "change": None if change is None else change.change,
        "change_low": None if change is None else change.interval.low,
        "change_high": None if change is None else change.interval.high,
        "excess_removed": None if change is None else change.excess_removed,
    }
    return {f"{name}[{axis}]" if axis else name: value for name, value in cells.items()}


def _perplexity_cells(change: PerplexityChange) -> dict[str, Cell]:
    return {
        "perplexity": change.after,
        "perplexity_error": change.after_error,
        "times": change.ratio,
        "times_low": change.interval.low,
        "times_high": change.interval.high,
    }
