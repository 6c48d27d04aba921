"""What is done by whom: tasks, and the protocol of those who do them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """Something to do that depends on nothing but itself, so that it may be done again.

    Attributes:
        work: called with the arguments. It is sent to each worker once, pickled, and called there for many tasks.
        arguments: of this task, pickled.
        described: what is being done, for errors.
        size: how many things are done, such as masks measured, for the throughput.
        timed: whether tasks like it take about as long as each other, so that one that takes far longer hangs.
    """

    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    described: Callable[[], str]
    size: int = 1
    timed: bool = True


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task.

    Attributes:
        number: of the task, from 0 on.
        task: the task.
        result: what its work returned.
        seconds: how long that took where it was done.
    """

    number: int
    task: Task
    result: Any
    seconds: float


@dataclass
class Throughput:
    """What one worker has done.

    Attributes:
        worker: its name.
        done: things done, such as masks measured.
        seconds: spent on them.
    """

    worker: str
    done: int = 0
    seconds: float = 0.0

    def add(self, done: Done) -> None:
        """Count a task."""
        self.done += done.task.size
        self.seconds += done.seconds


class Workers(Protocol):
    """Do tasks. The results do not depend on who does them, nor on how many there are."""

    is_here: bool
    """Whether tasks are done one by one in this process."""
    notes: list[str]
    """What a person should know: that something was done in this process although there are others, and why."""

    def do(self, tasks: Iterable[Task], look: Callable[[], None] = lambda: None) -> Generator[Done, None, None]:
        """Do tasks, taking the next one whenever a worker is free, and give each as soon as it is done, in any order.

        Closing the generator ends what is being done.

        Args:
            tasks: what to do.
            look: called at least twice a second where tasks are done elsewhere, before each task where they are here.

        Raises:
            RunError: workers cannot be started, or one task was the end of several.
            Exception: what a task raised, with a note of what was being done, and by whom.
        """

    def remark(self, note: str) -> None:
        """Note something that a person should know; once, however often it is said."""

    def throughput(self) -> list[Throughput]:
        """What each worker has done so far."""

    def close(self) -> None:
        """End all workers."""


@dataclass
class InProcess:
    """Does tasks in this process, one after the other."""

    is_here = True
    notes: list[str] = field(default_factory=list)

    def do(self, tasks: Iterable[Task], look: Callable[[], None] = lambda: None) -> Generator[Done, None, None]:
        """See `Workers`."""
        for number, task in enumerate(tasks):
            look()
            begun = perf_counter()
            try:
                result = task.work(*task.arguments)
            except Exception as error:
                error.add_note(task.described())
                raise
            yield Done(number, task, result, perf_counter() - begun)

    def remark(self, note: str) -> None:
        """Nothing to remark: everything is done here."""

    def throughput(self) -> list[Throughput]:
        """Nothing to tell apart."""
        return []

    def close(self) -> None:
        """Nothing to end."""
