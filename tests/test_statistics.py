"""Intervals, tests and noise measures agree with scipy, with brute force and with what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fairmend.errors import InputError
from fairmend.statistics import (
    Interval,
    bootstrap_counts,
    holm,
    paired_t_interval,
    percentile_interval,
    permutation_p_value,
    sample_size_needed,
    shuffle_counts,
    split_half_reliability,
    t_interval,
)


def test_t_interval_is_scipys():
    values = np.random.default_rng(0).normal(size=10)
    ours = t_interval(values)
    low, high = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
    assert (ours.interval.low, ours.interval.high) == pytest.approx((low, high))
    assert ours.standard_error == pytest.approx(stats.sem(values))
    assert ours.half_width == pytest.approx((high - low) / 2)
    assert ours.n == 10


def test_one_value_has_a_mean_but_no_interval():
    ours = t_interval([0.3])
    assert ours.mean == 0.3
    assert math.isnan(ours.half_width)
    assert str(ours.interval) == "[not defined]"


def test_a_paired_interval_is_that_of_the_differences():
    before, after = np.random.default_rng(1).normal(size=(2, 8))
    assert paired_t_interval(before, after) == t_interval(after - before)


def test_intervals_of_normal_means_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    hits = sum(t_interval(rng.normal(5, 2, size=6)).interval.contains(5) for _ in range(2000))
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_a_normal_interval_is_scipys():
    found = Interval.normal(2.0, 0.5, 0.9)
    assert (found.low, found.high) == pytest.approx(stats.norm.interval(0.9, 2.0, 0.5))
    assert found.level == 0.9


def test_percentile_interval_leaves_undefined_draws_out_but_not_many():
    draws = np.linspace(0, 1, 101)
    assert percentile_interval(draws, 0.9) == Interval(pytest.approx(0.05), pytest.approx(0.95), 0.9)
    few, many = draws.copy(), draws.copy()
    few[:3], many[:10] = np.nan, np.nan
    assert math.isfinite(percentile_interval(few).low)
    assert math.isnan(percentile_interval(many).low)


def test_an_interval_widens_moves_and_turns_around():
    interval = Interval(0.2, 0.4)
    assert interval.reaching(0.0) == Interval(0.0, 0.4)
    assert interval.reaching(0.5) == Interval(0.2, 0.5)
    assert interval.negated() == Interval(-0.4, -0.2)
    assert interval.negated().shifted(1.0) == Interval(0.6, 0.8)
    assert interval.contains(0.2)
    assert not interval.contains(0.41)
    assert str(interval) == "[0.200, 0.400]"


def test_resampled_counts_keep_their_strata_and_their_mean():
    table = np.array([[[30, 10], [0, 0]], [[5, 95], [7, 0]]])
    draws = bootstrap_counts(table, 4000, np.random.default_rng(3))
    assert draws.shape == (4000, 2, 2, 2)
    assert (draws.sum(axis=-1) == table.sum(axis=-1)).all()
    assert draws.mean(axis=0) == pytest.approx(table, abs=0.3)
    assert draws[:, 0, 0, 0].var() == pytest.approx(40 * 0.75 * 0.25, rel=0.1)


def test_shuffled_counts_have_the_distribution_of_shuffled_labels():
    table = np.array([[4, 1, 0], [2, 2, 3], [0, 5, 1]])
    groups = np.repeat([0, 1, 2], table.sum(axis=1))
    cells = np.concatenate([np.repeat([0, 1, 2], row) for row in table])
    rng = np.random.default_rng(4)
    brute = np.zeros((4000, 3, 3), dtype=np.int64)
    for draw in brute:
        np.add.at(draw, (rng.permutation(groups), cells), 1)
    ours = shuffle_counts(table, 4000, rng)
    assert (ours.sum(axis=1) == table.sum(axis=0)).all()
    assert (ours.sum(axis=2) == table.sum(axis=1)).all()
    assert (ours >= 0).all()
    assert ours.mean(axis=0) == pytest.approx(brute.mean(axis=0), abs=0.07)
    flat_ours, flat_brute = ours.reshape(4000, 9), brute.reshape(4000, 9)
    assert np.cov(flat_ours.T) == pytest.approx(np.cov(flat_brute.T), abs=0.1)


def test_shuffling_an_empty_group_gives_an_empty_group():
    draws = shuffle_counts([[0, 0], [3, 4], [2, 2]], 50, np.random.default_rng(0))
    assert (draws[:, 0] == 0).all()


def test_the_same_generator_state_gives_the_same_draws():
    table = [[5, 6], [7, 8]]
    for draw in (bootstrap_counts, shuffle_counts):
        first, second = (draw(table, 20, np.random.default_rng(9)) for _ in range(2))
        assert np.array_equal(first, second)


def test_permutation_p_value_counts_ties_and_is_never_zero():
    assert permutation_p_value(1.0, [0.0, 0.5, 0.9]) == 0.25
    assert permutation_p_value(0.1 + 0.2, [0.3, 0.1, 0.2]) == 0.5
    assert math.isnan(permutation_p_value(math.nan, [0.1]))


def test_holm_on_a_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_exactly_what_the_step_down_procedure_rejects(p_values):
    alpha, adjusted = 0.05, holm(p_values)
    rejected = set()
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] * (len(p_values) - step) > alpha:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(adjusted) if p <= alpha} == rejected


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_split_half_reliability_foretells_the_reliability_of_the_whole(noise):
    rng = np.random.default_rng(5)
    truth = rng.normal(size=20000)
    halves = [truth + noise * math.sqrt(2) * rng.normal(size=truth.size) for _ in range(2)]
    assert split_half_reliability(*halves) == pytest.approx(1 / (1 + noise**2), abs=0.03)


def test_reliability_of_extreme_cases():
    scores = np.array([1.0, 2.0, 4.0])
    assert split_half_reliability(scores, 3 * scores + 1) == pytest.approx(1.0)
    assert split_half_reliability(scores, -scores) == pytest.approx(-1.0)
    assert math.isnan(split_half_reliability(scores, np.ones(3)))


def test_the_sample_size_needed_gives_the_power_asked_for():
    rng = np.random.default_rng(7)
    effect, n = 0.2, 50  # mean of n unit normals, one-sided test at 5 %
    needed = sample_size_needed(effect, n, stats.norm.ppf(0.95) / math.sqrt(n), 1 / math.sqrt(n))
    means = rng.normal(effect, 1 / math.sqrt(needed), size=20000)
    assert np.mean(means > stats.norm.ppf(0.95) / math.sqrt(needed)) == pytest.approx(0.8, abs=0.01)
    assert sample_size_needed(0.0, n, 0.1, 0.1) is None
    assert sample_size_needed(0.1, n, math.nan, 0.1) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: t_interval([]), "non-empty"),
        (lambda: t_interval([[1.0, 2.0]]), r"\(1, 2\)"),
        (lambda: t_interval([1.0, 2.0], level=95), "95"),
        (lambda: percentile_interval([1.0], level=0), "level"),
        (lambda: paired_t_interval([1.0], [1.0, 2.0]), "1 and 2"),
        (lambda: holm([0.1, math.nan]), "nan"),
        (lambda: holm([1.1]), "1.1"),
        (lambda: split_half_reliability([1.0], [1.0]), "at least 2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
