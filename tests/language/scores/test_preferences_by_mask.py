"""Preferences without every single head, held against models whose heads are dropped one by one."""

import numpy as np
import pytest
from choice_cases import MIXED, choices_of, preference_by_hand
from tiny_lm import tiny_lm

from fairmend.errors import InputError
from fairmend.language.choices.likelihoods import preferences
from fairmend.language.heads.gates import masked
from fairmend.language.measurement.answers import Preferences
from fairmend.language.models.models import LanguageModel
from fairmend.language.scores.preferences_by_mask import preferences_by_mask

STEP = 0.02


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm("llama-gqa", seed=11)


@pytest.fixture(scope="module")
def answers(lm: LanguageModel) -> Preferences:
    return Preferences(lm, choices_of(MIXED))


def test_exact_ones_are_those_of_the_model_without_the_head(lm: LanguageModel, answers: Preferences) -> None:
    found = preferences_by_mask(answers, "generated")
    rows = range(len(MIXED))
    whole = [preference_by_hand(lm.model, answers.encoded, row) for row in rows]
    np.testing.assert_allclose(found.before, whole, atol=1e-5)
    for head in range(lm.head_map.n_heads):
        with masked(lm.model, lm.head_map.space().mask([head])):
            alone = [preference_by_hand(lm.model, answers.encoded, row) for row in rows]
        np.testing.assert_allclose(found.without[head], alone, atol=1e-5)
    assert set(found.methods) == {"exact"}


def test_first_order_ones_are_slopes_of_gains(lm: LanguageModel, answers: Preferences) -> None:
    found = preferences_by_mask(answers, "first-order")
    rows = np.arange(len(MIXED))
    for head in range(lm.head_map.n_heads):
        down = np.ones(lm.head_map.n_heads)
        down[head] -= STEP
        (turned,) = preferences(lm, answers.encoded, [(lm.head_map.mask(down), rows)])
        down[head] -= STEP
        (further,) = preferences(lm, answers.encoded, [(lm.head_map.mask(down), rows)])
        slope = (4 * turned - 3 * found.before - further) / (2 * STEP)  # one-sided, of second order
        np.testing.assert_allclose(found.without[head] - found.before, slope, atol=5e-3)


def test_nothing_is_sampled_that_could_be_reweighted(answers: Preferences) -> None:
    with pytest.raises(InputError, match="choose first-order or generated"):
        preferences_by_mask(answers, "reweighted")
