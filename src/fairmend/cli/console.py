"""The consoles that a command writes to: texts appear as they are, and nothing in them is carried out."""

from __future__ import annotations

import errno
import os
import sys
from typing import IO, Any, cast

from rich.console import Console
from rich.text import Text

from fairmend.escaping import visible


class PlainConsole(Console):
    """A console without markup, emoji codes and control characters in texts, cells and titles.

    A line break is kept at the end of a text only: a name cannot begin a line of its own.

    Args:
        stderr: write to standard error. What cannot be written there is dropped, because nobody would be told.
        width: columns; None for those of the terminal.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        file = None
        if stderr and sys.stderr is not None:
            file = cast("IO[str]", _Dropping(sys.stderr))
        super().__init__(file=file, stderr=stderr, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every text, cell and title becomes rich's text here."""
        line = text.rstrip("\n")
        return super().render_str(visible(line) + text[len(line) :], **options)

    def on_broken_pipe(self) -> None:
        """The reader has gone: tell the caller, who knows what that means, instead of leaving."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class _Dropping:
    """A stream whose writing never fails: a search does not end because nobody can read how far it is."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
