"""From measured masks to surrogates behind the evaluators' protocol."""

import math

import numpy as np
import pytest
from landscapes import FIGURES, additive, pair_of

from fairmend.costs import PenalisedBias, UtilityFloor, WeightedSum
from fairmend.errors import InputError
from fairmend.evaluation import Evaluator, Figure, Figures, Measurement, digest
from fairmend.masks import Dial, Mask, Site, Space
from fairmend.runs import Runner
from fairmend.search import make_searcher
from fairmend.search.names import SEARCH_NAMES
from fairmend.surrogates import (
    FlooredSum,
    Ridge,
    Samples,
    Scale,
    SurrogateEvaluator,
    fit_pair,
    floored_sum,
    make_surrogate,
)
from fairmend.surrogates.objectives import terms_of, with_epsilon

F1 = Figures(Figure("bias", "lower", "test"), Figure("f1", "higher", "test"))
SPACE = Space((Site("heads", 20),), max_drop=6)


def measured(n: int = 60, seed: int = 0) -> list[tuple[Mask, Measurement]]:
    """Masks whose bias is additive and whose perplexity is multiplicative, measured exactly."""
    rng = np.random.default_rng(seed)
    bias, loss = rng.normal(0.0, 0.02, 20), rng.uniform(0.0, 0.2, 20)
    masks = [SPACE.untouched(), *(SPACE.sample(rng) for _ in range(n - 1))]
    return [
        (m, Measurement(0.4 + float(m.dropped() @ bias), 30.0 * math.exp(float(m.dropped() @ loss)))) for m in masks
    ]


def test_fitted_surrogates_are_an_evaluator_of_the_measured_figures() -> None:
    pair = fit_pair(Samples.of(measured(), FIGURES), FIGURES, Ridge())
    evaluator = SurrogateEvaluator(pair, SPACE, FIGURES)
    assert isinstance(evaluator, Evaluator)
    assert digest(evaluator.fingerprint())
    assert evaluator.figures.bias.protocol == "predicted: landscape"
    unseen = [mask for mask, _ in measured(seed=0)[:1]] + [SPACE.mask([1, 2]), SPACE.mask([5])]
    truth = dict(measured(400))
    for mask, made in zip(unseen, evaluator.measure(unseen), strict=True):
        assert made.n == 60
        if mask in truth:
            assert made.bias == pytest.approx(truth[mask].bias, abs=0.005)
            assert made.utility == pytest.approx(truth[mask].utility, rel=0.05)
    assert evaluator.measure([]) == []


def test_a_perplexity_that_multiplies_is_learned_better_as_a_logarithm() -> None:
    samples, unseen = Samples.of(measured(80), FIGURES), measured(60, seed=0)[30:]
    errors = []
    for log in (True, False):
        pair = fit_pair(samples.take(np.arange(30)), FIGURES, Ridge(), log_loss=log)
        _, loss = pair.predict(np.array([mask.dropped() for mask, _ in unseen]))
        true = np.log([made.utility for _, made in unseen])
        errors.append(np.mean((np.log(np.maximum(loss, 1.0)) - true) ** 2))
    assert errors[0] < errors[1]
    assert fit_pair(samples, FIGURES, Ridge()).loss_scale.log


def test_a_utility_to_maximise_comes_back_with_its_own_sign() -> None:
    pairs = [(mask, Measurement(made.bias, 30.0 / made.utility)) for mask, made in measured()]
    pair = fit_pair(Samples.of(pairs, F1), F1, Ridge())
    assert not pair.loss_scale.log
    (made,) = SurrogateEvaluator(pair, SPACE, F1).measure([SPACE.untouched()])
    assert made.utility == pytest.approx(1.0, abs=0.05)
    with pytest.raises(InputError, match="f1 cannot be learned as a logarithm"):
        fit_pair(Samples.of(pairs, F1), F1, Ridge(), log_loss=True)


def test_boldness_predicts_what_is_still_plausible() -> None:
    pair = fit_pair(Samples.of(measured(12), FIGURES), FIGURES, Ridge())
    masks = [SPACE.mask([3, 4]), SPACE.mask([9])]
    plain = SurrogateEvaluator(pair, SPACE, FIGURES)
    bold = SurrogateEvaluator(pair, SPACE, FIGURES, boldness=2.0)
    for one, two in zip(plain.measure(masks), bold.measure(masks), strict=True):
        assert two.bias == pytest.approx(one.bias - 2 * one.bias_se)
        assert two.utility < one.utility
    assert digest(plain.fingerprint()) != digest(bold.fingerprint())


@pytest.mark.parametrize("name", [name for name in SEARCH_NAMES if name != "exhaustive"])
@pytest.mark.parametrize("surrogate", ["additive", "pairwise"])
def test_every_searcher_runs_on_surrogates(name: str, surrogate: str) -> None:
    pair = fit_pair(Samples.of(measured(), FIGURES), FIGURES, make_surrogate(surrogate))
    evaluator = SurrogateEvaluator(pair, SPACE, FIGURES)
    searcher = make_searcher(name, SPACE, make_cost=floored_sum(FIGURES, 0.5), figures=FIGURES, seed=0, states=40)
    summary = Runner(evaluator).run(searcher)
    assert summary.stopped == "finished"


def test_a_genetic_search_on_surrogates_finds_the_front_of_the_truth() -> None:
    rng = np.random.default_rng(1)
    pair = pair_of(additive(rng, 20), additive(rng, 20))
    evaluator = SurrogateEvaluator(pair, SPACE, FIGURES)
    genetic = make_searcher("genetic", SPACE, make_cost=floored_sum(FIGURES, 0.5), figures=FIGURES, seed=0, states=3000)
    Runner(evaluator).run(genetic)
    effects = np.sort(pair.bias.form().linear)
    best = 0.5 + effects[:6][effects[:6] < 0].sum()
    assert genetic.front.points()[0, 0] <= best + 0.05 * abs(best)  # type: ignore[attr-defined]


def test_samples_leave_out_what_broke_the_model() -> None:
    broken = [Measurement(math.nan, 30.0), Measurement(0.1, math.inf)]
    pairs = [*measured(10), *((SPACE.mask([unit]), made) for unit, made in enumerate(broken))]
    samples = Samples.of(pairs, FIGURES)
    assert (len(samples), samples.broken) == (10, 2)
    with pytest.raises(InputError, match="no measured mask is usable: 2 broke the model"):
        Samples.of(pairs[10:], FIGURES)


def test_standard_errors_follow_the_scale() -> None:
    scale = Scale(10.0, 1000.0, True)
    values = np.array([10.0, 100.0, 1000.0])
    assert scale.unit(values) == pytest.approx([0.0, 0.5, 1.0])
    assert scale.figure([0.0, 0.5, 1.0]) == pytest.approx(values)
    assert scale.error(0.01 * values, values) == pytest.approx(np.full(3, 0.01 / math.log(100.0)))
    assert Scale(2.0, 4.0).error(np.array([1.0]), np.array([3.0])) == pytest.approx([0.5])


def test_refuses_samples_that_say_nothing() -> None:
    constant = [(mask, Measurement(0.3, 30.0 + mask.size)) for mask, _ in measured(20)]
    with pytest.raises(InputError, match=r"the bias of all 20 measured masks is 0\.3"):
        fit_pair(Samples.of(constant, FIGURES), FIGURES, Ridge())
    with pytest.raises(InputError, match="at least 8 measured masks, got 5"):
        fit_pair(Samples.of(measured(5), FIGURES), FIGURES, Ridge())
    with pytest.raises(InputError, match=r"prior effects are given for \['ppl'\]"):
        fit_pair(Samples.of(measured(20), FIGURES), FIGURES, Ridge(), prior={"ppl": np.ones(20)})
    dialled = Space(SPACE.sites, dials=(Dial("threshold", -1.0, 1.0, 0.1),)).mask([1], [0.5])
    with pytest.raises(InputError, match="surrogates learn dropped units only"):
        Samples.of([(dialled, Measurement(0.1, 20.0))], FIGURES)


def test_refuses_masks_and_spaces_it_does_not_know() -> None:
    pair = fit_pair(Samples.of(measured(20), FIGURES), FIGURES, Ridge())
    with pytest.raises(InputError, match="surrogates of 20 units cannot predict a space of 3 units"):
        SurrogateEvaluator(pair, Space((Site("heads", 3),)), FIGURES)
    dialled = Space(SPACE.sites, dials=(Dial("threshold", -1.0, 1.0, 0.1),))
    with pytest.raises(InputError, match="surrogates predict dropped units only"):
        SurrogateEvaluator(pair, dialled, FIGURES).measure([dialled.mask([1], [0.5])])


# --- costs


def test_the_cost_relative_to_the_untouched_model() -> None:
    cost = floored_sum(FIGURES, 0.25, 1.25)(Measurement(0.4, 30.0))
    assert cost(Measurement(0.4, 30.0)) == pytest.approx(0.25)
    assert cost(Measurement(0.0, 30.0)) == pytest.approx(0.0)
    assert cost(Measurement(0.2, 36.0)) == pytest.approx(0.125 + 0.75 * 0.2)
    assert cost(Measurement(0.2, 39.0)) == pytest.approx(3.0 + 0.125 + 0.75 * 0.3)
    assert cost(Measurement(math.nan, 30.0)) == math.inf
    f1 = floored_sum(F1, 0.5)(Measurement(0.2, 0.8))
    assert f1(Measurement(0.2, 0.4)) == pytest.approx(0.5 + 0.25)
    with pytest.raises(InputError, match="needs both to differ from 0"):
        floored_sum(FIGURES, 0.5)(Measurement(0.0, 30.0))


@pytest.mark.parametrize("figures", [FIGURES, F1])
def test_a_cost_as_numbers_is_the_cost(figures: Figures) -> None:
    better = figures.utility.better
    floor = UtilityFloor(35.0 if better == "lower" else 25.0, better)
    weighted = WeightedSum(figures, 0.3, (0.1, 0.6), (20.0, 90.0) if better == "lower" else (-90.0, -20.0))
    for cost in (weighted, FlooredSum(weighted, floor), PenalisedBias(floor, 0.4)):
        terms = terms_of(cost)
        for made in (Measurement(0.2, 30.0), Measurement(0.5, 50.0), Measurement(0.0, 12.0)):
            loss = figures.loss(made)
            value = terms.bias_weight * made.bias + terms.loss_weight * loss + terms.constant
            value += terms.penalty if loss > terms.limit else 0.0
            assert value == pytest.approx(cost(made))


def test_another_weight_of_the_bias() -> None:
    cost = floored_sum(FIGURES, 0.5, 1.25)(Measurement(0.4, 30.0))
    only_bias = with_epsilon(cost, 1.0)
    assert only_bias(Measurement(0.2, 36.0)) == pytest.approx(0.5)
    assert only_bias(Measurement(0.2, 66.0)) == pytest.approx(3.5)
    penalised = PenalisedBias(UtilityFloor(1.0, "lower"), 0.4)
    assert with_epsilon(penalised, 0.1) is penalised
