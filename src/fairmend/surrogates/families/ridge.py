"""Additive and pairwise ridge regression on the dropped units, in closed form, with posterior spread and draws.

Both are Bayesian linear regressions (Bishop, Pattern Recognition and Machine Learning, 2006, section 3.3), solved
through their kernel: with n masks that costs O(n^3), however many pairs of units there are. With x . x' the number of
units that two masks share, the kernel of all pairs i < j is ((x . x')^2 - x . x') / 2.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from fairmend.errors import InputError
from fairmend.surrogates.families.base import (
    Dropped,
    Examples,
    FixedPredictor,
    Prediction,
    examples,
    sample_weights,
)
from fairmend.surrogates.families.forms import Floats, Form
from fairmend.threads import one_thread

_FLAT = 100.0  # prior variance of what is not shrunk, in variances of the targets
_MOST_FOR_STRENGTHS = 600  # masks that the strengths are chosen on: their likelihood costs O(n^3) many times


@dataclass(frozen=True, slots=True)
class Ridge:
    """Ridge regression on the dropped units and, if wanted, on all their pairs.

    The strengths of units, of pairs and of the noise maximise the marginal likelihood. The mean effect of a unit and,
    with pairs, of a pair is not shrunk, nor is the factor of the prior. Effects of units have a heavy-tailed prior: a
    few units matter far more than the others. A pair is believed to matter as its two units do.

    Args:
        pairs: whether pairs of units have effects of their own.
        rounds: of adapting each unit's own prior variance; 0 is plain ridge with one strength for all.
        tail: degrees of freedom of the heavy-tailed prior.

    Raises:
        InputError: an option outside its range.
    """

    pairs: bool = False
    rounds: int = 3
    tail: float = 4.0

    def __post_init__(self) -> None:
        if self.rounds < 0 or self.tail <= 0:
            raise InputError(f"ridge needs rounds >= 0 and tail > 0, got rounds={self.rounds}, tail={self.tail}")

    def settings(self) -> dict[str, Any]:
        """The name and every option, JSON-ready."""
        return {"name": "pairwise" if self.pairs else "additive", **asdict(self)}

    def fit(
        self,
        dropped: Dropped,
        targets: npt.ArrayLike,
        noise: npt.ArrayLike | None = None,
        prior: npt.ArrayLike | None = None,
        *,
        seed: int = 0,
    ) -> RidgePredictor:
        """Learn from measured masks; see `Surrogate.fit`. Nothing is random."""
        with one_thread():
            return self._fit(examples(dropped, targets, noise, prior))

    def _fit(self, given: Examples) -> RidgePredictor:
        centre, unit = float(given.y.mean()), float(given.y.std())
        y = (given.y - centre) / unit
        weights = sample_weights(given.noise)
        n_units = given.x.shape[1]
        relative = np.ones(n_units)
        flat = _flat_forms(n_units, self.pairs, given.prior)
        chosen = _spread_rows(y, _MOST_FOR_STRENGTHS)
        strengths = np.log([0.3 / max(1.0, given.x.sum(axis=1).mean()), 0.02, 0.1][: 2 + self.pairs])
        for turn in range(self.rounds + 1):
            prior = _Prior(relative, flat, self.pairs)
            strengths = _best_strengths(prior.blocks(given.x[chosen]), y[chosen], weights[chosen], strengths)
            fitted = RidgePredictor(prior, np.exp(strengths), given.x, y, weights, centre, unit)
            if turn < self.rounds:
                # The variance of each unit's Student-t prior given its effect (a step of EM).
                mean, variance = fitted.unit_effects()
                relative = (self.tail + (mean**2 + variance) / fitted.strength) / (self.tail + 1.0)
                relative = relative / relative.mean()
        return fitted


@dataclass(frozen=True, slots=True)
class _Prior:
    """Which effects there are, and how large each is believed to be beside the others.

    Attributes:
        relative: (n_units,) prior variance of each unit's effect, mean 1.
        flat: forms whose factors are not shrunk.
        pairs: whether pairs have effects.
    """

    relative: Floats
    flat: tuple[Form, ...]
    pairs: bool

    def blocks(self, x: Floats, other: Floats | None = None) -> list[Floats]:
        """Kernels (n_masks, n_others) of what is not shrunk, of the units, and of the pairs."""
        right = x if other is None else other
        features = [form.values(x) for form in self.flat]
        rights = features if other is None else [form.values(right) for form in self.flat]
        flat = np.sum([np.outer(a, b) for a, b in zip(features, rights, strict=True)], axis=0)
        shared = (x * self.relative) @ right.T
        found = [_FLAT * flat, shared]
        if self.pairs:
            found.append(0.5 * (shared**2 - (x * self.relative**2) @ right.T))
        return found

    def diagonal(self, x: Floats) -> list[Floats]:
        """The diagonals of `blocks`, each of shape (n_masks,)."""
        flat = np.sum([form.values(x) ** 2 for form in self.flat], axis=0)
        shared = x @ self.relative
        found = [_FLAT * flat, shared]
        if self.pairs:
            found.append(0.5 * (shared**2 - x @ self.relative**2))
        return found

    def mean(self, x: Floats, alpha: Floats, strengths: Floats) -> Form:
        """The form of sum over masks m of alpha[m] * kernel(x, m)."""
        n_units = x.shape[1]
        found = Form(0.0, strengths[0] * self.relative * (x.T @ alpha), np.zeros((0, 0)))
        for form in self.flat:
            found = found.plus(form.scaled(_FLAT * float(form.values(x) @ alpha)))
        if self.pairs:
            root = x * self.relative
            pairs = strengths[1] * (root.T @ (root * alpha[:, None]))
            np.fill_diagonal(pairs, 0.0)
            found = found.plus(Form(0.0, np.zeros(n_units), pairs))
        return found

    def draw(self, rng: np.random.Generator, strengths: Floats) -> Form:
        """A form drawn from the prior."""
        n_units = len(self.relative)
        found = Form(0.0, np.sqrt(strengths[0] * self.relative) * rng.standard_normal(n_units), np.zeros((0, 0)))
        for form in self.flat:
            found = found.plus(form.scaled(math.sqrt(_FLAT) * float(rng.standard_normal())))
        if self.pairs:
            root = np.sqrt(self.relative)
            half = np.triu(rng.standard_normal((n_units, n_units)), 1) * root[:, None] * root
            pairs = math.sqrt(strengths[1]) * (half + half.T)
            found = found.plus(Form(0.0, np.zeros(n_units), pairs))
        return found


class RidgePredictor:
    """A fitted ridge regression. Made by `Ridge.fit`."""

    def __init__(
        self, prior: _Prior, strengths: Floats, x: Floats, y: Floats, weights: Floats, centre: float, unit: float
    ) -> None:
        self._prior, self._strengths = prior, strengths
        self._x, self._y, self._centre, self._unit = x, y, centre, unit
        self._variances = strengths[-1] / weights
        kernel = _combined(prior.blocks(x), strengths)
        kernel[np.diag_indices_from(kernel)] += self._variances
        self._factor = cho_factor(kernel, lower=True, overwrite_a=True)
        self._mean = self._written(self._y)

    @property
    def strength(self) -> float:
        """Prior variance of a unit's effect, in variances of the targets."""
        return float(self._strengths[0])

    @property
    def noise(self) -> float:
        """Standard deviation of a single measurement, as learned from the residuals."""
        return float(self._unit * np.sqrt(self._variances.mean()))

    def predict(self, dropped: Dropped) -> Prediction:
        """Posterior mean and standard deviation of masks of shape (n_masks, n_units)."""
        x = np.asarray(dropped, dtype=np.float64)
        cross = _combined(self._prior.blocks(self._x, x), self._strengths)
        half = solve_triangular(self._factor[0], cross, lower=True)
        variance = _combined(self._prior.diagonal(x), self._strengths) - np.einsum("ij,ij->j", half, half)
        return Prediction(self._mean.values(x), self._unit * np.sqrt(np.maximum(variance, 0.0)))

    def form(self) -> Form:
        """The posterior mean written out."""
        return self._mean

    def draw(self, rng: np.random.Generator) -> FixedPredictor:
        """A function drawn from the posterior (Matheron's rule: a draw from the prior, corrected by its residuals)."""
        drawn = self._prior.draw(rng, self._strengths)
        luck = rng.standard_normal(len(self._y)) * np.sqrt(self._variances)
        correction = self._weights_of(self._y - drawn.values(self._x) - luck)
        form = drawn.plus(self._prior.mean(self._x, correction, self._strengths))
        return FixedPredictor(form.scaled(self._unit, self._centre), self.noise)

    def unit_effects(self) -> tuple[Floats, Floats]:
        """Mean and variance of each unit's own effect, what is not shrunk left out, in units of the targets' spread."""
        scale = self._strengths[0] * self._prior.relative
        mean = scale * (self._x.T @ self._weights_of(self._y))
        half = solve_triangular(self._factor[0], self._x * scale, lower=True)
        return mean, np.maximum(scale - np.einsum("ij,ij->j", half, half), 0.0)

    def _weights_of(self, values: Floats) -> Floats:
        solved: Floats = cho_solve(self._factor, values)
        return solved

    def _written(self, values: Floats) -> Form:
        form = self._prior.mean(self._x, self._weights_of(values), self._strengths)
        return form.scaled(self._unit, self._centre)


def _flat_forms(n_units: int, pairs: bool, prior: Floats | None) -> tuple[Form, ...]:
    """The intercept, the mean effect of a unit, that of a pair, and the prior; each of size about 1."""
    nothing = np.zeros(n_units)
    found = [Form.additive(1.0, nothing), Form.additive(0.0, np.full(n_units, 1.0 / n_units))]
    if pairs:
        equal = np.full((n_units, n_units), 2.0 / n_units**2)
        np.fill_diagonal(equal, 0.0)
        found.append(Form(0.0, nothing, equal))
    if prior is not None and float(np.abs(prior).max()) > 0:
        found.append(Form.additive(0.0, prior / float(np.linalg.norm(prior))))
    return tuple(found)


def _combined(blocks: list[Floats], strengths: Floats) -> Floats:
    """The whole kernel: what is not shrunk as it is, the others times their strengths."""
    total = blocks[0].copy()
    for block, strength in zip(blocks[1:], strengths, strict=False):
        total += strength * block
    return total


def _spread_rows(y: Floats, most: int) -> npt.NDArray[np.int64]:
    """At most `most` rows, spread evenly over the ranks of the targets."""
    if len(y) <= most:
        return np.arange(len(y))
    order = np.argsort(y, kind="stable")
    return np.sort(order[np.linspace(0, len(y) - 1, most).astype(np.int64)])


def _best_strengths(blocks: list[Floats], y: Floats, weights: Floats, start: Floats) -> Floats:
    """Logarithms of the strengths of units (and pairs) and of the noise that maximise the marginal likelihood."""
    inverse_weights = 1.0 / weights

    def loss(logs: Floats) -> tuple[float, Floats]:
        strengths = np.exp(logs)
        kernel = _combined(blocks, strengths)
        kernel[np.diag_indices_from(kernel)] += strengths[-1] * inverse_weights
        factor = cho_factor(kernel, lower=True, overwrite_a=True)
        alpha = cho_solve(factor, y)
        inverse = cho_solve(factor, np.eye(len(y)))
        value = 0.5 * float(y @ alpha) + float(np.log(np.diag(factor[0])).sum())
        slopes = [
            strength * (np.einsum("ij,ij->", inverse, block) - alpha @ block @ alpha)
            for block, strength in zip(blocks[1:], strengths, strict=False)
        ]
        slopes.append(strengths[-1] * float((np.diag(inverse) - alpha**2) @ inverse_weights))
        # A weak pull to the start keeps a strength that the data do not determine from running away.
        pull = 0.02 * (logs - anchor)
        return value + 0.5 * float(pull @ (logs - anchor)), 0.5 * np.array(slopes) + pull

    anchor = start.copy()
    limits = [(-16.0, 5.0)] * (len(start) - 1) + [(-12.0, 1.0)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 40})
    best: Floats = np.asarray(found.x, dtype=np.float64)
    return best
