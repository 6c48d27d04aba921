"""How long a run may go on, the record of its sessions, and the clock that watches over them.

A session is one call of `Runner.run`. A search that was stopped or killed and resumed has several; together they have
one budget. Each keeps one event in the store, brought up to date with every commit, so that a kill loses little of it.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, TypeAlias

from fairmend.errors import InputError
from fairmend.runs.collection import Collection
from fairmend.runs.context import Context
from fairmend.runs.database import damaged
from fairmend.runs.progress import PROGRESS_EVERY, Meter

_KIND = "session"
_RECORD_EVERY = 0.5

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


class Session:
    """The current session of one search over one collection.

    Args:
        collection: what is measured; only a `Context` of a store has a history.
        settings: the searcher's settings, which tell searches over the same collection apart.
        budget: the budget, for the record.

    Attributes:
        replayed: the most states that an earlier session told: up to there this session replays the store.
        used: seconds that all earlier sessions spent on new ground.

    Raises:
        InputError: settings that JSON cannot hold, so that the search could not be recognised when it is resumed.
        RunError: the record of an earlier session is not what one is.
    """

    def __init__(self, collection: Collection, settings: Mapping[str, Any], budget: Mapping[str, Any]) -> None:
        self.replayed = 0
        self.used = 0.0
        self._context = collection if isinstance(collection, Context) else None
        self._reached: float | None = None  # when this session came to new ground
        self._due = perf_counter() + _RECORD_EVERY
        if self._context is None:
            return
        self._payload = {
            "context": self._context.name,
            "searcher": dict(settings),
            "budget": dict(budget),
            "python": platform.python_version(),
            "told": 0,
            "seconds": 0.0,
            "stopped": None,
        }
        identity = _identity(self._payload)
        for event in self._context.store.events(_KIND):
            try:
                if _identity(event.payload) == identity:
                    self.replayed = max(self.replayed, int(event.payload["told"]))
                    self.used += float(event.payload["seconds"])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise damaged(self._context.store.path, f"the record of a session: {error}") from error
        self._event = self._context.store.record(_KIND, self._payload)

    def seconds(self, now: float) -> float:
        """Seconds of this session on new ground, at `now` (`time.perf_counter`)."""
        return 0.0 if self._reached is None else now - self._reached

    def reach(self, now: float) -> None:
        """New ground begins: everything earlier sessions told has been replayed."""
        self._reached = now

    def keep(self, told: int, now: float) -> None:
        """Bring the record up to date, if it was not within the last half second."""
        if now >= self._due:
            self._record(told, now, None)

    def end(self, told: int, now: float, stopped: str) -> None:
        """Commit everything measured, with why the session stopped."""
        self._record(told, now, stopped)

    def _record(self, told: int, now: float, stopped: str | None) -> None:
        if self._context is not None:
            news = {"told": told, "seconds": self.seconds(now), "stopped": stopped}
            self._context.store.amend(self._event, {**self._payload, **news})
        self._due = perf_counter() + _RECORD_EVERY


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


def _identity(payload: Mapping[str, Any]) -> str:
    try:
        return json.dumps([payload["context"], payload["searcher"]], sort_keys=True)
    except TypeError as error:
        raise InputError(
            f"the settings of a searcher must hold only what JSON can: {error}. Got {payload['searcher']!r}"
        ) from error
