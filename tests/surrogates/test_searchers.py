"""Active search and Attention Pruning on a simulated model whose truth is known."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulation import FIGURES, SimulatedModel

from fairmend.costs import UtilityFloor
from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.masks import Mask, Site, Space
from fairmend.runs import Budget, Runner, Store
from fairmend.search import Annealing, UniformSampling
from fairmend.surrogates import (
    Active,
    AttentionPruning,
    FlooredSum,
    NeuralNetwork,
    ProposalSettings,
    Surrogate,
    floored_sum,
    published_cost,
)
from fairmend.surrogates.learning import LearningSearcher
from fairmend.surrogates.objectives import terms_of
from fairmend.surrogates.samples import Samples

FLOOR = 1.25
COST = floored_sum(FIGURES, 0.5, FLOOR)
QUICK = ProposalSettings(moves=3000, genetic_states=300)


def floor(reference: Measurement) -> UtilityFloor:
    return UtilityFloor.relative(FIGURES, reference, FLOOR)


def simulated(seed: int = 0, n_heads: int = 40, noise: float = 0.01) -> SimulatedModel:
    """Forty heads, some of which help against bias and some of which the model cannot do without."""
    rng = np.random.default_rng(100 + seed)
    loss = np.where(rng.random(n_heads) < 0.15, rng.uniform(0.3, 1.5, n_heads), rng.uniform(0.0, 0.02, n_heads))
    return SimulatedModel(
        rng.normal(0.0, 0.02, n_heads),
        loss,
        max_drop=n_heads // 4,
        seed=seed,
        noise_seed=seed,
        bias_noise=noise,
        loss_noise=noise / 3,
    )


def drive(searcher: LearningSearcher | Annealing | UniformSampling, model: SimulatedModel) -> list[Mask]:
    asked: list[Mask] = []
    while masks := searcher.ask():
        searcher.tell(masks, model.measure(masks))
        asked.extend(masks)
    return asked


def true_cost(model: SimulatedModel, mask: Mask) -> float:
    untouched, made = model.truth([model.space.untouched(), mask])
    return COST(untouched)(made)


def test_active_beats_random_masks_and_attention_pruning_of_twice_its_measurements() -> None:
    costs = np.zeros((2, 3))
    for seed in range(2):
        model = simulated(seed)
        active = Active(model.space, FIGURES, COST, seed=seed, states=100, patience=0, proposals=QUICK)
        pruning = AttentionPruning(model.space, FIGURES, COST, seed=seed, states=200, moves=60_000)
        uniform = UniformSampling(model.space, COST, seed=seed, samples=200)
        for searcher in (active, pruning, uniform):
            drive(searcher, model)
        found = (active.finalists(1)[0], pruning.annealed[0], uniform.incumbent.mask)
        costs[seed] = [true_cost(model, mask or model.space.untouched()) for mask in found]
    assert costs[:, 0].mean() < costs[:, 1].mean()
    assert costs[:, 0].mean() < costs[:, 2].mean()


def test_active_asks_every_mask_once_and_exactly_its_states() -> None:
    model = simulated()
    active = Active(model.space, FIGURES, COST, floor, seed=1, states=70, batch=9, patience=0, proposals=QUICK)
    asked = drive(active, model)
    assert len(asked) == len(set(asked)) == 70
    assert active.trouble == ""
    assert len(active.front) >= 1


@pytest.mark.parametrize(
    "surrogate",
    [
        "additive",
        NeuralNetwork(hidden=(8,), epochs=40),
    ],
    ids=lambda given: str(given)[:20],
)
def test_active_runs_on_every_surrogate(surrogate: str | Surrogate) -> None:
    model = simulated(n_heads=16)
    quick = ProposalSettings(moves=300, genetic_states=50, genetic_share=0.5)
    active = Active(model.space, FIGURES, COST, seed=1, states=28, batch=6, surrogate=surrogate, proposals=quick)
    drive(active, model)
    assert active.pair is not None


def test_active_begins_with_its_starts() -> None:
    model = simulated(n_heads=20)
    space, starts = model.space, [[0], [1, 2], [], [0], [3]]

    def first(count: int, **options: Any) -> list[Mask]:
        searcher = Active(space, FIGURES, COST, seed=0, starts=starts, patience=0, proposals=QUICK, **options)
        return drive(searcher, model)[:count]

    wanted = [space.untouched(), *(space.mask(units) for units in ([0], [1, 2], [3]))]
    assert first(4, states=30) == wanted
    # Of few first masks at most half are starts: surrogates need others beside them.
    few = first(4, states=30, initial=4)
    assert few[:3] == wanted[:3]
    assert few[3] != wanted[3]
    # Beside known masks they are measured as far as there are states for them.
    known = [space.mask([unit]) for unit in range(4, 14)]
    assert first(99, states=13, known=known) == [wanted[0], *known, *wanted[1:3]]
    with pytest.raises(InputError, match="outside the space"):
        Active(Space((Site("heads", 20),), max_drop=1), FIGURES, COST, seed=0, states=30, starts=[[1, 2]])


def test_active_stops_when_the_front_stands_still() -> None:
    model = simulated(n_heads=12, noise=0.0)
    active = Active(model.space, FIGURES, COST, floor, seed=0, states=2000, patience=3, proposals=QUICK)
    assert 40 < len(drive(active, model)) < 250


def test_the_whole_front_is_wider_than_that_of_one_cost() -> None:
    model = simulated(3)
    losses = []
    for whole in (True, False):
        active = Active(
            model.space, FIGURES, floored_sum(FIGURES, 0.5), seed=3, states=110, whole_front=whole, patience=0,
            proposals=ProposalSettings(moves=3000, genetic_states=600, genetic_share=0.25 if whole else 0.0),
        )  # fmt: skip
        drive(active, model)
        losses.append(np.ptp(active.front.points()[:, 0]))
    assert losses[0] > losses[1]


def test_attention_pruning_anneals_along_the_whole_front_on_one_pair_of_surrogates() -> None:
    model = simulated(3)
    spans, annealed = [], []
    for whole in (True, False):
        pruning = AttentionPruning(
            model.space, FIGURES, None, floor, seed=3, states=110, finalists=10, surrogate="additive", moves=60_000,
            whole_front=whole,
        )  # fmt: skip
        drive(pruning, model)
        made = [pruning._told[mask] for mask in pruning.annealed]
        spans.append(np.ptp([measurement.utility for measurement in made]))
        annealed.append(pruning.annealed)
    assert spans[0] > spans[1]
    assert len(annealed[0]) == len(set(annealed[0])) <= 10


def test_finalists_of_a_front_are_spread_along_it_and_keep_the_floor() -> None:
    model = simulated(3)
    active = Active(
        model.space, FIGURES, COST, floor, seed=3, states=110, whole_front=True, patience=0, proposals=QUICK
    )
    assert active.front_finalists(5) == []
    drive(active, model)
    chosen = active.front_finalists(5)
    assert len(set(chosen)) == 5
    assert not any(mask.is_untouched for mask in chosen)
    truth = model.truth(chosen)
    limit = floor(model.truth([model.space.untouched()])[0])
    assert all(limit.admits(measurement) for measurement in truth)
    assert np.ptp([measurement.bias for measurement in truth]) > 0.05


def test_finalists_are_less_lucky_than_the_incumbent() -> None:
    """The measured best owes more to noise than what surrogates and measurements say together."""
    luck = []
    for seed in range(3):
        model = simulated(seed, noise=0.05)
        active = Active(model.space, FIGURES, COST, seed=seed, states=100, patience=0, proposals=QUICK)
        drive(active, model)
        assert active.incumbent.mask is not None
        (believed,) = active.believed([active.finalists(1)[0]])
        made, true = model.truth([active.incumbent.mask, active.finalists(1)[0]])
        assert active.incumbent.measurement is not None
        luck.append((made.bias - active.incumbent.measurement.bias, true.bias - believed.bias))
    incumbent, finalist = np.mean(luck, axis=0)
    assert finalist < incumbent


def test_finalists_end_with_the_untouched_mask() -> None:
    model = simulated()
    active = Active(model.space, FIGURES, COST, seed=0, states=60, patience=0, proposals=QUICK)
    assert active.finalists(3) == []
    drive(active, model)
    finalists = active.finalists(3)
    assert len(finalists) == 4
    assert finalists[-1] == model.space.untouched()
    assert len(set(finalists)) == 4


def test_finalists_keep_a_margin_to_the_floor() -> None:
    model = simulated(2, noise=0.03)
    active = Active(model.space, FIGURES, COST, seed=2, states=120, patience=0, proposals=QUICK)
    drive(active, model)
    limit = terms_of(COST(model.measure([model.space.untouched()])[0])).limit
    for belief in active.believed(active.finalists(5)):
        assert belief.utility + 2.3 * belief.utility_se <= limit


def test_a_resumed_run_asks_what_the_uninterrupted_one_asks(tmp_path: Path) -> None:
    model = simulated(n_heads=20)

    def searcher() -> Active:
        return Active(model.space, FIGURES, COST, seed=4, states=60, batch=8, patience=0, proposals=QUICK)

    whole = drive(searcher(), model)
    for evaluations in (1, 20, 37, 60):
        with Store.create(tmp_path / f"{evaluations}.sqlite", {"kind": "test"}) as store:
            Runner(model, store.context("search", model)).run(searcher(), Budget(evaluations=evaluations))
        with Store.open(tmp_path / f"{evaluations}.sqlite") as store:
            context = store.context("search", model)
            summary = Runner(model, context).run(searcher())
            assert [mask for mask, _ in context] == whole
            assert summary.measured == len(whole) - summary.replayed


# --- Attention Pruning


def test_attention_pruning_collects_uniform_masks_then_measures_what_annealing_found() -> None:
    model = simulated()
    pruning = AttentionPruning(model.space, FIGURES, COST, seed=2, states=100, finalists=4, moves=40_000, chains=8)
    asked = drive(pruning, model)
    rng = np.random.default_rng(2)
    assert asked[:96] == [model.space.untouched(), *(model.space.sample(rng) for _ in range(95))]
    assert list(pruning.annealed) == asked[96:]
    assert len(set(asked[96:])) == len(asked[96:]) <= 4


def test_the_published_cost_is_scaled_over_the_samples() -> None:
    model = simulated()
    masks = [model.space.untouched(), *(model.space.sample(np.random.default_rng(5)) for _ in range(20))]
    samples = Samples.of(zip(masks, model.measure(masks), strict=True), FIGURES)
    cost = published_cost(samples, FIGURES, 0.25)
    low, high = (Measurement(f(samples.bias), f(samples.loss)) for f in (np.min, np.max))
    assert cost(low) == pytest.approx(0.0)
    assert cost(high) == pytest.approx(1.0)
    assert cost(Measurement(high.bias, low.utility)) == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(2))
def test_bias_alone_breaks_the_model_and_the_floor_stops_it(seed: int) -> None:
    """epsilon 1, as published: annealing on the bias surrogate alone drives the perplexity up without limit."""
    model = simulated(seed)
    (untouched,) = model.truth([model.space.untouched()])
    ratios = []
    for make_floor in (None, floor):
        pruning = AttentionPruning(
            model.space, FIGURES, None, make_floor, seed=seed, states=200, epsilon=1.0, moves=60_000, log_loss=True
        )
        drive(pruning, model)
        (found,) = model.truth([pruning.annealed[0]])
        ratios.append(found.utility / untouched.utility)
    assert ratios[0] > 1.8
    assert ratios[1] < 1.5
    assert ratios[1] < ratios[0]


@pytest.mark.parametrize("seed", range(2))
def test_perplexity_alone_repairs_nothing(seed: int) -> None:
    """epsilon 0: what annealing on the perplexity surrogate alone ends with leaves the perplexity, and the bias too."""
    model = simulated(seed)
    (untouched,) = model.truth([model.space.untouched()])
    alone = AttentionPruning(model.space, FIGURES, seed=seed, states=200, epsilon=0.0, moves=60_000, log_loss=True)
    both = AttentionPruning(model.space, FIGURES, COST, seed=seed, states=200, moves=60_000, log_loss=True)
    for searcher in (alone, both):
        drive(searcher, model)
    perplexity_only, balanced = (model.truth([searcher.annealed[0]])[0] for searcher in (alone, both))
    assert perplexity_only.utility < 1.15 * untouched.utility
    assert perplexity_only.bias > balanced.bias
    assert perplexity_only.bias > 0.6 * untouched.bias


def test_the_floor_joins_the_published_cost() -> None:
    model = simulated()
    pruning = AttentionPruning(model.space, FIGURES, None, floor, seed=0, states=60, moves=5000)
    drive(pruning, model)
    assert isinstance(pruning._cost, FlooredSum)


def test_attention_pruning_survives_what_cannot_be_learned_and_says_why() -> None:
    model = simulated()

    def constant(masks: Sequence[Mask]) -> list[Measurement]:
        return [Measurement(0.4, 30.0) for _ in masks]

    pruning = AttentionPruning(model.space, FIGURES, COST, seed=0, states=40)
    while masks := pruning.ask():
        pruning.tell(masks, constant(masks))
    assert "the bias of all" in pruning.trouble
    assert pruning.annealed == ()
    assert pruning.finalists(2)[0] == model.space.untouched()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": 8}, "states must be at least 9"),
        ({"finalists": 0}, "finalists must be at least 1"),
        ({"epsilon": 1.5}, "epsilon must be a number within"),
        ({"design": "even"}, "design must be one of"),
        ({"surrogate": "forest"}, "surrogate must be one of"),
    ],
)
def test_attention_pruning_refuses_options_that_cannot_work(change: dict[str, object], message: str) -> None:
    model = simulated()
    with pytest.raises(InputError, match=message):
        AttentionPruning(model.space, FIGURES, COST, **{"seed": 0, "states": 50, **change})  # type: ignore[arg-type]


def test_active_refuses_a_cost_that_surrogates_cannot_be_searched_for() -> None:
    model = simulated()
    active = Active(model.space, FIGURES, lambda reference: lambda made: made.bias, seed=0, states=30)
    with pytest.raises(InputError, match="minimises PenalisedBias, WeightedSum or FlooredSum"):
        active.tell(active.ask(), model.measure([model.space.untouched()]))


def test_a_pair_is_drawn_as_far_as_told() -> None:
    model = simulated(n_heads=12)
    active = Active(model.space, FIGURES, COST, seed=0, states=30, patience=0, proposals=QUICK)
    drive(active, model)
    assert active.pair is not None
    dropped = np.eye(12)
    mean = active.pair.predict(dropped)
    drawn = active.pair.draw(np.random.default_rng(1), 0.5, 0.0).predict(dropped)
    whole = active.pair.draw(np.random.default_rng(1), 1.0, 0.0).predict(dropped)
    np.testing.assert_array_equal(drawn[1], mean[1])
    assert np.abs(drawn[0] - mean[0]).max() > 0
    np.testing.assert_allclose(drawn[0] - mean[0], (whole[0] - mean[0]) / 2, rtol=1e-6, atol=1e-12)


def test_more_proposals_keep_the_floor_when_the_loss_is_not_drawn() -> None:
    broken = []
    for exploration in (0.0, 1.0):
        proposals = ProposalSettings(moves=3000, loss_exploration=exploration)
        for seed in range(3):
            model = simulated(seed)
            active = Active(model.space, FIGURES, COST, seed=seed, states=60, patience=0, proposals=proposals)
            asked = drive(active, model)[active.initial :]
            limit = floor(model.truth([model.space.untouched()])[0])
            broken.append(sum(not limit.admits(made) for made in model.truth(asked)))
    assert sum(broken[:3]) < sum(broken[3:])


def test_proposal_settings_are_checked() -> None:
    with pytest.raises(InputError, match="proposals need genetic_share"):
        ProposalSettings(exploration=2.0)
    with pytest.raises(InputError, match="both explorations within"):
        ProposalSettings(loss_exploration=-0.1)


# --- the simulated model


def test_the_simulated_model_has_the_given_single_effects() -> None:
    effects = np.linspace(-0.02, 0.02, 30)
    model = SimulatedModel(effects, np.abs(effects), bias=0.4, perplexity=40.0)
    (untouched,) = model.truth([model.space.untouched()])
    assert (untouched.bias, untouched.utility) == (pytest.approx(0.4), pytest.approx(40.0))
    for unit in range(30):
        (made,) = model.truth([model.space.mask([unit])])
        change = effects[unit] if effects[unit] >= 0 else 0.4 * math.expm1(effects[unit] / 0.4)
        assert made.bias == pytest.approx(0.4 + change)
        assert math.log(made.utility / 40.0) == pytest.approx(abs(effects[unit]))


def test_the_simulated_model_is_as_additive_as_measured(shared_data: Path) -> None:
    """.93, .69 and .65 at 5, 10 and 20 % of the heads; one strength fits the three in the mean."""
    import pandas as pd

    scores = pd.read_csv(shared_data / "fasp" / "head_scores.csv.gz")
    scores = scores[scores["model"] == "gpt2"].sort_values("head")
    bias, loss = scores["bias_without_gender_and_sex"], np.log(scores["ppl_without"])
    single = np.array([bias - bias.median(), loss - loss.min()])
    model = SimulatedModel(*single)
    rng, uncritical = np.random.default_rng(1), np.argsort(single[1])[: -int(0.3 * len(scores))]
    correlations = []
    for share in (0.05, 0.1, 0.2):
        masks = np.zeros((400, len(scores)))
        for row in masks:
            row[rng.choice(uncritical, round(share * len(scores)), replace=False)] = 1
        both = zip(single, model.true_figures(masks), strict=True)
        correlations.append([np.corrcoef(masks @ effects, true)[0, 1] for effects, true in both])
    assert np.mean(correlations, axis=0) == pytest.approx(np.mean([0.93, 0.69, 0.65]), abs=0.05)
    assert (np.diff(correlations, axis=0) < 0).all()


def test_simulated_noise_has_its_size_and_belongs_to_the_mask() -> None:
    model = simulated(noise=0.03)
    rng = np.random.default_rng(0)
    masks = [model.space.sample(rng, 2) for _ in range(400)]
    made, true = model.measure(masks), model.truth(masks)
    assert made == model.measure(masks)
    assert np.std([a.bias - b.bias for a, b in zip(made, true, strict=True)]) == pytest.approx(0.03, rel=0.15)
    assert np.std([math.log(a.utility / b.utility) for a, b in zip(made, true, strict=True)]) == pytest.approx(
        0.01, rel=0.15
    )


def test_the_simulated_model_refuses_effects_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="effects of more than 6 heads"):
        SimulatedModel(np.zeros(5), np.zeros(5))
