"""Sets of heads that were found elsewhere, judged on prompts and text that their search never saw."""

from __future__ import annotations

from collections.abc import Sequence

from fairmend.evaluation import Measurement
from fairmend.language.evaluator import LanguageEvaluator, Packed
from fairmend.language.judging import Judgement, judge
from fairmend.language.repair import measure_sets
from fairmend.masks import Mask
from fairmend.runs.collection import Collection
from fairmend.runs.progress import Progress
from fairmend.runs.runner import Runner
from fairmend.runs.store import Store


def judge_sets(
    evaluators: Sequence[LanguageEvaluator],
    masks: Sequence[Mask],
    *,
    store: Store | None,
    progress: Progress | None,
    seed: int,
) -> dict[Mask, Judgement]:
    """Judge the untouched model and every mask, each measured once.

    Args:
        evaluators: one per axis, of one text, the repaired axis first.
        masks: sets of heads; the untouched model is judged too.
        store: where measurements are kept and looked up.
        progress: where to show how far it is.
        seed: of the resamples.

    Raises:
        ModelError: the untouched model is broken.
        KeyboardInterrupt: Ctrl-C; what was measured is kept, half a table would compare unlike things.
    """
    untouched = evaluators[0].space.untouched()
    wanted = list(dict.fromkeys([untouched, *masks]))
    measured = [_measure(evaluator, wanted[1:], store, progress) for evaluator in evaluators]

    def look_up(evaluator: LanguageEvaluator, masks: Sequence[Mask]) -> list[Measurement]:
        found = measured[evaluators.index(evaluator)]
        return [found[mask] for mask in masks]

    return {mask: judge(evaluators, mask, look_up, seed) for mask in wanted}


def _measure(
    evaluator: LanguageEvaluator, masks: Sequence[Mask], store: Store | None, progress: Progress | None
) -> Collection:
    """Measure the untouched model and every mask, looking up what is known."""
    if store is None:
        collection = Collection(evaluator.space, evaluator.figures)
    else:
        collection = store.context(f"held-out {evaluator.prompts.axis}", evaluator)
    runner = Runner(evaluator, collection, workers=Packed(evaluator), progress=progress)
    (before,) = runner.measure([evaluator.space.untouched()])
    # A broken model is refused, with the remedy, where it is judged.
    if before.is_finite and measure_sets(runner, evaluator, masks).stopped == "interrupted":
        raise KeyboardInterrupt
    return collection
