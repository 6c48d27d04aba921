"""Studies: many independent repairs, side by side in processes, each result written as it comes.

A study that is stopped keeps what is finished; started again in the same directory it goes on with the rest. The
results are the same whatever the number of processes.
"""

from __future__ import annotations

import multiprocessing
import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fairmend import __version__
from fairmend.errors import FairmendError, InputError, RunError
from fairmend.evaluation import digest
from fairmend.files import is_leftover, read_json, sweep, write_atomically
from fairmend.records import differences
from fairmend.report.tables import defined, json_bytes
from fairmend.runs.progress import Progress
from fairmend.runs.workers import child_environment, follow_parent, no_workers
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.settings import RepairSettings
from fairmend.tabular.studies.outcomes import (
    THRESHOLD_ONLY,
    Outcome,
    measure_repair,
    measure_threshold_only,
    require_test_split,
)

_HEADER = "study.json"
_FOLDER = "repairs"
_LOOK_EVERY = 0.5  # seconds between two looks at the processes


class Subject(Protocol):
    """A network with its data, in memory or as files; it is sent to other processes."""

    def identity(self) -> Mapping[str, Any]:
        """What tells it from others, JSON-ready."""

    def load(self) -> tuple[Network, Dataset]:
        """The network and its data set."""


@dataclass(frozen=True)
class Loaded:
    """A network and a data set in memory."""

    network: Network
    dataset: Dataset

    def identity(self) -> Mapping[str, Any]:
        """Digests of weights and rows."""
        return {"network": self.network.digest(), "dataset": self.dataset.fingerprint()}

    def load(self) -> tuple[Network, Dataset]:
        """Both as they are."""
        return self.network, self.dataset


@dataclass(frozen=True)
class Trial:
    """One repair of a study.

    Attributes:
        name: unique within the study, such as "annealing, seed 3".
        subject: the name of its network.
        settings: how to repair.
        rival: shift the threshold only, instead of repairing.
    """

    name: str
    subject: str
    settings: RepairSettings
    rival: bool = False

    def identity(self, subject: Mapping[str, Any]) -> str:
        """Digest of everything that the outcome depends on."""
        made_by = {"fairmend": __version__, "subject": dict(subject), "settings": self.settings.to_json()}
        return digest(made_by | {"procedure": THRESHOLD_ONLY if self.rival else "repair"})


@dataclass(frozen=True)
class Finished:
    """What a study has.

    Attributes:
        outcomes: by the name of the trial, in the order of the trials; all of them, unless interrupted.
        planned: number of trials.
        kept: how many outcomes an earlier session had written.
        interrupted: whether Ctrl-C ended it early.
    """

    outcomes: Mapping[str, Outcome]
    planned: int
    kept: int
    interrupted: bool


def run_trials(
    kind: str,
    trials: Sequence[Trial],
    subjects: Mapping[str, Subject],
    out: Path | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Finished:
    """Run every trial that is not on record yet.

    Ctrl-C ends the study with what is finished, and so does any error, which is then raised. Input that cannot work
    leaves nothing behind.

    Args:
        kind: what the study is, such as "tabular compare".
        trials: what to do, in the order of the report.
        subjects: the networks that the trials name.
        out: directory of the records; None keeps them in memory only.
        workers: number of processes, one thread each; 1 runs everything in this one.
        progress: counts finished repairs.

    Raises:
        InputError: fewer than one worker.
        RunError: the directory belongs to something else, or cannot be written, or a process died.
        FairmendError: the first that a repair raised.
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    identities = {name: subject.identity() for name, subject in subjects.items()}
    record = None if out is None else _Record(out, kind, identities)
    found: dict[str, Outcome] = {}
    if record is not None:
        for trial in trials:
            outcome = record.read(trial, identities[trial.subject])
            if outcome is not None:
                found[trial.name] = outcome
    kept = len(found)
    rest = [trial for trial in trials if trial.name not in found]
    meter = _Meter(progress, kind, len(trials), kept)
    interrupted = False
    try:
        running = _in_turn(rest, subjects, meter) if workers == 1 else _side_by_side(rest, subjects, workers, meter)
        with closing(running):
            for trial, outcome in running:
                if record is not None:
                    record.write(trial, identities[trial.subject], outcome)
                found[trial.name] = outcome
                meter.finished(trial.name)
    except KeyboardInterrupt:
        interrupted = True
    except InputError:
        if record is not None and not found:
            record.discard()
        raise
    finally:
        meter.close()
    ordered = {trial.name: found[trial.name] for trial in trials if trial.name in found}
    return Finished(ordered, len(trials), kept, interrupted)


def run_trial(trial: Trial, subject: Subject, progress: Progress | None = None) -> Outcome:
    """Do one repair of a study.

    Raises:
        DataError: no rows that the search does not see.
        FairmendError: as `repair_network`.
    """
    network, dataset = subject.load()
    require_test_split(dataset)
    if trial.rival:
        return measure_threshold_only(trial.name, trial.subject, network, dataset, trial.settings)
    return measure_repair(trial.name, trial.subject, network, dataset, trial.settings, progress)


def _in_turn(
    trials: Sequence[Trial], subjects: Mapping[str, Subject], meter: _Meter
) -> Generator[tuple[Trial, Outcome], None, None]:
    for trial in trials:
        yield trial, run_trial(trial, subjects[trial.subject], _Inner(meter, trial.name))


def _side_by_side(
    trials: Sequence[Trial], subjects: Mapping[str, Subject], workers: int, meter: _Meter
) -> Generator[tuple[Trial, Outcome], None, None]:
    with _pool(min(workers, max(1, len(trials)))) as pool:
        try:
            with child_environment():  # processes start when work is handed to them
                waiting: dict[Future[Outcome], Trial] = {
                    pool.submit(run_trial, trial, subjects[trial.subject]): trial for trial in trials
                }
        except OSError as error:
            raise no_workers(error) from error
        while waiting:
            done, _ = wait(waiting, timeout=_LOOK_EVERY, return_when=FIRST_COMPLETED)
            meter.show()
            for future in done:
                trial = waiting.pop(future)
                try:
                    yield trial, future.result()
                except BrokenProcessPool as error:
                    raise RunError(
                        "a worker process died. What is finished is kept: start the study again to go on, with fewer "
                        "workers if memory ran out"
                    ) from error
                except FairmendError as error:
                    error.add_note(f"raised by {trial.name}")
                    raise


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are ended at once when the block is left early."""
    before = set(multiprocessing.active_children())
    try:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=follow_parent)
    except OSError as error:
        raise no_workers(error) from error
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise
    finally:
        pool.shutdown()


class _Record:
    """The directory of a study: what it is, and one file per finished trial."""

    def __init__(self, out: Path, kind: str, subjects: Mapping[str, Mapping[str, Any]]) -> None:
        self._folder = out / _FOLDER
        now = {name: digest(identity) for name, identity in sorted(subjects.items())}
        self._out, self._existed = out, out.exists()
        if self._folder.is_symlink():
            raise RunError(f"{self._folder} is a symbolic link, which leads elsewhere: put the folder itself there")
        try:
            out.mkdir(parents=True, exist_ok=True)
            sweep(out)
            empty = not any(not is_leftover(entry) for entry in out.iterdir())
            known = {} if empty else _read_json(out / _HEADER)
            if known is not None:
                self._folder.mkdir(exist_ok=True)
                sweep(self._folder)
        except OSError as error:
            raise RunError(f"cannot write to {out} ({error.strerror or error}): choose another --out") from error
        if known is None or not isinstance(known.get("subjects", {}), dict):
            raise RunError(f"{out} is not empty and holds no study: choose a new or empty directory for --out")
        before = dict(known.get("subjects", {}))
        shared = before.keys() & now.keys()
        changed = differences({"kind": known.get("kind", kind)}, {"kind": kind})
        changed += differences({name: before[name] for name in shared}, {name: now[name] for name in shared})
        if changed or (before and not shared):
            raise RunError(
                f"{out} belongs to another study ({'; '.join(changed) or 'of other networks'}): choose another "
                "directory for --out, or repeat the study that it holds"
            )
        write_atomically(out / _HEADER, json_bytes({"kind": kind, "subjects": before | now}))

    def discard(self) -> None:
        """Leave nothing behind of a study that could not begin."""
        with suppress(OSError):
            self._folder.rmdir()
            (self._out / _HEADER).unlink()
            if not self._existed:
                self._out.rmdir()

    def read(self, trial: Trial, subject: Mapping[str, Any]) -> Outcome | None:
        """The outcome on record, None if there is none or its file is damaged."""
        identity = trial.identity(subject)
        known = _read_json(self._path(trial, identity))
        if known is None or known.get("identity") != identity:
            return None
        try:
            return Outcome.from_json(known["outcome"]) if known["sha256"] == digest(known["outcome"]) else None
        except (KeyError, TypeError, ValueError):
            return None

    def write(self, trial: Trial, subject: Mapping[str, Any], outcome: Outcome) -> None:
        identity = trial.identity(subject)
        plain = defined(outcome.to_json())
        record = {"identity": identity, "outcome": plain, "sha256": digest(plain)}
        write_atomically(self._path(trial, identity), json_bytes(record))

    def _path(self, trial: Trial, identity: str) -> Path:
        name = re.sub(r"[^a-z0-9.+]+", "-", trial.name.lower()).strip("-")
        return self._folder / f"{name[:80]}-{identity[:10]}.json"


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


class _Meter:
    """Counts finished repairs and guesses how long the rest will take."""

    def __init__(self, progress: Progress | None, title: str, total: int, kept: int) -> None:
        self._progress = progress
        self._total = total
        self._kept = self._done = kept
        self._begun = time.monotonic()
        self._last = ""
        if progress is not None:
            progress.start(total, title)
        self.show()

    def finished(self, name: str) -> None:
        """One more."""
        self._done += 1
        self._last = name
        self.show()

    def show(self, note: str = "") -> None:
        """Say where things stand. The rate is left at 0, because what is counted are repairs, not states."""
        if self._progress is None:
            return
        made, spent = self._done - self._kept, time.monotonic() - self._begun
        eta = spent / made * (self._total - self._done) if made else None
        self._progress.update(self._done, self._total, 0.0, eta, note or (f"finished {self._last}" if made else ""))

    def close(self) -> None:
        """The study has ended."""
        if self._progress is not None:
            self._progress.close()


class _Inner:
    """Shows a repair within a study (`fairmend.runs.Progress`)."""

    def __init__(self, meter: _Meter, name: str) -> None:
        self._meter = meter
        self._name = name

    def start(self, total: int | None, title: str) -> None:
        """Nothing to show yet."""

    def update(self, done: int, total: int | None, rate: float, eta_seconds: float | None, note: str) -> None:
        """Say how far the repair is."""
        of = f" of {total:,}" if total else ""
        self._meter.show(f"{self._name}: {done:,}{of} states")

    def close(self) -> None:
        """The study goes on."""
