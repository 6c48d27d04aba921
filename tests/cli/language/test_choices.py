"""`fairmend lm ... --bias FILE`: which of two ways to go on a model prefers, audited, scored, repaired and compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..conftest import Run
from ..language_desk import lm, logits, press, words

HEAD = ("context", "a", "b", "group")
MEASURE: dict[str, Any] = {
    "--bias": "items.csv",
    "--knowledge": "know.csv",
    "--text": "text.txt",
    "--text-tokens": 96,
    "--device": "cpu",
    "--quiet": True,
}
REPAIR = MEASURE | {"--method": "fasp", "--alpha": 0.4, "--gamma": 0.3, "--choice": "rule", "--out": "out"}
SOFT: dict[str, Any] = {"--method": "soft", "--choice": None, "--alpha": None, "--gamma": None}


def write(name: str, rows: list[tuple[str, ...]], head: tuple[str, ...] = HEAD) -> None:
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def rows_of(n: int, groups: str = "xy", seed: int = 0) -> list[tuple[str, ...]]:
    return [(words(4, seed + row), "w7", "w8 | w9" if row % 3 else "w8", groups[row % 2]) for row in range(n)]


@pytest.fixture
def choices(office: Path) -> Path:
    """The desk, with items and knowledge."""
    write("items.csv", rows_of(40))
    write(
        "know.csv",
        [
            (context, *(("w7", "w8") if group == "x" else ("w8", "w7")), group)
            for context, _, _, group in rows_of(16, seed=100)
        ],
    )
    return office


def unsaid(path: str) -> dict[str, Any]:
    """What was found, without when and how."""
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return {**found, "session": 0}


def test_an_audit_says_what_is_preferred_and_known(run: Run, choices: Path) -> None:
    outcome = lm(run, "audit", MEASURE)
    assert outcome.code == 0, outcome.err
    for said in (
        "Preference by group: items",
        "prefers a",
        "Knowledge: the right answer",
        "16 items; know.csv",
        "nats",
    ):
        assert said in outcome.out
    found = lm(run, "audit", MEASURE | {"--json": True}).document
    (axis,) = found["axes"]
    means = {group["name"]: group["mean"] for group in axis["bias"]["groups"]}
    assert axis["bias"]["value"] == pytest.approx(abs(means["x"] - means["y"]))
    assert axis["prompts"]["counts"] == {"y": 20, "x": 20} or axis["prompts"]["counts"] == {"x": 20, "y": 20}
    assert found["knowledge"]["n"] == 16


def test_scores_of_all_heads_are_written_with_how_valid_they_are(run: Run, choices: Path) -> None:
    scored = lm(run, "score", MEASURE | {"--out": "heads.csv"})
    assert scored.code == 0, scored.err
    said = " ".join(scored.out.split())
    assert "first-order items bias against exact ablation of 12 heads: " in said
    assert "bias, items: " in said
    assert " items)" in said
    with Path("heads.csv").open(newline="") as file:
        assert len([row for row in csv.DictReader(file) if float(row["bias_effect[items]"])]) == 12


@pytest.mark.parametrize("method", ["fasp", "soft", "soft of heads"])
def test_a_stopped_repair_goes_on_to_what_an_uninterrupted_one_finds(
    run: Run, choices: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    options = REPAIR | {"--max-perplexity": 3, "--max-drift": 3, "--keep-knowledge": 0.1}
    options |= {"--method": method.split(maxsplit=1)[0]} | ({"--soft-units": "heads"} if "heads" in method else {})
    if method != "fasp":
        for unread in ("--choice", "--alpha", "--gamma"):
            del options[unread]
    whole = lm(run, "repair", options | {"--out": "whole"})
    assert whole.code == 0, whole.err
    assert "Held-out items, never seen by the search" in whole.out
    assert "Drift on" in whole.out
    said = "first-order items bias against exact ablation of 12 heads: "
    assert (said in " ".join(whole.out.split())) == (method == "fasp")
    with monkeypatch.context() as pressed:
        pressed.setattr("fairmend.language.measurement.judging.judge", press)
        assert lm(run, "repair", options).code == 130
    resumed = run("resume", "out", "--quiet")
    assert resumed.code == 0, resumed.err
    assert unsaid("out/result.json") == unsaid("whole/result.json")
    np.testing.assert_array_equal(logits("out"), logits("whole"))
    again = lm(run, "apply", {"--out": "again"}, "model", "out/mask.json")
    assert again.code == 0, again.err
    np.testing.assert_array_equal(logits("again"), logits("out"))
    assert "of 40 choices differ." in lm(run, "diff", MEASURE, "model", "out").out
    compared = lm(run, "diff", MEASURE | {"--json": True}, "model", "out")
    assert compared.code == 0, compared.err
    (axis,) = compared.document["axes"]
    assert axis["change"]["before"]["value"] > 0
    assert compared.document["continuations"] == 40


def test_without_a_method_gates_are_soft_and_the_perplexity_stays_close(run: Run, choices: Path) -> None:
    outcome = lm(run, "repair", MEASURE | {"--out": "out"})
    assert outcome.code == 0, outcome.err
    settings = json.loads(Path("out/result.json").read_text())["settings"]
    assert (settings["method"], settings["max_perplexity"], settings["soft"]["tokens"]) == ("soft", 1.05, 96)
    assert settings["soft"]["units"] == "all"


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ([("w3 w4", "", "w5", "x")], {}, ("line 42", "a must be a text with words")),
        ([("w3 w4", "w5", " w5", "x")], {}, ("line 42", "a and b must differ")),
        ([(words(70, 1), "w5", "w6", "x")], {}, ("line 42", "shorten the item")),
        ([("w3 w4", "zebra", "lion", "x")], {}, ("line 42", "same tokens", "must differ for its tokenizer")),
        ([("w3 w4", "w5", "w6", "z")], {}, ("z (1)", "add items")),
        ([], {"--bias": "pronouncs"}, ("'pronouncs'", "did you mean pronouns?")),
        ([], {"--bias": "nowhere.csv"}, ("nowhere.csv",)),
        ([], {"--knowledge": "other.csv"}, ("other.csv has the groups p, q, items compares", "the same groups")),
        ([], {"--keep-knowledge": -1}, ("--keep-knowledge", "-1")),
        ([], {"--bias": "alone.csv"}, ("x (40); add items of other groups",)),
        ([], {"--method": "soft", "--choice": "measured"}, ("'soft' does not read --alpha, --gamma: leave that out",)),
        ([], {"--method": "random", "--scores": "heads.csv"}, ("'random' does not read --gamma, --scores",)),
        ([], SOFT | {"--front": True}, ("a front counts heads",)),
        ([], SOFT | {"--slice": True}, ("--slice", "--soft-units all drops none")),
        ([], {"--soft-steps": 3, "--subsets": 20}, ("'fasp' does not read --soft-steps, --subsets",)),
        ([], {"--max-drift": -1}, ("--max-drift", "-1")),
        ([], {"--bias-scores": "reweighted"}, ("reweighted", "first-order or generated")),
    ],
)
def test_input_that_cannot_work_ends_with_exit_code_2_and_says_why(
    run: Run, choices: Path, changed: list[tuple[str, ...]], options: dict[str, Any], said: tuple[str, ...]
) -> None:
    write("items.csv", rows_of(40) + changed)
    write("other.csv", rows_of(16, groups="pq"))
    write("alone.csv", rows_of(40, groups="xx"))
    outcome = lm(run, "repair", REPAIR | options)
    assert outcome.code == 2, outcome.err
    for words_of_it in said:
        assert words_of_it in outcome.message
    assert not Path("out/result.json").exists()
