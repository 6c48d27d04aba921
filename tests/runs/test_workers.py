"""Worker processes: the same figures however many there are, and clear words when one is lost."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_runs import (
    SPACE,
    ListSearcher,
    PidReporter,
    ThreadReporter,
    ToyEvaluator,
    ToySearcher,
    different,
    dying,
    failing,
    healthy,
    unbuildable,
)

from fairmend.errors import InputError, RunError
from fairmend.masks import Mask
from fairmend.runs.runner import Runner
from fairmend.runs.store import Store
from fairmend.runs.workers import InProcess, Processes

MASKS = [SPACE.mask(units) for units in itertools.combinations(range(16), 2)][:11]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_figures_and_order_do_not_depend_on_the_number_of_workers(n: int) -> None:
    kept: list[Mask] = []
    with InProcess(ToyEvaluator()) as alone, Processes(healthy, n) as workers:
        for masks in (MASKS, MASKS[:1], MASKS[3:5]):
            measurements = workers.measure(masks, lambda part, _: kept.extend(part))
            expected = alone.measure(masks)
            assert all(found == wanted for found, wanted in zip(measurements, expected, strict=True))
        assert workers.measure([]) == []
        assert workers.digest == alone.digest
        assert workers.size == n
    assert kept == [*MASKS, *MASKS[:1], *MASKS[3:5]]


def test_a_run_with_workers_equals_a_run_without() -> None:
    alone, helped = ToySearcher(states=60, batch=6), ToySearcher(states=60, batch=6)
    Runner(ToyEvaluator()).run(alone)
    with Processes(healthy, 2) as workers:
        Runner(ToyEvaluator(), workers=workers).run(helped)
    assert helped.best == alone.best
    assert [bits for bits, _ in helped.told] == [bits for bits, _ in alone.told]


def test_each_worker_computes_on_one_thread() -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    with Processes(ThreadReporter, 1) as workers:
        assert workers.measure(MASKS[:1])[0].utility == 1.0
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_worker_that_dies_is_named_and_the_others_work_is_kept(tmp_path: Path) -> None:
    good, deadly = [SPACE.mask([unit]) for unit in (1, 2, 3)], SPACE.mask([5])
    with Store.create(tmp_path / "run.sqlite", {}) as store, Processes(dying, 2) as workers:
        context = store.context("search", ToyEvaluator())
        runner = Runner(ToyEvaluator(), context, workers=workers)
        runner.measure(good[:2])
        with pytest.raises(RunError, match=r"worker 1 of 2 \(process \d+\) died by signal SIGKILL.*resume"):
            runner.run(ListSearcher([deadly, good[2]]))
        with pytest.raises(RunError, match="closed"):
            runner.measure([SPACE.mask([8])])
    with Store.open(tmp_path / "run.sqlite") as store:
        assert [mask for mask, _ in store.context("search")] == good


def test_an_exception_in_a_worker_is_raised_here_and_the_workers_go_on() -> None:
    kept: list[Mask] = []
    with Processes(failing, 2) as workers:
        with pytest.raises(RunError, match="ArithmeticError: unit 5 cannot be dropped") as caught:
            workers.measure([SPACE.mask([5]), SPACE.mask([6])], lambda part, _: kept.extend(part))
        assert "Traceback" in caught.value.__notes__[0]
        assert "worker 1 of 2" in caught.value.__notes__[1]
        assert kept == [SPACE.mask([6])]
        assert workers.measure([SPACE.mask([7])])[0] == ToyEvaluator().measure([SPACE.mask([7])])[0]


def test_workers_that_cannot_be_built_are_refused_with_the_reason() -> None:
    with pytest.raises(RunError, match="ValueError: no such model"):
        Processes(unbuildable, 1)
    with pytest.raises(RunError, match="different fingerprints"):
        Processes(different, 2)
    with pytest.raises(InputError, match="top level"):
        Processes(lambda: healthy(), 1)  # noqa: PLW0108
    with pytest.raises(InputError, match="at least 1, got 0"):
        Processes(healthy, 0)


def test_workers_that_measure_something_else_than_the_run_are_refused() -> None:
    with Processes(healthy, 1) as workers, pytest.raises(RunError, match="same factory"):
        Runner(ToyEvaluator(seed=3), workers=workers)


def test_closing_ends_the_processes_and_can_be_repeated() -> None:
    workers = Processes(healthy, 1)
    process = workers._workers[0][0]
    pid = process.pid
    assert pid is not None
    workers.close()
    workers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from toy_runs import SPACE, ToyEvaluator, ToySearcher, slow
from fairmend.runs.runner import Runner
from fairmend.runs.workers import Processes

if __name__ == "__main__":
    with Processes(slow, 2) as workers:
        print("ready", flush=True)
        summary = Runner(ToyEvaluator(), workers=workers).run(ToySearcher(states=1000, batch=4))
        print(summary.stopped, flush=True)
"""


def test_ctrl_c_stops_workers_at_once_and_in_silence(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the workers too
    pressed = time.monotonic()
    output, errors = process.communicate(timeout=20)
    assert time.monotonic() - pressed < 10  # within a second where nothing else runs
    assert (output, errors, process.returncode) == ("interrupted\n", "", 0)


def test_worker_i_always_gets_part_i() -> None:
    with Processes(PidReporter, 3) as workers:
        pids = [[m.utility for m in workers.measure(masks)] for masks in (MASKS[:6], MASKS[:7], MASKS[:2])]
    first, second, third = pids[0][::2]
    assert len({first, second, third}) == 3
    assert pids[0] == [first, first, second, second, third, third]
    assert pids[1] == [first, first, first, second, second, third, third]
    assert pids[2] == [first, second]
