"""What a worker does with a message, wherever it is.

Messages are pickled: they go from a process to those that it started, or that share a token with it. No file is read
this way.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeAlias

from fairmend.errors import FairmendError, RunError

Answer: TypeAlias = tuple[Any, Exception | None, float]
"""The result, what was raised instead, and the seconds that it took."""

_place: int | None = None


class Service:
    """The works that a worker has received, each unpickled once.

    Args:
        number: of the worker among those of its kind, from 0 on.
    """

    def __init__(self, number: int) -> None:
        global _place  # noqa: PLW0603 - a process is one worker
        _place = number
        self._works: dict[str, Callable[..., Any]] = {}

    def answer(self, key: str, work: bytes | None, arguments: tuple[Any, ...]) -> Answer:
        """Do one task.

        Args:
            key: of the work.
            work: pickled; None if it was received before.
            arguments: of the task.
        """
        begun = perf_counter()
        try:
            if key not in self._works:
                assert work is not None
                self._works[key] = pickle.loads(work)  # from the process that started this one
            begun = perf_counter()  # getting ready is not what the task takes
            return self._works[key](*arguments), None, perf_counter() - begun
        except Exception as error:
            return None, _portable(error), perf_counter() - begun


def pack(work: Callable[..., Any]) -> bytes:
    """A work as it is sent.

    Raises:
        RunError: it is made of something that other processes cannot have.
    """
    try:
        return pickle.dumps(work)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise RunError(
            f"{work!r} cannot be sent to other processes ({error}): define what it is made of in a module, or do the "
            "work in one process (--workers 1)"
        ) from error


def place() -> int | None:
    """The number of the worker that this process is, from 0 on; None where it is none."""
    return _place


def _portable(error: Exception) -> Exception:
    """The error, or one like it, as other processes can read it."""
    trace = "".join(traceback.format_exception(error)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        # What is no error of ours stays a defect, with its traceback, and is not taken for a message to the user.
        kind = RunError if isinstance(error, FairmendError) else RuntimeError
        error = kind(f"{type(error).__name__}: {error}")
    if not isinstance(error, FairmendError):
        error.add_note(trace)
    return error
