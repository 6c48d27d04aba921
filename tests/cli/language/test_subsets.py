"""Measuring subsets of heads on the command line: collect, fit, and the repairs that search subsets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from ..conftest import Run
from ..language_desk import MEASURE, REPAIR, gpt2, lm

COLLECT: dict[str, Any] = MEASURE | {"--subsets": 24, "--eta": 0.6, "--max-drop": 5, "--out": "collected"}
SEARCH: dict[str, Any] = MEASURE | {"--subsets": 30, "--eta": 0.6, "--max-drop": 5, "--finalists": 3, "--out": "out"}


def test_a_collection_goes_on_and_says_what_can_be_learned_of_it(run: Run, office: Path) -> None:
    first = lm(run, "collect", COLLECT | {"--json": True})
    assert first.code == 0, first.message
    found = first.document
    assert found["samples"] <= 24
    assert found["new"] == found["samples"] + found["repeats"]
    again = lm(run, "collect", COLLECT | {"--json": True}).document
    assert (again["new"], again["samples"]) == (0, found["samples"])
    more = lm(run, "collect", COLLECT | {"--json": True, "--subsets": 40}).document
    assert more["new"] > 0

    told = run("lm", "fit", "collected", "--folds", "2")
    assert told.code == 0, told.message
    for name in ("network", "additive", "pairwise"):
        assert name in told.out
    assert "measured twice" in told.out
    fitted = run("lm", "fit", "collected", "--folds", "2", "--json").document
    assert {(score["surrogate"], score["target"]) for score in fitted["scores"]} >= {("network", "bias")}
    assert fitted["subsets"] == more["samples"]


@pytest.mark.parametrize("method", ["attention-pruning", "active", "genetic"])
def test_a_repair_searches_subsets(run: Run, office: Path, method: str) -> None:
    done = lm(run, "repair", SEARCH | {"--method": method})
    assert done.code == 0, done.message
    result = json.loads(Path("out/result.json").read_text())
    assert result["settings"]["method"] == method
    assert 1 <= len(result["search"]["finalists"]) <= 3
    assert all(len(finalist["dropped"]) <= 5 for finalist in result["search"]["finalists"])
    assert f"Method: {method}, 30 subsets" in Path("out/README.md").read_text()
    assert run("show", "out").code == 0
    assert run("export", "out", "subsets.parquet", "--context", "subsets").code == 0
    assert len(pd.read_parquet("subsets.parquet")) <= 30


@pytest.mark.parametrize("method", ["attention-pruning", "active"])
def test_a_repair_learns_from_a_collection(run: Run, office: Path, method: str) -> None:
    assert lm(run, "collect", COLLECT | {"--subsets": 30}).code == 0
    done = lm(run, "repair", SEARCH | {"--method": method, "--from": "collected", "--subsets": 2})
    assert done.code == 0, done.message
    for folder in ("collected", "out"):
        assert run("export", folder, f"{folder}.parquet", "--context", "subsets").code == 0
    known, used = (pd.read_parquet(f"{folder}.parquet") for folder in ("collected", "out"))
    assert used["dropped"].map(list).tolist()[: len(known)] == known["dropped"].map(list).tolist()
    # Beyond them Attention Pruning measures its finalists, active search the ranking's sets that it begins with.
    assert len(used) <= len(known) + (3 if method == "attention-pruning" else 7)
    assert run("resume", "out").code == 0


def test_a_collection_of_another_model_or_under_other_settings_is_refused(run: Run, office: Path) -> None:
    gpt2("other", seed=1)
    assert lm(run, "collect", COLLECT | {"--subsets": 3}, "other").code == 0
    refused = lm(run, "repair", SEARCH | {"--method": "active", "--from": "collected"})
    assert refused.code == 2
    for word in ("collected/run.sqlite", "of another model", "model.weights_sha256", "collect again"):
        assert word in refused.message
    assert not Path("out").exists()
    refused = lm(run, "repair", SEARCH | {"--method": "active", "--from": "collected", "--eta": 0.9}, "other")
    assert refused.code == 2
    assert "under other settings than you give now: prompts." in refused.message
    assert not Path("out").exists()


@pytest.mark.parametrize(("folder", "words"), [("nowhere", "does not exist"), ("model", "run.sqlite does not exist")])
def test_a_folder_without_a_collection_is_refused(run: Run, office: Path, folder: str, words: str) -> None:
    refused = lm(run, "repair", SEARCH | {"--method": "active", "--from": folder})
    assert refused.code == 2
    assert words in refused.message
    assert not Path("out").exists()


@pytest.mark.parametrize("method", ["attention-pruning", "active"])
def test_too_few_subsets_to_learn_from_are_refused(run: Run, office: Path, method: str) -> None:
    few = lm(run, "repair", SEARCH | {"--method": method, "--subsets": 7})
    assert few.code == 2
    assert f"{method} learns from at least 8 measured subsets" in few.message
    assert lm(run, "collect", COLLECT | {"--subsets": 5}).code == 0
    few = lm(run, "repair", SEARCH | {"--method": method, "--subsets": 5, "--from": "collected"})
    assert few.code == 2
    assert "ask for more subsets, or collect more" in few.message
    assert not Path("out").exists()


def constant_scorer() -> dict[str, str]:
    Path("constant_scorer_of_cli_tests.py").write_text("def score(texts):\n    return [0.25 for _ in texts]\n")
    return {"--scorer": "python:constant_scorer_of_cli_tests:score"}


def test_a_bias_that_is_always_the_same_teaches_nothing(run: Run, office: Path) -> None:
    constant = constant_scorer()
    assert lm(run, "collect", COLLECT | constant | {"--subsets": 12}).code == 0
    unfit = run("lm", "fit", "collected")
    assert unfit.code == 2
    assert "nothing can be learned from a constant" in unfit.message
    for method, told in (("attention-pruning", "nothing can be learned from the"), ("active", "nothing to repair")):
        refused = lm(run, "repair", SEARCH | constant | {"--method": method, "--subsets": 12, "--out": method})
        assert refused.code == 2
        assert told in refused.message
        assert "Traceback" not in refused.err


@pytest.mark.parametrize("options", [REPAIR, SEARCH | {"--method": "genetic"}], ids=["fasp", "genetic"])
def test_when_no_subset_is_better_the_model_stays_as_it_is(run: Run, office: Path, options: dict[str, Any]) -> None:
    done = lm(run, "repair", options | constant_scorer())
    assert done.code == 0, done.message
    assert "Nothing was changed" in done.out
    outcome = json.loads(Path("out/result.json").read_text())["outcome"]
    assert (outcome["improved"], outcome["feasible"], outcome["dropped"]) == (False, True, 0)
    original, saved = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in ("model", "out"))
    assert all(torch.equal(saved[name], weights) for name, weights in original.items())


def test_a_collection_is_of_no_use_to_a_ranking(run: Run, office: Path) -> None:
    refused = lm(run, "repair", REPAIR | {"--from": "collected"})
    assert refused.code == 2
    assert "--from is for the methods attention-pruning and active" in refused.message


@pytest.mark.parametrize(
    ("command", "changes", "words"),
    [
        ("collect", {"--subsets": None}, ("--subsets", "--hours")),
        ("collect", {"--subsets": 1}, ("--subsets", "at least 2", "1")),
        ("collect", {"--hours": -1.0}, ("--hours", "more than 0", "-1")),
        ("collect", {"--eta": 0}, ("eta", "0")),
        ("collect", {"--max-drop": 99}, ("max_drop=99", "12 droppable")),
        ("repair", {"--method": "active", "--surrogate": "oracle"}, ("surrogate", "'oracle'", "pairwise")),
        ("repair", {"--method": "genetic", "--epsilon": 2}, ("epsilon", "2")),
        ("repair", {"--method": "guessing"}, ("method", "'guessing'", "attention-pruning")),
    ],
)
def test_what_cannot_work_is_refused(
    run: Run, office: Path, command: str, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    options = (COLLECT if command == "collect" else SEARCH) | changes
    refused = lm(run, command, {name: value for name, value in options.items() if value is not None})
    assert refused.code == 2
    assert all(word in refused.message for word in words), refused.message
    assert not Path(options["--out"]).exists()


def test_fit_needs_enough_subsets(run: Run, office: Path) -> None:
    assert run("lm", "fit", "nowhere").code == 2
    assert lm(run, "collect", COLLECT | {"--subsets": 4}).code == 0
    few = run("lm", "fit", "collected")
    assert few.code == 2
    assert "measure more" in few.message


def test_a_collection_of_something_else_is_refused(run: Run, office: Path) -> None:
    assert lm(run, "collect", COLLECT | {"--subsets": 3}).code == 0
    other = lm(run, "collect", COLLECT | {"--subsets": 3, "--seed": 5})
    assert other.code == 2
    assert "another run" in other.message


def test_measurements_are_exported(run: Run, office: Path) -> None:
    assert lm(run, "collect", COLLECT | {"--subsets": 6}).code == 0
    told = run("export", "collected", "measured.csv")
    assert told.code == 0
    assert "'subsets'" in told.out
    assert {"dropped", "bias", "utility"} <= set(pd.read_csv("measured.csv").columns)
    assert run("export", "collected", "measured.xlsx").code == 2
    assert run("export", "collected", "measured.csv", "--context", "search").code == 2
