"""Independent jobs, such as the repairs of a study: in turn or side by side, each result kept as soon as it is there.

What is finished when a study is stopped is not done again when it is gone on with. The results are the same whatever
the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from fairmend.records import built, plain
from fairmend.runs.journal import RESULT
from fairmend.runs.progress import Progress
from fairmend.runs.store import Store
from fairmend.runs.workers import Task, Workers

FINISHED = f"{RESULT}: finished job"
"""The kind of event that a finished job is in its store."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Job:
    """Something to do.

    Attributes:
        name: unique among the jobs, such as "annealing, seed 3".
        identity: tells it from every other job of its kind: a digest of all that its result depends on.
        arguments: what the work is called with; sent to other processes.
    """

    name: str
    identity: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Finished(Generic[_Result]):
    """What there is of a number of jobs.

    Attributes:
        results: by the name of the job, in the order of the jobs; all of them, unless interrupted.
        planned: number of jobs.
        kept: how many results an earlier session had kept.
        interrupted: whether Ctrl-C ended it early.
    """

    results: Mapping[str, _Result]
    planned: int
    kept: int
    interrupted: bool


def run_jobs(
    work: Callable[..., _Result],
    jobs: Sequence[Job],
    record: type[_Result],
    store: Store | None = None,
    *,
    title: str = "",
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Finished[_Result]:
    """Do every job whose result is not kept yet.

    Ctrl-C ends it with what is finished, and so does any error, which is then raised.

    Args:
        work: called with the arguments of a job and, in this process, a `Progress` named `progress`.
        jobs: what to do, in the order of the report.
        record: the type of results, see `fairmend.records`.
        store: where results are kept; None keeps them in memory only.
        title: of the display.
        workers: who does them; None is this process.
        progress: counts finished jobs.

    Raises:
        RunError: the store cannot be written, or workers cannot be started or die one after the other.
        FairmendError: the first that a job raised.
    """
    found = {} if store is None else _kept(store, jobs, record)
    kept, interrupted = len(found), False
    rest = {job.name: job for job in jobs if job.name not in found}
    meter = _Meter(progress, title, len(jobs), kept)
    try:
        if workers is None or workers.is_here:
            running = _in_turn(work, rest.values(), meter)
        else:
            running = _side_by_side(work, list(rest.values()), workers, meter)
        with closing(running):
            for name, result in running:
                if store is not None:
                    store.record(FINISHED, {"name": name, "identity": rest[name].identity, "result": plain(result)})
                found[name] = result
                meter.finished(name)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        meter.end()
    return Finished({job.name: found[job.name] for job in jobs if job.name in found}, len(jobs), kept, interrupted)


def _kept(store: Store, jobs: Sequence[Job], record: type[_Result]) -> dict[str, _Result]:
    """The results on record; one that cannot be read is done again."""
    known = {event.payload.get("identity"): event.payload.get("result") for event in store.events(FINISHED)}
    found = {}
    for job in jobs:
        if job.identity in known:
            with suppress(ValueError):
                found[job.name] = built(known[job.identity], record)
    return found


def _in_turn(
    work: Callable[..., _Result], jobs: Iterable[Job], meter: _Meter
) -> Generator[tuple[str, _Result], None, None]:
    for job in jobs:
        meter.begun(job.name)
        yield job.name, work(*job.arguments, progress=meter)


def _side_by_side(
    work: Callable[..., _Result], jobs: Sequence[Job], workers: Workers, meter: _Meter
) -> Generator[tuple[str, _Result], None, None]:
    tasks = (Task(work, job.arguments, partial("raised by {}".format, job.name), timed=False) for job in jobs)
    with closing(workers.do(tasks, meter.show)) as results:
        for done in results:
            yield jobs[done.number].name, done.result


class _Meter:
    """Counts finished jobs, guesses how long the rest will take, and is the `Progress` of the one that is running.

    The rate is left at 0, because what is counted are jobs, not states.
    """

    def __init__(self, progress: Progress | None, title: str, total: int, kept: int) -> None:
        self._progress, self._total = progress, total
        self._kept = self._done = kept
        self._started = time.monotonic()
        self._running = self._note = ""
        if progress is not None:
            progress.start(total, title)
        self.show()

    def begun(self, name: str) -> None:
        """A job begins, whose progress is told here."""
        self._running = name

    def finished(self, name: str) -> None:
        """One more."""
        self._done, self._note = self._done + 1, f"finished {name}"
        self.show()

    def show(self, note: str = "") -> None:
        """Say where things stand."""
        if self._progress is not None:
            made, spent = self._done - self._kept, time.monotonic() - self._started
            eta = spent / made * (self._total - self._done) if made else None
            self._progress.update(self._done, self._total, 0.0, eta, note or self._note)

    def end(self) -> None:
        """All jobs have ended."""
        if self._progress is not None:
            self._progress.close()

    def start(self, total: int | None, title: str) -> None:
        """Nothing to show of the running job yet."""

    def update(self, done: int, total: int | None, rate: float, eta_seconds: float | None, note: str) -> None:
        """Say how far the running job is."""
        self.show(f"{self._running}: {done:,}{f' of {total:,}' if total else ''} states")

    def close(self) -> None:
        """The next job follows."""
