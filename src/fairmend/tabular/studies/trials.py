"""Trials: the independent repairs that a study is made of.

A study that is stopped keeps what is finished; started again in the same directory it goes on with the rest. The
results are the same whatever the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from threadpoolctl import threadpool_limits

from fairmend import __version__
from fairmend.errors import DataError
from fairmend.evaluation import digest
from fairmend.records import Kind
from fairmend.runs.directories import open_directory, tidy
from fairmend.runs.jobs import Finished, Job, run_jobs
from fairmend.runs.progress import Progress
from fairmend.runs.store import Store
from fairmend.runs.workers import Workers
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.findings import Comparison
from fairmend.tabular.networks.baking import bake
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.judging import judge_splits
from fairmend.tabular.repair.repair import Repair, repair_network, require_fit
from fairmend.tabular.repair.rivals import ThresholdShift, shift_threshold
from fairmend.tabular.repair.settings import RepairSettings
from fairmend.tabular.studies.outcomes import THRESHOLD_ONLY, Outcome, SearchFigures


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
class Session:
    """How a study is run, and where its results are kept.

    Attributes:
        out: directory of the run, so that the study can be gone on with; None keeps results in memory only.
        workers: who does the repairs; None is this process.
        progress: counts finished repairs.
        request: JSON-ready: how the person asked for the study, so that it can be resumed.
    """

    out: Path | None = None
    workers: Workers | None = None
    progress: Progress | None = None
    request: Mapping[str, Any] = field(default_factory=dict)


def run_trials(
    kind: Kind,
    trials: Sequence[Trial],
    subjects: Mapping[str, Subject],
    session: Session | None = None,
    *,
    several: bool = False,
) -> Finished[Outcome]:
    """Run every trial that is not on record yet.

    Ctrl-C ends the study with what is finished, and so does any error, which is then raised. Input that cannot work
    leaves nothing behind.

    Args:
        kind: what the study is.
        trials: what to do, in the order of the report.
        subjects: the networks that the trials name.
        session: how to run them.
        several: whether studies of other networks may share the directory.

    Raises:
        RunError: the directory belongs to something else, or cannot be written, or workers were lost in a row.
        FairmendError: the first that a repair raised.
    """
    session = session or Session()
    known = {name: dict(subject.identity()) for name, subject in subjects.items()}
    jobs = [Job(trial.name, trial.identity(known[trial.subject]), (trial, subjects[trial.subject])) for trial in trials]

    def run(store: Store | None = None) -> Finished[Outcome]:
        return run_jobs(
            run_trial, jobs, Outcome, store, title=kind.name, workers=session.workers, progress=session.progress
        )

    if session.out is None:
        return run()
    networks = {} if several else {name: digest(identity) for name, identity in known.items()}
    header = {"kind": kind.name, "fairmend": __version__, "networks": networks, "request": dict(session.request)}
    with tidy(session.out), closing(open_directory(session.out, header, identity=("kind", "networks"))) as store:
        return run(store)


def run_on_one(
    kind: Kind,
    network: Network,
    dataset: Dataset,
    repairs: Mapping[str, RepairSettings],
    rival: RepairSettings,
    session: Session | None = None,
) -> Finished[Outcome]:
    """Run the trials of one network, by name, and last the one that only shifts its threshold.

    Raises:
        DataError: a data set that does not fit the network, or has no test rows.
        InputError, RunError, FairmendError: as `run_trials`.
    """
    require_fit(network, dataset)
    require_test_split(dataset)
    for settings in repairs.values():
        settings.space(network)  # refuses size limits that the network cannot meet
    subject = "network"
    trials = [Trial(name, subject, settings) for name, settings in repairs.items()]
    trials.append(Trial(THRESHOLD_ONLY, subject, rival, rival=True))
    return run_trials(kind, trials, {subject: Loaded(network, dataset)}, session)


def run_trial(trial: Trial, subject: Subject, progress: Progress | None = None) -> Outcome:
    """Do one repair of a study, or shift the threshold and drop nothing.

    Raises:
        KeyboardInterrupt: the search was stopped by Ctrl-C: half a search is no result.
        DataError: no rows that the search does not see.
        FairmendError: as `repair_network` and `shift_threshold`.
    """
    network, dataset = subject.load()
    require_test_split(dataset)
    settings = trial.settings
    if trial.rival:
        with threadpool_limits(1):
            begun = time.process_time()
            shift = shift_threshold(network, dataset, settings)
            splits = judge_splits(dataset, settings, network.logits, bake(network, shift.mask).logits)
        return _outcome(trial, settings, shift, splits, begun)
    # The first repair of a process loads the compiled kernels, which is not what a repair takes.
    _whole(repair_network(network, dataset, replace(settings, states=3, seconds=None), judge=False))
    begun = time.process_time()
    repair = _whole(repair_network(network, dataset, settings, progress=progress))
    counts = {"states": repair.run.asked, "distinct": repair.measured, "search_seconds": repair.run.seconds}
    return _outcome(trial, repair.settings, repair, repair.splits, begun, **counts)


def _whole(repair: Repair) -> Repair:
    if repair.run.stopped == "interrupted":
        raise KeyboardInterrupt
    return repair


def _outcome(
    trial: Trial,
    settings: RepairSettings,
    found: Repair | ThresholdShift,
    splits: Mapping[str, Comparison],
    begun: float,
    **counts: Any,
) -> Outcome:
    return Outcome(
        trial=trial.name,
        subject=trial.subject,
        procedure=THRESHOLD_ONLY if trial.rival else settings.search,
        settings=settings.to_json(),
        search=SearchFigures(
            rows=settings.search_on,
            bias_before=found.before.bias,
            bias_after=found.after.bias,
            utility_before=found.before.utility,
            utility_after=found.after.utility,
            limit=found.floor.limit,
            better=found.floor.better,
        ),
        splits=splits,
        dropped=found.mask.size,
        shift=found.mask.dials,
        cpu_seconds=time.process_time() - begun,
        **{"states": 0, "distinct": 0, "search_seconds": 0.0, **counts},
    )


def require_test_split(dataset: Dataset) -> None:
    """Make sure that there is a split that no search sees.

    Raises:
        DataError: no rows named "test".
    """
    if not len(dataset.splits.get("test", ())):
        raise DataError(
            f"data set {dataset.name} has no test rows (splits: {', '.join(dataset.splits)}): studies report figures "
            "of rows that no search saw; name some rows test"
        )
