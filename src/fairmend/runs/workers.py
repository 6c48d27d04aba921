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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias, TypeVar

from fairmend.errors import FairmendError, RunError
from fairmend.evaluation import Evaluator, Measurement, digest
from fairmend.masks import Mask
from fairmend.threads import THREAD_VARIABLES

Keep: TypeAlias = Callable[[Sequence[Mask], Sequence[Measurement]], None]
"""Called with each part of a batch as soon as it is measured, before any error is raised."""

STOPPING: tuple[signal.Signals, ...] = (
    (signal.SIGINT, signal.SIGTERM) if sys.platform == "win32" else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
)
"""The signals that stop a run. They may reach a whole group of processes; only the parent answers them."""

_LOOK_EVERY = 0.5  # seconds between two looks at the processes
_Result = TypeVar("_Result")


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
    """Measures in this process.

    Args:
        evaluator: who measures.
        size: how many masks are best handed over at a time.
    """

    def __init__(self, evaluator: Evaluator, size: int = 1) -> None:
        self._evaluator = evaluator
        self.size = size

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
        if len(measurements) != len(masks):
            raise RunError(
                f"{type(self._evaluator).__name__} returned {len(measurements)} measurements for {len(masks)} masks; "
                "an evaluator must return one per mask, in order"
            )
        if keep is not None:
            keep(masks, measurements)
        return measurements


def side_by_side(
    work: Callable[..., _Result], jobs: Mapping[str, tuple[Any, ...]], workers: int, look: Callable[[], None]
) -> Generator[tuple[str, _Result], None, None]:
    """Do independent jobs in processes of one thread each, and give every name and result as soon as it is there.

    Closing the generator ends the processes at once.

    Args:
        work: called with the arguments of a job; a function that other processes can import.
        jobs: arguments by name.
        workers: number of processes.
        look: called at least twice a second.

    Raises:
        RunError: processes cannot be started, or one died.
        FairmendError: what a job raised, with a note that names it.
    """
    with _pool(min(workers, max(1, len(jobs)))) as pool:
        try:
            with child_environment():  # processes start when work is handed to them
                waiting = {pool.submit(work, *arguments): name for name, arguments in jobs.items()}
        except OSError as error:
            raise _no_workers(error) from error
        while waiting:
            done, _ = wait(waiting, timeout=_LOOK_EVERY, return_when=FIRST_COMPLETED)
            look()
            for future in done:
                name = waiting.pop(future)
                try:
                    yield name, future.result()
                except BrokenProcessPool as error:
                    raise RunError(
                        "a worker process died. What is finished is kept: start the study again to go on, with fewer "
                        "workers if memory ran out"
                    ) from error
                except FairmendError as error:
                    error.add_note(f"raised by {name}")
                    raise


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are ended at once when the block is left early."""
    before = set(multiprocessing.active_children())
    try:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_follow_parent)
    except OSError as error:
        raise _no_workers(error) from error
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise
    finally:
        pool.shutdown()


def _follow_parent() -> None:
    """What a worker process does first: leave the signals that stop a run to its parent, and end when that ends."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # a pipe that the operating system closes with the parent, however that ends
        os._exit(1)


def _no_workers(error: OSError) -> RunError:
    return RunError(
        f"worker processes cannot be started ({error.strerror or error}): they need the right to start processes and "
        "room in a writable /dev/shm. Give them that, or do the work in one process (--workers 1)"
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
