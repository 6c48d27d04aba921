"""Ctrl-C and its kin at any moment of a real process: what is measured is kept, and nothing goes on without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fairmend.errors import RunError
from fairmend.runs.jobs import FINISHED
from fairmend.runs.store import Store

from .conftest import OWN, arguments


def start(*words: str) -> subprocess.Popen[str]:
    """A Python of its own."""
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def ended(*words: str) -> tuple[int, str, str]:
    process = start(*words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


PRESS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
def press(*_, number=signal.SIGINT): signal.raise_signal(number)
"""
RUN = "from fairmend.cli.entry import main; sys.argv = ['fairmend', *sys.argv[1:]]; main()\n"
WHEN = """
class Pressing:
    def find_spec(self, name, path=None, target=None):
        if name == NAME:
            press()
sys.meta_path.insert(0, Pressing())
"""
FETCH = """
import fairmend.tabular.data.presets as presets
def fetch(*_):
    BODY
presets.fetch = fetch
"""


@pytest.mark.parametrize("module", ["fairmend.cli.main", "typer", "fairmend.cli.runs"])
def test_ctrl_c_while_the_program_is_still_read_says_so(module: str) -> None:
    code, out, err = ended("-c", PRESS + WHEN.replace("NAME", repr(module)) + RUN, "--help")
    assert (code, out, err) == (130, "", "Stopped before there was anything to save.\n")


def test_ctrl_c_after_the_result_changes_nothing() -> None:
    code, out, err = ended("-c", PRESS + "import atexit; atexit.register(press)\n" + RUN, "--version")
    assert (code, err) == (0, "")
    assert out.startswith("fairmend ")


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        pytest.param("press()", 130, id="at work"),
        pytest.param("press(number=signal.SIGTERM)", 143, id="a machine that shuts down"),
        pytest.param("press(number=signal.SIGHUP)", 129, id="a terminal that closes"),
        pytest.param(
            "Lost = type('Lost', (), {'__del__': press}); Lost(); import time; [time.sleep(0.05) for _ in range(400)]",
            130,
            id="in a finaliser, where Python only prints it",
        ),
        pytest.param(
            "exec('try: press()\\nexcept KeyboardInterrupt: raise ImportError(\"numpy\")')",
            130,
            id="made another error of",
        ),
    ],
)
def test_ctrl_c_while_a_command_works_ends_it_without_a_traceback(body: str, ends: int) -> None:
    code, out, err = ended("-c", PRESS + FETCH.replace("BODY", body) + RUN, "fetch", "adult")
    assert (code, out) == (ends, "")
    assert err.startswith("Stopped ")
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def children(parent: int) -> list[int]:
    """Living processes that were started by another."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, started_by = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(started_by) == parent and state != "Z":
                found.append(int(entry.name))
    return found


def living(processes: list[int]) -> list[int]:
    return [each for each in processes if Path(f"/proc/{each}/stat").exists() and state_of(each) != "Z"]


def state_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def finished() -> list[str]:
    """The repairs that the folder `out` has on record."""
    with suppress(RunError), Store.open(Path("out/run.sqlite"), read_only=True) as store:
        return [event.payload["name"] for event in store.events(FINISHED)]
    return []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
def test_workers_end_with_their_parent_and_what_is_finished_is_kept(desk: Path, number: int, code: int) -> None:
    words = arguments(OWN | {"--search": "dice,annealing", "--states": 900_000_000, "--workers": 2, "--out": "out"})
    process = start("-m", "fairmend", "tabular", "compare", *words)
    give_up = time.monotonic() + 60
    try:
        while not finished() and time.monotonic() < give_up:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.05)
        workers = children(process.pid)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()  # a search of days must not outlive a failed test
    assert len(workers) >= 2
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert number == signal.SIGKILL or "Every finished repair is kept" in err
    while living(workers) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert living(workers) == []
    assert [name for name in finished() if name.startswith("dice")]
