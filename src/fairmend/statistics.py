"""Intervals, permutation tests and noise: how far a figure can be trusted.

Everything that draws takes a `numpy.random.Generator`; the same generator state gives the same result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from fairmend.errors import InputError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval; both limits are NaN when none can be given."""

    low: float
    high: float
    level: float = 0.95

    @classmethod
    def normal(cls, value: float, standard_error: float, level: float = 0.95) -> Interval:
        """The interval of a normally distributed estimate."""
        reach = float(ndtri((1 + level) / 2)) * standard_error
        return cls(value - reach, value + reach, level)

    @property
    def half_width(self) -> float:
        """Half the distance between the limits."""
        return (self.high - self.low) / 2

    def contains(self, value: float) -> bool:
        """Whether `value` lies within the limits; False for an undefined interval."""
        return self.low <= value <= self.high

    def reaching(self, value: float) -> Interval:
        """The interval widened just far enough to contain `value`."""
        return Interval(min(self.low, value), max(self.high, value), self.level)

    def negated(self) -> Interval:
        """The interval of minus the quantity."""
        return Interval(-self.high, -self.low, self.level)

    def shifted(self, offset: float) -> Interval:
        """The interval of the quantity plus a constant."""
        return Interval(self.low + offset, self.high + offset, self.level)

    def __str__(self) -> str:
        return f"[{self.low:.3f}, {self.high:.3f}]" if math.isfinite(self.half_width) else "[not defined]"


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over independent values, with its standard error and t-interval.

    Attributes:
        mean, standard_error: of the `n` values; the error is NaN for a single value.
        interval: Student's t-interval of the mean.
        n: number of values.
    """

    mean: float
    standard_error: float
    interval: Interval
    n: int

    @property
    def half_width(self) -> float:
        """Half-width of the t-interval: the "+-" of the published tables."""
        return self.interval.half_width


@dataclass(frozen=True)
class Draws:
    """How a figure is resampled.

    Attributes:
        n_boot, n_perm: numbers of bootstrap and permutation draws, at least 100 each.
        level: of the intervals, and 1 - level of the test.

    Raises:
        InputError: too few draws, or no such level.
    """

    n_boot: int = 2000
    n_perm: int = 2000
    level: float = 0.95

    def __post_init__(self) -> None:
        if min(self.n_boot, self.n_perm) < 100:
            raise InputError(
                f"n_boot and n_perm must be at least 100 to mean anything, got {self.n_boot} and {self.n_perm}"
            )
        _check_level(self.level)


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> Mean:
    """Give the mean of independent values with Student's t-interval.

    Args:
        values: shape (n,), for example one figure per network.
        level: confidence level in (0, 1).

    Raises:
        InputError: no values, or a level outside (0, 1).
    """
    sample = _sample(values)
    _check_level(level)
    n, mean = sample.size, float(sample.mean())
    if n == 1:
        return Mean(mean, math.nan, Interval(math.nan, math.nan, level), n)
    error = float(sample.std(ddof=1)) / math.sqrt(n)
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * error
    return Mean(mean, error, Interval(mean - reach, mean + reach, level), n)


def paired_t_interval(before: npt.ArrayLike, after: npt.ArrayLike, level: float = 0.95) -> Mean:
    """Give the mean change `after - before` of paired values with Student's t-interval.

    Raises:
        InputError: samples of different lengths or none at all.
    """
    first, second = _pair(before, after)
    return t_interval(second - first, level)


def percentile_interval(draws: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Give the interval between two percentiles of bootstrap draws (Efron and Tibshirani 1993, chapter 13).

    Bias-corrected and reflected intervals were tried and left out: a difference between groups is never negative and
    biased upwards, and on simulated group differences of .1 they covered .80 and .69 where percentiles covered .955.

    Args:
        draws: shape (n_draws,); undefined (NaN) draws are left out, and when they are more than 5 %, so is the
            interval.
        level: confidence level in (0, 1).

    Raises:
        InputError: no draws, or a level outside (0, 1).
    """
    sample = _sample(draws)
    _check_level(level)
    defined = sample[~np.isnan(sample)]
    if defined.size < 0.95 * sample.size:
        return Interval(math.nan, math.nan, level)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def bootstrap_counts(table: npt.ArrayLike, n_draws: int, rng: np.random.Generator) -> Counts:
    """Resample people with replacement within every row of a table of counts.

    Drawing counts from a multinomial distribution is the same as drawing people and counting them, at a cost that
    does not depend on the number of people.

    Args:
        table: counts of shape (..., n_cells); every last-axis row is a stratum of fixed size.
        n_draws: number of resampled tables.

    Returns:
        Counts of shape (n_draws, ..., n_cells).
    """
    counts = np.asarray(table, dtype=np.int64)
    sizes = counts.sum(axis=-1)
    shares = counts / np.maximum(sizes, 1)[..., None]
    return rng.multinomial(sizes, shares, size=(n_draws, *sizes.shape))


def shuffle_counts(table: npt.ArrayLike, n_draws: int, rng: np.random.Generator) -> Counts:
    """Deal the people of a table out to its groups again at random, keeping both margins.

    This is the distribution of the table when group labels are shuffled: multivariate hypergeometric, group after
    group. It is drawn cell by cell, because numpy's `multivariate_hypergeometric` takes one urn only and the urn that
    the second group draws from differs between draws.

    Args:
        table: counts of shape (n_groups, n_cells).
        n_draws: number of shuffled tables.

    Returns:
        Counts of shape (n_draws, n_groups, n_cells).
    """
    counts = np.asarray(table, dtype=np.int64)
    n_groups, n_cells = counts.shape
    dealt = np.zeros((n_draws, n_groups, n_cells), dtype=np.int64)
    urn = np.broadcast_to(counts.sum(axis=0), (n_draws, n_cells)).copy()
    for group, size in enumerate(counts.sum(axis=1)[:-1]):
        missing = np.full(n_draws, size)
        for cell in range(n_cells - 1):
            others = urn[:, cell + 1 :].sum(axis=1)
            drawn = rng.hypergeometric(urn[:, cell], others, missing)
            dealt[:, group, cell] = drawn
            missing -= drawn
        dealt[:, group, -1] = missing
        urn -= dealt[:, group]
    dealt[:, -1] = urn
    return dealt


def permutation_p_value(observed: float, null: npt.ArrayLike) -> float:
    """Give the share of shuffled figures at least as large as the observed one, (1 + #) / (1 + n): never 0.

    The correction keeps the test valid (Phipson and Smyth 2010). NaN when the observed figure is undefined.
    """
    if math.isnan(observed):
        return math.nan
    shuffled = _sample(null)
    # Equal rates computed from different counts can differ in the last bit; a tie must count as a tie.
    return float((1 + np.count_nonzero(shuffled >= observed - 1e-12)) / (1 + shuffled.size))


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjust p-values for the number of tests (Holm 1979); reject those at or below the level.

    Args:
        p_values: shape (n_tests,), each in [0, 1].

    Raises:
        InputError: a value outside [0, 1], NaN included.
    """
    raw = _sample(p_values)
    if not np.all((raw >= 0) & (raw <= 1)):
        raise InputError(f"p-values must lie in [0, 1], got {raw.tolist()}: leave undefined tests out")
    order = np.argsort(raw, kind="stable")
    steps = np.maximum.accumulate(raw[order] * np.arange(raw.size, 0, -1))
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def split_half_reliability(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Tell how far scores repeat: the correlation of two half-sample scores, stepped up to the full sample.

    Spearman-Brown, 2r / (1 + r). Negative correlations use 2r / (1 + |r|), so that the result stays in [-1, 1].

    Args:
        first, second: scores of the same items, shape (n_items,), from two independent halves of the data.

    Returns:
        1 for scores that repeat exactly, about 0 for noise, NaN when one half has no spread.

    Raises:
        InputError: different lengths, or fewer than two items.
    """
    left, right = _pair(first, second)
    if left.size < 2:
        raise InputError(f"reliability needs the scores of at least 2 items, got {left.size}")
    left, right = left - left.mean(), right - right.mean()
    spread = math.sqrt(float(left @ left) * float(right @ right))
    if spread == 0:
        return math.nan
    correlation = min(1.0, max(-1.0, float(left @ right) / spread))
    return 2 * correlation / (1 + abs(correlation))


def sample_size_needed(
    effect: float, n: int, null_quantile: float, standard_error: float, power: float = 0.8
) -> int | None:
    """Give the sample size at which an effect of this size would be told from chance with the given power.

    Noise shrinks with the square root of the sample size, so with the critical value of the test and the standard
    error measured at size `n`, the size needed is n * ((null_quantile + z_power * standard_error) / effect)^2.

    Args:
        effect: the size of effect to see.
        n: sample size behind the other arguments.
        null_quantile: critical value: a high quantile (0.95) of the figure without any effect.
        standard_error: of the figure.
        power: chance of seeing the effect, in (0, 1).

    Returns:
        None when no sample size would do (no effect) or it cannot be told (undefined noise).
    """
    reach = null_quantile + float(ndtri(power)) * standard_error
    if not (effect > 0 and math.isfinite(reach)):
        return None
    return math.ceil(n * (reach / effect) ** 2)


def written_p_value(p_value: float) -> str:
    """A p-value in words: "p < 0.001", "p = 0.012", "p = 0.34"."""
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def two_digits(count: int) -> int:
    """A count rounded up to two significant digits: more would claim a precision that no extrapolation has."""
    digits = len(str(count)) - 2
    return math.ceil(count / 10**digits) * 10**digits if digits > 0 else count


def _sample(values: npt.ArrayLike) -> Floats:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise InputError(f"expected a non-empty array of shape (n,), got shape {sample.shape}")
    return sample


def _pair(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[Floats, Floats]:
    left, right = _sample(first), _sample(second)
    if left.size != right.size:
        raise InputError(f"the two samples must have the same length, got {left.size} and {right.size}")
    return left, right


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"the confidence level must lie strictly between 0 and 1, got {level!r}")
