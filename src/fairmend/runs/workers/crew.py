"""Tasks handed out to several workers: who is free gets the next, who is lost is replaced, who hangs is ended."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from fairmend.errors import RunError
from fairmend.runs.workers.service import Answer, pack
from fairmend.runs.workers.tasks import Done, Task, Throughput

_LOOK_EVERY = 0.5  # seconds between two looks at the workers
_MOST_LOSSES = 3  # of workers with one and the same task, or before any of them has done anything
_TIMES_LONGER = 20.0  # than any task so far: what takes longer hangs
PATIENCE = 1800.0
"""Seconds that any task may take."""


class WorkerLost(Exception):
    """A worker is no more, or not reachable; it says why."""


class Hand(Protocol):
    """One worker, as the process that gives it tasks sees it."""

    name: str
    is_ready: bool
    """Whether it can be given a task; it becomes so when it is taken from."""
    is_gone: bool
    """Whether it will never be ready again."""

    def give(self, key: str, work: bytes, arguments: tuple[Any, ...]) -> None:
        """Hand over a task; the worker is free."""

    def take(self) -> Answer | None:
        """What it has answered, once `Hiring.wait` names it; None if it only says that it is ready.

        Raises:
            WorkerLost: it has ended.
        """

    def end(self) -> None:
        """End it at once, whatever it does."""


class Hiring(Protocol):
    """Where workers come from."""

    def places(self) -> int:
        """How many workers there may be, as of now."""

    def hire(self, number: int) -> Hand:
        """Start the worker of this number.

        Raises:
            RunError: it cannot be started.
        """

    def wait(self, hands: Sequence[Any], seconds: float) -> list[Any]:
        """Those of the workers that have something to say or are lost; waits for them for so long at most."""

    def close(self) -> None:
        """End what all of them need."""


@dataclass(eq=False)
class _Given:
    """A task on its way."""

    number: int
    task: Task
    losses: list[str] = field(default_factory=list)
    since: float = 0.0


class Crew:
    """Does tasks by several workers of one kind, see `Workers`.

    Args:
        hiring: where they come from.
        patience: seconds that any task may take. One that takes longer, and twenty times as long as any before it, is
            taken for hanging: its worker is replaced, and it is done again.
        say: called with each remark.
    """

    is_here = False

    def __init__(
        self, hiring: Hiring, *, patience: float = PATIENCE, say: Callable[[str], None] = lambda note: None
    ) -> None:
        self.notes: list[str] = []
        self._hiring = hiring
        self._patience = patience
        self._say = say
        self._hands: dict[int, Hand] = {}
        self._busy: dict[Hand, _Given] = {}
        self._works: dict[int, tuple[Callable[..., Any], str, bytes]] = {}
        self._counted: dict[str, Throughput] = {}
        self._slowest = 0.0
        self._unproven: list[str] = []  # how workers were lost since one has done something

    def do(self, tasks: Iterable[Task], look: Callable[[], None] = lambda: None) -> Generator[Done, None, None]:
        """See `Workers`."""
        fresh = iter(tasks)
        numbers = count()
        again: deque[_Given] = deque()

        def following() -> _Given | None:
            if again:
                return again.popleft()
            task = next(fresh, None)
            return None if task is None else _Given(next(numbers), task)

        waiting: _Given | None = None
        try:
            while True:
                waiting = self._hand_out(waiting or following(), following)
                if waiting is None and not self._busy:
                    return
                done, failure = self._taken(_LOOK_EVERY, again)
                failure = failure or self._end_hanging(again)
                if failure is None:
                    # Nobody waits for what is done with the results.
                    waiting = self._hand_out(waiting or following(), following)
                yield from done
                if failure is not None:
                    raise failure
                look()
        except KeyboardInterrupt:
            yield from self._taken(0.0, again)[0]
            raise
        finally:
            for hand in list(self._busy):
                self._dismiss(hand)

    def remark(self, note: str) -> None:
        """See `Workers`."""
        if note not in self.notes:
            self.notes.append(note)
            self._say(note)

    def throughput(self) -> list[Throughput]:
        """See `Workers`."""
        return [self._counted[name] for name in sorted(self._counted)]

    def close(self) -> None:
        """See `Workers`."""
        for hand in list(self._hands.values()):
            self._dismiss(hand)
        self._hiring.close()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _hand_out(self, waiting: _Given | None, following: Callable[[], _Given | None]) -> _Given | None:
        """Give tasks to whoever is free, hiring more while there are places; return the first task that nobody took."""
        while waiting is not None:
            hand = next((hand for hand in self._hands.values() if hand.is_ready and hand not in self._busy), None)
            if hand is None:
                number = next(number for number in count() if number not in self._hands)
                if number >= self._hiring.places() and self._hands:
                    return waiting
                hand = self._hands[number] = self._hiring.hire(number)
                if not hand.is_ready:
                    continue
            _, key, work = self._packed(waiting.task.work)
            waiting.since = time.monotonic()
            self._busy[hand] = waiting
            with suppress(WorkerLost):  # noticed, like every loss, when it is taken from
                hand.give(key, work, waiting.task.arguments)
            waiting = following()
        return None

    def _packed(self, work: Callable[..., Any]) -> tuple[Callable[..., Any], str, bytes]:
        found = self._works.get(id(work))
        if found is None:
            packed = pack(work)
            # The work itself is kept, so that no other gets its id.
            found = self._works[id(work)] = (work, hashlib.sha256(packed).hexdigest(), packed)
        return found

    def _taken(self, seconds: float, again: deque[_Given]) -> tuple[list[Done], Exception | None]:
        """What was done meanwhile, and the first error; waits so long for something at most."""
        done: list[Done] = []
        failure: Exception | None = None
        for hand in self._hiring.wait(list(self._hands.values()), seconds):
            # Busy until its answer is here: if Ctrl-C comes first it is ended, and no answer is taken for another.
            given = self._busy.get(hand)
            try:
                answer = hand.take()
            except WorkerLost as loss:
                failure = self._lost(hand, f"{hand.name}: {loss}", again) or failure
                continue
            self._busy.pop(hand, None)
            if answer is None or given is None:  # it says that it is ready
                continue
            result, error, spent = answer
            self._unproven.clear()
            if error is not None:
                error.add_note(f"{given.task.described()}; {hand.name}")
                failure = failure or error
                continue
            done.append(Done(given.number, given.task, result, spent))
            self._counted.setdefault(hand.name, Throughput(hand.name)).add(done[-1])
            if given.task.timed:
                self._slowest = max(self._slowest, spent)
        return done, failure

    def _end_hanging(self, again: deque[_Given]) -> RunError | None:
        now, limit = time.monotonic(), max(self._patience, _TIMES_LONGER * self._slowest)
        for hand, given in list(self._busy.items()):
            if given.task.timed and now - given.since > limit:
                hand.end()
                failure = self._lost(hand, f"{hand.name}: no answer for {now - given.since:.0f} seconds", again)
                if failure is not None:
                    return failure
        return None

    def _lost(self, hand: Hand, how: str, again: deque[_Given]) -> RunError | None:
        """Have the task of a lost worker done again by another; an error where that was tried often enough."""
        given = self._busy.pop(hand, None)
        if hand.is_gone:
            self._dismiss(hand)
        self._unproven.append(how)
        losses = self._unproven
        if given is not None:
            given.losses.append(how)
            again.append(given)
            losses = given.losses
        if len(losses) < (_MOST_LOSSES if given is not None else _MOST_LOSSES * self._hiring.places()):
            return None
        what = "" if given is None else f" {given.task.described()}"
        return RunError(
            f"{len(losses)} workers in a row were lost{what}: {'; '.join(losses[-_MOST_LOSSES:])}. What is finished is "
            "kept: give the same command again to go on, with fewer workers if memory ran out"
        )

    def _dismiss(self, hand: Hand) -> None:
        self._busy.pop(hand, None)
        hand.end()
        self._hands = {number: each for number, each in self._hands.items() if each is not hand}
