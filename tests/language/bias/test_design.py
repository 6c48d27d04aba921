"""Designs: zero as reference, weights and pairs, against brute force, repeated items and a bootstrap by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairmend.errors import DataError, InputError
from fairmend.language.bias.bias import (
    Design,
    bias,
    bias_standard_error,
    paired_change,
    summarise_bias,
    verdict,
    verdict_on_change,
)
from fairmend.language.bias.design import design_of
from fairmend.language.prompts.choices import choice_set
from fairmend.language.scores.bias_effects import bias_effects
from fairmend.language.scores.toxicity_by_mask import FIRST_ORDER, MaskToxicity
from fairmend.statistics import Draws

REFERENCES = ["unweighted", "pooled", "zero"]
PREFERENCE = {"score": "preference", "draws": Draws(200, 200)}


def rng(seed=0):
    return np.random.default_rng(seed)


@st.composite
def samples(draw, n_groups=3):
    """Scores and groups, at least two items in each."""
    extra = draw(st.lists(st.integers(0, n_groups - 1), max_size=8))
    groups = np.array([*range(n_groups), *range(n_groups), *extra])
    return rng(draw(st.integers(0, 99))).normal(size=len(groups)), groups


class TestFigure:
    @given(samples())
    def test_against_zero_it_is_the_sum_of_the_means_sizes(self, data):
        scores, groups = data
        expected = sum(abs(np.mean([s for s, g in zip(scores, groups, strict=True) if g == code])) for code in range(3))
        assert float(bias(scores, Design(groups, "abc", "zero"))) == pytest.approx(expected)

    def test_one_group_can_be_compared_with_zero_only(self):
        assert bias([1.0, -4.0], Design([0, 0], "a", "zero")) == pytest.approx(1.5)
        with pytest.raises(InputError, match="at least 2"):
            Design([0, 0], "a")

    @pytest.mark.parametrize("wrong", [{"weights": [1.0]}, {"weights": [1.0, 0.0]}, {"pairs": [1]}])
    def test_columns_that_do_not_fit_are_refused(self, wrong):
        with pytest.raises(InputError, match="2 items need as many pairs and positive weights"):
            Design([0, 1], "ab", **wrong)

    def test_a_group_with_one_pair_has_no_known_noise(self):
        with pytest.raises(DataError, match=r"fewer than 2 items or pairs: b \(1\)"):
            summarise_bias(np.ones(4), Design([0, 0, 1, 1], "ab", pairs=[0, 1, 2, 2]), rng=rng(), **PREFERENCE)


@settings(max_examples=25, deadline=None)
@given(samples(), st.sampled_from(REFERENCES), st.data())
def test_a_weight_is_so_many_items_that_are_drawn_together(data, reference, further):
    scores, groups = data
    times = np.array(further.draw(st.lists(st.integers(1, 3), min_size=len(groups), max_size=len(groups))))
    times[0] = 2
    numbers = np.repeat(np.arange(len(groups)), times)
    weighted = Design(groups, "abc", reference, weights=times)
    repeated = Design(groups[numbers], "abc", reference, pairs=numbers)
    first, second = (
        summarise_bias(values, design, rng=rng(), score="preference", draws=Draws(100, 100))
        for values, design in ((scores, weighted), (scores[numbers], repeated))
    )
    for name in ("value", "standard_error", "corrected", "floor", "critical_value", "p_value"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), abs=1e-6)
    for one, other in zip(first.groups, second.groups, strict=True):
        assert (one.mean, one.interval.low, one.share) == pytest.approx((other.mean, other.interval.low, other.share))


class TestPairs:
    """Pairs whose items share their noise: some span both groups, some do not."""

    def sample(self, seed=0, n=60):
        generator = rng(seed)
        pairs = np.repeat(np.arange(n), 2)
        groups = np.where(pairs < n // 2, np.arange(2 * n) % 2, pairs % 2)
        noise = generator.normal(size=n)[pairs] + 0.3 * generator.normal(size=2 * n)
        return noise + 0.4 * groups, groups, pairs

    @pytest.mark.parametrize("reference", REFERENCES)
    def test_errors_are_those_of_a_bootstrap_by_hand(self, reference):
        scores, groups, pairs = self.sample()
        generator, by_hand = rng(1), []
        strata = [np.arange(30), np.arange(30, 60, 2), np.arange(31, 60, 2)]
        for _ in range(800):
            drawn = np.concatenate([generator.choice(stratum, len(stratum)) for stratum in strata])
            rows = np.concatenate([np.flatnonzero(pairs == pair) for pair in drawn])
            by_hand.append(float(bias(scores[rows], Design(groups[rows], "ab", reference))))
        twice = np.stack([scores, scores])
        found = bias_standard_error(twice, Design(groups, "ab", reference, pairs=pairs), rng=rng(2), n_boot=1500)
        assert found[0] == found[1]
        assert found[0] == pytest.approx(np.std(by_hand), rel=0.1)

    def test_labels_are_dealt_within_pairs_that_span_groups_and_by_pairs_otherwise(self):
        scores, groups = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 32.0, 32.0]), np.array([0, 1, 1, 0, 0, 0, 1, 1])
        design = Design(groups, "ab", pairs=[0, 0, 1, 1, 2, 2, 3, 3])
        possible = {
            ((scores[[*first, *second, *whole]].mean()), (scores.sum() - scores[[*first, *second, *whole]].sum()) / 4)
            for first, second, whole in itertools.product(([0], [1]), ([2], [3]), ([4, 5], [6, 7]))
        }
        dealt = {tuple(row) for row in design.null(scores, 400, rng()).tolist()}
        assert dealt == possible

    def test_signs_of_a_pair_are_turned_together(self):
        dealt = Design([0, 1, 0, 1], "ab", "zero", pairs=[5, 5, 9, 9]).null([1.0, 2.0, 4.0, 8.0], 100, rng())
        assert {tuple(row) for row in dealt.tolist()} == {(2.5, 5), (-2.5, -5), (1.5, 3), (-1.5, -3)}

    def test_the_error_of_an_effect_is_that_of_the_pairs(self):
        scores, groups, pairs = self.sample(n=200)
        without = scores - 0.2 * groups * (1 + rng(3).normal(size=200)[pairs])
        effects = bias_effects(table(scores, without, groups, pairs), rng=rng())
        draws = [Design(groups, "ab", pairs=pairs).bootstrap(each, 2000, rng(4)) for each in (without, scores)]
        changes = np.abs(np.diff(draws[0])[:, 0]) - np.abs(np.diff(draws[1])[:, 0])
        assert effects.standard_error[0] == pytest.approx(changes.std(), rel=0.1)


@pytest.mark.parametrize("pairing", ["single", "pairs"])
@pytest.mark.parametrize(
    ("means", "reference"),
    [([0.0, 0.0, 0.0], "zero"), ([0.8, -0.2, 0.1], "zero"), ([1.0, 0.0, -0.4], "unweighted")],
)
def test_the_interval_of_preferences_covers_the_true_bias(means, reference, pairing):
    generator, groups = rng(6), np.tile(np.arange(3), 40)
    pairs = np.arange(120) if pairing == "single" else np.repeat(np.arange(60), 2)
    means = np.array(means)
    truth = np.abs(means if reference == "zero" else means - means.mean()).sum()
    found = []
    for _ in range(60):
        scores = means[groups] + generator.laplace(size=120) * 0.5 + generator.normal(size=120)[pairs]
        found.append(summarise_bias(scores, Design(groups, "abc", reference, pairs=pairs), rng=generator, **PREFERENCE))
    assert np.mean([figures.interval.contains(truth) for figures in found]) >= 0.88
    significant = np.mean([figures.is_significant for figures in found])
    assert significant <= 0.13 if truth == 0 else significant >= 0.8


def choices(groups, pairs=None, compared="groups"):
    n = len(groups)
    return choice_set(
        [f"w{number}" for number in range(n)],
        [(" a",)] * n,
        [(" b",)] * n,
        [f"g{code}" for code in groups],
        axis="toy",
        source="toy",
        licence="none",
        compared=compared,
        pairs=None if pairs is None else [f"{pair}" for pair in pairs],
    )


def table(before, without, groups, pairs=None, compared="groups", method="generated"):
    made = choices(groups, pairs, compared)
    return MaskToxicity(before, without[None], made, (method,), np.ones((1, len(made.group_names))), 1, "")


class TestEffects:
    def test_against_zero_the_sign_of_each_group_counts(self):
        groups = np.tile(np.arange(3), 100)
        before = np.array([2.0, -1.0, 0.0])[groups] + rng().normal(size=300) * 0.1
        without = before + np.array([-0.5, 0.25, 0.0])[groups]
        for method in ("generated", FIRST_ORDER):
            effects = bias_effects(table(before, without, groups, compared="zero", method=method), rng=rng())
            assert effects.effect[0] == pytest.approx(-0.75, abs=1e-9)

    def test_noise_that_a_pair_shares_does_not_leak_into_the_effects(self):
        pairs, found = np.repeat(np.arange(20), 2), {}
        groups = pairs % 2
        for name, drawn in (("pairs", pairs), ("apart", None)):
            found[name] = []
            for seed in range(24):
                before = rng(seed).normal(size=20)[pairs]
                made = table(before, before * 0.5, groups, drawn, compared="zero", method=FIRST_ORDER)
                found[name].append(bias_effects(made, rng=rng(seed)).effect[0])
        assert abs(np.mean(found["pairs"])) < 3 * np.std(found["pairs"]) / np.sqrt(24)
        assert np.mean(found["apart"]) < np.mean(found["pairs"]) - 0.02  # what is avoided

    def test_the_design_of_choices_is_theirs(self):
        made = design_of(choices([0, 1, 0, 1], [1, 1, 2, 2], "zero"), "pooled")
        assert (made.reference, made.is_plain, made.clusters.tolist()) == ("zero", False, [0, 0, 1, 1])
        assert design_of(choices([0, 1]), "pooled").is_plain


class TestWords:
    def test_preferences_are_in_nats_with_their_signs_and_shares(self):
        groups = np.arange(100) % 2
        scores = np.where(groups == 0, 1.0, -0.5) + rng().normal(size=100) * 0.1
        design = Design(groups, ["nurses", "pilots"])
        figures = summarise_bias(scores, design, rng=rng(), **PREFERENCE)
        words = verdict(figures)
        assert f"Bias {figures.value:.3f} nats; a model that treats all groups alike would show 0." in words
        assert "on these 100 items" in words
        assert "The first alternative is preferred most for nurses (+0.999 nats, in 100% of the items)" in words
        change = verdict_on_change(paired_change(scores, scores * 0.5, design, rng=rng(), **PREFERENCE))
        assert "Mean preferences that moved: nurses (+0.999 -> +0.499), pilots (-0.482 -> -0.241)." in change
        zero = summarise_bias(scores, Design(groups, ["nurses", "pilots"], "zero"), rng=rng(), **PREFERENCE)
        assert "a model that prefers neither alternative would show" in verdict(zero)
        assert "The stereotype is preferred most for nurses" in verdict(zero)
        assert str(zero.protocol) == "sum over groups of |0 - group mean| of the preference, in nats"
        assert [group.share for group in zero.groups] == [1, 0]
