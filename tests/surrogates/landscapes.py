"""Surrogates whose answers are known, for tests: every sum of their weights is exact in float64."""

import itertools

import numpy as np

from fairmend.evaluation import Figure, Figures
from fairmend.surrogates.families.base import FixedPredictor
from fairmend.surrogates.families.forms import Floats, Form
from fairmend.surrogates.fitting import FittedPair
from fairmend.surrogates.samples import Scale

FIGURES = Figures(Figure("bias", "lower", "landscape"), Figure("perplexity", "lower", "landscape"))


def dyadic(rng: np.random.Generator, *shape: int, size: float = 1.0) -> Floats:
    """Random multiples of 1/1024: sums and products of a few hundred of them are exact in any order."""
    return np.round(rng.normal(0.0, size, shape) * 1024) / 1024


def additive(rng: np.random.Generator, n_units: int) -> Form:
    return Form.additive(0.5, dyadic(rng, n_units, size=0.1))


def pairwise(rng: np.random.Generator, n_units: int) -> Form:
    half = np.triu(dyadic(rng, n_units, n_units, size=0.02), 1)
    return Form(0.25, dyadic(rng, n_units, size=0.1), half + half.T)


def network(rng: np.random.Generator, n_units: int, *hidden: int) -> Form:
    widths = [n_units, *hidden, 1]
    layers = [
        (dyadic(rng, n_in, n_out, size=0.3), dyadic(rng, n_out, size=0.1)) for n_in, n_out in itertools.pairwise(widths)
    ]
    return Form.network(layers)


def pair_of(bias: Form, loss: Form, *, log: bool = False) -> FittedPair:
    """Both forms as known surrogates; the loss maps [0, 1] to [1, 2], or by its logarithm to [1, 4]."""
    return FittedPair(
        FixedPredictor(bias),
        FixedPredictor(loss),
        Scale(0.0, 1.0),
        Scale(1.0, 4.0, True) if log else Scale(1.0, 2.0),
        0,
        {"known": True},
    )
