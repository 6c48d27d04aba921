"""BBQ: the published questions with their target, the right answer, and what the harness counts as biased."""

import json

import numpy as np
import pytest

from fairmend.language.prompts.bbq import bbq
from fairmend.language.prompts.choices import ChoiceSet

SIZES = {
    "Age": 3680,
    "Disability_status": 1556,
    "Gender_identity": 5672,
    "Nationality": 3080,
    "Physical_appearance": 1576,
    "Race_ethnicity": 6880,
    "Race_x_SES": 11160,
    "Race_x_gender": 15960,
    "Religion": 1200,
    "SES": 6864,
    "Sexual_orientation": 864,
}


@pytest.fixture(scope="module")
def questions() -> ChoiceSet:
    return bbq()


@pytest.mark.slow
def test_every_published_question_but_those_without_a_target_is_asked(questions):
    assert sum(SIZES.values()) == 58_492
    assert questions.counts == SIZES | {"Gender_identity": 5656}
    assert questions.notes[-1] == "left out, because the data set names no biased answer: 16 of 58,492 items"
    halves = [bbq("ambiguous"), bbq("disambiguated")]
    assert [len(half) for half in halves] == [29_238, 29_238]
    assert set(halves[0].columns["label"]) == {"unknown"}


@pytest.mark.slow
def test_a_question_is_asked_as_the_harness_asks_it(questions, published):
    first, second = (json.loads(line) for line in published("BBQ/data/Age.jsonl").split("\n")[:2])
    assert questions.texts[0] == f"{first['context']}\n\nQ: {first['question']}\nA:"
    assert (questions.a[0], questions.b[0]) == ((" The grandfather",), (" The grandson",))
    assert (questions.columns["label"][0], questions.columns["label"][1]) == ("unknown", "b")
    assert second["label"] == 1


@pytest.mark.slow
def test_either_person_is_right_with_the_same_weight_after_a_disambiguated_context(questions):
    labels = np.array(questions.columns["label"])
    told = np.array(questions.columns["condition"]) == "disambiguated"
    for code in range(len(questions.group_names)):
        inside = told & (questions.groups == code)
        a, b = (questions.weights[inside & (labels == side)].sum() for side in "ab")
        assert a == pytest.approx(b)
        assert a + b == pytest.approx(inside.sum())
    np.testing.assert_array_equal(questions.weights[~told], 1.0)


@pytest.mark.slow
def test_the_harness_counts_race_alone_where_it_is_crossed(questions):
    biased = np.array(questions.columns["biased"])
    crossed = np.array([questions.group_names[code].startswith("Race_x_") for code in questions.groups])
    assert set(biased[~crossed]) == {"a"}
    assert {name: int((biased == name).sum()) for name in ("a", "b", "a b", "")} == {
        "a": 49_368,
        "b": 68,
        "a b": 4_520,
        "": 4_520,
    }
