"""What a model knows, against figures computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairmend.language.measurement.drift import Drift
from fairmend.language.measurement.judging import Judgement, PerplexityChange, kept_in_words
from fairmend.language.measurement.knowledge import knowledge_change, mean_preference, summarise_knowledge
from fairmend.language.prompts.choices import ChoiceSet, choice_set
from fairmend.statistics import Interval


def items(groups: str, weights: list[float] | None = None) -> ChoiceSet:
    n = len(groups)
    return choice_set(
        [f"w{number}" for number in range(n)],
        [(" yes",)] * n,
        [(" no",)] * n,
        list(groups),
        axis="knowledge",
        source="made",
        licence="none",
        weights=weights,
    )


def test_every_group_weighs_alike_however_many_items_it_has() -> None:
    """Group a has the mean 2 and variance 1 of 3 items, b the mean -1 and variance 2 of 2."""
    found = summarise_knowledge(items("aaabb"), np.array([1.0, 2.0, 3.0, -2.0, 0.0]))
    assert found.mean == pytest.approx((2 - 1) / 2)
    assert found.accuracy == pytest.approx((1 + 0) / 2)  # a tie is not known
    assert found.standard_error == pytest.approx(math.sqrt((1 / 3 + 2 / 2) / 4))
    assert (found.n, found.source) == (5, "made")


def test_items_weigh_within_their_group() -> None:
    weighted = items("aabb", [3.0, 1.0, 1.0, 1.0])
    assert mean_preference(weighted, np.array([1.0, 5.0, 2.0, 4.0])) == pytest.approx(((3 + 5) / 4 + 3) / 2)


def test_what_is_kept_is_the_ratio_of_the_means_with_the_error_of_paired_items() -> None:
    before, after = np.array([2.0, 4.0, 1.0, 3.0]), np.array([1.0, 3.0, 1.0, 2.0])
    found = knowledge_change(items("aabb"), before, after)
    kept = 1.75 / 2.5
    # What is left of each item beside its share, in each group of two: half their distance is the group's error.
    rest = (after - kept * before) / 2.5
    error = math.hypot((rest[0] - rest[1]) / 2, (rest[2] - rest[3]) / 2) / 2
    assert found.kept == pytest.approx(kept)
    assert (found.interval.high - found.interval.low) / 2 == pytest.approx(1.959964 * error)
    assert (found.interval.high + found.interval.low) / 2 == pytest.approx(kept)


@pytest.mark.parametrize("after", [[-2.0, -2.0, -2.0, -2.0], [1.0, 2.0, 1.0, 2.0]])
def test_of_a_preference_for_the_wrong_answers_no_share_is_kept(after: list[float]) -> None:
    """Twice as wrong would be 200 %, and right a negative share."""
    found = knowledge_change(items("aabb"), np.full(4, -1.0), np.array(after))
    assert math.isnan(found.kept)
    assert math.isnan(found.interval.low)
    assert math.isnan(found.interval.high)
    assert found.after.mean == pytest.approx(np.mean(after))


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (2.0, "Knowledge kept: 50% [50%, 50%] of the preference for the right answer, 2.00 -> 1.00 nats; "),
        (-2.0, "Knowledge: none to keep, the original does not prefer the right answers, -2.00 -> 1.00 nats; "),
    ],
)
def test_what_is_kept_is_said_in_percent_or_that_there_was_nothing_to_keep(before: float, said: str) -> None:
    found = knowledge_change(items("aabb"), np.full(4, before), np.ones(4))
    read = PerplexityChange(30, 30, 1, 1, 1, Interval(1, 1), 95, "standard")
    _, words = kept_in_words(Judgement((), read, Drift(0.1, 0.01, 95), found))
    assert words.startswith(said)


@given(st.floats(0.1, 2), st.lists(st.floats(0.5, 5), min_size=4, max_size=8))
def test_a_model_with_all_preferences_scaled_keeps_that_share_for_certain(share: float, values: list[float]) -> None:
    before = np.array(values)
    found = knowledge_change(items(("ab" * 4)[: len(values)]), before, share * before)
    assert found.kept == pytest.approx(share)
    assert found.interval.high - found.interval.low == pytest.approx(0, abs=1e-9)
    assert found.before.accuracy == found.after.accuracy == 1
