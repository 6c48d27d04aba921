"""What earlier sessions of a search did, and the record of the current one.

A session is one call of `Runner.run`. A search that was stopped or killed and resumed has several; together they have
one budget. Each keeps one event in the store, brought up to date with every commit, so that a kill loses little of it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from fairmend.errors import InputError
from fairmend.runs.collection import Collection
from fairmend.runs.context import Context
from fairmend.runs.database import damaged

_KIND = "session"
_RECORD_EVERY = 0.5


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


def _identity(payload: Mapping[str, Any]) -> str:
    try:
        return json.dumps([payload["context"], payload["searcher"]], sort_keys=True)
    except TypeError as error:
        raise InputError(
            f"the settings of a searcher must hold only what JSON can: {error}. Got {payload['searcher']!r}"
        ) from error
