"""Ensembles: the same surrogate fitted to resampled masks; where its members disagree, little is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.surrogates.families.base import Dropped, Prediction, Predictor, Surrogate, examples, typical_noise
from fairmend.surrogates.families.forms import Floats, Form, weighted_form
from fairmend.surrogates.families.networks import NeuralNetwork

_WIDEST = 10.0


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Members fitted to bootstrap samples of the masks, with seeds of their own.

    The spread is the members' standard deviation, times a factor that makes it match the errors on the masks that
    members did not see (out of bag), noise taken off.

    Args:
        member: the surrogate.
        size: number of members.

    Raises:
        InputError: fewer than two members.
    """

    member: Surrogate = field(default_factory=NeuralNetwork)
    size: int = 8

    def __post_init__(self) -> None:
        if self.size < 2:
            raise InputError(f"an ensemble needs at least 2 members, got size={self.size}")

    def settings(self) -> dict[str, Any]:
        """The name and every option, JSON-ready."""
        return {"name": "ensemble", "member": dict(self.member.settings()), "size": self.size}

    def fit(
        self,
        dropped: Dropped,
        targets: npt.ArrayLike,
        noise: npt.ArrayLike | None = None,
        prior: npt.ArrayLike | None = None,
        *,
        seed: int = 0,
    ) -> EnsemblePredictor:
        """Learn from measured masks; see `Surrogate.fit`."""
        given = examples(dropped, targets, noise, prior)
        rng = np.random.default_rng(seed)
        members: list[Predictor] = []
        unseen = np.full((self.size, len(given.y)), np.nan)
        for index in range(self.size):
            rows = _resampled(rng, given.y)
            made = self.member.fit(
                given.x[rows], given.y[rows], given.noise[rows], given.prior, seed=int(rng.integers(2**31))
            )
            members.append(made)
            out = np.setdiff1d(np.arange(len(given.y)), rows)
            if out.size:
                unseen[index, out] = made.predict(given.x[out]).mean
        known = typical_noise(given.noise)
        return EnsemblePredictor(tuple(members), _widening(unseen, given.y, known), known)


@dataclass(frozen=True, slots=True)
class EnsemblePredictor:
    """Fitted members of equal say, and the factor of their disagreement."""

    members: tuple[Predictor, ...]
    widening: float
    noise: float

    def predict(self, dropped: Dropped) -> Prediction:
        """The members' mean and their widened standard deviation, for masks of shape (n_masks, n_units)."""
        means = np.stack([member.predict(dropped).mean for member in self.members])
        return Prediction(means.mean(axis=0), self.widening * means.std(axis=0, ddof=1))

    def form(self) -> Form | None:
        """The members' mean written out, if all members can be."""
        forms = [form for member in self.members if (form := member.form()) is not None]
        if len(forms) < len(self.members):
            return None
        return weighted_form(forms, [1.0 / len(forms)] * len(forms))

    def draw(self, rng: np.random.Generator) -> Predictor:
        """One of the members, with equal probability."""
        return self.members[int(rng.integers(len(self.members)))]


def _resampled(rng: np.random.Generator, y: Floats) -> npt.NDArray[np.int64]:
    """Rows drawn with replacement, drawn again in the rare case that all have the same target."""
    while True:
        rows: npt.NDArray[np.int64] = rng.integers(len(y), size=len(y))
        if float(np.ptp(y[rows])) > 0:
            return rows


def _widening(unseen: Floats, y: Floats, noise: float) -> float:
    """The factor between the members' disagreement and their errors on masks that they did not see."""
    seen_by = np.isfinite(unseen).sum(axis=0)
    rows = np.flatnonzero(seen_by >= 2)
    if not rows.size:
        return 1.0
    means = np.nanmean(unseen[:, rows], axis=0)
    variances = np.nanvar(unseen[:, rows], axis=0, ddof=1)
    # The mean of m members has in itself an error of variance / m.
    errors = float(np.mean((means - y[rows]) ** 2)) - noise**2 - float(np.mean(variances / seen_by[rows]))
    typical = float(np.mean(variances))
    if typical == 0.0:
        return 1.0
    return min(_WIDEST, math.sqrt(max(errors, 0.0) / typical)) or 1.0
