"""What each kind of surrogate is good at; what all of them keep to is in the contract tests."""

import math

import numpy as np
import pytest
from landscapes import pairwise
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct, WhiteKernel
from sklearn.linear_model import LinearRegression

from fairmend.errors import InputError
from fairmend.surrogates.families.base import Surrogate
from fairmend.surrogates.families.forms import Floats, Form
from fairmend.surrogates.families.ridge import Ridge
from fairmend.surrogates.fitting import make_surrogate
from fairmend.surrogates.names import SURROGATE_NAMES

N = 12


def masks(rng: np.random.Generator, n: int, n_units: int = N) -> Floats:
    return (rng.random((n, n_units)) < 0.3).astype(np.float64)


def figure(rng: np.random.Generator, dropped: Floats, noise: float = 0.05) -> Floats:
    effects = np.linspace(-1.0, 1.0, dropped.shape[1])
    joint = 0.5 * dropped[:, 0] * dropped[:, 1]
    return dropped @ effects + joint + rng.normal(0.0, noise, len(dropped))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_every_name_makes_a_surrogate() -> None:
    for name in SURROGATE_NAMES:
        made = make_surrogate(name)
        assert isinstance(made, Surrogate)
        assert made.settings()["name"] == name
    with pytest.raises(InputError, match="surrogate must be one of 'network', 'additive'"):
        make_surrogate("forest")
    with pytest.raises(InputError, match="the network surrogate does not have the options"):
        make_surrogate({"name": "network", "depth": 3})


# --- ridge


def test_additive_ridge_without_noise_recovers_the_effects(rng: np.random.Generator) -> None:
    dropped = masks(rng, 60)
    targets = dropped @ np.linspace(-1, 1, N) + 0.3
    oracle = LinearRegression().fit(dropped, targets)
    form = Ridge().fit(dropped, targets).form()
    assert form.linear == pytest.approx(oracle.coef_, abs=0.01)
    assert form.intercept == pytest.approx(oracle.intercept_, abs=0.02)


def test_pairwise_ridge_finds_the_pair(rng: np.random.Generator) -> None:
    dropped = masks(rng, 200)
    form = Ridge(pairs=True).fit(dropped, figure(rng, dropped, 0.01)).form()
    strongest = np.unravel_index(np.argmax(np.abs(np.triu(form.pairs, 1))), form.pairs.shape)
    assert strongest == (0, 1)
    assert form.pairs[0, 1] == pytest.approx(0.5, abs=0.15)


def test_posterior_agrees_with_a_gaussian_process_of_the_same_kernel(rng: np.random.Generator) -> None:
    """With the strengths that ridge chose, scikit-learn's regression with the same kernel says the same."""
    dropped, unseen = masks(rng, 40), masks(rng, 15)
    targets = figure(rng, dropped, 0.2)
    made = Ridge(rounds=0).fit(dropped, targets)
    scaled = (targets - targets.mean()) / targets.std()
    columns = [np.ones(N) * 10.0 / N, *(np.eye(N) * math.sqrt(made.strength))]
    features = [
        np.column_stack((np.full(len(x), 10.0), *(x @ column for column in columns))) for x in (dropped, unseen)
    ]
    noise = (made.noise / targets.std()) ** 2
    kernel = DotProduct(0.0, "fixed") + WhiteKernel(noise, "fixed")
    oracle = GaussianProcessRegressor(kernel, optimizer=None).fit(features[0], scaled)
    mean, sd = oracle.predict(features[1], return_std=True)
    found = made.predict(unseen)
    assert found.mean == pytest.approx(mean * targets.std() + targets.mean(), abs=1e-6)
    assert found.spread == pytest.approx(np.sqrt(sd**2 - noise) * targets.std(), rel=1e-4)


@pytest.mark.parametrize("pairs", [False, True])
def test_draws_have_the_posterior_s_mean_and_spread(pairs: bool, rng: np.random.Generator) -> None:
    dropped, unseen = masks(rng, 30), masks(rng, 10)
    made = Ridge(pairs=pairs).fit(dropped, figure(rng, dropped, 0.3))
    draws = np.array([made.draw(rng).predict(unseen).mean for _ in range(1500)])
    mean, spread = made.predict(unseen)
    assert draws.mean(axis=0) == pytest.approx(mean, abs=0.1 * spread.max())
    assert draws.std(axis=0) == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("rounds", [0, 3])
def test_spread_covers_the_truth(rounds: int, rng: np.random.Generator) -> None:
    """Choosing each unit's variance by the data makes the surrogate a little too sure."""
    scores = []
    for _ in range(10):
        dropped, unseen = masks(rng, 60, 40), masks(rng, 60, 40)
        effects = rng.normal(size=40)
        made = Ridge(rounds=rounds).fit(dropped, dropped @ effects + rng.normal(0, 1.0, 60))
        mean, spread = made.predict(unseen)
        scores.append((mean - unseen @ effects) / spread)
    assert 0.8 < np.concatenate(scores).std() < (1.5 if rounds else 1.25)


def test_a_true_prior_saves_measurements(rng: np.random.Generator) -> None:
    dropped, unseen = masks(rng, 25, 40), masks(rng, 100, 40)
    effects = rng.normal(size=40)
    targets = dropped @ effects + rng.normal(0, 0.5, 25)
    errors = [
        np.mean((Ridge().fit(dropped, targets, prior=prior).predict(unseen).mean - unseen @ effects) ** 2)
        for prior in (None, 3.0 * effects + rng.normal(0, 0.3, 40))
    ]
    assert errors[1] < 0.3 * errors[0]


def test_heavy_tailed_effects_are_learned_better_with_variances_of_their_own(rng: np.random.Generator) -> None:
    errors = np.zeros(2)
    for _ in range(5):
        dropped, unseen = masks(rng, 60, 50), masks(rng, 100, 50)
        effects = np.where(np.arange(50) < 4, 3.0, 0.02) * rng.choice([-1, 1], 50)
        targets = dropped @ effects + rng.normal(0, 0.5, 60)
        for index, rounds in enumerate((0, 3)):
            made = Ridge(rounds=rounds).fit(dropped, targets)
            errors[index] += np.mean((made.predict(unseen).mean - unseen @ effects) ** 2)
    assert errors[1] < 0.7 * errors[0]


# --- forms


def test_a_way_between_forms_gone_in_part_is_between_their_values(rng: np.random.Generator) -> None:
    start, end = (pairwise(rng, N) for _ in range(2))
    x = masks(rng, 20)
    assert start.towards(end, 0.25).values(x) == pytest.approx(0.75 * start.values(x) + 0.25 * end.values(x))


def test_pairs_count_each_pair_once(rng: np.random.Generator) -> None:
    form = pairwise(rng, N)
    x = masks(rng, 10)
    brute = [
        form.intercept
        + sum(form.linear[i] for i in np.flatnonzero(row))
        + sum(form.pairs[i, j] for i in np.flatnonzero(row) for j in np.flatnonzero(row) if i < j)
        for row in x
    ]
    assert form.values(x) == pytest.approx(brute)


def test_forms_refuse_shapes_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"pairs of 3 units need shape \(3, 3\)"):
        Form(0.0, np.zeros(3), np.zeros((2, 2)))
    with pytest.raises(InputError, match="layers must lead from 3 units to 1 output"):
        Form.network([(np.zeros((3, 2)), np.zeros(2))])
