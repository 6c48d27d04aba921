"""Where the measurements of a run are kept, and where it is shown how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairmend.evaluation import Evaluator
from fairmend.language.measurement.evaluator import PackingEvaluator
from fairmend.masks import Mask
from fairmend.runs.budgets import Budget
from fairmend.runs.collection import Collection
from fairmend.runs.progress import Progress
from fairmend.runs.runner import Runner
from fairmend.runs.store import Section, Store
from fairmend.runs.workers import Workers
from fairmend.search import Candidates


@dataclass(frozen=True)
class Logbook:
    """Where the measurements of a run are kept, and where it is shown how far it is.

    Attributes:
        store: keeps measurements; one with an interrupted run is gone on with. None keeps them in memory.
        progress: where to show how far it is.
        workers: who measures; None is this process.
    """

    store: Store | Section | None = None
    progress: Progress | None = None
    workers: Workers | None = None

    def collection(self, name: str, evaluator: Evaluator) -> Collection:
        """What the evaluator measured under a name.

        Raises:
            RunError: under this name the store has measurements of another evaluator.
        """
        if self.store is None:
            return Collection(evaluator.space, evaluator.figures)
        return self.store.context(name, evaluator)

    def runner(self, name: str, evaluator: PackingEvaluator) -> Runner:
        """What measures masks with the evaluator, those that are not known under this name yet.

        Raises:
            RunError: see `collection`.
        """
        collection = self.collection(name, evaluator)
        return Runner(
            evaluator,
            collection,
            workers=self.workers,
            at_once=evaluator.masks_at_once,
            progress=self.progress,
        )

    def measure(self, name: str, evaluator: PackingEvaluator, masks: Sequence[Mask]) -> Collection:
        """Measure the untouched model and every mask; a model that is broken as it is, alone.

        Raises:
            RunError: see `collection`.
            KeyboardInterrupt: Ctrl-C; what was measured is kept.
        """
        runner = self.runner(name, evaluator)
        (before,) = runner.measure([evaluator.space.untouched()])
        if before.is_finite:
            runner.finish(*in_turn(evaluator, [mask for mask in masks if not mask.is_untouched]))
        return runner.collection


def in_turn(evaluator: PackingEvaluator, masks: Sequence[Mask]) -> tuple[Candidates, Budget]:
    """Who asks for the untouched model and every mask, and their number, so that the time left can be shown."""
    searcher = Candidates(evaluator.space, masks)
    return searcher, Budget(evaluations=1 + len(searcher.masks))
