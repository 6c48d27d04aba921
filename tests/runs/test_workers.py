"""Who measures for a run, and what worker processes are started with."""

import os
import signal
import sys

import pytest
from toy_runs import ToyEvaluator

from fairmend.errors import RunError
from fairmend.runs.runner import Runner
from fairmend.runs.workers import STOPPING, InProcess, child_environment
from fairmend.threads import THREAD_VARIABLES


def test_workers_that_measure_something_else_than_the_run_are_refused() -> None:
    with pytest.raises(RunError, match="same factory"):
        Runner(ToyEvaluator(seed=3), workers=InProcess(ToyEvaluator()))


@pytest.mark.skipif(sys.platform == "win32", reason="no signal masks")
def test_processes_start_on_one_thread_with_signals_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with child_environment():
        assert {os.environ[name] for name in THREAD_VARIABLES} == {"1"}
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= set(STOPPING)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == held
