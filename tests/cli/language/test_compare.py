"""The command `fairmend lm compare` on a tiny random model."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Run
from ..language_desk import MEASURE, lm

COMPARE: dict[str, Any] = MEASURE | {
    "--loss-scores": "first-order",
    "--alpha": "0.17,0.34",
    "--gamma": "0.3,0.5",
    "--out": "compared",
}


def rows() -> list[dict[str, str]]:
    with Path("compared/compare.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_method_drops_equally_many_heads_and_fasp_is_shown_at_every_gamma(run: Run, office: Path) -> None:
    outcome = lm(run, "compare", COMPARE)
    assert outcome.code == 0, outcome.err
    untouched, *lines = rows()
    assert (untouched["method"], untouched["heads"], untouched["times"]) == ("untouched", "0", "1.0")
    others = ("performance-only", "fairness-only", "magnitude", "gradient")
    expected = [("fasp", alpha, gamma) for alpha in ("0.17", "0.34") for gamma in ("0.3", "0.5")]
    expected += [(method, alpha, "") for method in others for alpha in ("0.17", "0.34")]
    expected += [("random", alpha, "") for alpha in ("0.17", "0.34") for _ in range(3)]
    assert [(line["method"], line["alpha"], line["gamma"]) for line in lines] == expected
    assert {line["heads"] for line in lines if line["alpha"] == "0.17"} == {"2"}
    assert {line["heads"] for line in lines if line["alpha"] == "0.34"} == {"4"}
    assert len({line["seed"] for line in lines if line["method"] == "random"}) == 3
    for line in lines:
        assert float(line["change"]) == pytest.approx(float(line["bias"]) - float(untouched["bias"]))
        assert float(line["times"]) == pytest.approx(float(line["perplexity"]) / float(untouched["perplexity"]))
        assert float(line["change_low"]) <= float(line["change"]) <= float(line["change_high"])
    assert "chosen on these prompts" in outcome.out
    assert Path("compared/compare.png").read_bytes().startswith(b"\x89PNG")
    drawn = Path("compared/compare.svg").read_text()
    assert "alpha 0.17: 2 of 12 heads dropped" in drawn
    assert "fasp, gamma 0.5" in drawn


def test_a_line_is_what_a_repair_by_that_rule_finds_on_the_same_held_out_data(run: Run, office: Path) -> None:
    assert lm(run, "compare", COMPARE | {"--method": "fasp,gradient"}).code == 0
    read: dict[str, dict[str, Any]] = {"fasp": {"--gamma": 0.3, "--loss-scores": "first-order"}, "gradient": {}}
    for method, own in read.items():
        options = MEASURE | {"--alpha": 0.34, "--choice": "rule", "--method": method, "--out": method, "--json": True}
        repaired = lm(run, "repair", options | own).document
        (line,) = [row for row in rows() if (row["method"], row["alpha"]) == (method, "0.34") and row["gamma"] != "0.5"]
        change = repaired["held_out"]["axes"][0]["change"]
        assert float(line["bias"]) == change["after"]["value"]
        assert float(line["perplexity"]) == repaired["held_out"]["perplexity"]["after"]
        assert line["dropped"].split() == [str(unit) for unit in dropped(repaired)]


def dropped(result: dict[str, Any]) -> list[int]:
    (finalist,) = result["search"]["finalists"]
    units: list[int] = finalist["dropped"]
    return units


def test_heads_are_scored_once_and_coinciding_sets_are_measured_once(
    run: Run, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairmend.language.measurement import evaluator  # transformers, once the cache is set
    from fairmend.language.repair import head_ranking  # transformers, once the cache is set
    from fairmend.language.studies import compare  # transformers, once the cache is set

    scored: list[str] = []
    measured: list[int] = []
    score, measure = head_ranking.score_heads, evaluator.LanguageEvaluator.measure

    def counted_score(*given: Any, **named: Any) -> Any:
        scored.append(named["bias_method"])
        return score(*given, **named)

    def counted_measure(self: Any, masks: Any) -> Any:
        measured.extend(mask.bits for mask in masks)
        return measure(self, masks)

    monkeypatch.setattr(head_ranking, "score_heads", counted_score)
    monkeypatch.setattr(evaluator.LanguageEvaluator, "measure", counted_measure)
    outcome = lm(run, "compare", COMPARE | {"--gamma": "0.1,0.11", "--json": True})
    assert outcome.code == 0, outcome.err
    assert compare.NEEDS["fasp"] == ("loss", "bias")
    assert scored == ["first-order"]
    assert len(measured) == len(set(measured))
    twins = [row["same_heads_as"] for row in outcome.document["rows"] if row["gamma"] == 0.11]
    assert twins == ["fasp alpha 0.17, gamma 0.1", "fasp alpha 0.34, gamma 0.1"]
    assert "drops the same heads as fasp alpha 0.17, gamma 0.1" in run("show", "compared").out


def test_scores_of_lm_score_are_used(run: Run, office: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lm(run, "score", MEASURE | {"--loss-scores": "first-order", "--out": "heads.csv"}).code == 0
    assert lm(run, "compare", COMPARE | {"--method": "fasp"}).code == 0
    own = Path("compared/compare.csv").read_bytes()
    monkeypatch.setattr("fairmend.language.studies.compare.rank_heads", None)
    outcome = lm(run, "compare", COMPARE | {"--method": "fasp", "--scores": "heads.csv", "--out": "given"})
    assert outcome.code == 0, outcome.err
    assert Path("given/compare.csv").read_bytes() == own


def test_the_result_says_what_it_is_of(run: Run, office: Path) -> None:
    found = lm(run, "compare", COMPARE | {"--method": "random", "--json": True}).document
    assert found["schema"] == "fairmend language comparison"
    assert found["data"]["judge_prompts"]["counts"] == {"a": 8, "b": 8}
    assert found["settings"]["random_draws"] == 3
    assert found["model"]["fingerprint"]["weights_sha256"]
    again = lm(run, "compare", COMPARE | {"--method": "random", "--json": True}).document
    assert {**found, "session": 0} == {**again, "session": 0}


COSTS: dict[str, Any] = MEASURE | {
    "--loss-scores": "first-order",
    "--method": "fasp,active,magnitude",
    "--alpha": 0.4,
    "--tokens": 3000,
    "--seeds": 2,
    "--eta": 0.6,
    "--max-drop": 5,
    "--finalists": 2,
    "--out": "costs",
}


def test_repairs_are_compared_at_an_equal_number_of_tokens(run: Run, office: Path) -> None:
    outcome = lm(run, "compare", COSTS)
    assert outcome.code == 0, outcome.err
    with Path("costs/compare.csv").open(newline="") as file:
        untouched, *lines = csv.DictReader(file)
    assert [(line["method"], line["seed"]) for line in lines] == [
        (method, seed) for method in ("fasp", "active", "magnitude") for seed in ("0", "1")
    ]
    assert all(0 < int(line["tokens"]) <= 3000 for line in lines)
    assert {line["method"] for line in lines if line["subsets"]} == {"active"}
    assert untouched["times"] == "1.0"
    assert "Mean over seeds" in outcome.out
    assert Path("costs/compare.png").read_bytes().startswith(b"\x89PNG")
    found = run("show", "costs", "--json").document
    assert [one["method"] for one in found["methods"]] == ["fasp", "active", "magnitude"]
    resumed = run("resume", "costs", "--json")
    assert resumed.code == 0
    assert resumed.document["rows"] == found["rows"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--tokens": None}, ("--method active", "--tokens")),
        ({"--tokens": 30}, ("30 tokens are too few for fasp", "which needs")),
        ({"--tokens": 0}, ("tokens", "0")),
        ({"--seeds": 0}, ("seeds", "0")),
        ({"--alpha": "0.1,0.2"}, ("--alpha", "one")),
        ({"--bias-scores": "generated"}, ("generated", "equal cost")),
        ({"--scores": "heads.csv"}, ("--scores", "--tokens")),
    ],
)
def test_what_cannot_be_compared_at_equal_cost_is_refused(
    run: Run, office: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    refused = lm(run, "compare", {name: value for name, value in (COSTS | changes).items() if value is not None})
    assert refused.code == 2
    assert all(word in refused.message for word in words), refused.message
    assert not Path("costs").exists()
