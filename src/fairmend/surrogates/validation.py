"""How well surrogates predict masks that they did not learn from, beside the noise that no surrogate can predict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.stats import norm, spearmanr

from fairmend.errors import InputError
from fairmend.evaluation import Figures, Measurement
from fairmend.surrogates.families.base import LEAST_SAMPLES, Surrogate
from fairmend.surrogates.families.forms import Floats
from fairmend.surrogates.fitting import fit_pair
from fairmend.surrogates.samples import Samples, can_take_log

PUBLISHED_MSE: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "distilgpt2": (0.0038, 0.0005),
        "gpt2": (0.004, 0.004),
        "gpt-neo-125M": (0.007, 0.007),
        "gpt-neo-1.3B": (0.0049, 0.026),
        "gpt-j-6B": (0.0073, 0.0048),
        "llama-2-7b": (0.0046, 0.010),
    }
)
"""Attention Pruning's published mean squared errors of bias and perplexity on the [0, 1] scale, to stand beside ours.

They depend on the spread of the sampled masks and on the noise of measuring, neither of which is published.
"""


@dataclass(frozen=True, slots=True)
class HeldOutScore:
    """How well one surrogate predicts one figure of masks held out, in cross-validation.

    Attributes:
        surrogate, target: which surrogate, and "bias" or "loss".
        log: whether the logarithm of the loss was learned; the errors are then those of the scaled logarithm.
        n: masks predicted.
        mse: mean squared error on the [0, 1] scale over all samples, against the measured figures, noise included.
        r2: share of the measured figures' variance that is predicted.
        spearman: rank correlation of predicted and measured figures.
        z_spread: standard deviation of (measured - predicted) / what is expected of the spread and the noise: 1 if
            the spread is right, more if it is too narrow.
        coverage: share of measured figures within the 90 % interval that spread and noise give.
        noise_mse: the part of `mse` that is measurement noise, on the same scale; NaN if nothing is known of it.
        r2_ceiling: the r2 of a surrogate that knows the true figures, 1 - noise / variance, but not below 0; NaN
            likewise.
    """

    surrogate: str
    target: str
    log: bool
    n: int
    mse: float
    r2: float
    spearman: float
    z_spread: float
    coverage: float
    noise_mse: float
    r2_ceiling: float


@dataclass(frozen=True, slots=True)
class MeasurementNoise:
    """Standard deviation of one measurement around the true figure, learned from repeats.

    Attributes:
        bias: in the bias' own units.
        loss: of the loss, or of its logarithm if `log`.
        n: number of repeated masks.
    """

    bias: float
    loss: float
    log: bool
    n: int


def noise_from_repeats(
    first: Sequence[Measurement], second: Sequence[Measurement], figures: Figures
) -> MeasurementNoise:
    """The noise of one measurement, from two measurements of each mask under different luck.

    Half of the mean squared difference is the variance of one measurement; what all masks share, such as easier
    prompts in one of the two, is taken off first, because it misleads no comparison of masks.

    Args:
        first, second: of the same masks in the same order, with different seeds or prompts.
        figures: what the measurements mean.

    Raises:
        InputError: different numbers of measurements, or fewer than three pairs that are finite.
    """
    if len(first) != len(second):
        raise InputError(f"repeats need the same masks twice, got {len(first)} and {len(second)} measurements")
    both = [(a, b) for a, b in zip(first, second, strict=True) if a.is_finite and b.is_finite]
    if len(both) < 3:
        raise InputError(f"noise needs at least 3 masks measured twice, got {len(both)} finite pairs: repeat more")
    log = figures.utility.better == "lower" and all(min(a.utility, b.utility) > 0 for a, b in both)
    bias = np.array([b.bias - a.bias for a, b in both])
    loss = np.array([math.log(b.utility / a.utility) if log else figures.loss(b) - figures.loss(a) for a, b in both])
    sds = [float(np.std(differences, ddof=1) / math.sqrt(2)) for differences in (bias, loss)]
    return MeasurementNoise(sds[0], sds[1], log, len(both))


def cross_validate(
    samples: Samples,
    figures: Figures,
    surrogates: Mapping[str, Surrogate],
    *,
    folds: int = 5,
    log_loss: bool | None = None,
    noise: MeasurementNoise | None = None,
    seed: int = 0,
) -> list[HeldOutScore]:
    """Predict every mask from the others, `folds` times a part, with every surrogate on the same parts.

    Args:
        samples: measured masks.
        figures: what the measurements mean.
        surrogates: by the name that the scores carry.
        folds: number of parts.
        log_loss: see `fit_pair`.
        noise: from repeats; by default the samples' standard errors stand in, where they have any.
        seed: of the parts and of the fits.

    Returns:
        Two scores per surrogate, bias and loss.

    Raises:
        InputError: too few masks for the folds, or constant figures.
    """
    least = math.ceil(LEAST_SAMPLES * folds / (folds - 1)) if folds >= 2 else 0
    if folds < 2 or len(samples) < least:
        raise InputError(
            f"cross-validation in {folds} folds needs folds >= 2 and at least {least} measured masks, got "
            f"{len(samples)}: measure more, or use fewer folds"
        )
    log = can_take_log(samples, figures) if log_loss is None else log_loss
    part = np.random.default_rng(seed).permutation(np.arange(len(samples)) % folds)
    scores = []
    for name, surrogate in surrogates.items():
        mean, expected = np.zeros((2, len(samples))), np.zeros((2, len(samples)))
        for fold in range(folds):
            out = part == fold
            pair = fit_pair(samples.take(~out), figures, surrogate, log_loss=log, seed=seed)
            for row, (predictor, scale, target) in enumerate(
                ((pair.bias, pair.bias_scale, "bias"), (pair.loss, pair.loss_scale, "loss"))
            ):
                whole = samples.scale(target, log and target == "loss")
                predicted = predictor.predict(samples.dropped[out])
                mean[row, out] = whole.unit(scale.figure(predicted.mean))
                known = _noise(samples, target, whole.log, noise)[out] / whole.width
                lucky = np.where(np.isfinite(known), known, predictor.noise * scale.width / whole.width)
                expected[row, out] = np.hypot(predicted.spread * scale.width / whole.width, lucky)
        for row, target in enumerate(("bias", "loss")):
            whole = samples.scale(target, log and target == "loss")
            measured = whole.unit(samples.target(target))
            errors = _noise(samples, target, whole.log, noise) / whole.width
            scores.append(_score(name, target, whole.log, measured, mean[row], expected[row], errors))
    return scores


def _noise(samples: Samples, target: str, log: bool, noise: MeasurementNoise | None) -> Floats:
    """The standard deviation of each measurement's noise, in figures (or logarithms), NaN where unknown."""
    if noise is not None:
        level = noise.bias if target == "bias" else noise.loss
        values = samples.target(target)
        if target == "loss" and noise.log != log:
            return level * values if noise.log else level / values
        return np.full(len(samples), level)
    errors = samples.noise(target)
    return errors / samples.target(target) if log else errors


def _score(
    surrogate: str, target: str, log: bool, measured: Floats, mean: Floats, expected: Floats, noise: Floats
) -> HeldOutScore:
    errors = measured - mean
    mse, variance = float(np.mean(errors**2)), float(np.var(measured))
    noise_mse = float(np.mean(noise**2)) if np.isfinite(noise).all() else math.nan
    ranks = math.nan if float(np.ptp(mean)) == 0.0 else float(spearmanr(mean, measured).statistic)
    z = errors / np.where(expected > 0, expected, math.inf)
    return HeldOutScore(
        surrogate=surrogate,
        target=target,
        log=log,
        n=len(measured),
        mse=mse,
        r2=1 - mse / variance,
        spearman=ranks,
        z_spread=float(np.sqrt(np.mean(z**2))),
        coverage=float(np.mean(np.abs(errors) <= norm.ppf(0.95) * expected)),
        noise_mse=noise_mse,
        r2_ceiling=max(0.0, 1 - noise_mse / variance) if math.isfinite(noise_mse) else math.nan,
    )
