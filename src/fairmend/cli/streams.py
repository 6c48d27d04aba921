"""Standard output and error: writable whatever their encoding, and what happens when they are not."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

FAILED = 1
DEFECT = (
    "This is a defect of fairmend, not of your input. Please report it: the lines above, and what `fairmend doctor` "
    "prints."
)
"""Noted on exceptions that nobody foresaw."""


@contextmanager
def streams() -> Iterator[None]:
    """Standard streams on which every text can be written, whatever their encoding, also where they were closed.

    Inside, only what is written without a `Screen` (help, usage errors) raises OSError unanswered: it becomes a message
    and exit code 1.
    """
    _reopen_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except OSError as error:
        if DEFECT in getattr(error, "__notes__", ()):
            raise
        abandon_output()
        with suppress(OSError):
            sys.stderr.write(f"Error: standard output cannot be written ({error.strerror or error}).\n")
        sys.exit(FAILED)


def abandon_output() -> None:
    """Let what is still to be written to standard output, at the latest when Python ends, go nowhere."""
    with suppress(OSError, ValueError):  # no file at all, in tests
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _reopen_closed() -> None:
    """Put something behind closed standard streams, or the next file that is opened would take their place.

    What is written to standard output then fails, as it should: nobody sees it.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest number that is free, which is this one
    if sys.stdout is None:
        sys.stdout = _unclosed(1)
    if sys.stderr is None:
        sys.stderr = _unclosed(2)


def _unclosed(number: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", write_through=True)
