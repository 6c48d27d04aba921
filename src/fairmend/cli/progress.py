"""How far a long step is, on standard error: a bar on a terminal, an occasional plain line elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fairmend.escaping import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

QUICK = 2.0
"""Seconds that a step may take before anything is said about it."""
LINE_EVERY = 10.0
"""Seconds between two plain lines."""


class Steps:
    """Shows one long step at a time. Implements `fairmend.runs.Progress`, so that a search can be shown by it.

    Args:
        console: writes to standard error.
        quiet: show nothing.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._title = ""
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._begun = 0.0
        self._due = 0.0

    def start(self, total: int | None, title: str) -> None:
        """A step named `title` of `total` parts begins; None when nobody knows how many."""
        self.close()
        self._title = visible(title)
        self._begun = time.monotonic()
        self._due = self._begun + QUICK
        if not self._quiet and self._console.is_terminal:
            self._bar, self._task = _bar(self._console, self._title, total)

    def update(
        self, done: int, total: int | None, rate: float = 0.0, eta_seconds: float | None = None, note: str = ""
    ) -> None:
        """`done` of `total` parts are done, at `rate` per second, with `eta_seconds` to go."""
        if self._bar is not None and self._task is not None:
            text = "  ".join(part for part in (_speed(rate), _left(eta_seconds), visible(note)) if part)
            self._bar.update(self._task, completed=done, total=total, text=text)
            return
        now = time.monotonic()
        if self._quiet or now < self._due:
            return
        self._due = now + LINE_EVERY
        of = f" of {total:,}" if total else ""
        parts = [f"{self._title}: {done:,}{of}", _speed(rate), _left(eta_seconds), visible(note)]
        line = ", ".join(part for part in parts if part)
        self._console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """The step has ended, for whatever reason."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def download(self, done: int, total: int | None) -> None:
        """Show a download that has `done` bytes of `total`."""
        self._advance("downloading", done, total, " MB", 1e6)

    def training(self, epoch: int, epochs: int, figure: float) -> None:
        """Show a training that has finished `epoch` of `epochs`, with the validation figure reached."""
        self._advance(
            "training the preset's own network", epoch, epochs, " epochs", 1, f"validation figure {figure:.3f}"
        )

    def _advance(self, title: str, done: int, total: int | None, unit: str, size: float, note: str = "") -> None:
        if self._title != title or not self._begun:
            self.start(None if total is None else round(total / size), title)
        seconds = time.monotonic() - self._begun
        rate = done / seconds if seconds > 0 else 0.0
        left = (total - done) / rate if total is not None and rate > 0 else None
        counted = f"{done / size:.0f}" + (f" of {total / size:.0f}" if total is not None else "") + unit
        note = f"{counted}  {note}".strip() if self._bar is not None else note
        self.update(round(done / size), None if total is None else round(total / size), 0.0, left, note)
        if total is not None and done >= total:
            self.close()
            self._begun = 0.0


def _bar(console: Console, title: str, total: int | None) -> tuple[Bar, TaskID]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
        transient=True,
    )
    bar.start()
    return bar, bar.add_task(title, total=total, text="")


def _speed(rate: float) -> str:
    if rate <= 0:
        return ""
    return f"{rate:,.0f} a second" if rate >= 1 else f"{1 / rate:,.0f} s each"


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s left" if minutes else f"{rest} s left"
