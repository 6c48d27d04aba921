"""What a model knows, against figures computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairmend.language.measurement.knowledge import knowledge_change, mean_preference, summarise_knowledge
from fairmend.language.prompts.choices import ChoiceSet, choice_set


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


@given(st.floats(0.1, 2), st.lists(st.floats(0.5, 5), min_size=4, max_size=8))
def test_a_model_with_all_preferences_scaled_keeps_that_share_for_certain(share: float, values: list[float]) -> None:
    before = np.array(values)
    found = knowledge_change(items(("ab" * 4)[: len(values)]), before, share * before)
    assert found.kept == pytest.approx(share)
    assert found.interval.high - found.interval.low == pytest.approx(0, abs=1e-9)
    assert found.before.accuracy == found.after.accuracy == 1
