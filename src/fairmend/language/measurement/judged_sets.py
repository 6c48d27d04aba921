"""Sets of heads judged on prompts and text that their search never saw, each measured once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairmend.evaluation import Measurement
from fairmend.language.measurement.evaluator import LanguageEvaluator, Packed
from fairmend.language.measurement.judging import Judgement, judge
from fairmend.masks import Mask
from fairmend.runs.budgets import Budget
from fairmend.runs.collection import Collection
from fairmend.runs.progress import Progress
from fairmend.runs.runner import Runner, RunSummary
from fairmend.runs.store import Section, Store
from fairmend.search import Candidates


def judge_sets(
    evaluators: Sequence[LanguageEvaluator],
    masks: Sequence[Mask],
    *,
    store: Store | Section | None,
    progress: Progress | None,
    seed: int,
) -> dict[Mask, Judgement]:
    """Judge the untouched model and every mask.

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
    measured = measure_held_out(evaluators, masks, store=store, progress=progress)
    return judge_measured(measured, [evaluators[0].space.untouched(), *masks], seed)


def measure_held_out(
    evaluators: Sequence[LanguageEvaluator],
    masks: Sequence[Mask],
    *,
    store: Store | Section | None,
    progress: Progress | None,
) -> dict[LanguageEvaluator, Collection]:
    """Measure the untouched model and every mask by every evaluator, looking up what is known; see `judge_sets`.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was measured is kept.
    """
    return {evaluator: _measured(evaluator, masks, store, progress) for evaluator in evaluators}


def judge_measured(
    measured: Mapping[LanguageEvaluator, Collection], masks: Sequence[Mask], seed: int
) -> dict[Mask, Judgement]:
    """Judge every mask by what `measure_held_out` found.

    Raises:
        ModelError: the untouched model is broken.
    """

    def look_up(evaluator: LanguageEvaluator, wanted: Sequence[Mask]) -> list[Measurement]:
        return [measured[evaluator][mask] for mask in wanted]

    return {mask: judge(list(measured), mask, look_up, seed) for mask in dict.fromkeys(masks)}


def measure_sets(runner: Runner, evaluator: LanguageEvaluator, masks: Sequence[Mask]) -> RunSummary:
    """Measure the untouched model and every mask; their number is told, so that the time left can be shown."""
    searcher = Candidates(evaluator.space, masks, batch=evaluator.masks_at_once)
    return runner.run(searcher, Budget(evaluations=1 + len(searcher.masks)))


def _measured(
    evaluator: LanguageEvaluator, masks: Sequence[Mask], store: Store | Section | None, progress: Progress | None
) -> Collection:
    if store is None:
        collection = Collection(evaluator.space, evaluator.figures)
    else:
        collection = store.context(f"held-out {evaluator.prompts.axis}", evaluator)
    runner = Runner(evaluator, collection, workers=Packed(evaluator), progress=progress)
    (before,) = runner.measure([evaluator.space.untouched()])
    changed = [mask for mask in masks if not mask.is_untouched]
    # A broken model is refused, with the remedy, where it is judged.
    if before.is_finite and measure_sets(runner, evaluator, changed).stopped == "interrupted":
        raise KeyboardInterrupt
    return collection
