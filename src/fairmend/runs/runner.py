"""The loop between a searcher and an evaluator: ask, look up, measure what is new, store, tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from time import perf_counter

from fairmend.errors import InputError, RunError
from fairmend.evaluation import Evaluator, Measurement
from fairmend.masks import Mask
from fairmend.runs.budgets import Budget, Session, Stopped, TimeUp, Watch
from fairmend.runs.collection import Collection
from fairmend.runs.progress import Meter, Progress
from fairmend.runs.workers import InProcess, Workers
from fairmend.search.base import Searcher


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What one session of a run did.

    Attributes:
        stopped: why it ended: the searcher had "finished", the budget of "evaluations" or "seconds" was used up, or
            Ctrl-C "interrupted" it. An interrupted searcher may be half-way through a turn: go on with a fresh one.
        asked: states told to the searcher.
        replayed: how many of them an earlier session had told already.
        measured: masks that the evaluator measured in this session.
        looked_up: states told without measuring, from the store or from earlier in the session.
        seconds: duration of the session.
        evaluator_seconds, store_seconds: how much of it went into measuring and into storing.
    """

    stopped: Stopped
    asked: int
    replayed: int
    measured: int
    looked_up: int
    seconds: float
    evaluator_seconds: float
    store_seconds: float


@dataclass(slots=True)
class _Tally:
    """Running totals of one session."""

    measured: int = 0
    looked_up: int = 0
    evaluator_seconds: float = 0.0
    store_seconds: float = 0.0


class Runner:
    """Measures masks for searchers, each distinct mask once.

    Args:
        evaluator: who measures. Its space is what searchers may ask for.
        collection: where measurements are kept and looked up: a `Context` of a store, or None for memory only.
        workers: who measures instead, such as several evaluators side by side, all with the same fingerprint.
        progress: where to show how far a run is.

    Raises:
        RunError: the workers measure something else than the evaluator.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        collection: Collection | None = None,
        *,
        workers: Workers | None = None,
        progress: Progress | None = None,
    ) -> None:
        own = InProcess(evaluator)
        if workers is not None and workers.digest != own.digest:
            raise RunError(
                f"the workers' evaluators have the fingerprint {workers.digest}, the run's has {own.digest}: "
                "build both from the same factory"
            )
        self._space = evaluator.space
        self._workers = own if workers is None else workers
        self._collection = Collection(evaluator.space, evaluator.figures) if collection is None else collection
        self._progress = progress
        self._asker = ""
        self._tally = _Tally()
        self._batch = self._workers.size

    @property
    def collection(self) -> Collection:
        """What was measured."""
        return self._collection

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement per mask, in order; only those not measured yet reach the evaluator.

        Raises:
            InputError: a mask outside the evaluator's space.
            Exception: whatever the evaluator raised, after everything measured was committed.
        """
        self._asker = "the caller of measure"
        try:
            return self._measure(masks)
        finally:
            self._collection.flush()

    def run(
        self, searcher: Searcher, budget: Budget | None = None, note: Callable[[], str] | None = None
    ) -> RunSummary:
        """Let the searcher search until it has finished, the budget is used up, or Ctrl-C.

        To resume a run, run a fresh searcher with the same settings: it is told what is stored and goes on from there.

        Args:
            searcher: who asks. What it found is read from it afterwards.
            budget: None lets the searcher finish.
            note: gives the text beside the progress; called at most about ten times a second.

        Raises:
            InputError: the searcher asks for a mask outside the space, or its first ask exceeds the budget.
            Exception: whatever the evaluator raised, after everything measured was committed.
        """
        budget = Budget() if budget is None else budget
        settings = searcher.settings()
        self._asker = str(settings.get("name", type(searcher).__name__))
        self._tally = _Tally()
        begun = perf_counter()
        session = Session(self._collection, settings, asdict(budget))
        limit, limited_by = _limit(budget, session)
        watch = Watch(session, budget, Meter(self._progress, self._asker, budget.evaluations, session.replayed, note))
        told = 0
        stopped: Stopped
        try:
            while True:
                masks = searcher.ask()
                if not masks:
                    stopped = "finished"
                    break
                if told + len(masks) > limit:
                    self._require_first_ask(told, len(masks), budget)
                    stopped = limited_by
                    break
                measurements = self._measure(masks, watch, told)
                searcher.tell(masks, measurements)
                told += len(masks)
                now = perf_counter()
                if now >= watch.due or told >= watch.new_ground:
                    watch.tick(now, told, told)
        except TimeUp:
            stopped = "seconds"
        except KeyboardInterrupt:
            stopped = "interrupted"
        except BaseException:
            with suppress(RunError):
                watch.end(told, "failed")
            raise
        watch.end(told, stopped)
        self._tally.store_seconds += watch.store_seconds
        return RunSummary(
            stopped=stopped,
            asked=told,
            replayed=min(told, session.replayed),
            seconds=perf_counter() - begun,
            **asdict(self._tally),
        )

    def finish(self, searcher: Searcher, budget: Budget | None = None) -> RunSummary:
        """Like `run`, for what is worth nothing when it is half done.

        Raises:
            KeyboardInterrupt: Ctrl-C, once everything measured is kept.
            InputError, Exception: see `run`.
        """
        summary = self.run(searcher, budget)
        if summary.stopped == "interrupted":
            raise KeyboardInterrupt
        return summary

    def _require_first_ask(self, told: int, asked: int, budget: Budget) -> None:
        if told == 0 and budget.evaluations is not None and asked > budget.evaluations:
            raise InputError(
                f"a budget of {budget.evaluations} evaluations does not admit the first ask of {self._asker}, "
                f"{asked} masks: give at least {asked}"
            )

    def _measure(self, masks: Sequence[Mask], watch: Watch | None = None, told: int = 0) -> list[Measurement]:
        collection = self._collection
        if len(masks) == 1:
            found = collection.get(masks[0])
            if found is not None:
                self._tally.looked_up += 1
                return [found]
            missing = masks
        else:
            missing = [mask for mask in dict.fromkeys(masks) if collection.get(mask) is None]
        self._require_admitted(missing)
        self._tally.looked_up += len(masks) - len(missing)
        start = 0
        while start < len(missing):
            part = missing[start : start + self._batch]
            self._evaluate(part)
            start += len(part)
            if watch is not None and start < len(missing) and (now := perf_counter()) >= watch.due:
                watch.tick(now, told, told + start)
        return [collection[mask] for mask in masks]

    def _require_admitted(self, masks: Sequence[Mask]) -> None:
        space = self._space
        for mask in masks:
            if not (space.admits(mask) or (mask.is_untouched and mask.n_units == space.n_units)):
                raise InputError(
                    f"{self._asker} asked for a mask outside the evaluator's space: {mask.size} of {mask.n_units} "
                    f"units dropped, dials {mask.dials}; the space has {space.n_units} units, allows "
                    f"{space.min_drop} to {space.largest}, frozen {sorted(space.frozen)}, dials {space.dials}. "
                    "Give the searcher the evaluator's own space"
                )

    def _evaluate(self, masks: Sequence[Mask]) -> None:
        tally, stored = self._tally, self._tally.store_seconds
        begun = perf_counter()
        try:
            self._workers.measure(masks, self._keep)
        except Exception as error:
            error.add_note(f"while measuring for {self._asker}: {_described(masks)}")
            with suppress(RunError):
                self._collection.flush()
            raise
        seconds = perf_counter() - begun - (tally.store_seconds - stored)
        tally.evaluator_seconds += seconds
        tally.measured += len(masks)
        # A long ask goes to the evaluator in parts of about a second, so that a kill or Ctrl-C costs no more than that.
        if seconds > 1.0:
            self._batch = max(self._workers.size, self._batch // 2)
        elif seconds < 0.25 and len(masks) == self._batch:
            self._batch *= 2

    def _keep(self, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
        begun = perf_counter()
        self._collection.put(masks, measurements)
        self._tally.store_seconds += perf_counter() - begun


def _limit(budget: Budget, session: Session) -> tuple[float, Stopped]:
    """The number of states at which the run ends, and which part of the budget says so."""
    limit = math.inf if budget.evaluations is None else budget.evaluations
    if budget.seconds is not None and session.used >= budget.seconds and session.replayed < limit:
        return session.replayed, "seconds"
    return limit, "evaluations"


def _described(masks: Sequence[Mask]) -> str:
    shown = ", ".join(f"units {list(mask.units())} dials {list(mask.dials)}" for mask in masks[:3])
    return f"{len(masks)} masks ({shown}{', ...' if len(masks) > 3 else ''})"
