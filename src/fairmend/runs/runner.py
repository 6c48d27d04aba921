"""The loop between a searcher and an evaluator: ask, look up, measure what is new, store, tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter

from fairmend.errors import InputError, RunError
from fairmend.evaluation import Evaluator, Measurement
from fairmend.masks import Mask
from fairmend.runs.budgets import Budget, Session, Stopped, TimeUp, Watch
from fairmend.runs.collection import Collection
from fairmend.runs.progress import Meter, Progress
from fairmend.runs.workers.measuring import Measuring, keep_in_order
from fairmend.runs.workers.tasks import Done, InProcess, Task, Workers
from fairmend.search.base import Searcher

_PART_SECONDS = 0.1  # of measuring in one task: far more than a message to another process takes
_PARTS = 8  # at least, where masks are many, so that no worker is left without one for long
_WORTH_SHARING = 0.05  # seconds of measuring; less is done here sooner than it is sent away


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
        workers: who measures; None is this process. What is asked for alone, or takes no time, is measured here in any
            case.
        at_once: masks that the evaluator is best given together. Several are always given in multiples of it, so that
            no figure depends on who measures how many.
        progress: where to show how far a run is.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        collection: Collection | None = None,
        *,
        workers: Workers | None = None,
        at_once: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self._space = evaluator.space
        self._measuring = Measuring(evaluator)
        self._workers = InProcess() if workers is None else workers
        self._at_once = at_once
        self._pace = math.inf  # seconds per mask, as last measured
        self._collection = Collection(evaluator.space, evaluator.figures) if collection is None else collection
        self._progress = progress
        self._asker = ""
        self._tally = _Tally()
        self._batch = at_once

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
        if not self._workers.is_here and (why := getattr(searcher, "waits", "")):
            self._workers.remark(f"{self._asker} is measured in this process: {why}")
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
        if self._workers.is_here or len(missing) <= self._at_once or len(missing) * self._pace < _WORTH_SHARING:
            start = 0
            while start < len(missing):
                part = missing[start : start + self._batch]
                self._evaluate(part)
                start += len(part)
                if watch is not None and start < len(missing) and (now := perf_counter()) >= watch.due:
                    watch.tick(now, told, told + start)
        else:
            self._share(missing, watch, told)
        return [collection[mask] for mask in masks]

    def _share(self, masks: Sequence[Mask], watch: Watch | None, told: int) -> None:
        """Have masks measured by the workers, and keep what they measure in the order of the masks."""
        before, tally = self._tally.measured, self._tally
        begun, stored = perf_counter(), tally.store_seconds

        def look() -> None:
            if watch is not None and (now := perf_counter()) >= watch.due:
                watch.tick(now, told, told + tally.measured - before)

        def keep(done: Done) -> None:
            (part,) = done.task.arguments
            self._keep(part, done.result)
            tally.measured += len(part)
            self._pace = done.seconds / len(part)

        try:
            keep_in_order(self._workers, self._parts(masks), keep, look)
        except Exception:
            with suppress(RunError):
                self._collection.flush()
            raise
        finally:
            tally.evaluator_seconds += perf_counter() - begun - (tally.store_seconds - stored)

    def _parts(self, masks: Sequence[Mask]) -> Iterator[Task]:
        start, most = 0, len(masks) / _PARTS
        while start < len(masks):
            together = self._at_once * max(1, int(min(_PART_SECONDS / self._pace, most) / self._at_once))
            part = masks[start : start + together]
            start += len(part)
            yield Task(self._measuring, (part,), partial(self._doing, part), size=len(part))

    def _doing(self, masks: Sequence[Mask]) -> str:
        return f"while measuring for {self._asker}: {_described(masks)}"

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
            self._keep(masks, self._measuring(masks))
        except Exception as error:
            error.add_note(self._doing(masks))
            with suppress(RunError):
                self._collection.flush()
            raise
        seconds = perf_counter() - begun - (tally.store_seconds - stored)
        tally.evaluator_seconds += seconds
        tally.measured += len(masks)
        self._pace = seconds / len(masks)
        # A long ask goes to the evaluator in parts of about a second, so that a kill or Ctrl-C costs no more than that.
        if seconds > 1.0:
            self._batch = max(self._at_once, self._batch // 2)
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
