"""Repairs of tabular networks that are stopped and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from fairmend.runs import Store
from fairmend.search.base import SteppedSearcher

from ..conftest import REPAIR, SAVED, arguments


def interrupted_after(monkeypatch, asks):
    """Press Ctrl-C when the search asks for its next masks: a number of states is no matter of this machine's speed."""
    ask, left = SteppedSearcher.ask, iter(range(asks))

    def struck(searcher):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return ask(searcher)

    monkeypatch.setattr(SteppedSearcher, "ask", struck)


class TestInterruption:
    def test_a_search_that_is_stopped_saves_says_how_to_resume_and_resumes_to_the_same_answer(
        self, run, desk, monkeypatch
    ):
        words = arguments(REPAIR | {"--states": 2_000})
        whole = run("tabular", "repair", *words, "--out", "whole", "--json").document
        with monkeypatch.context() as patched:
            interrupted_after(patched, 700)
            stopped = run("tabular", "repair", *words, "--json")
        assert stopped.code == 130
        assert stopped.document["outcome"]["interrupted"]
        assert 0 < stopped.document["search"]["asked"] < 2_000
        assert "go on with: fairmend resume out" in stopped.message
        assert {path.name for path in Path("out").iterdir()} == SAVED
        resumed = run("resume", "out", "--json")
        assert resumed.code == 0, resumed.err
        for part in ("outcome", "splits", "search", "settings"):
            assert resumed.document[part] == whole[part], part

    def test_a_stop_before_the_search_began_keeps_the_run(self, run, desk, monkeypatch):
        def stop(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("fairmend.tabular.repair.repair.repair_network", stop)
            outcome = run("tabular", "repair", *arguments(REPAIR))
        assert outcome.code == 130
        assert "fairmend resume out" in outcome.message
        assert run("resume", "out").code == 0

    def test_a_stop_while_reading_leaves_nothing(self, run, desk, monkeypatch):
        def stop(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("fairmend.tabular.data.tables.load_table", stop)
        outcome = run("tabular", "repair", *arguments(REPAIR))
        assert outcome.code == 130
        assert "before there was anything to save" in outcome.message
        assert not Path("out").exists()

    def test_an_unfinished_run_is_resumed_from_another_folder(self, run, desk, monkeypatch):
        run("tabular", "repair", *arguments(REPAIR | {"--slim": True}))
        Path("out/result.json").unlink()
        Path("out/slim.onnx").unlink()
        Path("elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        outcome = run("resume", "../out")
        assert outcome.code == 0, outcome.err
        assert Path("../out/slim.onnx").is_file()

    def test_a_run_of_a_newer_version_with_other_options_is_not_guessed(self, run, desk):
        with closing(Store.create(Path("out/run.sqlite"), {"kind": "tabular repair", "request": {"colour": "red"}})):
            pass
        outcome = run("resume", "out")
        assert outcome.code == 2
        assert "'colour'" in outcome.message
        with closing(Store.create(Path("other/run.sqlite"), {"kind": "image repair"})):
            pass
        assert "another kind" in run("resume", "other").message

    def test_a_real_ctrl_c_ends_a_real_process_with_130(self, run, desk):
        script = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from fairmend.cli.main import app; app(sys.argv[1:], prog_name='fairmend')"
        )
        words = arguments(REPAIR | {"--states": 50_000_000, "--json": True})
        with subprocess.Popen(
            [sys.executable, "-c", script, "tabular", "repair", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            give_up = time.monotonic() + 60
            while not searching(Path("out/run.sqlite")) and time.monotonic() < give_up:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            begun = time.monotonic()
            out, err = process.communicate(timeout=30)
            took = time.monotonic() - begun
        assert process.returncode == 130, err
        assert json.loads(out)["outcome"]["interrupted"]
        assert "go on with: fairmend resume out" in err
        assert "Traceback" not in err
        assert took < 10  # a second on an idle machine


def searching(path):
    """Whether a search has measured something."""
    if not path.is_file():
        return False
    from fairmend.errors import RunError

    try:
        with closing(Store.open(path, read_only=True)) as store:
            return any(event.payload["told"] > 0 for event in store.events("session"))
    except RunError:
        return False
