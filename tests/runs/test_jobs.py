"""Jobs: parallel and serial agree, nothing finished is lost or done again."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairmend.errors import InputError
from fairmend.evaluation import digest
from fairmend.runs.jobs import FINISHED, Finished, Job, run_jobs
from fairmend.runs.store import Store
from fairmend.runs.workers.crew import Crew
from fairmend.runs.workers.processes import LocalProcesses


@dataclass(frozen=True)
class Square:
    """What came of a job."""

    number: int
    square: float
    about: tuple[str, ...] = ()


DONE: list[int] = []


def square(number: int, progress: Any = None) -> Square:
    DONE.append(number)
    if number < 0:
        raise InputError(f"number must not be negative, got {number}")
    if progress is not None:
        progress.update(number, None, 0.0, None, "")
    return Square(number, float(number**2), ("done",))


def jobs(*numbers: int) -> list[Job]:
    return [Job(f"square of {number}", digest({"number": number}), (number,)) for number in numbers]


def run(path: Path, *numbers: int, **options: Any) -> Finished[Square]:
    with closing(Store.open(path) if path.exists() else Store.create(path, {"kind": "squares"})) as store:
        return run_jobs(square, jobs(*numbers), Square, store, **options)


class StopAfter:
    """A person who presses Ctrl-C once that many jobs are finished."""

    def __init__(self, n: int) -> None:
        self.n, self.closed, self.notes = n, False, list[str]()

    def start(self, total: int | None, title: str) -> None:
        self.total, self.title = total, title

    def update(self, done: int, total: int | None, rate: float, eta_seconds: float | None, note: str) -> None:
        self.notes.append(note)
        if done >= self.n:
            raise KeyboardInterrupt

    def close(self) -> None:
        self.closed = True


def test_processes_give_the_results_of_one_process_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    alone = run_jobs(square, jobs(3, 1, 2), Square)
    with Crew(LocalProcesses(2)) as crew:
        together = run(tmp_path / "run.sqlite", 3, 1, 2, workers=crew)
    assert list(alone.results.values()) == [
        Square(3, 9.0, ("done",)),
        Square(1, 1.0, ("done",)),
        Square(2, 4.0, ("done",)),
    ]
    assert list(together.results.items()) == list(alone.results.items())
    again = run(tmp_path / "run.sqlite", 3, 1, 2, 4)
    assert (again.kept, again.planned, again.interrupted) == (3, 4, False)
    assert again.results["square of 3"] == alone.results["square of 3"]


def test_what_is_finished_when_ctrl_c_comes_is_not_done_again(tmp_path: Path) -> None:
    stopper = StopAfter(2)
    first = run(tmp_path / "run.sqlite", 1, 2, 3, progress=stopper, title="squares")
    assert (first.interrupted, list(first.results)) == (True, ["square of 1", "square of 2"])
    assert (stopper.total, stopper.title, stopper.closed) == (3, "squares", True)
    assert "square of 1: 1 states" in stopper.notes
    DONE.clear()
    second = run(tmp_path / "run.sqlite", 1, 2, 3)
    assert (second.kept, DONE) == (2, [3])


def test_a_result_that_is_none_any_more_is_made_again(tmp_path: Path) -> None:
    run(tmp_path / "run.sqlite", 1)
    with closing(Store.open(tmp_path / "run.sqlite")) as store:
        (event,) = store.events(FINISHED)
        store.amend(event.id, {**event.payload, "result": {"number": "1"}})
    assert run(tmp_path / "run.sqlite", 1).kept == 0
    assert run(tmp_path / "run.sqlite", 1).kept == 1


@pytest.mark.parametrize("several", [False, True])
def test_an_error_of_a_job_ends_them_and_keeps_what_is_finished(tmp_path: Path, several: bool) -> None:
    with (
        Crew(LocalProcesses(2)) as crew,
        pytest.raises(InputError, match="must not be negative"),
    ):
        run(tmp_path / "run.sqlite", 1, -1, workers=crew if several else None)
    assert run(tmp_path / "run.sqlite", 1).planned == 1
