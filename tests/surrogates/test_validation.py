import json
import math

import numpy as np
import pytest
from landscapes import FIGURES

from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.masks import Site, Space
from fairmend.records import plain
from fairmend.surrogates import MeasurementNoise, Ridge, Samples, cross_validate, noise_from_repeats

N = 25
SPACE = Space((Site("heads", N),), max_drop=8)


def samples(n: int, noise: float, seed: int = 0, known: bool = False) -> Samples:
    rng = np.random.default_rng(seed)
    effects, damage = rng.normal(0.0, 0.02, N), rng.uniform(0.0, 0.1, N)
    error = noise if known else math.nan
    found = []
    for _ in range(n):
        mask = SPACE.sample(rng)
        bias = 0.4 + float(mask.dropped() @ effects) + noise * rng.normal()
        loss = float(mask.dropped() @ damage) + noise * rng.normal()
        ppl = 20.0 * math.exp(loss)
        found.append((mask, Measurement(bias, ppl, bias_se=error, utility_se=error * ppl)))
    return Samples.of(found, FIGURES)


def test_scores_tell_a_good_surrogate_from_a_useless_one() -> None:
    scores = cross_validate(samples(150, 0.005), FIGURES, {"ridge": Ridge(), "noise": Useless()})
    good, bad = scores[0], scores[2]
    assert [(score.surrogate, score.target) for score in scores] == [
        ("ridge", "bias"),
        ("ridge", "loss"),
        ("noise", "bias"),
        ("noise", "loss"),
    ]
    assert good.r2 > 0.9
    assert bad.r2 < 0.1
    assert good.spearman > 0.9
    assert good.mse < 0.2 * bad.mse
    assert scores[1].log
    assert json.loads(json.dumps(plain(good)))["noise_mse"] is None


class Useless:
    """Predicts the mean of the targets, and claims to be exact."""

    def settings(self) -> dict[str, str]:
        return {"name": "useless"}

    def fit(self, dropped, targets, noise=None, prior=None, *, seed=0):  # type: ignore[no-untyped-def]
        return Ridge(rounds=0).fit(dropped * 0.0 + np.random.default_rng(0).random(dropped.shape), targets)


def test_a_perfect_surrogate_reaches_the_ceiling_and_has_the_right_spread() -> None:
    score = cross_validate(samples(400, 0.02, known=True), FIGURES, {"ridge": Ridge()})[0]
    assert score.r2 == pytest.approx(score.r2_ceiling, abs=0.06)
    assert score.mse == pytest.approx(score.noise_mse, rel=0.25)
    assert score.z_spread == pytest.approx(1.0, abs=0.15)
    assert score.coverage == pytest.approx(0.9, abs=0.06)


def test_mean_squared_error_is_on_the_published_scale() -> None:
    """Both targets are scaled to [0, 1] over all samples: an error of the whole range is 1."""
    given = samples(120, 0.05, seed=3)
    score = cross_validate(given, FIGURES, {"ridge": Ridge()})[0]
    assert score.mse == pytest.approx((1 - score.r2) * np.var(given.bias) / np.ptp(given.bias) ** 2)


def test_noise_is_learned_from_repeats_and_what_all_share_is_left_out() -> None:
    rng = np.random.default_rng(0)
    bias, loss = rng.normal(0.4, 0.1, 400), rng.normal(3.0, 0.5, 400)

    def again(shift: float) -> list[Measurement]:
        return [
            Measurement(b + shift + 0.03 * rng.normal(), math.exp(x + shift + 0.01 * rng.normal()))
            for b, x in zip(bias, loss, strict=True)
        ]

    noise = noise_from_repeats(again(0.0), again(0.2), FIGURES)
    assert noise.bias == pytest.approx(0.03, rel=0.1)
    assert noise.loss == pytest.approx(0.01, rel=0.1)
    assert (noise.log, noise.n) == (True, 400)
    with pytest.raises(InputError, match="at least 3 masks measured twice, got 2"):
        noise_from_repeats(again(0.0)[:2], again(0.0)[:2], FIGURES)
    with pytest.raises(InputError, match="the same masks twice, got 400 and 3"):
        noise_from_repeats(again(0.0), again(0.0)[:3], FIGURES)


def test_noise_from_repeats_is_the_ceiling() -> None:
    given = samples(200, 0.02)
    noise = MeasurementNoise(0.02, 0.02, True, 50)
    scores = cross_validate(given, FIGURES, {"ridge": Ridge()}, noise=noise)
    assert scores[0].noise_mse == pytest.approx((0.02 / np.ptp(given.bias)) ** 2)
    assert scores[1].noise_mse == pytest.approx((0.02 / np.ptp(np.log(given.loss))) ** 2)
    raw = cross_validate(given, FIGURES, {"ridge": Ridge()}, noise=noise, log_loss=False)[1]
    assert raw.noise_mse == pytest.approx(np.mean((0.02 * given.loss / np.ptp(given.loss)) ** 2))


def test_refuses_too_few_masks_and_folds() -> None:
    with pytest.raises(InputError, match="at least 10 measured masks, got 9"):
        cross_validate(samples(9, 0.02), FIGURES, {"ridge": Ridge()})
    with pytest.raises(InputError, match="needs folds >= 2"):
        cross_validate(samples(90, 0.02), FIGURES, {"ridge": Ridge()}, folds=1)
