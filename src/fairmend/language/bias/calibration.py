"""What bias would endless items show? Undoing the upward bias of a sum of absolute differences.

Every measured group difference is the true one plus noise, d = delta + e, and the figure is sum |d|. Noise makes the
sum too large: with ten groups and no true difference at all it is far above 0, and bootstrap draws, which add the noise
a second time, are larger still. A percentile interval of such draws covers the truth hardly ever (simulated: 0 % to
50 % with ten equal or nearly equal groups where 95 % were wanted).

So the question is turned round (test inversion, Davison and Hinkley 1997, section 5.4): let the true differences be
k * d, the measured pattern shrunk or stretched. The figure sum |k d + e| grows with k. The k at which the figure that
was measured is just not too small, or just not too large, are the limits; the k at which its mean is the measured one
gives the corrected estimate. The errors e are those of a bootstrap within groups.

Simulated with 2 and 10 groups of 50 and 200 prompts, equal, all different, or one unlike the rest, skewed scores: the
interval covers the truth in 90-99 % of the samples. Where there is a difference the corrected estimate is off by at
most .035 on average and the raw figure by up to .16; without any (10 groups of 50) by .08, as it cannot be negative,
and .24.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from fairmend.language.bias.design import Floats
from fairmend.statistics import Interval

_PRECISION = 1e-7  # of a factor: far below the noise of the draws


@dataclass(frozen=True, eq=False)
class Calibration:
    """The bias behind a measured figure.

    Attributes:
        estimate: the corrected bias, at least 0.
        interval: of the true bias.
        draws: figures that samples from a model with the corrected bias would show, shape (n_draws,).
    """

    estimate: float
    interval: Interval
    draws: Floats


def calibrate(differences: Floats, errors: Floats, level: float) -> Calibration:
    """Find the true biases that go with a measured pattern of differences.

    Args:
        differences: what groups are compared with minus group mean, shape (n_groups,).
        errors: sampling errors of the same, shape (n_draws, n_groups).
        level: of the interval, in (0, 1).
    """
    value = float(np.abs(differences).sum())
    # Groups measured as exactly equal show no pattern: any will do, so let every group differ by its noise.
    pattern = differences if value > 0 else errors.std(axis=0)
    size = float(np.abs(pattern).sum())

    def figures(factor: float) -> Floats:
        sums: Floats = np.abs(factor * pattern + errors).sum(axis=1)
        return sums

    def quantile(share: float) -> Callable[[float], float]:
        return lambda factor: float(np.quantile(figures(factor), share))

    noise = float(figures(0.0).mean())
    factor = _reach(lambda k: float(figures(k).mean()), value, size)
    low = _reach(quantile((1 + level) / 2), value, size)
    # A figure below what noise alone makes is good luck, and says no more against a bias than the noise itself.
    high = _reach(quantile((1 - level) / 2), max(value, noise), size)
    interval = Interval(low * size, high * size, level).reaching(factor * size)
    return Calibration(factor * size, interval, figures(factor))


def change_interval(before: Calibration, after: Calibration) -> Interval:
    """Combine the intervals of two biases, measured on the same items, into one of their difference after - before.

    Recovers the variances from the limits (Zou and Donner 2008, equation 6) with the correlation of the paired draws,
    because the difference of two sums of absolute values is far from normal near 0. Where one of the two cannot be
    told from 0, its estimate can only err upwards; the limit on that side is then the difference of the limits.
    """
    correlation = max(0.0, _correlation(before.draws, after.draws))
    change = after.estimate - before.estimate
    low = change - _combined(after.estimate - after.interval.low, before.interval.high - before.estimate, correlation)
    high = change + _combined(after.interval.high - after.estimate, before.estimate - before.interval.low, correlation)
    if after.interval.low == 0:
        low = min(low, -before.interval.high)
    if before.interval.low == 0:
        high = max(high, after.interval.high)
    return Interval(low, high, before.interval.level)


def _reach(figure: Callable[[float], float], target: float, size: float) -> float:
    """The smallest factor at which a growing figure reaches `target`; 0 when it is there from the start."""
    if size == 0 or figure(0.0) >= target:
        return 0.0
    low, high = 0.0, 1.0
    while figure(high) < target:
        low, high = high, 2 * high
    return float(brentq(lambda factor: figure(factor) - target, low, high, xtol=_PRECISION))


def _combined(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(0.0, first**2 + second**2 - 2 * correlation * first * second))


def _correlation(first: Floats, second: Floats) -> float:
    left, right = first - first.mean(), second - second.mean()
    spread = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / spread if spread > 0 else 0.0
