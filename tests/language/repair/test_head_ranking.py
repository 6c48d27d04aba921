"""The scores that heads are ranked by."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from repair_cases import SETTINGS, search_evaluator, small

from fairmend.language.models.models import LanguageModel
from fairmend.language.repair.head_ranking import HeadRanking, gradient_scores, rank_heads
from fairmend.language.scores.first_order import first_order_losses
from fairmend.language.scores.magnitude import head_magnitudes
from fairmend.records import built, plain


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
