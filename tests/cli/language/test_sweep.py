"""Sweeps on the command line, and the collections that they learn from: stopped, gone on with and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ..conftest import Run
from ..language_desk import MEASURE, lm, press

SUBSETS: dict[str, Any] = MEASURE | {"--eta": 0.6, "--max-drop": 5}
COLLECT = SUBSETS | {"--subsets": 40, "--out": "collected"}
SWEEP = SUBSETS | {"--from": "collected", "--epsilon": "0.5,1", "--surrogate": "additive", "--out": "swept"}


def test_a_sweep_answers_the_design_questions(run: Run, office: Path) -> None:
    assert lm(run, "collect", COLLECT | {"--subsets": 80}).code == 0
    count = run("show", "collected", "--json").document["samples"]
    done = lm(run, "sweep", SWEEP)
    assert done.code == 0, done.message
    assert {path.name for path in Path("swept").iterdir()} == {
        *("sweep.csv", "sweep.json", "sweep.png", "sweep.svg", "run.sqlite", "report.html")
    }
    rows = pd.read_csv("swept/sweep.csv")
    budgets = [count // 4, count // 2, count]  # unless told otherwise
    assert rows["subsets"].dropna().tolist() == [budget for budget in budgets for _ in range(3)]
    assert rows["epsilon"].dropna().tolist() == [0.5, 1, 1] * 3
    assert {"bias", "perplexity", "heads", "tokens", "seconds", "predicted_bias", "dropped"} <= set(rows.columns)
    assert "1 (bias only)" in done.out
    assert f"Generated to measure the subsets: {budgets[0]} subsets" in done.out
    for told in (run("show", "swept"), run("resume", "swept")):
        assert told.code == 0, told.message
        assert told.out.strip() in done.out
    assert run("show", "swept", "--json").document == json.loads(Path("swept/sweep.json").read_text())


def test_a_stopped_sweep_goes_on_from_any_folder(run: Run, office: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lm(run, "collect", COLLECT).code == 0
    options = SWEEP | {"--subsets": "30"}
    assert lm(run, "sweep", options | {"--out": "whole"}).code == 0
    with monkeypatch.context() as pressed:
        pressed.setattr("fairmend.language.measurement.judging.judge", press)
        stopped = lm(run, "sweep", options)
    assert stopped.code == 130
    assert "fairmend resume swept" in stopped.message
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert run("resume", "../swept", "--quiet", "--scorer", MEASURE["--scorer"]).code == 0
    found, whole = (json.loads(Path(f"../{name}/sweep.json").read_text()) for name in ("swept", "whole"))
    assert {**found, "session": 0} == {**whole, "session": 0}


def test_what_cannot_be_swept_is_refused(run: Run, office: Path) -> None:
    def refused(changes: dict[str, Any], *words: str) -> None:
        outcome = lm(run, "sweep", SWEEP | {"--subsets": "20"} | changes)
        assert outcome.code == 2
        assert all(word in outcome.message for word in words), outcome.message
        assert not Path("swept").exists()

    refused({}, "collected")
    assert lm(run, "collect", COLLECT).code == 0
    refused({"--subsets": "20,900"}, "900 subsets asked for", "collect more")
    refused({"--subsets": "3"}, "nothing can be learned from the first 3 subsets")
    refused({"--subsets": "many"}, "--subsets", "'many'")
    refused({"--epsilon": "2"}, "epsilons", "2")
    refused({"--epsilon": ""}, "--epsilon needs at least one value")
    refused({"--surrogate": "oracle"}, "surrogate", "'oracle'")
    refused({"--eta": 0.9}, "measured under other settings")
    assert lm(run, "sweep", SWEEP | {"--subsets": "20", "--max-perplexity": 0.5}).code == 2


def test_a_collection_is_shown_and_gone_on_with_to_the_end_asked_for(
    run: Run, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as pressed:
        pressed.setattr("fairmend.language.generation.samples.score_continuations", press)
        stopped = lm(run, "collect", COLLECT)
    assert stopped.code == 130
    assert "fairmend resume collected" in stopped.message
    shown = run("show", "collected")
    assert shown.code == 0, shown.message
    assert "0 subsets measured of 40 asked for" in shown.out
    resumed = run("resume", "collected", "--json", "--quiet", "--scorer", MEASURE["--scorer"])
    assert resumed.code == 0, resumed.message
    assert resumed.document["stopped"] == "evaluations"
    count = resumed.document["samples"]
    assert run("show", "collected", "--json").document == {
        "folder": "collected",
        "samples": count,
        "repeats": resumed.document["repeats"],
        "subsets": 40,
        "hours": None,
    }
    assert run("resume", "collected", "--json", "--quiet", "--scorer", MEASURE["--scorer"]).document["new"] == 0
    more = lm(run, "collect", COLLECT | {"--subsets": 60, "--json": True}).document
    assert more["new"] > 0
    assert "of 60 asked for" in run("show", "collected").out
