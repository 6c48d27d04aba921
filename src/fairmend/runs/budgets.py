"""How long a run may go on, and the clock that watches over it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, TypeAlias

from fairmend.errors import InputError
from fairmend.runs.progress import PROGRESS_EVERY, Meter
from fairmend.runs.sessions import Session

Stopped: TypeAlias = Literal["finished", "evaluations", "seconds", "interrupted"]
"""Why a run ended: the searcher had nothing more to ask, a part of the budget was used up, or Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a search may go on; None means without that limit.

    Args:
        evaluations: states told to the searcher, whether they were measured or looked up, so that a resumed run stops
            where an uninterrupted one does. A searcher gets whole answers only: the run ends before an ask that would
            exceed the budget.
        seconds: time spent over all sessions of the run, not counting the replay of what is stored. Once used up, the
            number of states told is on record and a later replay ends there too.

    Raises:
        InputError: a limit that is not positive.
    """

    evaluations: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.evaluations is not None and self.evaluations < 1:
            raise InputError(f"the budget needs at least 1 evaluation, got {self.evaluations!r}")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"the budget needs more than 0 seconds, got {self.seconds!r}")


class TimeUp(Exception):
    """The budget of seconds is used up. Raised by `Watch.tick`, caught by `Runner.run`."""


class Watch:
    """Looks at the clock of one session: shows progress, keeps its record, and says when time is up.

    The loop compares two numbers per state and calls `tick` only when one of them is reached.

    Attributes:
        due: when (`time.perf_counter`) the next tick is due.
        new_ground: the number of told states at which the replay of earlier sessions ends and the budget of seconds
            begins to run; infinite once reached.
        store_seconds: time spent on committing.
    """

    def __init__(self, session: Session, budget: Budget, meter: Meter) -> None:
        self._session = session
        self._meter = meter
        self._remaining = math.inf if budget.seconds is None else budget.seconds - session.used
        self.due = 0.0
        self.store_seconds = 0.0
        self.new_ground: float = session.replayed
        self.tick(perf_counter(), 0, 0)

    def tick(self, now: float, told: int, done: int) -> None:
        """Look at the clock.

        Args:
            now: `time.perf_counter`.
            told: states told to the searcher.
            done: those, and the ones of the current ask that are measured already.

        Raises:
            TimeUp: the budget of seconds is used up.
        """
        session = self._session
        if told >= self.new_ground:
            self.new_ground = math.inf
            session.reach(now)
        spent = session.seconds(now)
        left = self._remaining - spent
        if now >= self.due:
            self._meter.show(done, spent, None if left == math.inf else left)
            begun = perf_counter()
            session.keep(told, now)
            self.store_seconds += perf_counter() - begun
        if spent > 0 and left <= 0:
            raise TimeUp
        self.due = now + (min(PROGRESS_EVERY, left) if left > 0 else PROGRESS_EVERY)

    def end(self, told: int, stopped: Stopped | Literal["failed"]) -> None:
        """Commit everything, record why the session ended and end the display."""
        now = perf_counter()
        try:
            self._session.end(told, now, stopped)
            self._meter.show(told, self._session.seconds(now), None)
        finally:
            self._meter.close()
