"""Who measures a batch: this process, or several processes that each hold an evaluator of their own.

Processes, not threads: threads that spin while they wait cost a busy machine several times their work. Each process
computes on one thread, so that figures do not depend on how many there are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from fairmend.errors import FairmendError, InputError, RunError
from fairmend.evaluation import Evaluator, Measurement, digest
from fairmend.masks import Mask

Keep: TypeAlias = Callable[[Sequence[Mask], Sequence[Measurement]], None]
"""Called with each part of a batch as soon as it is measured, before any error is raised."""

_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to close."""


class Processes:
    """Measures in `n` processes, each with an evaluator that `factory` builds there once.

    A batch is cut into contiguous parts and worker i always gets part i, so that an evaluator that remembers its last
    state keeps seeing neighbours of it.

    Args:
        factory: builds the evaluator; a function at the top level of an importable module, or a `functools.partial`
            of one.
        n: number of processes.

    Raises:
        InputError: n < 1, or a factory that cannot be sent to another process.
        RunError: a worker could not build its evaluator, or the workers' fingerprints differ.
    """

    def __init__(self, factory: Callable[[], Evaluator], n: int) -> None:
        if n < 1:
            raise InputError(f"the number of worker processes must be at least 1, got {n!r}")
        self._n = n
        self._workers: list[tuple[SpawnProcess, Connection]] = []
        try:
            with child_environment():
                for _ in range(n):
                    self._workers.append(_start(factory))
            digests = [self._receive(index) for index in range(n)]
            failures = [answer for answer in digests if isinstance(answer, Exception)]
            if failures:
                raise failures[0]
            if len(set(digests)) > 1:
                raise RunError(
                    f"the {n} workers built evaluators with different fingerprints: {digests}. "
                    "The factory must build the same evaluator every time: fix its seeds and read the same files"
                )
            self.digest = str(digests[0])
        except BaseException:
            self._terminate()
            raise

    @property
    def size(self) -> int:
        """The number of processes."""
        return self._n

    def measure(self, masks: Sequence[Mask], keep: Keep | None = None) -> list[Measurement]:
        """One measurement per mask, in order, the same whatever the number of processes.

        Raises:
            RunError: a worker died, or the workers are closed. What the others measured was handed to `keep`.
            FairmendError: what the evaluator raised in a worker, with the worker's traceback as a note; an exception
            of another kind comes as a `RunError` that quotes it.
        """
        if not self._workers:
            raise RunError("the worker processes are closed: make new ones to go on")
        parts = _parts(masks, self._n)
        failure: Exception | None = None
        measurements: list[Measurement] = []
        try:
            for (_, connection), part in zip(self._workers, parts, strict=False):
                with suppress(OSError):  # a worker that is gone is named below
                    connection.send(part)
            for index, part in enumerate(parts):
                answer = self._receive(index)
                if isinstance(answer, list):
                    measurements += answer
                    if keep is not None:
                        keep(part, answer)
                elif failure is None:
                    failure = answer if isinstance(answer, Exception) else RunError(f"worker answered {answer!r}")
        except BaseException:
            # Answers may be under way, which would be taken for those of the next batch.
            self._terminate()
            raise
        if failure is not None:
            if not all(process.is_alive() for process, _ in self._workers):
                self._terminate()
            raise failure
        return measurements

    def _receive(self, index: int) -> object:
        """The answer of a worker: a fingerprint's digest, measurements, or the exception to raise."""
        process, connection = self._workers[index]
        try:
            answer: object = connection.recv()
        except (EOFError, OSError):
            process.join(5.0)
            return RunError(
                f"worker {index + 1} of {self._n} (process {process.pid}) died {_reason(process.exitcode)}. "
                "Everything measured before is kept: resume the run, with fewer workers if memory ran out"
            )
        if isinstance(answer, Exception):
            answer.add_note(f"raised in worker {index + 1} of {self._n} (process {process.pid})")
        return answer

    def close(self) -> None:
        """End the processes and wait for them."""
        workers, self._workers = self._workers, []
        for _, connection in workers:
            connection.close()  # a worker ends when its pipe does
        for process, _ in workers:
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()

    def _terminate(self) -> None:
        for process, _ in self._workers:
            process.kill()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._terminate()


def _start(factory: Callable[[], Evaluator]) -> tuple[SpawnProcess, Connection]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_work, args=(factory, theirs), daemon=True)
    try:
        process.start()
    except OSError as error:
        ours.close()
        raise no_workers(error) from error
    except Exception as error:  # pickling raises all kinds
        ours.close()
        raise InputError(
            f"the evaluator's factory {factory!r} cannot be sent to a worker process ({error}): "
            "use a function at the top level of a module, or a functools.partial of one"
        ) from error
    finally:
        theirs.close()  # so that a worker's death closes the pipe
    return process, ours


def _work(factory: Callable[[], Evaluator], connection: Connection) -> None:
    """The life of a worker: build the evaluator, then answer batches until the pipe closes."""
    follow_parent()
    with suppress(EOFError, OSError):
        try:
            evaluator = factory()
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
            connection.send(digest(evaluator.fingerprint()))
        except Exception as error:
            connection.send(_portable(error))
            return
        while True:
            masks = connection.recv()
            try:
                measurements = evaluator.measure(masks)
                _require_all(evaluator, masks, measurements)
            except Exception as error:
                connection.send(_portable(error))
            else:
                connection.send(measurements)


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


def _portable(error: Exception) -> Exception:
    """An exception that can be sent to the parent: ours as it is, any other as a `RunError` that quotes it."""
    sent = type(error)(str(error)) if isinstance(error, FairmendError) else RunError(f"{type(error).__name__}: {error}")
    sent.add_note("".join(traceback.format_exception(error)))
    return sent


def _require_all(evaluator: Evaluator, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
    if len(measurements) != len(masks):
        raise RunError(
            f"{type(evaluator).__name__} returned {len(measurements)} measurements for {len(masks)} masks; "
            "an evaluator must return one per mask, in order"
        )


def _parts(masks: Sequence[Mask], n: int) -> list[Sequence[Mask]]:
    """Contiguous parts, at most `n`, none empty, whose lengths differ by one at most."""
    n = min(n, len(masks))
    share, rest = divmod(len(masks), n) if n else (0, 0)
    starts = [index * share + min(index, rest) for index in range(n + 1)]
    return [masks[start:stop] for start, stop in pairwise(starts)]


def _reason(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        with suppress(ValueError):
            return f"by signal {signal.Signals(-exitcode).name}"
    return f"with exit code {exitcode}"


@contextmanager
def child_environment() -> Iterator[None]:
    """Start processes with one thread each, and with signals held back until they can ignore them."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    held = set[signal.Signals | int]()
    if sys.platform != "win32":
        # The tracker that spawning starts would lift the hold on signals, so it has to run already.
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
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
