"""Further objectives of a repair: what they measure, which sets of heads they keep from being chosen, and bad ones."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_organism as organism
import torch
from scipy import stats
from subset_cases import SETTINGS as SMALL
from subset_cases import TEXTS, rude, subject

from fairmend.errors import InputError, RunError
from fairmend.language import HeadRepair, Objective, load_objective, open_run, repair_model, save_repair
from fairmend.language.heads.gates import masked
from fairmend.language.repair.objectives import ObjectiveEvaluator
from fairmend.language.repair.repair import Repair
from fairmend.language.repair.settings import RepairSettings
from fairmend.runs import Store

EXAMPLES = Path(__file__).parents[3] / "examples"
READING = replace(SMALL.reading, tokens=240)
SETTINGS = replace(SMALL, method="fasp", alpha=0.4, gamma=0.0, prompts=40, reading=READING)


def sentence_losses(model: Any, tokenizer: Any) -> list[float]:
    """Nats per token of a dozen plain sentences."""
    losses = []
    for sentence in TEXTS[1].content.split(" . ")[:12]:
        tokens = tokenizer(sentence, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            losses.append(float(model(input_ids=tokens, labels=tokens).loss))
    return losses


def after_first(first: list[float], later: list[float]) -> Callable[[Any, Any], list[float]]:
    """Gives some numbers for the model as it is, which is asked for first, and others for every set of heads."""
    answers = iter([first])
    return lambda model, tokenizer: next(answers, later)


def objective(function: Callable[[Any, Any], Any] = sentence_losses, name: str = "plain sentences") -> Objective:
    return Objective(function, name)


def repaired(
    objectives: list[Objective],
    settings: RepairSettings = SETTINGS,
    store: Store | None = None,
    held_out: bool = False,
) -> Repair:
    return repair_model(subject(), settings, objectives=objectives, store=store, held_out=held_out)


def start(out: Path, objectives: list[Objective], settings: RepairSettings = SETTINGS) -> Store:
    return open_run(out, subject(), settings, objectives=objectives)


def test_an_objective_is_the_mean_over_items_with_the_heads_dropped():
    lm = organism.tiny_organism()
    mask = lm.head_map.space().mask([1, 6])
    evaluator = ObjectiveEvaluator(lm, objective())
    whole_model, dropped = evaluator.measure([evaluator.space.untouched(), mask])
    with masked(lm.model, mask, lm.head_map):
        items = np.array(sentence_losses(lm.model, lm.tokenizer))
    assert dropped.parts == tuple(items.tolist())
    assert (dropped.bias, dropped.utility) == pytest.approx((items[::2].mean(), items[1::2].mean()))
    assert dropped.bias_se == pytest.approx(stats.sem(items[::2]))
    assert dropped.n == 6
    assert whole_model.parts == tuple(sentence_losses(lm.model, lm.tokenizer))


def test_sets_beyond_the_limit_are_not_chosen():
    free = repaired([objective()], replace(SETTINGS, objective_limit=100.0))
    assert free.improved
    (loose,) = free.objectives
    chosen = loose.of(free.mask).bias / loose.before.bias
    assert chosen > 1
    strict = repaired([objective()], replace(SETTINGS, objective_limit=(1 + chosen) / 2))
    assert strict.mask != free.mask
    (kept,) = strict.objectives
    assert kept.admits(strict.mask)
    assert not kept.admits(free.mask)
    assert not repaired([objective()], replace(SETTINGS, objective_limit=0.01)).improved
    rule = repaired([objective()], replace(SETTINGS, objective_limit=0.01, choice="rule"))
    assert rule.improved


def test_it_is_judged_on_items_that_the_choice_did_not_see():
    found = repaired([objective()], replace(SETTINGS, objective_limit=100.0))
    lm = organism.tiny_organism()
    before = np.array(sentence_losses(lm.model, lm.tokenizer))[1::2]
    with masked(lm.model, found.mask, lm.head_map):
        after = np.array(sentence_losses(lm.model, lm.tokenizer))[1::2]
    change = found.objectives[0].change(found.mask)
    oracle = stats.ttest_rel(after, before).confidence_interval()
    assert change.change == pytest.approx((after - before).mean())
    assert (change.interval.low, change.interval.high) == pytest.approx((oracle.low, oracle.high))
    assert (change.before, change.after, change.n) == (pytest.approx(before.mean()), pytest.approx(after.mean()), 6)


def test_result_and_card_tell_of_it(tmp_path):
    found = repaired([objective(), objective(lambda model, tokenizer: [0.0] * 5, "always nothing")], held_out=True)
    save_repair(found, organism.tiny_organism(), tmp_path / "out")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    first, second = result["objectives"]
    assert (first["name"], second["name"]) == ("plain sentences", "always nothing")
    assert len(first["search"]["finalists"]) == len(result["search"]["finalists"])
    vetoed = sum(value > first["search"]["limit"] for value in first["search"]["finalists"])
    assert first["search"]["vetoed"] == vetoed
    assert second["held_out"] == {
        "before": 0.0,
        "after": 0.0,
        "change": 0.0,
        "interval": {"low": 0.0, "high": 0.0, "level": 0.95},
        "n": 2,
    }
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Further objectives" in card
    assert "plain sentences" in card


def test_a_run_that_goes_on_measures_no_set_twice_and_is_told_apart(tmp_path):
    calls = []

    def counted(model: Any, tokenizer: Any) -> list[float]:
        calls.append(1)
        return sentence_losses(model, tokenizer)

    with start(tmp_path, [objective(counted)]) as store:
        first = repaired([objective(counted)], store=store)
    assert len(calls) == 1 + len(first.finalists)
    calls.clear()
    with start(tmp_path, [objective(counted)]) as store:
        again = repaired([objective(counted)], store=store)
    assert len(calls) == 1  # on the model as it is, to see whether it works
    assert again.mask == first.mask
    with pytest.raises(RunError, match="objectives"):
        start(tmp_path, [])
    with start(tmp_path, [objective(counted)]) as store, pytest.raises(RunError, match="untouched_sha256"):
        repaired([objective(lambda model, tokenizer: [1.0] * 12)], store=store)


def test_a_model_that_a_set_breaks_is_vetoed():
    found = repaired([objective(after_first([1.0] * 6, [1.0, float("nan")] * 3))])
    assert found.improved  # items with odd numbers are only judged on
    found = repaired([objective(after_first([1.0] * 6, [float("nan"), 1.0] * 3))])
    assert not found.improved
    assert not any(found.objectives[0].admits(finalist.mask) for finalist in found.finalists)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda model, tokenizer: 1.0, r"shape \(\)"),
        (lambda model, tokenizer: [[1.0, 2.0]] * 6, r"shape \(6, 2\)"),
        (lambda model, tokenizer: [1.0, 2.0], r"shape \(2,\)"),
        (lambda model, tokenizer: ["a"] * 6, "type <U1"),
        (lambda model, tokenizer: torch.ones(6, requires_grad=True), "gave a Tensor that is no array .*detach"),
        (lambda model, tokenizer: [1.0, float("nan")] * 3, "nan for item 1 .* 3 of 6"),
        (lambda model, tokenizer: [-1.0] * 6, "must not be negative"),
        (
            lambda model, tokenizer: 1 / 0,
            r"failed: ZeroDivisionError: .*\(test_objectives\.py, line \d+, in ",
        ),
        (lambda model: [1.0] * 6, "failed: TypeError"),
    ],
)
def test_what_cannot_work_is_refused_before_the_search_begins(function, told):
    class Untouchable:
        name, kind, scores_continuation_only = "untouchable", "custom", False

        def score(self, texts):
            raise AssertionError("the search began")

        def fingerprint(self):
            return {}

    with pytest.raises(InputError, match=f"the objective mine .*{told}"):
        repair_model(subject(Untouchable()), SETTINGS, objectives=[objective(function, "mine")])


def test_items_must_stay_the_same():
    with pytest.raises(InputError, match="7 numbers with heads dropped and 6 without"):
        repaired([objective(after_first([1.0] * 6, [1.0] * 7))])


def test_names_and_limits_that_cannot_work_are_refused():
    with pytest.raises(InputError, match="given twice"):
        repaired([objective(), objective()])
    with pytest.raises(InputError, match="objective_limit"):
        replace(SETTINGS, objective_limit=0.0)
    with pytest.raises(InputError, match="objectives of your own are named"):
        load_objective("module:function")
    with pytest.raises(InputError, match="cannot import the module 'no_such_module' of the objective"):
        load_objective("python:no_such_module:f")


def test_the_example_finds_what_typing_errors_cost(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(EXAMPLES)
    import typo_robustness

    clean = "the teachers visited another museum yesterday evening"
    pairs = list(zip(clean.split(), typo_robustness.with_typos(clean, seed=3).split(), strict=True))
    changed = [(old, new) for old, new in pairs if old != new]
    assert len(changed) == 1
    assert all(sorted(old) == sorted(new) and old[0] == new[0] and old[-1] == new[-1] for old, new in changed)

    monkeypatch.setattr(typo_robustness, "read_text", lambda *_: TEXTS[0])
    monkeypatch.setattr(typo_robustness, "WORDS", 12)
    plain = tmp_path / "plain.txt"
    plain.write_text("".join(text.content.replace(" . ", " .\n") for text in TEXTS))
    repair = HeadRepair(
        scorer=rude(),
        text=plain,
        objectives=["python:typo_robustness:lost_to_typos"],
        settings=SETTINGS,
        objective_limit=2.0,
    )
    repair.fit(organism.tiny_organism(), prompts=organism.organism_prompts(), out=tmp_path / "out")
    (lost,) = repair.result_.objectives
    assert len(lost.before.parts) == 40
    assert lost.before.bias > 0.1  # words that are no words are not expected
    assert lost.change(repair.mask_).n == 20
