"""Validity is Spearman's correlation of what was estimated with what was measured."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fairmend.language.scores.validity import heads_to_ablate, rank_validity, sum_validity, validity_in_words
from fairmend.masks import Mask


def mask(*units: int) -> Mask:
    return Mask(sum(1 << unit for unit in units), 8)


@given(seed=st.integers(0, 1000), n=st.integers(5, 60))
def test_it_is_spearmans_correlation_of_what_is_finite(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    estimated, measured = rng.normal(size=(2, n))
    found = rank_validity([*estimated, math.nan, 1.0], [*measured, 1.0, math.inf], "loss")
    assert found.n == n
    assert found.value == pytest.approx(spearmanr(estimated, measured).statistic)
    assert (found.warning is None) == (found.value >= 0.5)


def test_what_cannot_be_told_is_said_and_is_no_warning() -> None:
    few, same = rank_validity([1, 2, 3, 4], [1, 2, 3, 4], "x", "sets"), rank_validity([1] * 6, range(6), "x")
    assert (str(few), str(same)) == ("x of 4 sets: too few sets", "x of 6 heads: unknown, nothing differs")
    assert few.warning is same.warning is None
    assert validity_in_words([]) == ""


def test_sums_are_held_against_sets_measured_anyhow() -> None:
    effects = np.arange(8.0)
    sets = [mask(0), mask(1, 2), mask(7), mask(3, 4, 5), mask(0, 7)]
    changes = [0.1, 0.2, 0.9, 0.8, 1.0]
    found = sum_validity(effects, [(mask(), 5.0), *zip(sets, changes, strict=True)], "bias")
    assert found.value == pytest.approx(spearmanr([0, 3, 7, 12, 7], changes).statistic)
    assert str(found) == "sums of bias effects against measured changes of 5 sets: 0.67"
    against = sum_validity(-effects, zip(sets, changes, strict=True), "bias")
    assert "does not say what dropping heads together does" in (against.warning or "")
    assert validity_in_words([found, against]).startswith("Validity (rank correlation): sums of bias effects")


@given(seed=st.integers(0, 1000), n=st.integers(1, 60))
def test_extreme_heads_are_ablated_and_some_in_between(seed: int, n: int) -> None:
    effects = np.random.default_rng(seed).normal(size=n)
    found = heads_to_ablate(effects, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, np.unique(found))
    assert len(found) == min(n, 20)
    order = np.argsort(effects)
    assert {*order[:5].tolist(), *order[-5:].tolist()} <= set(found.tolist())


def test_the_heads_between_are_drawn_evenly() -> None:
    counts = np.zeros(40)
    for seed in range(600):
        counts[heads_to_ablate(np.arange(40.0), np.random.default_rng(seed))] += 1 / 600
    np.testing.assert_array_equal(np.flatnonzero(counts > 0.999), [*range(5), *range(35, 40)])
    np.testing.assert_allclose(counts[5:35], 1 / 3, atol=0.09)
