"""A prediction written out as a formula of the dropped units, so that a flip of one unit changes it cheaply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float64]
Layer: TypeAlias = tuple[Floats, Floats]
"""Weights of shape (n_in, n_out) and biases of shape (n_out,)."""


@dataclass(frozen=True, eq=False, slots=True)
class Form:
    """intercept + linear . x + sum of pairs[i, j] over the dropped pairs i < j + a ReLU network of x.

    x holds 1.0 for a dropped unit and 0.0 for another. Each part may be absent.

    Attributes:
        intercept: the value of the untouched mask, but for the network.
        linear: (n_units,).
        pairs: (n_units, n_units), symmetric with a zero diagonal; (0, 0) when absent.
        layers: of the network, the last with one output and no ReLU behind it; () when absent.

    Raises:
        InputError: shapes that do not fit each other.
    """

    intercept: float
    linear: Floats
    pairs: Floats
    layers: tuple[Layer, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.linear)
        if self.pairs.shape not in {(0, 0), (n, n)}:
            raise InputError(f"pairs of {n} units need shape ({n}, {n}), or (0, 0) for none, got {self.pairs.shape}")
        widths = [n, *(len(bias) for _, bias in self.layers)]
        shapes = [weight.shape for weight, _ in self.layers]
        if shapes != list(pairwise(widths)) or (shapes and widths[-1] != 1):
            raise InputError(f"layers must lead from {n} units to 1 output, got weights of shapes {shapes}")

    @classmethod
    def additive(cls, intercept: float, linear: npt.ArrayLike) -> Form:
        """A form without pairs and without a network."""
        return cls(float(intercept), np.asarray(linear, dtype=np.float64), np.zeros((0, 0)))

    @classmethod
    def network(cls, layers: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]) -> Form:
        """A form that is a network and nothing else; weights of shape (n_in, n_out)."""
        made = tuple((np.asarray(w, dtype=np.float64), np.asarray(b, dtype=np.float64)) for w, b in layers)
        return cls(0.0, np.zeros(len(made[0][0])), np.zeros((0, 0)), made)

    def values(self, dropped: npt.ArrayLike) -> Floats:
        """The values of dropped units given as an array of shape (n_masks, n_units); shape (n_masks,)."""
        x = np.asarray(dropped, dtype=np.float64)
        found: Floats = self.intercept + x @ self.linear
        if self.pairs.size:
            found = found + 0.5 * np.einsum("ij,ij->i", x @ self.pairs, x)
        if self.layers:
            signal = x
            for weight, bias in self.layers[:-1]:
                signal = np.maximum(signal @ weight + bias, 0.0)
            weight, bias = self.layers[-1]
            found = found + (signal @ weight + bias)[:, 0]
        return found

    def plus(self, other: Form) -> Form:
        """The sum of two forms of which at most one has a network."""
        pairs = [form.pairs for form in (self, other) if form.pairs.size]
        return Form(
            self.intercept + other.intercept,
            self.linear + other.linear,
            np.sum(pairs, axis=0) if pairs else np.zeros((0, 0)),
            self.layers or other.layers,
        )

    def scaled(self, factor: float, shift: float = 0.0) -> Form:
        """factor * form + shift."""
        layers = self.layers
        if layers:
            weight, bias = layers[-1]
            layers = (*layers[:-1], (weight * factor, bias * factor))
        return Form(self.intercept * factor + shift, self.linear * factor, self.pairs * factor, layers)

    def towards(self, other: Form, share: float) -> Form:
        """The way to another form with the same parts, but for networks, gone in part: 0 stays, 1 arrives."""
        both, weights = (self, other), (1.0 - share, share)
        return Form(
            float(np.dot(weights, [form.intercept for form in both])),
            np.tensordot(weights, np.array([form.linear for form in both]), 1),
            np.tensordot(weights, np.array([form.pairs for form in both]), 1),
        )
