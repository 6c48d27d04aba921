"""Runs of language models that are stopped, gone on with, and shown again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fairmend.errors import ModelError
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.toxicity.catalogue import CustomScorer
from fairmend.runs import Store

from ..conftest import Run
from ..language_desk import MEASURE, REPAIR, lm, press

COMPARE: dict[str, Any] = (
    MEASURE | {"--loss-scores": "first-order", "--method": "fasp,random", "--out": "out"} | {"--alpha": "0.17,0.34"}
)
RUNS = [
    pytest.param("repair", REPAIR, "fairmend.language.measurement.judging.judge", "result.json", id="repair"),
    pytest.param("compare", COMPARE, "fairmend.language.measurement.judging.judge", "compare.json", id="compare"),
]


def unsaid(path: str) -> dict[str, Any]:
    """What was found, without when and how."""
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return {**found, "session": 0}


@pytest.mark.parametrize(("command", "options", "place", "result"), RUNS)
def test_ctrl_c_keeps_what_was_measured_and_resume_finds_what_an_uninterrupted_run_finds(
    run: Run,
    office: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    options: dict[str, Any],
    place: str,
    result: str,
) -> None:
    monkeypatch.delitem(sys.modules, "words_scorer_of_cli_tests", raising=False)  # of another test's folder
    assert lm(run, command, options | {"--out": "whole"}).code == 0
    with monkeypatch.context() as pressed:
        pressed.setattr(place, press)
        stopped = lm(run, command, options)
    assert stopped.code == 130
    assert f"fairmend resume out --scorer {MEASURE['--scorer']}" in stopped.message
    assert Path("out/run.sqlite").is_file()
    assert not Path("out", result).exists()
    assert "not finished" in run("show", "out").message
    Path("elsewhere").mkdir()
    Path("words_scorer_of_cli_tests.py").rename("elsewhere/words_scorer_of_cli_tests.py")
    monkeypatch.chdir("elsewhere")
    monkeypatch.delitem(sys.modules, "words_scorer_of_cli_tests")
    resumed = run("resume", "../out", "--quiet", "--scorer", MEASURE["--scorer"])
    assert resumed.code == 0, resumed.err
    assert unsaid(f"../out/{result}") == unsaid(f"../whole/{result}")


def test_a_second_scorer_that_comes_meanwhile_does_not_join_a_run_and_one_that_goes_is_missed(
    run: Run, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "words_scorer_of_cli_tests", raising=False)  # of another test's folder
    odd = CustomScorer(lambda texts: [len(text) % 2 for text in texts], "odd lengths")
    second: dict[str, CustomScorer | None] = {"is": None}
    monkeypatch.setattr("fairmend.language.toxicity.catalogue.second_scorer", lambda first: second["is"])
    with monkeypatch.context() as pressed:
        pressed.setattr("fairmend.language.measurement.judging.judge", press)
        assert lm(run, "repair", REPAIR).code == 130
        second["is"] = odd
        assert lm(run, "repair", REPAIR | {"--out": "with"}).code == 130
    resumed = run("resume", "out", "--quiet", "--scorer", MEASURE["--scorer"])
    assert resumed.code == 0, resumed.err
    assert unsaid("out/result.json")["held_out"]["axes"][0]["second"] is None
    second["is"] = None
    assert "second_scorer" in run("resume", "with", "--quiet", "--scorer", MEASURE["--scorer"]).message
    second["is"] = odd
    resumed = run("resume", "with", "--quiet", "--scorer", MEASURE["--scorer"])
    assert "By the second scorer odd lengths: Bias " in resumed.out


@pytest.mark.parametrize("kind", ["language repair", "language comparison"])
@pytest.mark.parametrize("settings", [{}, {"colour": "red"}, RepairSettings().to_json()])
def test_a_run_of_another_version_is_not_guessed(run: Run, office: Path, kind: str, settings: dict[str, Any]) -> None:
    Store.create(Path("out/run.sqlite"), {"kind": kind, "request": {"model": "x"}, "settings": settings}).close()
    outcome = run("resume", "out")
    assert outcome.code == 2
    assert "resume it with the version that started it" in outcome.message


def test_what_was_measured_survives_running_out_of_memory(
    run: Run, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that a smaller batch cures must not cost what was measured."""

    def too_large(*given: object, **named: object) -> None:
        raise ModelError("out of memory with one prompt at a time")

    with monkeypatch.context() as full:
        full.setattr("fairmend.language.measurement.judging.judge", too_large)
        assert lm(run, "repair", REPAIR).code == 2
    assert Path("out/run.sqlite").is_file()
    assert run("resume", "out", "--scorer", MEASURE["--scorer"]).code == 0
