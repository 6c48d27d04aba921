"""A run killed at any moment resumes and ends exactly as an uninterrupted one."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from fairmend.runs.store import Store

STATES = 400
KILLS = 20
COMMIT_WITHIN = 1.0  # seconds: what a kill may cost


def start(directory: Path) -> subprocess.Popen[str]:
    directory.mkdir(exist_ok=True)
    (directory / "journal.txt").touch()
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("kill_target.py")), str(directory), str(STATES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclass(frozen=True)
class Measured:
    """A line of the journal that the toy evaluator writes past every buffer."""

    time: float
    bits: int


def journal(directory: Path) -> list[Measured]:
    lines = (line.split() for line in (directory / "journal.txt").read_text().splitlines())
    return [Measured(float(when), int(bits)) for when, bits in lines]


def rows(directory: Path) -> list[tuple[int, str]]:
    with Store.open(directory / "run.sqlite") as store:
        return [(mask.bits, repr(measurement)) for mask, measurement in store.context("search")]


def finish(directory: Path) -> None:
    process = start(directory)
    output, errors = process.communicate(timeout=60)
    assert (output, errors, process.returncode) == (f"finished {STATES}\n", "", 0)


def require_no_repeats(sessions: list[list[Measured]]) -> int:
    """No mask is measured again unless its session died within the commit interval; returns how many were."""
    last_measured: dict[int, tuple[int, float]] = {}
    repeats = 0
    for number, session in enumerate(sessions):
        for entry in session:
            if entry.bits in last_measured:
                earlier, when = last_measured[entry.bits]
                assert earlier < number, "measured twice within one session"
                assert sessions[earlier][-1].time - when <= COMMIT_WITHIN, "lost although it was old enough"
                repeats += 1
            last_measured[entry.bits] = (number, entry.time)
    return repeats


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    finish(tmp_path / "whole")
    answer, whole = (tmp_path / "whole" / "answer.json").read_text(), rows(tmp_path / "whole")
    rng = random.Random(5)
    kills, run, productive, repeats = 0, 0, 0, 0
    while kills < KILLS:
        directory = tmp_path / f"run{run}"
        sessions: list[list[Measured]] = []
        for _ in range(KILLS):
            before = len(journal(directory)) if directory.exists() else 0
            process = start(directory)
            # Most strike while it measures, however long it takes to start; some before, or just as it begins.
            waits = rng.random() < 0.8
            while waits and process.poll() is None and len(journal(directory)) == before:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.8))
            process.kill()
            process.communicate()
            sessions.append(journal(directory)[before:])
            kills += process.returncode == -signal.SIGKILL
            if process.returncode == 0 or kills == KILLS:
                break
        before = len(journal(directory))
        finish(directory)
        sessions.append(journal(directory)[before:])
        assert (directory / "answer.json").read_text() == answer
        assert rows(directory) == whole
        repeats += require_no_repeats(sessions)
        productive += sum(bool(session) for session in sessions)
        run += 1
    assert productive > KILLS // 2, "most kills must strike runs that are measuring"
    print(f"{kills} kills over {run} runs, {productive} sessions that measured, {repeats} masks measured again")


def test_ctrl_c_ends_the_process_at_once_and_the_run_resumes(tmp_path: Path) -> None:
    finish(tmp_path / "whole")
    process = start(tmp_path / "run")
    while len(journal(tmp_path / "run")) < 40:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    pressed = time.monotonic()
    output, errors = process.communicate(timeout=20)
    assert time.monotonic() - pressed < 10  # within a second where nothing else runs
    assert output.startswith("interrupted ")
    assert (errors, process.returncode) == ("", 0)
    measured = len(journal(tmp_path / "run"))
    assert len(rows(tmp_path / "run")) >= measured - 1  # nothing is lost but the mask at hand
    finish(tmp_path / "run")
    assert (tmp_path / "run" / "answer.json").read_text() == (tmp_path / "whole" / "answer.json").read_text()
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
