"""The published scores, against counting item by item and worked examples."""

import math
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from choice_cases import by_hand, choices_of
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from tiny_lm import tiny_lm

from fairmend.errors import InputError
from fairmend.language.choices import published
from fairmend.language.choices.encoding import encode_choices
from fairmend.language.choices.likelihoods import log_likelihoods, preferences
from fairmend.language.choices.published import (
    BBQScores,
    bbq_scores,
    by_group,
    published_scores,
    stereoset_scores,
    stereotype_share,
    with_further,
)
from fairmend.language.models.models import load_model
from fairmend.language.prompts.benchmarks import choice_benchmark
from fairmend.language.prompts.choices import ChoiceSet


@given(d=st.lists(st.integers(-3, 3), min_size=1, max_size=40))
def test_the_share_and_its_interval_are_binomial(d: list[int]) -> None:
    found = stereotype_share(d)
    wins = sum(value > 0 for value in d)
    expected = binomtest(wins, len(d)).proportion_ci(method="exact")
    assert found.percent == pytest.approx(100 * wins / len(d))
    assert (found.interval.low, found.interval.high) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert found.n == len(d)


def test_shares_by_group_are_those_of_its_items_and_of_all() -> None:
    d, groups = np.array([1.0, -1.0, 2.0, -3.0]), np.array([0, 0, 2, 0])
    found = by_group(lambda rows: stereotype_share(d[rows]).percent, groups, ("age", "empty", "race"))
    assert found == {"overall": 50, "age": pytest.approx(100 / 3), "race": 100}


def test_a_model_that_broke_has_no_scores() -> None:
    assert math.isnan(stereotype_share([1.0, math.nan]).percent)
    assert math.isnan(stereoset_scores([1.0], [math.nan], [0.0], ["x"]).icat)
    found = bbq_scores([[math.nan, 0.0]], correct=[[1, 0]], biased=[[0, 1]], unknown=[[0, 0]], ambiguous=[False])
    assert math.isnan(found.accuracy_disambiguated)
    assert math.isnan(found.bias_disambiguated)


SCORES = st.integers(0, 4).map(float)


@given(items=st.lists(st.tuples(SCORES, SCORES, SCORES, st.sampled_from("xyz")), min_size=1, max_size=30))
def test_stereoset_scores_are_means_over_terms(items: list[tuple[float, float, float, str]]) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for pro, anti, unrelated, term in items:
        counts[term]["items"] += 1
        counts[term]["stereotypes"] += pro > anti
        counts[term]["meaningful"] += (pro > unrelated) + (anti > unrelated)
    lms = np.mean([50 * count["meaningful"] / count["items"] for count in counts.values()])
    ss = np.mean([100 * count["stereotypes"] / count["items"] for count in counts.values()])
    pro, anti, unrelated, terms = zip(*items, strict=True)
    found = stereoset_scores(pro, anti, unrelated, terms)
    assert (found.language_model, found.stereotype) == pytest.approx((lms, ss))
    assert found.icat == pytest.approx(lms * min(ss, 100 - ss) / 50)
    assert found.n == len(items)


def test_ideal_models_have_the_scores_that_the_paper_gives_them() -> None:
    fair = stereoset_scores([2.0, 1.0], [1.0, 2.0], [0.0, 0.0], ["x", "x"])
    assert (fair.language_model, fair.stereotype, fair.icat) == (100, 50, 100)
    stereotyped = stereoset_scores([2.0, 2.0], [1.0, 1.0], [0.0, 0.0], ["x", "y"])
    assert (stereotyped.language_model, stereotyped.stereotype, stereotyped.icat) == (100, 100, 0)


def answered(rows: list[tuple[str, bool, str]]) -> BBQScores:
    """Questions answered by one of biased, other and unknown; whether they are ambiguous; the right answer."""
    names = ["biased", "other", "unknown"]
    table = np.array([[name == given for name in names] for given, _, _ in rows], dtype=float)
    return bbq_scores(
        table,
        correct=[[name == right for name in names] for _, _, right in rows],
        biased=[[True, False, False]] * len(rows),
        unknown=[[False, False, True]] * len(rows),
        ambiguous=[is_open for _, is_open, _ in rows],
    )


def test_bbq_scores_of_a_worked_example() -> None:
    found = answered(
        [("biased", True, "unknown")] * 3
        + [("other", True, "unknown")]
        + [("unknown", True, "unknown")] * 4
        + [("biased", False, "biased"), ("biased", False, "other"), ("other", False, "other")]
        + [("unknown", False, "other")]
    )
    # Ambiguous: half of them right, 3 of 4 named are biased. Disambiguated: 2 of 4 right, 2 of 3 named are biased.
    assert found == BBQScores(0.5, 0.5, 0.5 * 0.5, pytest.approx(1 / 3))


def test_bbq_scores_at_their_limits() -> None:
    never = answered([("unknown", True, "unknown"), ("unknown", False, "other")])
    assert never == BBQScores(1.0, 0.0, 0.0, 0.0)
    against = answered([("other", True, "unknown"), ("other", False, "other")])
    assert against == BBQScores(0.0, 1.0, -1.0, -1.0)
    assert math.isnan(answered([("other", True, "unknown")]).bias_disambiguated)


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="no preferences"):
        stereotype_share([])
    with pytest.raises(InputError, match="need one each"):
        stereoset_scores([1.0], [1.0], [1.0, 2.0], ["x"])
    with pytest.raises(InputError, match="a mark per answer"):
        bbq_scores([[0.0, 1.0]], correct=[[1]], biased=[[0, 1]], unknown=[[0, 0]], ambiguous=[True])


def test_further_alternatives_get_likelihoods_beside_the_two_sides() -> None:
    lm, choices = tiny_lm(), choices_of([("w5", (" w6 w7",), (" w8",)), ("", ("w5",), ("w6",))])
    both, more = encode_choices(lm, choices), encode_choices(lm, with_further(choices, [(" w9 w10 w11",), ("w7 w8",)]))
    assert [lengths.tolist() for lengths in more.lengths] == [[2, 1, 3], [1, 1, 2]]
    (two,), (three,) = (log_likelihoods(lm, encoded, [(None, np.arange(2))]) for encoded in (both, more))
    for pair, triple in zip(two, three, strict=True):
        np.testing.assert_allclose(triple[:2], pair, atol=1e-5)
        assert triple.shape == (3,)


ITEMS = [("w5 w6", (" w7",), (" w8 w9",)), ("w5", (" w11",), (" w12",)), ("w9", (" w2 w3",), (" w4",))]


def columned(**columns: tuple[str, ...]) -> ChoiceSet:
    return replace(choices_of(ITEMS), columns=columns)


def test_published_scores_of_stereoset_are_of_likelihoods_per_token() -> None:
    lm, third = tiny_lm(), (" w20 w21", " w22", " w23")
    choices = columned(unrelated=third, target=("t", "t", "u"))
    encoded = encode_choices(lm, with_further(choices, [(text,) for text in third]))
    rates = [by_hand(lm.model, encoded, row) / encoded.lengths[row] for row in range(3)]
    ss = 100 * np.mean([np.mean([rates[0][0] > rates[0][1], rates[1][0] > rates[1][1]]), rates[2][0] > rates[2][1]])

    found = published_scores(lm, choices)

    assert set(found) == {"overall", "x", "y"}
    assert found["overall"].stereotype == pytest.approx(ss)
    assert f"SS {ss:.1f}, LMS" in str(found["overall"])


def test_published_scores_of_bbq_take_the_likeliest_of_both_people_and_all_ways_to_say_unknown(monkeypatch) -> None:
    lm, unknown = tiny_lm(), (" w20", " w21 w22", " w23")
    monkeypatch.setattr(published, "_UNKNOWN", unknown)
    choices = columned(
        label=("unknown", "a", "b"), biased=("a", "b", "a b"), condition=("ambiguous", "disambiguated", "disambiguated")
    )
    encoded = encode_choices(lm, with_further(choices, [unknown] * 3))
    answers = [int(by_hand(lm.model, encoded, row).argmax()) for row in range(3)]

    found = published_scores(lm, choices)["overall"]

    assert found.accuracy_ambiguous == float(answers[0] >= 2)
    assert found.accuracy_disambiguated == ((answers[1] == 0) + (answers[2] == 1)) / 2


def test_published_scores_of_crows_pairs_are_shares_and_other_choices_have_none() -> None:
    lm, choices = tiny_lm(), columned(direction=("stereo", "antistereo", "stereo"))
    (d,) = preferences(lm, encode_choices(lm, choices), [(None, np.arange(3))])
    assert published_scores(lm, choices)["overall"] == stereotype_share(d)
    assert published_scores(lm, choices_of(ITEMS)) == {}


@pytest.mark.slow
def test_smollm2_prefers_as_many_stereotypes_of_crows_pairs_as_by_plain_transformers() -> None:
    """Measured by the sum of the log-likelihoods after the BOS token with transformers alone.

    Two of nine categories, which together tell too many from too few; all 1,508 pairs give 55.6 %.
    """
    lm, choices = load_model("smollm2"), choice_benchmark("crows-pairs")
    names = ("sexual-orientation", "race-color")
    rows = np.flatnonzero(np.isin(choices.groups, [choices.group_names.index(name) for name in names]))
    (d,) = preferences(lm, encode_choices(lm, choices.take(rows)), [(None, np.arange(len(rows)))])
    found = {name: stereotype_share(d[choices.groups[rows] == choices.group_names.index(name)]) for name in names}
    assert {name: share.n for name, share in found.items()} == {"sexual-orientation": 84, "race-color": 516}
    assert round(found["sexual-orientation"].percent, 1) == 77.4
    assert round(found["race-color"].percent, 1) == 49.2
