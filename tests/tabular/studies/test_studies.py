"""Studies: parallel and serial agree, nothing finished is lost, foreign folders are left alone."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_cases import QUICK, people, unfair_network

from fairmend.errors import DataError, InputError, RunError
from fairmend.records import Kind, built, plain
from fairmend.runs.jobs import FINISHED
from fairmend.runs.store import Store
from fairmend.runs.workers.crew import Crew
from fairmend.runs.workers.processes import LocalProcesses
from fairmend.tabular.studies.outcomes import Outcome
from fairmend.tabular.studies.trials import Loaded, Session, Trial, run_trials

SUBJECTS = {"net": Loaded(unfair_network(), people())}
KIND = Kind("test")


def trials(n=3):
    made = [Trial(f"annealing, seed {seed}", "net", replace(QUICK, seed=seed)) for seed in range(n)]
    return [*made, Trial("threshold only", "net", QUICK, rival=True)]


def figures(outcomes):
    """Everything but the time taken."""
    timed = ("search_seconds", "cpu_seconds")
    return [{key: value for key, value in plain(outcome).items() if key not in timed} for outcome in outcomes.values()]


class StopAfter:
    """A person who presses Ctrl-C once that many repairs are finished."""

    def __init__(self, n):
        self.n = n
        self.closed = False
        self.seen = []

    def start(self, total, title):
        self.total = total

    def update(self, done, total, rate, eta_seconds, note):
        self.seen.append((done, total, eta_seconds))
        if done >= self.n:
            raise KeyboardInterrupt

    def close(self):
        self.closed = True


def test_processes_give_the_results_of_one_process(tmp_path):
    alone = run_trials(KIND, trials(), SUBJECTS)
    with Crew(LocalProcesses(2)) as crew:
        together = run_trials(KIND, trials(), SUBJECTS, Session(tmp_path, workers=crew))
    assert figures(alone.results) == figures(together.results)
    assert list(together.results) == [trial.name for trial in trials()]
    again = run_trials(KIND, trials(), SUBJECTS, Session(tmp_path))
    assert again.kept == 4
    assert figures(again.results) == figures(alone.results)


def test_an_outcome_survives_its_json():
    (outcome,) = run_trials(KIND, trials(1)[:1], SUBJECTS).results.values()
    saved = json.loads(json.dumps(plain(outcome), allow_nan=False))
    assert built(saved, Outcome) == outcome
    assert outcome.search.feasible
    assert not outcome.search.worse
    assert set(outcome.splits) == {"train", "validation", "test"}


def test_what_is_finished_when_ctrl_c_comes_is_not_done_again(tmp_path):
    stopper = StopAfter(2)
    first = run_trials(KIND, trials(), SUBJECTS, Session(tmp_path, progress=stopper))
    assert first.interrupted
    assert stopper.closed
    assert stopper.total == first.planned == 4
    assert len(first.results) == 2
    second = run_trials(KIND, trials(), SUBJECTS, Session(tmp_path))
    assert second.kept == 2
    assert not second.interrupted
    assert figures(second.results) == figures(run_trials(KIND, trials(), SUBJECTS).results)


def test_ctrl_c_during_a_search_throws_the_half_search_away():
    def interrupted_search(done):
        progress = StopAfter(99)
        progress.update = lambda *given: (_ for _ in ()).throw(KeyboardInterrupt) if "states" in given[-1] else None
        return run_trials(KIND, trials()[done:], SUBJECTS, Session(progress=progress))

    found = interrupted_search(0)
    assert found.interrupted
    assert not found.results


def test_the_remaining_time_is_told_once_something_is_finished():
    watcher = StopAfter(99)
    run_trials(KIND, trials(), SUBJECTS, Session(progress=watcher))
    assert watcher.seen[0] == (0, 4, None)
    assert watcher.seen[-1][:2] == (4, 4)
    assert watcher.seen[-1][2] == pytest.approx(0.0)


def test_other_settings_are_other_repairs_in_the_same_folder(tmp_path):
    run_trials(KIND, trials(1), SUBJECTS, Session(tmp_path))
    more = [replace(trial, settings=replace(trial.settings, keep=0.9)) for trial in trials(1)]
    assert run_trials(KIND, more, SUBJECTS, Session(tmp_path)).kept == 0
    assert run_trials(KIND, trials(2), SUBJECTS, Session(tmp_path)).kept == 2


def test_folders_of_others_are_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="not empty and holds no run"):
        run_trials(KIND, trials(), SUBJECTS, Session(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(RunError, match="is a file, not a directory"):
        run_trials(KIND, trials(), SUBJECTS, Session(tmp_path / "letter.txt"))
    folder = tmp_path / "study"
    run_trials(KIND, trials(1)[:1], SUBJECTS, Session(folder))
    with pytest.raises(RunError, match="belongs to another run: kind"):
        run_trials(Kind("other"), trials(1), SUBJECTS, Session(folder))
    with pytest.raises(RunError, match=r"belongs to another run: networks\.net"):
        run_trials(KIND, trials(1), {"net": Loaded(unfair_network(n_hidden=4), people())}, Session(folder))
    with pytest.raises(RunError, match="belongs to another run"):
        run_trials(KIND, [replace(trials(1)[0], subject="new")], {"new": SUBJECTS["net"]}, Session(folder))


@pytest.mark.parametrize("workers", [None, Crew(LocalProcesses(2))])
def test_input_that_cannot_work_is_named_and_leaves_nothing_behind(tmp_path, workers):
    out = tmp_path / "study"
    hopeless = [replace(trial, settings=replace(trial.settings, max_drop=500)) for trial in trials(1)[:1]]
    with pytest.raises(InputError, match="max_drop=500"):
        run_trials(KIND, hopeless, SUBJECTS, Session(out, workers))
    assert not out.exists()
    if workers is not None:
        workers.close()


def test_rows_that_no_search_sees_are_needed():
    data = people()
    blind = replace(data, splits={**data.splits, "test": np.zeros(0, dtype=np.int64)})
    with pytest.raises(DataError, match="no test rows"):
        run_trials(KIND, trials(1), {"net": Loaded(unfair_network(), blind)})


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from study_cases import QUICK, people, unfair_network
from fairmend.records import Kind
from fairmend.runs.workers.crew import Crew
from fairmend.runs.workers.processes import LocalProcesses
from fairmend.tabular.studies.trials import Loaded, Session, Trial, run_trials

class Say:
    def start(self, total, title): pass
    def update(self, done, *rest): print(done, flush=True)
    def close(self): pass

if __name__ == "__main__":
    quick, endless = replace(QUICK, states=20), replace(QUICK, states=10_000_000)
    trials = [Trial("quick", "net", quick), Trial("endless", "net", endless), Trial("more", "net", endless)]
    subjects = {"net": Loaded(unfair_network(), people())}
    done = run_trials(Kind("test"), trials, subjects, Session(Path(sys.argv[2]), Crew(LocalProcesses(2)), Say()))
    print("interrupted", done.interrupted, list(done.results), flush=True)
"""


def has_members(group):
    """Whether a process of the group is alive."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_ends_the_processes_and_keeps_what_is_finished(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = tmp_path / "out"
    command = [sys.executable, str(script), str(Path(__file__).parents[1]), str(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while process.stdout.readline().strip() not in ("1", ""):
            pass
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        said, errors = process.communicate(timeout=30)
    assert "interrupted True ['quick']" in said, errors
    assert "Traceback" not in errors
    assert time.monotonic() - begun < 10  # about half a second where nothing else runs
    with Store.open(out / "run.sqlite", read_only=True) as store:
        assert [event.payload["name"] for event in store.events(FINISHED)] == ["quick"]
    while has_members(process.pid) and time.monotonic() - begun < 10:
        time.sleep(0.02)
    assert not has_members(process.pid)  # the children have ended too


def test_processes_that_cannot_be_started_are_said(tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", read_only)
    with pytest.raises(RunError, match=r"Read-only file system.*--workers 1"):
        run_trials(KIND, trials(), SUBJECTS, Session(tmp_path, workers=Crew(LocalProcesses(2))))
