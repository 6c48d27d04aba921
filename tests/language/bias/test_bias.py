"""Bias: the figure against brute force, and its uncertainty against simulated truth."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairmend.errors import DataError, InputError
from fairmend.language.bias.bias import (
    BiasChange,
    BiasFigures,
    BiasProtocol,
    Design,
    bias,
    bias_standard_error,
    paired_change,
    prompts_needed,
    summarise_bias,
    verdict,
    verdict_on_change,
)
from fairmend.records import built, plain
from fairmend.statistics import Draws

FAST = {"draws": Draws(300, 300)}


def brute_force(scores, groups, n_groups, group_mean):
    members = [[score for score, group in zip(scores, groups, strict=True) if group == g] for g in range(n_groups)]
    means = [sum(group) / len(group) for group in members]
    overall = sum(means) / n_groups if group_mean == "unweighted" else sum(scores) / len(scores)
    return sum(abs(overall - mean) for mean in means)


def rng(seed=0):
    return np.random.default_rng(seed)


def names(n):
    return [f"group {number}" for number in range(n)]


def skewed(means, uniform):
    """Mostly harmless, sometimes toxic: scores with these means, from coupled or independent uniform numbers."""
    return np.where(uniform < means, 0.5 + uniform / np.maximum(means, 1e-9) / 2, 0.03)


def true_means(shares):
    shares = np.asarray(shares, dtype=float)
    return 0.75 * shares + 0.03 * (1 - shares)


def sample(shares, size, generator):
    groups = np.repeat(np.arange(len(shares)), size)
    return skewed(np.asarray(shares)[groups], generator.random(len(groups))), groups


def designed(shares, size, generator, group_names=None):
    scores, groups = sample(shares, size, generator)
    return scores, Design(groups, group_names or names(len(shares)))


class TestFigure:
    @settings(max_examples=100, deadline=None)
    @given(st.data(), st.sampled_from(["unweighted", "pooled"]), st.integers(2, 6))
    def test_it_is_the_sum_over_groups_for_both_means(self, data, group_mean, n_groups):
        extra = data.draw(st.lists(st.integers(0, n_groups - 1), max_size=30))
        groups = [*range(n_groups), *extra]
        size = len(groups)
        scores = data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
        expected = brute_force(scores, groups, n_groups, group_mean)
        assert float(bias(scores, Design(groups, names(n_groups), group_mean))) == pytest.approx(expected, abs=1e-12)

    def test_the_two_means_differ_when_groups_differ_in_size(self):
        scores, groups = [0.0, 0.0, 0.0, 0.8], [0, 0, 0, 1]
        assert bias(scores, Design(groups, names(2), "unweighted")) == pytest.approx(0.4 + 0.4)
        assert bias(scores, Design(groups, names(2), "pooled")) == pytest.approx(0.2 + 0.6)

    def test_it_is_0_when_all_groups_are_treated_alike(self):
        assert bias([0.1, 0.3, 0.2, 0.2], Design([0, 0, 1, 1], names(2))) == pytest.approx(0, abs=1e-15)

    def test_many_masks_at_once_are_what_each_is_alone(self):
        scores, groups = rng().random((3, 4, 50)), np.arange(50) % 5
        figures = bias(scores, Design(groups, names(5), "pooled"))
        assert figures.shape == (3, 4)
        for index in np.ndindex(3, 4):
            assert figures[index] == pytest.approx(
                float(bias(scores[index], Design(groups, names(5), "pooled"))), abs=1e-13
            )
        assert Design(groups, names(5)).means(scores).shape == (3, 4, 5)

    def test_an_undefined_score_makes_the_figure_undefined(self):
        assert np.isnan(bias([0.1, math.nan, 0.2], Design([0, 0, 1], names(2))))

    @pytest.mark.parametrize(
        ("groups", "n_groups", "error", "message"),
        [
            ([0, 0, 2], 3, DataError, "without an item have no mean: group 1"),
            ([0, 0, 2], 2, InputError, "0 to 2 and 2 groups"),
            ([0, 0, -1], 2, InputError, "numbers -1 to 0"),
            ([0, 0, 0], 1, InputError, "at least 2 of them"),
            ([0, 1], 2, InputError, r"shape \(..., 2\), one per item, got \(3,\)"),
            ([0.0, 1.0, 1.0], 2, InputError, "whole numbers"),
        ],
    )
    def test_groups_that_cannot_be_compared_are_refused(self, groups, n_groups, error, message):
        with pytest.raises(error, match=message):
            bias([0.1, 0.2, 0.3], Design(groups, names(n_groups)))

    def test_an_unknown_mean_is_refused(self):
        with pytest.raises(InputError, match="unweighted, pooled, zero, got 'median'"):
            Design([0, 1], names(2), "median")


class TestProtocol:
    def test_the_default_and_fasp_s(self):
        assert BiasProtocol() == BiasProtocol("unweighted", "continuation")
        assert BiasProtocol.fasp() == BiasProtocol("pooled", "prompt+continuation")
        assert str(BiasProtocol.fasp()) != str(BiasProtocol())

    @pytest.mark.parametrize("wrong", [{"group_mean": "median"}, {"score": "prompt"}])
    def test_unknown_settings_are_refused(self, wrong):
        with pytest.raises(InputError, match="must be one of"):
            BiasProtocol(**wrong)


class TestNoise:
    def test_the_floor_is_the_mean_figure_of_models_without_a_group_difference(self):
        generator = rng(1)
        figures, floors = [], []
        for _ in range(200):
            scores, groups = sample([0.2] * 6, 40, generator)
            figures.append(float(bias(scores, Design(groups, names(6)))))
            floors.append(summarise_bias(scores, Design(groups, names(6)), rng=generator, draws=Draws(100, 100)).floor)
        error = np.std(figures) / math.sqrt(len(figures))
        assert abs(np.mean(figures) - np.mean(floors)) < 3 * error
        assert np.mean(floors) > 10 * error

    def test_the_p_value_is_uniform_without_a_group_difference(self):
        generator = rng(2)
        p_values = []
        for _ in range(200):
            scores, groups = sample([0.3, 0.3, 0.3], 30, generator)
            p_values.append(
                summarise_bias(scores, Design(groups, names(3)), rng=generator, draws=Draws(100, 199)).p_value
            )
        ordered = np.sort(p_values)
        # Kolmogorov and Smirnov's distance; the limit is that of the 0.1 % level.
        assert np.abs(ordered - (np.arange(200) + 0.5) / 200).max() < 1.95 / math.sqrt(200)

    @pytest.mark.parametrize("group_mean", ["unweighted", "pooled"])
    def test_the_standard_error_is_the_spread_over_samples(self, group_mean):
        generator = rng(3)
        shares = np.repeat([0.1, 0.5, 0.3], [40, 80, 160])
        groups = np.repeat([0, 1, 2], [40, 80, 160])
        draws = skewed(shares, generator.random((400, 280)))
        errors = bias_standard_error(draws[:20], Design(groups, names(3), group_mean), rng=generator)
        spread = bias(draws, Design(groups, names(3), group_mean)).std()
        assert errors.shape == (20,)
        assert errors.mean() == pytest.approx(spread, rel=0.12)

    def test_masks_share_their_draws(self):
        scores, groups = rng().random(60), np.arange(60) % 3
        twice = np.stack([scores, scores])
        first, second = bias_standard_error(twice, Design(groups, names(3)), rng=rng())
        assert first == second


@pytest.mark.parametrize(
    "shares",
    [
        pytest.param([0.1] * 2, id="2 equal groups"),
        pytest.param([0.1, 0.4], id="2 groups"),
        pytest.param([0.1] * 8, id="8 equal groups"),
        pytest.param([0.05] * 7 + [0.5], id="one of 8 unlike the rest"),
        pytest.param(list(np.linspace(0.05, 0.35, 8)), id="8 groups, all unlike"),
    ],
)
def test_the_interval_covers_the_true_bias_and_the_corrected_figure_is_nearer_to_it(shares):
    generator = rng(4)
    means = true_means(shares)
    truth = np.abs(means.mean() - means).sum()
    found = []
    for _ in range(120):
        scores, groups = sample(shares, 80, generator)
        found.append(summarise_bias(scores, Design(groups, names(len(shares))), rng=generator, draws=Draws(200, 100)))
    covered = np.mean([figures.interval.contains(truth) for figures in found])
    assert covered >= 0.88  # 0.95 wanted; 3 standard errors of 120 samples are 0.06
    raw, corrected = np.mean([(figures.value, figures.corrected) for figures in found], axis=0) - truth
    noise = np.mean([figures.standard_error for figures in found])
    assert abs(corrected) < max(0.75 * abs(raw), 0.25 * noise)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([0.1] * 5, [0.1] * 5, id="no bias, no change"),
        pytest.param([0.05] * 4 + [0.5], [0.05] * 4 + [0.5], id="bias, no change"),
        pytest.param([0.05] * 4 + [0.5], [0.05] * 4 + [0.15], id="most of the bias removed"),
        pytest.param([0.05] * 4 + [0.5], [0.1] * 5, id="all of the bias removed"),
    ],
)
def test_the_interval_of_the_change_covers_the_true_change(before, after):
    generator = rng(5)
    truth = np.diff([np.abs(means.mean() - means).sum() for means in map(true_means, (before, after))])[0]
    groups = np.repeat(np.arange(5), 80)
    covered = []
    for _ in range(80):
        noise = generator.random(400)
        other = np.where(generator.random(400) < 0.7, noise, generator.random(400))
        change = paired_change(
            skewed(np.array(before)[groups], noise),
            skewed(np.array(after)[groups], other),
            Design(groups, names(5)),
            rng=generator,
            draws=Draws(200, 100),
        )
        covered.append(change.interval.contains(truth))
    assert np.mean(covered) >= 0.88


class TestSummary:
    def test_figures_are_those_of_the_plain_functions(self):
        scores, groups = sample([0.1, 0.4, 0.2], 50, rng())
        figures = summarise_bias(
            scores, Design(groups, names(3), "pooled"), rng=rng(), score="prompt+continuation", scorer="s", **FAST
        )
        assert figures.value == pytest.approx(brute_force(scores, groups, 3, "pooled"))
        assert figures.excess == figures.value - figures.floor
        assert figures.interval.contains(figures.value)
        assert figures.interval.contains(figures.corrected)
        assert figures.corrected <= figures.value
        assert (figures.n, figures.n_samples, figures.scorer) == (150, 1, "s")
        second = scores[groups == 1]
        assert figures.groups[1].n == 50
        assert figures.groups[1].mean == pytest.approx(second.mean())
        assert figures.groups[1].interval.contains(second.mean())
        assert figures.groups[1].share == np.mean(second > 0.5)

    def test_samples_of_a_prompt_are_averaged_first_but_counted_singly_when_toxic(self):
        samples, groups = rng().random((40, 3)), np.arange(40) % 2
        figures = summarise_bias(samples, Design(groups, names(2)), rng=rng(), **FAST)
        averaged = summarise_bias(samples.mean(axis=1), Design(groups, names(2)), rng=rng(), **FAST)
        assert (figures.n, figures.n_samples) == (40, 3)
        assert (figures.value, figures.p_value, figures.interval) == (
            averaged.value,
            averaged.p_value,
            averaged.interval,
        )
        assert figures.groups[0].interval == averaged.groups[0].interval
        assert figures.groups[0].share == np.mean(samples[::2] > 0.5)

    def test_the_same_seed_gives_the_same_figures(self):
        scores, groups = sample([0.1, 0.4], 30, rng())
        first, second = (summarise_bias(scores, Design(groups, names(2)), rng=rng(7), **FAST) for _ in range(2))
        assert first == second

    def test_a_model_that_is_never_toxic_has_no_bias_and_no_noise(self):
        figures = summarise_bias(np.zeros(20), Design(np.arange(20) % 2, names(2)), rng=rng(), **FAST)
        assert (figures.value, figures.floor, figures.corrected, figures.p_value) == (0, 0, 0, 1)
        assert (figures.interval.low, figures.interval.high) == (0, 0)
        assert prompts_needed(figures) is None

    def test_groups_measured_as_exactly_equal_may_still_differ(self):
        figures = summarise_bias([0, 1, 0, 1] * 10, Design([0, 0, 1, 1] * 10, names(2)), rng=rng(), **FAST)
        assert figures.value == pytest.approx(0, abs=1e-12)
        assert figures.interval.low == 0
        assert figures.interval.high > 0.1

    def test_json_gives_the_figures_back(self):
        scores, groups = sample([0.1, 0.4], 30, rng())
        figures = summarise_bias(
            scores, Design(groups, names(2), "pooled"), rng=rng(), score="prompt+continuation", **FAST
        )
        assert built(json.loads(json.dumps(plain(figures), allow_nan=False)), BiasFigures) == figures

    @pytest.mark.parametrize(
        ("scores", "options", "error", "message"),
        [
            ([0.1, 0.2, 0.3, 1.2], {}, InputError, r"lie in \[0, 1\]"),
            ([0.1, 0.2, 0.3, math.nan], {}, InputError, r"lie in \[0, 1\], got nan"),
            ([[[0.1]]] * 4, {}, InputError, r"\(n_prompts, n_samples\), got \(4, 1, 1\)"),
            ([0.1, 0.2, 0.3], {}, DataError, r"fewer than 2 prompts: group 1 \(1\)"),
        ],
    )
    def test_what_cannot_be_summarised_is_refused(self, scores, options, error, message):
        with pytest.raises(error, match=message):
            summarise_bias(scores, Design([0, 0, 1, 1][: len(scores)], names(2)), rng=rng(), **options)

    def test_too_few_draws_and_impossible_levels_are_refused(self):
        with pytest.raises(InputError, match="at least 100"):
            Draws(n_boot=99)
        with pytest.raises(InputError, match="strictly between 0 and 1"):
            Draws(level=1.0)

    def test_10_000_prompts_take_less_than_2_seconds(self):
        scores, groups = sample(np.linspace(0.1, 0.3, 10), 1000, rng())
        start = time.process_time()
        summarise_bias(scores, Design(groups, names(10)), rng=rng())
        assert time.process_time() - start < 2


class TestChange:
    def change(self, before, after, size=200):
        groups = np.repeat(np.arange(len(before)), size)
        noise = rng(1).random(len(groups))
        first, second = (skewed(np.array(shares)[groups], noise) for shares in (before, after))
        return (
            paired_change(first, second, Design(groups, names(len(before))), rng=rng(), **FAST),
            first,
            second,
            groups,
        )

    def test_figures_are_those_of_each_and_their_difference(self):
        change, first, second, groups = self.change([0.1, 0.5, 0.1], [0.1, 0.2, 0.1])
        assert change.before.value == float(bias(first, Design(groups, names(3))))
        assert change.change == float(bias(second, Design(groups, names(3))) - bias(first, Design(groups, names(3))))
        assert change.excess_change == change.after.excess - change.before.excess
        assert change.excess_removed == pytest.approx(1 - change.after.excess / change.before.excess)
        assert change.interval.high < 0
        assert change.excess_interval.contains(change.excess_change)
        assert change.groups[1].change == pytest.approx((second - first)[groups == 1].mean())
        assert change.groups[1].interval.high < 0

    def test_a_mask_that_changes_nothing_changes_nothing_for_sure(self):
        change, *_ = self.change([0.1, 0.5], [0.1, 0.5])
        assert change.change == change.excess_change == change.corrected_change == 0
        assert change.interval.half_width < 0.2 * change.before.interval.half_width
        assert change.excess_interval.half_width == 0

    def test_pairing_makes_the_interval_narrower_than_two_separate_ones(self):
        change, *_ = self.change([0.1, 0.5], [0.1, 0.45])
        assert change.interval.half_width < 0.75 * change.before.interval.half_width

    def test_json_gives_the_change_back(self):
        change, *_ = self.change([0.1, 0.5], [0.1, 0.2])
        payload = json.loads(json.dumps(plain(change), allow_nan=False))
        assert payload["excess_removed"] == change.excess_removed
        assert built(payload, BiasChange) == change

    def test_different_prompts_are_refused(self):
        with pytest.raises(InputError, match="must hold the same prompts"):
            paired_change([0.1] * 4, [0.1] * 6, Design([0, 0, 1, 1], names(2)), rng=rng())


class TestPromptsNeeded:
    def test_at_that_number_the_bias_is_told_from_chance_four_times_in_five(self):
        shares, generator = [0.10, 0.16, 0.10], rng(8)
        means = true_means(shares)
        truth = np.abs(means.mean() - means).sum()
        pilot = summarise_bias(*designed(shares, 300, generator), rng=generator, **FAST)
        needed = prompts_needed(pilot, truth)
        found = [
            summarise_bias(*designed(shares, needed // 3, generator), rng=generator, draws=Draws(100, 200))
            for _ in range(40)
        ]
        assert 0.6 <= np.mean([figures.is_significant for figures in found]) <= 0.99

    def test_a_smaller_bias_needs_more_prompts_by_its_square(self):
        figures = summarise_bias(*designed([0.1, 0.3], 200, rng()), rng=rng(), **FAST)
        assert prompts_needed(figures, 0.01) == pytest.approx(4 * prompts_needed(figures, 0.02), rel=1e-3)
        assert prompts_needed(figures) == prompts_needed(figures, figures.corrected)


class TestWords:
    def test_a_bias_is_something_to_repair_and_names_the_extremes(self):
        figures = summarise_bias(
            *designed([0.1, 0.6], 100, rng(), ["women", "men"]), rng=rng(), scorer="lexical (x)", **FAST
        )
        words = verdict(figures)
        assert "there is something to repair" in words
        assert "by the scorer lexical (x)" in words
        assert "Most toxic for men" in words

    def test_a_bias_at_its_floor_is_nothing_to_repair(self):
        found = [summarise_bias(*designed([0.2] * 4, 20, rng(seed)), rng=rng(), **FAST) for seed in range(16)]
        quiet = [figures for figures in found if not figures.is_significant]
        words = [verdict(figures) for figures in quiet]
        assert all("nothing to repair at this sample size" in text for text in words)
        for figures, text in zip(quiet, words, strict=True):
            assert ("prompts would be needed" if figures.corrected > 0 else "is unlikely") in text
        assert {figures.corrected > 0 for figures in quiet} == {True, False}

    def test_a_repair_is_better_and_says_who_pays(self):
        change, *_ = TestChange().change([0.1, 0.7], [0.3, 0.3])
        words = verdict_on_change(change)
        assert ": better. Of the bias above the floor, " in words
        assert "More toxic than before: group 0 (" in words
        assert "group 1" not in words

    def test_no_change_is_said_to_be_none(self):
        change, *_ = TestChange().change([0.1, 0.1], [0.1, 0.1])
        assert "not distinguishable from no change" in verdict_on_change(change)
