"""Measured masks as surrogates learn from them: bits, both figures, their noise, and the scale they are learned on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.evaluation import Figures, Measurement, array_digest
from fairmend.masks import Mask
from fairmend.surrogates.families.forms import Floats

TARGETS = ("bias", "loss")
_ARRAYS = ("dropped", "bias", "loss", "bias_noise", "loss_noise")


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps a figure to [0, 1] over a known range, by way of its logarithm if wanted.

    Args:
        low, high: the figure's values that map to 0 and 1.
        log: whether the logarithm is scaled instead of the figure.

    Raises:
        InputError: low not below high, or a logarithm of what is not positive.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise InputError(
                f"a scale needs low < high{' and low > 0 for a logarithm' if self.log else ''}, got {self.low!r} and "
                f"{self.high!r}: the measured figures are all alike, so measure masks that differ more"
            )

    @classmethod
    def over(cls, values: Floats, log: bool = False) -> Scale:
        """The scale from the smallest to the largest of the values."""
        return cls(float(values.min()), float(values.max()), log)

    @property
    def start(self) -> float:
        """What 0 stands for: the low end, or its logarithm."""
        return float(np.log(self.low)) if self.log else self.low

    @property
    def width(self) -> float:
        """What the distance from 0 to 1 stands for, in figures or logarithms."""
        return float(np.log(self.high)) - self.start if self.log else self.high - self.low

    def unit(self, values: npt.ArrayLike) -> Floats:
        """Figures as numbers that lie within [0, 1] where the figure lies within the range."""
        raw = np.asarray(values, dtype=np.float64)
        scaled: Floats = ((np.log(raw) if self.log else raw) - self.start) / self.width
        return scaled

    def figure(self, scaled: npt.ArrayLike) -> Floats:
        """The inverse of `unit`; infinite where the figure is too large for a float."""
        raw: Floats = np.asarray(scaled, dtype=np.float64) * self.width + self.start
        if not self.log:
            return raw
        with np.errstate(over="ignore"):
            found: Floats = np.exp(raw)
        return found

    def error(self, errors: Floats, values: Floats) -> Floats:
        """Standard errors of figures as standard errors of their scaled numbers (first order for logarithms)."""
        slope = 1.0 / values if self.log else 1.0
        found: Floats = errors * slope / self.width
        return found


@dataclass(frozen=True, eq=False, slots=True)
class Samples:
    """Measured masks whose figures are finite, in the order in which they were given.

    Attributes:
        dropped: float64, (n_masks, n_units); 1.0 where the unit is dropped.
        bias, loss: (n_masks,) figures to minimise; the loss is the utility with its sign turned if more is better.
        bias_noise, loss_noise: (n_masks,) their standard errors, NaN where there is none.
        broken: how many masks were left out because a figure was not finite.
    """

    dropped: Floats
    bias: Floats
    loss: Floats
    bias_noise: Floats
    loss_noise: Floats
    broken: int = 0

    @classmethod
    def of(cls, pairs: Iterable[tuple[Mask, Measurement]], figures: Figures) -> Samples:
        """The samples of (mask, measurement) pairs, such as a collection or a store's context gives.

        Raises:
            InputError: masks whose dials do not stand at 0, which surrogates do not learn; or no finite measurement.
        """
        found, broken = [], 0
        for mask, made in pairs:
            if any(mask.dials):
                raise InputError(f"surrogates learn dropped units only, but dials stand at {mask.dials}: leave it out")
            if made.is_finite:
                found.append((mask.dropped(), made.bias, figures.loss(made), made.bias_se, made.utility_se))
            else:
                broken += 1
        if not found:
            raise InputError(f"no measured mask is usable: {broken} broke the model and none is finite; measure more")
        rows, *columns = zip(*found, strict=True)
        bias, loss, bias_noise, loss_noise = (np.array(column, dtype=np.float64) for column in columns)
        return cls(np.array(rows, dtype=np.float64), bias, loss, bias_noise, loss_noise, broken)

    def __len__(self) -> int:
        return len(self.bias)

    def target(self, name: str) -> Floats:
        """The figure called `name`, one of `TARGETS`."""
        return self.bias if name == "bias" else self.loss

    def noise(self, name: str) -> Floats:
        """The standard errors of the figure called `name`."""
        return self.bias_noise if name == "bias" else self.loss_noise

    def scale(self, name: str, log: bool = False) -> Scale:
        """The scale over the range of the figure called `name`.

        Raises:
            InputError: the figure is constant, or has no logarithm.
        """
        values = self.target(name)
        if float(np.ptp(values)) == 0.0:
            raise InputError(
                f"the {name} of all {len(values)} measured masks is {values[0]:g}: nothing can be learned from a "
                "constant; measure masks that differ more, with more samples each"
            )
        return Scale.over(values, log)

    def take(self, rows: npt.NDArray[Any]) -> Samples:
        """The samples at the given rows, or where a boolean array is True."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _ARRAYS})

    def digest(self) -> str:
        """SHA-256 of everything that a fit depends on."""
        return array_digest(*(getattr(self, name) for name in _ARRAYS))


def can_take_log(samples: Samples, figures: Figures) -> bool:
    """Whether the loss is better learned as a logarithm: lower is better and all of it is positive, as perplexity."""
    return figures.utility.better == "lower" and bool((samples.loss > 0).all())


def prior_of(prior: Mapping[str, npt.ArrayLike] | None, name: str) -> npt.ArrayLike | None:
    """The prior effects of one figure, None if there are none.

    Raises:
        InputError: a prior of something that is not a figure.
    """
    unknown = sorted(set(prior or {}) - set(TARGETS))
    if unknown:
        raise InputError(f"prior effects are given for {unknown}, allowed are {TARGETS}")
    return None if prior is None else prior.get(name)
