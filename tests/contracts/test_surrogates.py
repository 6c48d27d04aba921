"""What every surrogate keeps to."""

import importlib
import inspect
import json
import math
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from known_landscapes import FIGURES
from threadpoolctl import threadpool_limits

import fairmend.surrogates
from fairmend.errors import InputError
from fairmend.evaluation import Evaluator, Measurement, digest
from fairmend.masks import Site, Space
from fairmend.surrogates import (
    SURROGATE_NAMES,
    Prediction,
    Predictor,
    Samples,
    Surrogate,
    SurrogateEvaluator,
    fit_pair,
    make_surrogate,
)
from fairmend.surrogates.families.base import LEAST_SAMPLES

Floats = npt.NDArray[np.float64]

N = 12
SPACE = Space((Site("first", 7), Site("second", 5)))
SMALLER: dict[str, dict[str, Any]] = {  # than by default, so that fits take less time
    "network": {"hidden": [16], "epochs": 200},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "network of two layers": {"name": "network", "hidden": [16, 8], "epochs": 200},
    "additive, one strength": {"name": "additive", "rounds": 0},
}
SURROGATES: dict[str, Surrogate] = {
    **{name: make_surrogate({"name": name, **SMALLER.get(name, {})}) for name in SURROGATE_NAMES},
    **{name: make_surrogate(settings) for name, settings in VARIANTS.items()},
}
every_surrogate = pytest.mark.parametrize("name", SURROGATES)


def masks(n: int, seed: int) -> Floats:
    return (np.random.default_rng(seed).random((n, N)) < 0.3).astype(np.float64)


def figure(dropped: Floats, noise: float = 0.05) -> Floats:
    """Effects of single units and of one pair."""
    effects = np.linspace(-1.0, 1.0, N)
    joint = 0.5 * dropped[:, 0] * dropped[:, 1]
    return dropped @ effects + joint + np.random.default_rng(9).normal(0.0, noise, len(dropped))


SEEN, UNSEEN = masks(60, 0), masks(100, 1)


@cache
def fitted(name: str) -> Predictor:
    return SURROGATES[name].fit(SEEN, figure(SEEN), prior=np.linspace(-1, 1, N), seed=3)


def predictions(made: Predictor) -> list[Floats]:
    drawn = made.draw(np.random.default_rng(7))
    return [*made.predict(UNSEEN), *drawn.predict(UNSEEN)]


def test_every_surrogate_of_the_package_is_under_contract() -> None:
    kinds = {
        kind
        for module in pkgutil.iter_modules(fairmend.surrogates.__path__, "fairmend.surrogates.")
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        if kind is not Surrogate and all(hasattr(kind, name) for name in ("fit", "settings"))
    }
    assert kinds == {type(surrogate) for surrogate in SURROGATES.values()}


@every_surrogate
def test_learns_an_easy_figure(name: str) -> None:
    seen = masks(150, 2)
    predicted = SURROGATES[name].fit(seen, figure(seen), seed=1).predict(UNSEEN).mean
    truth = figure(UNSEEN, 0.0)
    assert 1 - np.mean((predicted - truth) ** 2) / truth.var() > 0.85


@every_surrogate
def test_predicts_finite_figures_and_spreads_also_far_from_what_it_saw(name: str) -> None:
    far = np.array([np.zeros(N), np.ones(N), *np.eye(N)])
    for made in (fitted(name), fitted(name).draw(np.random.default_rng(0))):
        for dropped in (UNSEEN, far, UNSEEN[:1], UNSEEN.astype(bool)):
            predicted = made.predict(dropped)
            assert isinstance(predicted, Prediction)
            assert predicted.mean.shape == predicted.spread.shape == (len(dropped),)
            assert np.isfinite(predicted.mean).all()
            assert np.isfinite(predicted.spread).all()
            assert (predicted.spread >= 0).all()
        assert math.isfinite(made.noise)
        assert made.noise >= 0


@every_surrogate
def test_a_mask_is_predicted_alike_alone_and_among_others(name: str) -> None:
    together = fitted(name).predict(UNSEEN[:5])
    alone = [fitted(name).predict(row[None]) for row in UNSEEN[:5]]
    assert together.mean == pytest.approx([one.mean[0] for one in alone], rel=1e-12)
    assert together.spread == pytest.approx([one.spread[0] for one in alone], rel=1e-9)


@every_surrogate
def test_same_seed_same_fit(name: str) -> None:
    again = SURROGATES[name].fit(SEEN, figure(SEEN), prior=np.linspace(-1, 1, N), seed=3)
    for one, two in zip(predictions(fitted(name)), predictions(again), strict=True):
        assert np.array_equal(one, two)


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(n):
            yield
    finally:
        torch.set_num_threads(before)


@every_surrogate
def test_as_many_threads_as_the_machine_has_change_nothing(name: str) -> None:
    with threads(2):
        again = SURROGATES[name].fit(SEEN, figure(SEEN), prior=np.linspace(-1, 1, N), seed=3)
        assert torch.get_num_threads() == 2
    for one, two in zip(predictions(fitted(name)), predictions(again), strict=True):
        assert np.array_equal(one, two)


@every_surrogate
def test_leaves_the_random_state_and_what_it_is_given_alone(name: str) -> None:
    given = {"dropped": SEEN.copy(), "targets": figure(SEEN), "noise": np.full(60, 0.1), "prior": np.ones(N)}
    copies = {key: value.copy() for key, value in given.items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - whether it is left alone
    SURROGATES[name].fit(**given, seed=5)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert all(np.array_equal(given[key], copies[key]) for key in given)


@every_surrogate
def test_what_is_written_out_is_what_is_predicted(name: str) -> None:
    for made in (fitted(name), fitted(name).draw(np.random.default_rng(1))):
        assert made.form().values(UNSEEN) == pytest.approx(made.predict(UNSEEN).mean, rel=1e-9, abs=1e-9)


@every_surrogate
def test_measurements_with_more_noise_count_less(name: str) -> None:
    """Half of the masks are measured so badly that they say nothing: told so, it errs less than half as much."""
    seen = masks(160, 2)
    noise = np.where(np.arange(160) % 2, 12.0, 0.05)
    targets = figure(seen, 0.0) + noise * np.random.default_rng(0).normal(size=160)
    truth = figure(UNSEEN, 0.0)
    errors = [
        np.mean((SURROGATES[name].fit(seen, targets, given, seed=2).predict(UNSEEN).mean - truth) ** 2)
        for given in (noise, None)
    ]
    assert errors[0] < 0.5 * errors[1]


@every_surrogate
def test_unknown_noise_is_no_noise(name: str) -> None:
    unknown = SURROGATES[name].fit(SEEN, figure(SEEN), np.full(60, math.nan), np.linspace(-1, 1, N), seed=3)
    for one, two in zip(predictions(fitted(name)), predictions(unknown), strict=True):
        assert np.array_equal(one, two)


@every_surrogate
def test_settings_survive_json_and_make_the_same_surrogate(name: str) -> None:
    settings = dict(SURROGATES[name].settings())
    again = json.loads(json.dumps(settings, allow_nan=False))
    assert again == settings
    assert make_surrogate(again) == SURROGATES[name]
    assert make_surrogate(again).settings() == settings
    assert settings["name"] in SURROGATE_NAMES


@every_surrogate
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropped": np.zeros((7, N)), "targets": np.arange(7.0)}, "at least 8 measured masks, got 7: measure more"),
        ({"dropped": np.zeros((0, N)), "targets": np.zeros(0)}, "at least 8 measured masks, got 0"),
        ({"targets": np.full(20, 0.3)}, "all 20 targets equal 0.3: nothing can be learned"),
        ({"targets": np.full(20, math.nan)}, "20 of 20 targets are undefined"),
        ({"targets": np.array([*range(19), math.inf])}, "1 of 20 targets are undefined: leave out broken masks"),
        ({"targets": np.arange(19.0)}, r"masks \(n_masks, n_units\) and targets"),
        ({"dropped": np.zeros(20)}, r"masks \(n_masks, n_units\) and targets"),
        ({"noise": np.ones(3)}, "one standard error per target"),
        ({"prior": np.ones(3)}, "one finite number per unit"),
        ({"prior": np.full(N, math.nan)}, "one finite number per unit"),
    ],
)
def test_refuses_what_cannot_be_learned(name: str, change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"dropped": masks(20, 0), "targets": np.arange(20.0), **change}
    with pytest.raises(InputError, match=message):
        SURROGATES[name].fit(**given)


@every_surrogate
def test_learns_from_as_few_masks_as_allowed_and_where_some_units_never_vary(name: str) -> None:
    few = masks(LEAST_SAMPLES, 4)
    few[:, :3], few[:, 3] = 0.0, 1.0
    made = SURROGATES[name].fit(few, figure(few), seed=0)
    assert np.isfinite(made.predict(UNSEEN).mean).all()


@every_surrogate
def test_a_pair_of_it_is_an_evaluator(name: str) -> None:
    rng = np.random.default_rng(5)
    dropped = [SPACE.sample(rng) for _ in range(40)]
    pairs = [(mask, Measurement(0.3 + 0.02 * mask.size, 0.8 - 0.01 * (mask.bits % 7))) for mask in dropped]
    samples = Samples.of(pairs, FIGURES)
    fits = [fit_pair(samples, FIGURES, SURROGATES[name], seed=seed) for seed in (1, 1)]
    evaluators = [SurrogateEvaluator(pair, SPACE, FIGURES) for pair in fits]
    assert isinstance(evaluators[0], Evaluator)
    assert digest(evaluators[0].fingerprint()) == digest(evaluators[1].fingerprint())
    made = [evaluator.measure(dropped[:3]) for evaluator in evaluators]
    assert made[0] == made[1]
    assert all(one.is_finite for one in made[0])
