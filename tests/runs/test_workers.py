"""One contract for all kinds of workers: the same store, bit for bit, whoever measures and whatever happens to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from worker_cases import AWFUL, SPACE, FileEvaluator, evaluator_in

from fairmend.errors import RunError
from fairmend.runs.runner import Runner
from fairmend.runs.store import Store
from fairmend.runs.workers import InProcess, Task, Workers
from fairmend.runs.workers.crew import Crew
from fairmend.runs.workers.measuring import Measuring
from fairmend.runs.workers.processes import STOPPING, LocalProcesses, child_environment
from fairmend.search import Candidates, Genetic, UniformSampling
from fairmend.threads import THREAD_VARIABLES

Make = Callable[..., Workers]
RAY = pytest.mark.xdist_group("ray")


@pytest.fixture(params=["processes", pytest.param("ray", marks=RAY)])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes workers of a kind, and ends them."""
    made: list[Workers] = []

    def crew(count: int, patience: float = 60.0) -> Workers:
        if request.param == "processes":
            made.append(Crew(LocalProcesses(count), patience=patience))
        else:
            made.append(Crew(request.getfixturevalue("ray_hiring")(count), patience=patience))
        return made[-1]

    yield crew
    for workers in made:
        workers.close()


def rows(path: Path) -> list[tuple[object, ...]]:
    with Store.open(path, read_only=True) as store:
        return [
            (name, mask.bits, repr(measurement))
            for name in store.contexts()
            for mask, measurement in store.context(name)
        ]


def search(
    path: Path, evaluator: FileEvaluator, workers: Workers | None = None, progress: Any = None
) -> list[tuple[object, ...]]:
    """NSGA-II, random masks and a list of candidates, one after the other; what the store then holds, in its order."""
    searchers = [
        Genetic(SPACE, evaluator.figures, seed=1, states=49, population=16),
        UniformSampling(SPACE, seed=2, samples=40, batch=39),
        Candidates(SPACE, [SPACE.mask([unit]) for unit in range(12)]),
    ]
    with closing(Store.open(path) if path.exists() else Store.create(path, {"kind": "toy"})) as store:
        for number, searcher in enumerate(searchers):
            context = store.context(f"search {number}", evaluator)
            Runner(evaluator, context, workers=workers, at_once=evaluator.at_once, progress=progress).run(searcher)
    return rows(path)


def test_the_store_is_the_same_bit_for_bit_whoever_measures(tmp_path: Path, make: Make) -> None:
    alone = {}
    for at_once in (1, 3):
        evaluator = evaluator_in(tmp_path, at_once)
        alone[at_once] = search(tmp_path / f"alone {at_once}.sqlite", evaluator)
        assert search(tmp_path / f"in process {at_once}.sqlite", evaluator, InProcess()) == alone[at_once]
    assert alone[1] != alone[3]  # who shares a batch with whom shows in the last bits
    for count in (1, 2, 3):
        workers = make(count)
        for at_once in (1, 3):
            path = tmp_path / f"{count} {at_once}.sqlite"
            assert search(path, evaluator_in(tmp_path, at_once), workers) == alone[at_once]
        said = workers.throughput()
        assert 1 <= len(said) <= count
        assert sum(each.done for each in said) <= 2 * len(alone[1])  # what was asked for alone was measured here
        assert all(each.seconds > 0 for each in said)
        workers.close()


@pytest.mark.parametrize("what", ["die", "hang"])
def test_a_worker_that_dies_or_hangs_is_replaced_and_its_masks_measured_again(
    tmp_path: Path, make: Make, what: str
) -> None:
    (tmp_path / "calm").mkdir()
    alone = search(tmp_path / "alone.sqlite", evaluator_in(tmp_path / "calm"))
    evaluator = evaluator_in(tmp_path, once=what)
    assert search(tmp_path / "run.sqlite", evaluator, make(2, patience=2.0 if what == "hang" else 60.0)) == alone
    assert evaluator.path.with_suffix(".once").exists()


def test_what_ends_every_worker_is_an_error_that_says_so(tmp_path: Path) -> None:
    evaluator = evaluator_in(tmp_path, always="die")
    with pytest.raises(RunError, match=r"3 workers in a row were lost while measuring for (genetic|random): \d+ masks"):
        search(tmp_path / "run.sqlite", evaluator, Crew(LocalProcesses(2)))


def test_an_error_of_a_worker_comes_with_what_it_was_measuring_and_loses_nothing(tmp_path: Path, make: Make) -> None:
    evaluator = evaluator_in(tmp_path, always="raise", seconds=0.01)
    workers = make(2)
    masks = [SPACE.mask([unit]) for unit in range(12)]
    with Store.create(tmp_path / "run.sqlite", {"kind": "toy"}) as store:
        runner = Runner(evaluator, store.context("search", evaluator), workers=workers)
        with pytest.raises(ArithmeticError, match="cannot be dropped") as caught:
            runner.run(Candidates(SPACE, masks))
        assert any(
            note.startswith(f"while measuring for candidates: 1 masks (units [{AWFUL}]")
            for note in caught.value.__notes__
        )
        assert len(runner.collection) >= 11  # the untouched one, and all but what another worker had at hand
    # The workers go on.
    assert [done.result for done in workers.do([Task(abs, (-3,), str)])] == [3]


def test_a_worker_whose_model_differs_is_refused(tmp_path: Path, make: Make) -> None:
    evaluator = evaluator_in(tmp_path)
    told = json.loads(evaluator.path.read_text())
    evaluator.path.write_text(json.dumps({**told, "weights": [0.5] * 12}))
    with pytest.raises(RunError, match=r"would measure something else than this process: weights: was .*, is \[0\.5"):
        search(tmp_path / "run.sqlite", evaluator, make(2))


def test_ctrl_c_keeps_what_is_measured_and_ends_who_measures(tmp_path: Path, make: Make) -> None:
    (tmp_path / "calm").mkdir()
    alone = search(tmp_path / "alone.sqlite", evaluator_in(tmp_path / "calm"))
    evaluator = evaluator_in(tmp_path, seconds=0.05)
    workers = make(2)

    masks = [SPACE.mask([unit]) for unit in range(12)]
    with Store.create(tmp_path / "run.sqlite", {"kind": "toy"}) as store:
        runner = Runner(evaluator, store.context("search 2", evaluator), workers=workers, progress=Presses(5))
        summary = runner.run(Candidates(SPACE, masks))
        assert summary.stopped == "interrupted"
        kept = len(runner.collection)
        assert 5 <= kept < 13
        again = Runner(evaluator, store.context("search 2", evaluator), workers=workers).run(Candidates(SPACE, masks))
        assert again.measured == 13 - kept
    measured = rows(tmp_path / "run.sqlite")
    assert sorted(measured, key=str) == sorted((row for row in alone if row[0] == "search 2"), key=str)


class Presses:
    """A person who presses Ctrl-C once so many states are measured."""

    def __init__(self, states: int) -> None:
        self.states = states

    def start(self, total: int | None, title: str) -> None:
        pass

    def update(self, done: int, total: int | None, rate: float, eta_seconds: float | None, note: str) -> None:
        if done >= self.states:
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(RunError, match=r"cannot be sent to other processes .* or do the work in one process"):
        list(Crew(LocalProcesses(1)).do([Task(lambda: None, (), str)]))


def test_single_masks_are_measured_here_and_it_is_said_why(tmp_path: Path, make: Make) -> None:
    from fairmend.search.annealing import Annealing

    evaluator, workers = evaluator_in(tmp_path), make(2)
    walk = Annealing(SPACE, lambda reference: lambda measurement: measurement.bias, states=20)
    Runner(evaluator, workers=workers).run(walk)
    assert workers.throughput() == []
    assert workers.notes == [
        "annealing is measured in this process: every state follows from the figures of the one before, so that no two "
        "are measured at once"
    ]


@pytest.mark.parametrize("kind", ["processes", pytest.param("ray", marks=RAY)])
def test_a_driver_that_is_killed_leaves_no_process_and_its_run_is_gone_on_with(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue("ray_cluster").address if kind == "ray" else ""
    alone = search(tmp_path / "alone.sqlite", evaluator_in(tmp_path, seconds=0.0))
    evaluator = evaluator_in(tmp_path, seconds=0.05)
    evaluator.path.with_suffix(".log").unlink()
    command = [sys.executable, str(Path(__file__).with_name("worker_kill_target.py")), str(tmp_path), kind, address]
    driver = subprocess.Popen(command)
    log = evaluator.path.with_suffix(".log")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not log.exists() or len(log.read_text().splitlines()) < 30):
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    pids = {int(line.split()[0]) for line in log.read_text().splitlines()}
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
    assert rows(tmp_path / "run.sqlite")
    evaluator = evaluator_in(tmp_path, seconds=0.0)
    assert search(tmp_path / "run.sqlite", evaluator) == alone


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "State:\tZ" not in status


@pytest.mark.skipif(sys.platform == "win32", reason="no signal masks")
def test_processes_start_on_the_threads_asked_for_with_signals_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with child_environment(2):
        assert {os.environ[name] for name in THREAD_VARIABLES} == {"2"}
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= set(STOPPING)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == held


def test_an_evaluator_must_keep_its_promise(tmp_path: Path) -> None:
    evaluator = evaluator_in(tmp_path)
    evaluator.measure = lambda masks: []  # type: ignore[method-assign]
    with pytest.raises(RunError, match="returned 0 measurements for 1 masks"):
        Measuring(evaluator)([SPACE.untouched()])
