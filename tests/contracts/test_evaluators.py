"""What every evaluator keeps to: figures that follow from the mask alone, and a model that is left as it was."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from tiny_lm import tiny_lm
from toy_scorer import WordScorer, text, two_groups

from fairmend.errors import InputError
from fairmend.evaluation import Evaluator, Measurement, digest
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.models.models import weights_digest
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.repair.own_fractions import OwnFractions
from fairmend.masks import Mask
from fairmend.runs import Runner, Store
from fairmend.search import UniformSampling
from fairmend.surrogates.evaluator import SurrogateEvaluator
from fairmend.surrogates.families.ridge import Ridge
from fairmend.surrogates.fitting import fit_pair
from fairmend.surrogates.samples import Samples
from fairmend.tabular.counting.evaluator import Rows, TabularEvaluator
from fairmend.tabular.networks.activations import Activation
from fairmend.tabular.networks.networks import Layer, Network


@dataclass(frozen=True)
class Case:
    """An evaluator, a twin built anew from the same things, one with another setting, and its model's weights.

    Predictions are products of matrices, whose last digits depend on how many there are at once: not exact.
    """

    evaluator: Evaluator
    twin: Evaluator
    other: Evaluator
    weights: Callable[[], str]
    exact: bool = True

    def same(self, first: list[Measurement], second: list[Measurement]) -> bool:
        """Whether two lists of measurements agree."""
        pairs = list(zip(first, second, strict=True))
        if self.exact:
            return all(one == other for one, other in pairs)
        return all(
            (one.bias, one.utility) == pytest.approx((other.bias, other.utility), rel=1e-9) for one, other in pairs
        )


def tabular(drop: Any = "output", *, dials: bool = False) -> Case:
    rng = np.random.default_rng(3)
    relu, identity = Activation.parse("relu"), Activation.parse("identity")
    layers = Layer(rng.normal(size=(12, 4)), np.zeros(12), relu), Layer(rng.normal(size=(1, 12)), np.zeros(1), identity)
    network = Network(layers)
    X, y, groups = rng.normal(size=(200, 4)), rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    space = network.space(dials=network.threshold_dials() if dials else ())

    def build(**options: Any) -> TabularEvaluator:
        return TabularEvaluator(network, Rows(X, y, groups, ("a", "b")), space, drop=drop, **options)

    return Case(build(), build(), build(objective="demographic_parity_difference"), network.digest)


@cache
def language(name: str, group_mean: Any = "unweighted") -> Case:
    lm = tiny_lm(name)
    other = "pooled" if group_mean == "unweighted" else "unweighted"

    def build(mean: Any) -> LanguageEvaluator:
        reading = Reading(lm, text(), ReadingSettings(tokens=96, window=32, stride=32))
        sampling = Sampling(new_tokens=3, seed=1)
        return LanguageEvaluator(lm, two_groups(), reading, WordScorer(), sampling=sampling, group_mean=mean)

    return Case(build(group_mean), build(group_mean), build(other), lambda: weights_digest(lm.model))


def own_fractions() -> Case:
    whole = language("llama-gqa")
    twins = [OwnFractions(whole.evaluator, eta=0.5, seed=seed) for seed in (0, 0, 1)]  # type: ignore[arg-type]
    return Case(*twins, whole.weights)


def surrogate() -> Case:
    case = tabular()
    space, figures = case.evaluator.space, case.evaluator.figures
    rng = np.random.default_rng(5)
    masks = [space.sample(rng) for _ in range(80)]
    pair = fit_pair(Samples.of(list(zip(masks, case.evaluator.measure(masks), strict=True)), figures), figures, Ridge())

    def build(boldness: float) -> SurrogateEvaluator:
        return SurrogateEvaluator(pair, space, figures, boldness=boldness)

    return Case(build(0.0), build(0.0), build(1.0), lambda: digest(dict(pair.identity)), exact=False)


EVALUATORS: dict[str, Callable[[], Case]] = {
    "tabular": tabular,
    "tabular, weights zeroed": lambda: tabular("weights"),
    "tabular, with a dial": lambda: tabular(dials=True),
    "surrogate of a tabular one": surrogate,
    "language, grouped keys": lambda: language("llama-gqa"),
    "language, gpt2": lambda: language("gpt2"),
    "language, pooled": lambda: language("llama-gqa", "pooled"),
    "language, own fractions": own_fractions,
}


@pytest.fixture(params=EVALUATORS)
def case(request: pytest.FixtureRequest) -> Case:
    return EVALUATORS[request.param]()


def masks_of(evaluator: Evaluator, n: int = 5) -> list[Mask]:
    rng = np.random.default_rng(0)
    return [evaluator.space.untouched(), *(evaluator.space.sample(rng) for _ in range(n))]


def test_gives_one_measurement_per_mask_with_the_parts_that_its_figures_name(case: Case):
    evaluator = case.evaluator
    made = evaluator.measure(masks_of(evaluator))
    assert isinstance(evaluator, Evaluator)
    assert len(made) == 6
    assert all(len(measurement.parts) == len(evaluator.figures.parts) for measurement in made)
    assert all(measurement.n > 0 and measurement.seconds >= 0 for measurement in made)
    assert made[0].is_finite
    assert evaluator.figures.bias.better == "lower"
    assert evaluator.figures.utility.better in ("lower", "higher")
    assert evaluator.measure([]) == []


def test_a_measurement_follows_from_the_mask_alone(case: Case):
    masks = masks_of(case.evaluator)
    together = case.evaluator.measure(masks)
    assert case.same(case.evaluator.measure(masks[::-1])[::-1], together)
    assert case.same([case.twin.measure([mask])[0] for mask in masks], together)
    assert case.same(case.evaluator.measure(masks + masks), together + together)


def test_the_fingerprint_is_json_and_tells_evaluators_of_other_settings_apart(case: Case):
    prints = [digest(json.loads(json.dumps(each.fingerprint()))) for each in (case.evaluator, case.twin, case.other)]
    assert prints[0] == prints[1] != prints[2]
    case.evaluator.measure(masks_of(case.evaluator, 1))
    assert digest(case.evaluator.fingerprint()) == prints[0]


def test_the_model_is_left_as_it_was(case: Case):
    before = case.weights()
    case.evaluator.measure(masks_of(case.evaluator))
    assert case.weights() == before


def test_a_mask_of_another_space_does_not_reach_it(case: Case):
    strange = Mask(1, case.evaluator.space.n_units + 1)
    with pytest.raises(InputError, match="outside the evaluator's space"):
        Runner(case.evaluator).measure([strange])


def test_what_is_stored_is_what_was_measured(case: Case, tmp_path: Any):
    evaluator = case.evaluator
    with Store.create(tmp_path / "run.sqlite", {"kind": "contract"}) as store:
        runner = Runner(evaluator, store.context("search", evaluator))
        runner.run(UniformSampling(evaluator.space, None, samples=4, seed=2))
    with Store.open(tmp_path / "run.sqlite") as store:
        kept = store.context("search", case.twin)
        masks = [mask for mask, _ in kept]
        assert case.same([kept[mask] for mask in masks], case.twin.measure(masks))
