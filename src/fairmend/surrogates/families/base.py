"""What a surrogate is: it learns one figure of masks from measured examples, and predicts it with a spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.surrogates.families.forms import Floats, Form

Dropped: TypeAlias = npt.NDArray[Any]
"""Shape (n_masks, n_units): 1 or True where the unit is dropped."""

LEAST_SAMPLES = 8


class Prediction(NamedTuple):
    """Predicted figures.

    Attributes:
        mean: (n_masks,).
        spread: (n_masks,) standard deviation of what is not known about the true figure; the noise of a further
            measurement is not in it.
    """

    mean: Floats
    spread: Floats


class Predictor(Protocol):
    """A fitted surrogate of one figure."""

    @property
    def noise(self) -> float:
        """Standard deviation of a single measurement around the true figure, as given or as learned; 0 if unknown."""

    def predict(self, dropped: Dropped) -> Prediction:
        """The figure of masks of shape (n_masks, n_units)."""

    def form(self) -> Form:
        """The mean written out, for annealing without Python."""

    def draw(self, rng: np.random.Generator) -> Predictor:
        """One function that the true figure might be, as Thompson sampling needs; itself without such knowledge."""


@dataclass(frozen=True, slots=True)
class FixedPredictor:
    """A function of the dropped units without alternatives: a trained network, a draw, or a truth for tests.

    Attributes:
        written: the function.
        noise: see `Predictor`.
        spread: the same everywhere.
    """

    written: Form
    noise: float = 0.0
    spread: float = 0.0

    def predict(self, dropped: Dropped) -> Prediction:
        """The form's values of masks of shape (n_masks, n_units), in float64."""
        mean = self.written.values(dropped)
        return Prediction(mean, np.full(len(mean), self.spread))

    def form(self) -> Form:
        """The function itself."""
        return self.written

    def draw(self, rng: np.random.Generator) -> FixedPredictor:
        """Itself: it knows no alternatives."""
        return self


@runtime_checkable
class Surrogate(Protocol):
    """How to learn one figure; settings only, so that one surrogate may be fitted many times."""

    def fit(
        self,
        dropped: Dropped,
        targets: npt.ArrayLike,
        noise: npt.ArrayLike | None = None,
        prior: npt.ArrayLike | None = None,
        *,
        seed: int = 0,
    ) -> Predictor:
        """Learn from measured masks; the same input and seed give the same predictor.

        Args:
            dropped: (n_masks, n_units).
            targets: (n_masks,) the measured figure.
            noise: (n_masks,) standard error of each target, None or NaN where unknown.
            prior: (n_units,) what is believed beforehand about the effect of each unit, up to a factor, such as
                first-order head scores.
            seed: of whatever is random.

        Raises:
            InputError: too few masks, constant or undefined targets, or shapes that do not fit.
        """

    def settings(self) -> Mapping[str, Any]:
        """The name and every option, JSON-ready."""


class Examples(NamedTuple):
    """What every fit starts from, checked: float64 arrays, noise NaN where unknown, prior None if not given."""

    x: Floats
    y: Floats
    noise: Floats
    prior: Floats | None


def examples(
    dropped: Dropped, targets: npt.ArrayLike, noise: npt.ArrayLike | None, prior: npt.ArrayLike | None
) -> Examples:
    """The arguments of `Surrogate.fit`, checked.

    Raises:
        InputError: see `Surrogate.fit`.
    """
    x, y = np.asarray(dropped, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if x.ndim != 2 or y.shape != (len(x),):
        raise InputError(f"a surrogate needs masks (n_masks, n_units) and targets (n_masks,), got {x.shape}, {y.shape}")
    if len(x) < LEAST_SAMPLES:
        raise InputError(f"a surrogate needs at least {LEAST_SAMPLES} measured masks, got {len(x)}: measure more")
    if not np.isfinite(y).all():
        raise InputError(f"{int((~np.isfinite(y)).sum())} of {len(y)} targets are undefined: leave out broken masks")
    if float(np.ptp(y)) == 0.0:
        raise InputError(
            f"all {len(y)} targets equal {y[0]:g}: nothing can be learned from them; measure masks that differ more"
        )
    errors = np.full(len(y), np.nan) if noise is None else np.asarray(noise, dtype=np.float64)
    if errors.shape != y.shape:
        raise InputError(f"noise needs one standard error per target, shape {y.shape}, got {errors.shape}")
    belief = None if prior is None else np.asarray(prior, dtype=np.float64)
    if belief is not None and (belief.shape != (x.shape[1],) or not np.isfinite(belief).all()):
        raise InputError(f"a prior needs one finite number per unit, shape ({x.shape[1]},), got shape {belief.shape}")
    return Examples(x, y, np.where(errors > 0, errors, np.nan), belief)


def sample_weights(noise: Floats) -> Floats:
    """Weights 1 / noise^2 with mean 1; all 1 where no noise is known. Unknown noise counts as the mean known one."""
    known = np.isfinite(noise)
    if not known.any():
        return np.ones(len(noise))
    variance = np.where(known, noise, float(np.sqrt(np.mean(noise[known] ** 2)))) ** 2
    weights: Floats = float(1.0 / np.mean(1.0 / variance)) / variance
    return weights


def typical_noise(noise: Floats) -> float:
    """Root mean square of the known standard errors; 0 when none is known."""
    known = noise[np.isfinite(noise)]
    return float(np.sqrt(np.mean(known**2))) if known.size else 0.0
