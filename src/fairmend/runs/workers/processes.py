"""Workers that are processes of this machine: one thread each unless asked otherwise, and an end with their parent.

Processes, not threads: threads that spin while they wait cost a busy machine several times their work. Each process
computes on as many threads as this one was told to, so that figures do not depend on how many processes there are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from fairmend.errors import RunError
from fairmend.runs.workers.crew import WorkerLost
from fairmend.runs.workers.service import Answer, Service
from fairmend.threads import THREAD_VARIABLES

STOPPING: tuple[signal.Signals, ...] = (
    (signal.SIGINT, signal.SIGTERM) if sys.platform == "win32" else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
)
"""The signals that stop a run. They may reach a whole group of processes; only the parent answers them."""

_Message = tuple[str, bytes | None, tuple[Any, ...]]


class LocalProcesses:
    """Hires processes of this machine, see `Hiring`.

    Args:
        count: how many.
        threads: of each.
    """

    def __init__(self, count: int, threads: int = 1) -> None:
        self._count = count
        self._threads = threads

    def places(self) -> int:
        """See `Hiring`."""
        return self._count

    def hire(self, number: int) -> LocalProcess:
        """See `Hiring`."""
        try:
            with child_environment(self._threads):
                return LocalProcess(number)
        except OSError as error:
            raise RunError(
                f"worker processes cannot be started ({error.strerror or error}): they need the right to start "
                "processes. Give them that, or do the work in one process (--workers 1)"
            ) from error

    def wait(self, hands: Sequence[LocalProcess], seconds: float) -> list[LocalProcess]:
        """See `Hiring`."""
        ready = set(wait([hand.connection for hand in hands], seconds))
        return [hand for hand in hands if hand.connection in ready]

    def close(self) -> None:
        """See `Hiring`."""


class LocalProcess:
    """A process of this machine, see `Hand`."""

    is_ready = True
    is_gone = False

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, number), daemon=True)
        self._process.start()
        theirs.close()
        self.name = f"process {number + 1}"
        self._known: set[str] = set()

    def give(self, key: str, work: bytes, arguments: tuple[Any, ...]) -> None:
        """See `Hand`."""
        message: _Message = (key, None if key in self._known else work, arguments)
        try:
            self.connection.send(message)
        except OSError as error:
            raise WorkerLost("it ended") from error
        self._known.add(key)

    def take(self) -> Answer:
        """See `Hand`."""
        try:
            answer: Answer = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(1.0)
            self.is_ready, self.is_gone = False, True
            code = self._process.exitcode
            raise WorkerLost(f"ended by {signal.Signals(-code).name}" if code and code < 0 else "it ended") from None
        return answer

    def end(self) -> None:
        """See `Hand`."""
        self.is_ready, self.is_gone = False, True
        self.connection.close()
        with suppress(ValueError):  # closed before
            self._process.kill()
            self._process.join()
            self._process.close()


def _serve(connection: Connection, number: int) -> None:
    """What a worker process does: answer until its parent hangs up."""
    for stopping in STOPPING:
        signal.signal(stopping, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    service = Service(number)
    while True:
        try:
            message: _Message = connection.recv()
        except EOFError:
            return
        connection.send(service.answer(*message))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # a pipe that the operating system closes with the parent, however that ends
        os._exit(1)


@contextmanager
def child_environment(threads: int = 1) -> Iterator[None]:
    """Start processes with so many threads each, and with signals held back until they can ignore them."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    held = set[signal.Signals | int]()
    if sys.platform != "win32":
        # The tracker that spawning starts would lift the hold on signals, so it has to run already.
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
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
