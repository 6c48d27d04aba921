"""Who measures a batch, and what worker processes need: one thread each, and an end with their parent.

Processes, not threads: threads that spin while they wait cost a busy machine several times their work. Each process
computes on one thread, so that figures do not depend on how many there are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias

from fairmend.errors import RunError
from fairmend.evaluation import Evaluator, Measurement, digest
from fairmend.masks import Mask
from fairmend.threads import THREAD_VARIABLES

Keep: TypeAlias = Callable[[Sequence[Mask], Sequence[Measurement]], None]
"""Called with each part of a batch as soon as it is measured, before any error is raised."""

STOPPING: tuple[signal.Signals, ...] = (
    (signal.SIGINT, signal.SIGTERM) if sys.platform == "win32" else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
)
"""The signals that stop a run. They may reach a whole group of processes; only the parent answers them."""


class Workers(Protocol):
    """Measures batches of masks."""

    @property
    def size(self) -> int:
        """How many masks are measured at the same time."""

    @property
    def digest(self) -> str:
        """Digest of the fingerprint of whoever measures."""

    def measure(self, masks: Sequence[Mask], keep: Keep | None = None) -> list[Measurement]:
        """One measurement per mask, in order."""


class InProcess:
    """Measures in this process."""

    size = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    @property
    def digest(self) -> str:
        """Digest of the evaluator's fingerprint."""
        return digest(self._evaluator.fingerprint())

    def measure(self, masks: Sequence[Mask], keep: Keep | None = None) -> list[Measurement]:
        """One measurement per mask, in order.

        Raises:
            RunError: the evaluator broke its promise of one measurement per mask.
        """
        measurements = self._evaluator.measure(masks)
        _require_all(self._evaluator, masks, measurements)
        if keep is not None:
            keep(masks, measurements)
        return measurements


def follow_parent() -> None:
    """What a worker process does first: leave the signals that stop a run to its parent, and end when that ends."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # a pipe that the operating system closes with the parent, however that ends
        os._exit(1)


def no_workers(error: OSError) -> RunError:
    """The error that says why processes cannot be started."""
    return RunError(
        f"worker processes cannot be started ({error.strerror or error}): they need the right to start processes and "
        "room in a writable /dev/shm. Give them that, or do the work in one process (--workers 1)"
    )


def _require_all(evaluator: Evaluator, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
    if len(measurements) != len(masks):
        raise RunError(
            f"{type(evaluator).__name__} returned {len(measurements)} measurements for {len(masks)} masks; "
            "an evaluator must return one per mask, in order"
        )


@contextmanager
def child_environment() -> Iterator[None]:
    """Start processes with one thread each, and with signals held back until they can ignore them."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    held = set[signal.Signals | int]()
    if sys.platform != "win32":
        # The tracker that spawning starts would lift the hold on signals, so it has to run already.
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
