"""What a model makes of prompts: the kind of the prompts decides, and both kinds keep to one protocol."""

import numpy as np
import pytest
from choice_cases import MIXED, choices_of, preference_by_hand
from tiny_lm import tiny_lm
from toy_scorer import WordScorer, two_groups

from fairmend.errors import InputError, ModelError
from fairmend.language.heads.folding import fold
from fairmend.language.measurement.answers import Answers, Preferences, Toxicity, answers_of
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import Sampling

LM = tiny_lm()
SAMPLING = Sampling(new_tokens=5, seed=3, n_samples=2)
KINDS = [pytest.param(two_groups(), id="toxicity"), pytest.param(choices_of(MIXED), id="choices")]


def answers(prompts: PromptSet) -> Answers:
    return answers_of(LM, prompts, WordScorer(), SAMPLING)


def test_the_kind_of_the_prompts_decides() -> None:
    toxicity, preferences = answers(two_groups()), answers(choices_of(MIXED))
    assert isinstance(toxicity, Toxicity)
    assert isinstance(preferences, Preferences)
    assert (toxicity.n_samples, toxicity.scorer, toxicity.quantity) == (2, WordScorer().name, SAMPLING.score)
    assert (preferences.n_samples, preferences.scorer, preferences.quantity) == (1, "", "preference")
    assert isinstance(answers_of(LM, choices_of(MIXED), None, SAMPLING), Preferences)
    with pytest.raises(InputError, match="need a scorer of toxicity: give one"):
        answers_of(LM, two_groups(), None, SAMPLING)


def test_preferences_are_those_of_plain_transformers_with_and_without_heads() -> None:
    found = Preferences(LM, choices_of(MIXED))
    mask, rows = LM.head_map.space().mask([1, 6]), np.array([4, 0, 2])
    folded = fold(LM.model, mask, LM.head_map)
    np.testing.assert_allclose(
        found.plainly()[:, 0],
        [preference_by_hand(LM.model, found.encoded, row) for row in range(len(MIXED))],
        atol=1e-4,
    )
    (under,) = found.under([(mask, rows)])
    np.testing.assert_allclose(
        under[:, 0], [preference_by_hand(folded, found.encoded, int(row)) for row in rows], atol=1e-4
    )


@pytest.mark.parametrize("prompts", KINDS)
def test_the_model_as_it_is_answers_like_a_mask_that_drops_nothing(prompts: PromptSet) -> None:
    found, told = answers(prompts), []
    plain = found.plainly(lambda done, total: told.append((done, total)))
    (under,) = found.under([(LM.head_map.space().untouched(), np.arange(len(prompts)))])
    assert plain.shape == under.shape == (len(prompts), found.n_samples)
    np.testing.assert_allclose(plain, under, atol=1e-5)
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("prompts", KINDS)
def test_the_tokens_of_rows_add_up(prompts: PromptSet) -> None:
    found, rows = answers(prompts), np.arange(len(prompts))
    assert found.n_tokens(rows[:0]) == 0
    if isinstance(found, Toxicity):
        assert found.n_tokens(rows) == sum(found.n_tokens(np.array([row])) for row in rows)
        words = len(prompts.texts[0].split())
        assert found.n_tokens(rows[:1]) == SAMPLING.n_samples * (words + SAMPLING.new_tokens)
    else:  # contexts that items share are read once
        assert 0 < found.n_tokens(rows) <= sum(found.n_tokens(np.array([row])) for row in rows)


def test_a_broken_model_is_refused_with_what_is_broken() -> None:
    broken = tiny_lm(seed=1)
    next(iter(broken.model.parameters())).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="logits that are not finite"):
        Preferences(broken, choices_of(MIXED)).plainly()
