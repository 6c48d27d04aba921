"""The scores that heads are ranked by."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from repair_cases import SETTINGS, repair, repaired_once, search_evaluator, small
from scipy.stats import spearmanr

from fairmend.language.models.models import LanguageModel
from fairmend.language.records.cards import repair_card
from fairmend.language.records.results import describe_result
from fairmend.language.repair.head_ranking import HeadRanking, gradient_scores, rank_heads
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.scores.first_order import first_order_losses
from fairmend.language.scores.magnitude import head_magnitudes
from fairmend.records import built, plain
from fairmend.report.card import render_card


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return small()


@pytest.mark.parametrize("method", ["generated", "reweighted", "first-order"])
def test_heads_are_scored_by_every_method_and_scores_survive_json(lm: LanguageModel, method: Any):
    settings = replace(SETTINGS, bias_scores=method, loss_scores="exact")
    ranking = rank_heads(search_evaluator(lm, settings), settings)
    again = built(json.loads(json.dumps(plain(ranking), allow_nan=False)), HeadRanking)
    for name in ("loss", "bias"):
        np.testing.assert_array_equal(again.scores[name], ranking.scores[name])
    assert again.notes == ranking.notes
    assert "mostly noise" in ranking.notes[-1]
    assert set(again.table.axes[0].methods) <= {"generated", method}  # type: ignore[union-attr]


def test_generated_scores_are_the_figures_of_single_masks(lm: LanguageModel):
    settings = replace(SETTINGS, bias_scores="generated")
    evaluator = search_evaluator(lm, settings)
    ranking = rank_heads(evaluator, settings)
    singles = [evaluator.space.mask([unit]) for unit in range(12)]
    made = evaluator.measure(singles)
    np.testing.assert_allclose(ranking.scores["bias"], [measurement.bias for measurement in made])
    np.testing.assert_allclose(ranking.scores["loss"], [measurement.utility for measurement in made])
    exact = rank_heads(evaluator, replace(SETTINGS, loss_scores="exact", method="performance-only"))
    np.testing.assert_allclose(ranking.scores["loss"], exact.scores["loss"], rtol=1e-5)


def test_baselines_rank_by_weights_and_gradients(lm: LanguageModel):
    evaluator = search_evaluator(lm, SETTINGS)
    magnitude = rank_heads(evaluator, replace(SETTINGS, method="magnitude"))
    np.testing.assert_array_equal(magnitude.scores["magnitude"], head_magnitudes(lm.model).values)
    gradient = rank_heads(evaluator, replace(SETTINGS, method="gradient")).scores["gradient"]
    np.testing.assert_allclose([np.linalg.norm(layer) for layer in gradient.reshape(3, 4)], 1.0)
    losses = first_order_losses(lm, evaluator.reading.tokens, evaluator.reading.protocol)
    np.testing.assert_array_equal(gradient, gradient_scores(losses, lm.head_map))


def test_a_repair_drops_no_head_whose_loss_is_an_estimate_by_default(lm: LanguageModel):
    assert RepairSettings().loss_scores == "screened"
    assert RepairSettings.fasp().loss_scores == "exact"
    for changes in ({}, {"method": "performance-only"}, {"choice": "rule", "alpha": 0.2}):
        found = repair(lm, loss_scores="screened", held_out=False, **changes)
        methods = found.ranking.table.loss.methods  # type: ignore[union-attr]
        assert found.finalists
        assert {methods[unit] for each in found.finalists for unit in each.mask.units()} == {"layer resume"}
        assert "first-order" in methods
        assert str(found.ranking.validity[0]).startswith("first-order loss against exact ablation of ")


def test_sums_of_effects_are_held_against_the_sets_that_a_repair_measured(lm: LanguageModel):
    found = repair(lm, front=True, held_out=False, alpha=0.6)
    table = found.ranking.table
    assert table is not None
    sets = [(list(each.mask.units()), each.measurement) for each in found.finalists]
    bias, loss = found.ranking.validity[-1], found.ranking.validity[-2]
    assert (loss.n, loss.unit) == (bias.n, bias.unit) == (len(sets), "sets")
    assert len(sets) >= 5
    gained = [made.bias - found.before.bias for _, made in sets]
    assert bias.value == pytest.approx(spearmanr([table.axes[0].effect[each].sum() for each, _ in sets], gained)[0])
    ratios = [np.log(made.utility / found.before.utility) for _, made in sets]
    assert loss.value == pytest.approx(spearmanr([table.loss.effect[each].sum() for each, _ in sets], ratios)[0])


def test_results_and_cards_say_how_valid_the_ranking_is():
    found, lm = repaired_once(), small()
    told = describe_result(found, lm)["scores"]["validity"]
    assert [each["n"] for each in told] == [len(found.finalists)] * 2
    assert f"{found.ranking.validity[0]}; {found.ranking.validity[1]}" in render_card(repair_card(found, lm))
    warned = [each.warning for each in found.ranking.validity if each.warning]
    assert set(warned) <= set(found.ranking.notes)


def test_active_learning_holds_its_ranking_against_all_subsets(lm: LanguageModel):
    few = replace(SETTINGS.subsets, samples=24, finalists=2)
    found = repair(lm, method="active", loss_scores="screened", subsets=few, held_out=False)
    assert [each.unit for each in found.ranking.validity] == ["heads", "sets", "sets"]
    assert found.ranking.validity[-1].n >= 20
