"""Subsets that are collected, learned from, searched for and judged: killed at any moment, the work ends the same."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny_organism as organism

from fairmend.evaluation import digest
from fairmend.runs import Store

RUNS = 3
STAGES = ("collected", "fit.json", "active", "active, judged", "attention-pruning", "attention-pruning, judged")
STRUCK = ("collected", "active", *STAGES)  # in every run: two stages twice, the others once
STORES = ("collected", "active", "attention-pruning")
COMMIT_WITHIN = 1.0  # seconds of measuring: what a kill may cost


class Line(NamedTuple):
    """A line of the journal that sessions write past every buffer."""

    time: float
    part: str
    happens: str
    context: str
    masks: list[int]


@dataclass
class Parent:
    """The process that forks sessions; see `subset_kill_target.py`."""

    process: subprocess.Popen[str]

    def start(self, directory: Path) -> int:
        """Have a session started, and return its process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{directory}\n")
        self.process.stdin.flush()
        return self._told("started")

    def wait(self) -> int:
        """The exit code of the session."""
        return self._told("ended")

    def _told(self, what: str) -> int:
        assert self.process.stdout is not None
        word, _, number = self.process.stdout.readline().partition(" ")
        assert word == what
        return int(number)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    model = tmp_path_factory.mktemp("model")
    organism.tiny_organism().model.save_pretrained(model)
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1].joinpath("subset_kill_target.py")), str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Parent(process)
        assert process.stdin is not None
        process.stdin.close()


def journal(directory: Path) -> list[Line]:
    path = directory / "journal.jsonl"
    text = path.read_text() if path.exists() else ""
    whole_lines, _, _ = text.rpartition("\n")  # the last one may be half-written at this moment
    return [Line(*json.loads(line)) for line in whole_lines.splitlines()]


def finish(parent: Parent, directory: Path) -> None:
    parent.start(directory)
    assert parent.wait() == 0


def stage_of(line: Line, held_out: set[str]) -> str:
    judged = line.context in held_out or line.happens == "saves"
    return f"{line.part}, judged" if judged else line.part


def held_out_contexts(directory: Path) -> set[str]:
    with Store.open(directory / "active" / "run.sqlite", read_only=True) as store:
        names = [name for name in store.contexts() if name.startswith("held-out")]
        return {digest(store.context(name).fingerprint) for name in names}


def strike(parent: Parent, directory: Path, stage: str, moment: tuple[int, float], held_out: set[str]) -> str | None:
    """Kill a session: so many lines after a stage began, and so many seconds later. What it was at; None if it ended.

    A session that has nothing left to do in the stage is killed in the next one.
    """
    before, (count, seconds) = len(journal(directory)), moment
    session = parent.start(directory)
    at = ""
    while True:
        stages = [stage_of(line, held_out) for line in journal(directory)[before:]]
        at = next((later for later in stages[::-1] if STAGES.index(later) > STAGES.index(stage)), at)
        if at or stages.count(stage) > count or (stages and journal(directory)[-1].happens == "ends"):
            break
        time.sleep(0.002)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(session, signal.SIGKILL)
    if parent.wait() == 0:
        return None
    last = journal(directory)[-1]
    return f"{stage_of(last, held_out)}: {last.happens}"


def rows(directory: Path) -> dict[tuple[str, str], list[tuple[int, str]]]:
    """Every measurement of every store, in order, without the seconds that it took."""
    found = {}
    for part in STORES:
        with Store.open(directory / part / "run.sqlite", read_only=True) as store:
            for name in store.contexts():
                context = store.context(name)
                found[part, name] = [(mask.bits, repr(replace(made, seconds=0.0))) for mask, made in context]
    return found


def answers(directory: Path) -> dict[str, object]:
    """What the work came to: figures, masks and repaired weights."""
    found: dict[str, object] = {"fit": json.loads((directory / "fit.json").read_text())}
    for part in STORES[1:]:
        result = json.loads((directory / part / "result.json").read_text())
        del result["session"]
        found[part] = result
        found[f"{part}, weights"] = (directory / part / "model.safetensors").read_bytes()
    return found


def require_no_repeats(lines: list[Line], kills: list[int]) -> int:
    """Nothing is measured again but what a session had not committed when it was killed; returns how much was.

    Args:
        lines: of the whole journal of a run.
        kills: how many lines there were at each kill.
    """
    sessions = [lines[start:end] for start, end in zip([0, *kills], [*kills, len(lines)], strict=True)]
    last_measured: dict[tuple[str, str, int], tuple[int, float]] = {}
    repeats = 0
    for number, session in enumerate(sessions):
        for line in session:
            for mask in line.masks if line.happens == "measured" else ():
                key = (line.part, line.context, mask)
                if key in last_measured:
                    earlier, when = last_measured[key]
                    assert earlier < number, "measured twice within one session"
                    times = [line.time for line in sessions[earlier] if line.happens == "measured"]
                    assert times[max(0, len(times) - 2)] - when <= COMMIT_WITHIN, "lost although it was old enough"
                    repeats += 1
                last_measured[key] = (number, line.time)
    return repeats


@pytest.mark.slow
def test_kills_at_random_moments_of_every_stage_change_nothing(parent: Parent, tmp_path: Path) -> None:
    finish(parent, tmp_path / "whole")
    whole, answer = rows(tmp_path / "whole"), answers(tmp_path / "whole")
    held_out = held_out_contexts(tmp_path / "whole")
    stages = [stage_of(line, held_out) for line in journal(tmp_path / "whole")]
    rng, struck, repeats = random.Random(3), [], 0
    for run in range(RUNS):
        directory = tmp_path / f"run{run}"
        kills: list[int] = []
        for stage in sorted(STRUCK, key=STAGES.index):
            moment = (rng.randrange(stages.count(stage)), rng.uniform(0, 0.08))
            at = strike(parent, directory, stage, moment, held_out)
            if at is not None:
                struck.append(at)
                kills.append(len(journal(directory)))
        finish(parent, directory)
        assert answers(directory) == answer
        assert rows(directory) == whole
        repeats += require_no_repeats(journal(directory), kills)
    assert len(struck) >= 20
    assert {at.partition(":")[0] for at in struck} == set(STAGES)
    assert sum(at.endswith(": measuring") for at in struck) >= len(struck) // 2, "most must strike while measuring"
    print(f"{len(struck)} kills over {RUNS} runs, {repeats} masks measured again; struck: {sorted(struck)}")
