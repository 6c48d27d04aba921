"""What a person sees of a run: how far it is, how fast, and how long it will take."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Protocol

PROGRESS_EVERY = 0.1
"""Seconds between two updates, at least."""


class Progress(Protocol):
    """Shows a run. A command line draws a bar; a test keeps a list. Called at most about ten times a second."""

    def start(self, total: int | None, title: str) -> None:
        """A search named `title` begins; `total` is its budget of states, None when only time limits it."""

    def update(self, done: int, total: int | None, rate: float, eta_seconds: float | None, note: str) -> None:
        """`done` states are told.

        Args:
            done, total: states told so far, and the budget of states if there is one.
            rate: states per second since the run reached new ground; 0.0 while it only replays what is stored.
            eta_seconds: expected seconds until the budget is used up; None when unknown.
            note: what the caller of the run wants shown beside it, such as the best figures so far.
        """

    def close(self) -> None:
        """The run has ended, for whatever reason."""


class Meter:
    """Rate and remaining time of one run, shown through an optional `Progress`.

    Args:
        progress: where to show them; None shows nothing.
        title: name of the search.
        total: the budget of states, None when only time limits the run.
        replayed: states that earlier sessions have told already. They come from the store within microseconds, so
            that they are left out of the rate.
        note: called for the text beside each update.
    """

    def __init__(
        self, progress: Progress | None, title: str, total: int | None, replayed: int, note: Callable[[], str] | None
    ) -> None:
        self._progress = progress
        self._total = total
        self._replayed = replayed
        self._note = note
        if progress is not None:
            progress.start(total, title)

    def show(self, done: int, seconds: float, remaining: float | None) -> None:
        """Show `done` states after `seconds` on new ground, with `remaining` seconds in the budget if it has any."""
        if self._progress is None:
            return
        rate = (done - self._replayed) / seconds if seconds > 0 and done > self._replayed else 0.0
        ends = [] if remaining is None else [max(remaining, 0.0)]
        if rate > 0 and self._total is not None:
            ends.append(max(self._total - done, 0) / rate)
        note = "" if self._note is None else self._note()
        self._progress.update(done, self._total, rate, min(ends, default=None), note)

    def close(self) -> None:
        """End the display."""
        if self._progress is not None:
            self._progress.close()


class Stages:
    """Shows the stages of a long piece of work one after the other: call it, inside a with-block, with how far each is.

    Args:
        progress: where to show them; None shows nothing.
        prefix: of every title.
    """

    def __init__(self, progress: Progress | None, prefix: str = "") -> None:
        self._progress, self._prefix = progress, prefix
        self._stage = ""
        self._meter: Meter | None = None
        self._begun = self._last = self._due = perf_counter()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` parts of `stage` are done; it began when the stage before it was heard of last."""
        now = perf_counter()
        if self._meter is None or stage != self._stage:
            self.close()
            self._stage, self._begun, self._due = stage, self._last, now
            self._meter = Meter(self._progress, self._prefix + stage, total, 0, None)
        if now >= self._due or done == total:
            self._meter.show(done, now - self._begun, None)
            self._due = now + PROGRESS_EVERY
        self._last = now

    def of(self, stage: str) -> Callable[[int, int], None]:
        """The same for one stage, which begins now."""
        self._last = perf_counter()
        return lambda done, total: self(stage, done, total)

    def close(self) -> None:
        """End the display."""
        if self._meter is not None:
            self._meter.close()
            self._meter = None

    def __enter__(self) -> Stages:
        self._last = perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
