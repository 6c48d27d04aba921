"""The choice among measured sets of heads."""

import itertools
import math

import numpy as np
import pytest
from repair_cases import SETTINGS, search_evaluator, small

from fairmend.costs import UtilityFloor
from fairmend.evaluation import Measurement
from fairmend.language import RepairSettings
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.models.models import LanguageModel
from fairmend.language.repair.finalists import Finalist, choose, within_floor
from fairmend.masks import Mask
from fairmend.search import PruningRule


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return small()


def _measured(evaluator: LanguageEvaluator, bias: float, perplexity: float, noise: float = 0.0, seed: int = 0):
    """Figures of prompts of which group "even" is more toxic by the given bias, and each by chance."""
    scores = np.where(evaluator.prompts.groups == 0, bias, 0.0) + np.tile([0.0, 0.02], 10)
    scores += noise * np.random.default_rng(seed).normal(size=scores.shape)
    parts = (*scores.tolist(), *np.zeros(len(evaluator.reading.windows)))
    return Measurement(bias, perplexity, parts)


def _finalists(evaluator: LanguageEvaluator, figures: list[tuple[float, float]]) -> list[Finalist]:
    made = [_measured(evaluator, bias, perplexity) for bias, perplexity in figures]
    return [Finalist(Mask(1 << unit, 12), PruningRule(), measurement) for unit, measurement in enumerate(made)]


def test_the_cheapest_of_those_that_cannot_be_told_apart_is_taken(lm: LanguageModel):
    evaluator = search_evaluator(lm, SETTINGS)
    finalists = _finalists(evaluator, [(0.10, 31.0), (0.3, 30.5), (0.1, 34.0), (0.0, 90.0)])
    reference = _measured(evaluator, 0.4, 30.0)
    floor = UtilityFloor(37.5, "lower")
    assert choose(evaluator, reference, finalists, floor) == finalists[0]
    assert choose(evaluator, reference, finalists, UtilityFloor(math.inf, "lower")) == finalists[3]
    assert choose(evaluator, _measured(evaluator, 0.05, 30.0), finalists, floor) is None
    assert choose(evaluator, reference, finalists, UtilityFloor(29.0, "lower")) is None
    assert choose(evaluator, reference, [], floor) is None


@pytest.mark.parametrize(("bias", "expected"), [(0.1, True), (1.0, False)])
def test_no_head_is_dropped_for_a_gain_within_its_standard_error(lm: LanguageModel, bias: float, expected: bool):
    evaluator = search_evaluator(lm, SETTINGS)
    reference = _measured(evaluator, bias, 30.0, noise=0.5)
    luckier = [Finalist(Mask(1, 12), None, _measured(evaluator, 0.09, 31.0, noise=0.5, seed=1))]
    chosen = choose(evaluator, reference, luckier, UtilityFloor(math.inf, "lower"))
    assert (chosen is None) is expected


def test_a_set_as_good_as_the_untouched_model_is_taken_where_it_also_reads_better(lm: LanguageModel):
    evaluator = search_evaluator(lm, SETTINGS)
    reference = _measured(evaluator, 0.1, 30.0, noise=0.5)
    better = [Finalist(Mask(1, 12), None, _measured(evaluator, 0.09, 29.0, noise=0.5, seed=1))]
    assert choose(evaluator, reference, better, UtilityFloor(math.inf, "lower")) == better[0]


def test_of_every_ranking_the_largest_sets_within_the_floor_are_continued_with(lm: LanguageModel):
    evaluator = search_evaluator(lm, SETTINGS)
    heads = range(evaluator.space.n_units)
    rules = [PruningRule(alpha=size / 12, loss_weight=weight) for weight in (0.0, 1.0) for size in (1, 2, 3, 4)]
    sets = {
        evaluator.space.mask(heads[: rule.count(12)] if rule.loss_weight else heads[-rule.count(12) :]): rule
        for rule in rules
    }
    read = {mask: evaluator.reading.perplexity(evaluator.reading.sums(mask)).value for mask in sets}
    assert list(within_floor(evaluator, sets, UtilityFloor(math.inf, "lower")).values()) == [*rules[2:4], *rules[6:8]]
    limit = sorted(read.values())[4]
    kept = within_floor(evaluator, sets, UtilityFloor(limit, "lower"))
    for weight in (0.0, 1.0):
        along = [mask for mask, rule in sets.items() if rule.loss_weight == weight]
        admitted = list(itertools.takewhile(lambda mask: read[mask] <= limit, along))
        assert [mask for mask in kept if sets[mask].loss_weight == weight] == admitted[-2:]
    assert within_floor(evaluator, sets, UtilityFloor(0.5, "lower")) == {}


def test_finalists_hold_the_rule_itself_and_smaller_sets():
    rules = RepairSettings(alpha=0.3).finalists()
    assert len(rules) == 18
    assert rules[-1] == RepairSettings(alpha=0.3).rule
    assert {rule.count(100) for rule in rules} == {5, 10, 15, 20, 25, 30}
    assert RepairSettings(choice="rule").finalists() == (PruningRule(),)
    assert len(RepairSettings(method="magnitude").finalists()) == 6
