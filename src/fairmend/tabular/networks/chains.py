"""Assemble a network from the steps of a model that was read: linear layers, scalings and activations in order.

Scalings (batch normalisation, a constant added or multiplied) are folded into the linear layers beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_softmax, softmax

from fairmend.errors import ModelError
from fairmend.masks import Mask
from fairmend.tabular.networks.activations import IDENTITY, Activation, FloatArray
from fairmend.tabular.networks.networks import Drop, Layer, Network

Head = Literal["", "sigmoid", "softmax", "log_softmax"]


@dataclass(frozen=True)
class Link:
    """One linear layer as it was found, with the scalings around it.

    It computes activation(scale_out * (weight @ (scale_in * x + shift_in) + bias) + shift_out).

    Attributes:
        name: of the module or node.
        weight, bias: (n_out, n_in) and (n_out,), float64.
        scale_in, shift_in: (n_in,), between the previous activation and this layer.
        scale_out, shift_out: (n_out,), between this layer and its activation.
        activation: None until one was met.
    """

    name: str
    weight: FloatArray
    bias: FloatArray
    scale_in: FloatArray
    shift_in: FloatArray
    scale_out: FloatArray
    shift_out: FloatArray
    activation: Activation | None = None

    def folded(self, name: str) -> Layer:
        """The layer with all scalings in its weight and bias."""
        # a value beyond float32, or one that is not finite, is refused, with the layer's name, by Layer
        with np.errstate(over="ignore", invalid="ignore"):
            weight = self.scale_out[:, None] * self.weight * self.scale_in
            bias = self.scale_out * (self.bias + self.weight @ self.shift_in) + self.shift_out
            return Layer(weight.astype(np.float32), bias.astype(np.float32), self.activation or IDENTITY, name)


@dataclass
class Chain:
    """The steps met so far, in order. Every method raises ModelError for a step that cannot follow.

    Args:
        supported: what to say is supported where a step is not.
    """

    supported: str
    links: list[Link] = field(default_factory=list)
    head: Head = ""
    _scale: FloatArray | None = None  # scaling since the last activation, or of the input
    _shift: FloatArray | None = None

    def linear(self, name: str, weight: npt.NDArray[np.generic], bias: npt.NDArray[np.generic] | None) -> None:
        """Add a linear layer of weight (n_out, n_in)."""
        self._open(name)
        matrix = np.asarray(weight, dtype=np.float64)
        if matrix.ndim != 2:
            raise ModelError(f"{name}: a linear layer needs a weight of two dimensions, got shape {matrix.shape}")
        n_out, n_in = matrix.shape
        before = len(self.links[-1].bias) if self.links else n_in
        if self._scale is not None and self._scale.ndim:
            before = self._scale.size
        if before != n_in:
            raise ModelError(f"{name} takes {n_in} values but gets {before}")
        scale = np.ones(n_in) if self._scale is None else np.array(np.broadcast_to(self._scale, (n_in,)))
        shift = np.zeros(n_in) if self._shift is None else np.array(np.broadcast_to(self._shift, (n_in,)))
        offset = np.zeros(n_out) if bias is None else np.asarray(bias, dtype=np.float64)
        if offset.shape != (n_out,):
            raise ModelError(f"{name} has {n_out} outputs but a bias of shape {offset.shape}")
        self.links.append(Link(name, matrix, offset, scale, shift, np.ones(n_out), np.zeros(n_out)))
        self._scale = self._shift = None

    def scaling(self, name: str, scale: npt.ArrayLike, shift: npt.ArrayLike) -> None:
        """Add x -> scale * x + shift, element by element; scalars or shape (n,)."""
        self._open(name)
        factor, offset = np.broadcast_arrays(np.asarray(scale, dtype=np.float64), np.asarray(shift, dtype=np.float64))
        last = self.links[-1] if self.links else None
        width = None if last is None else len(last.bias)
        if factor.ndim > 1 or (factor.ndim == 1 and width is not None and factor.size != width):
            raise ModelError(f"{name} scales {factor.shape} values where the layer before gives {width}")
        if last is not None and last.activation is None:
            self.links[-1] = replace(
                last, scale_out=last.scale_out * factor, shift_out=last.shift_out * factor + offset
            )
            return
        if width is not None:
            factor, offset = np.broadcast_to(factor, (width,)), np.broadcast_to(offset, (width,))
        if self._scale is not None and self._shift is not None:
            factor, offset = self._scale * factor, self._shift * factor + offset
        self._scale, self._shift = factor, offset

    def arithmetic(self, name: str, operator: str, value: FloatArray, first: bool) -> None:
        """Add an operation with one constant.

        Args:
            operator: "add", "sub", "mul" or "div".
            value: the constant, see `row_of`.
            first: whether the input stands before the constant.
        """
        if operator == "add":
            self.scaling(name, 1.0, value)
        elif operator == "sub":
            self.scaling(name, 1.0 if first else -1.0, -value if first else value)
        elif operator == "mul":
            self.scaling(name, value, 0.0)
        elif first and value.all():
            self.scaling(name, 1.0 / value, 0.0)
        else:
            raise ModelError(f"{name} divides by the input or by 0: {self.supported}")

    def activate(self, name: str, activation: Activation) -> None:
        """Add an element-wise activation."""
        self._open(name)
        if not self.links:
            raise ModelError(f"{name}: an activation before the first linear layer is not supported")
        last = self.links[-1]
        if last.activation is not None or self._scale is not None:
            raise ModelError(
                f"{name}: a second activation ({activation}) follows {last.name}; supported is one per linear layer"
            )
        self.links[-1] = replace(last, activation=activation)

    def end(self, name: str, head: Head) -> None:
        """Add a softmax over the outputs: nothing may follow it."""
        self._open(name)
        self.head = head

    def _open(self, name: str) -> None:
        if self.head:
            raise ModelError(f"{name} follows a {self.head}: supported at the end of a model is nothing more")

    def network(self, names: Callable[[Link], str] = lambda link: link.name) -> Network:
        """The network; a sigmoid at the end becomes the head, because the logits are before it."""
        if not self.links:
            raise ModelError("the model has no linear layer")
        if self._scale is not None:
            raise ModelError("a scaling follows the last activation: the model must end in a linear layer's logits")
        last = self.links[-1]
        n_outputs = len(last.bias)
        if not self.head and last.activation == Activation("sigmoid"):
            if n_outputs > 1:
                raise ModelError(
                    f"{last.name} ends in a sigmoid on {n_outputs} outputs, which is a multi-label model: supported "
                    "are one output, or several classes by softmax; leave the sigmoid off if the largest output wins"
                )
            self.links[-1] = replace(last, activation=None)
            self.head = "sigmoid"
        elif self.head and n_outputs == 1:
            raise ModelError(f"{last.name} ends in a {self.head} over one output, which is constant: use a sigmoid")
        return Network(tuple(link.folded(names(link)) for link in self.links))

    def prove(
        self,
        network: Network,
        run: Callable[[FloatArray], FloatArray],
        tolerance: float = 1e-4,
        mask: Mask | None = None,
        drop: Drop = "output",
    ) -> None:
        """Compare the network with the model it was read from, or baked into, on seeded random rows.

        Args:
            run: the model's outputs, (n_rows, n_outputs) or (n_rows,), for rows of shape (n_rows, n_features).
            tolerance: largest difference, relative to the largest output of the row set where that is above 1.
            mask, drop: the repair that the model has in its weights.

        Raises:
            ModelError: the outputs differ.
        """
        rows = probe_rows(network.n_features)
        expected = finish(network.logits(rows, mask, drop), self.head)
        detail = disagreement(expected, np.asarray(run(rows), dtype=np.float64), tolerance)
        if detail:
            raise ModelError(
                f"the model does not compute what its layers say: {detail}. Supported is one chain of linear layers, "
                "batch normalisation, dropout and element-wise activations without hooks"
            )


def row_of(name: str, constant: FloatArray) -> FloatArray:
    """A constant that is one number, shape (), or one number per neuron, shape (n,).

    Raises:
        ModelError: a constant of another shape.
    """
    if constant.size != (constant.shape[-1] if constant.ndim else 1):
        raise ModelError(f"{name} has a constant of shape {constant.shape}: supported is one number per neuron")
    return constant.reshape(()) if constant.size == 1 else constant.reshape(-1)


def probe_rows(n_features: int) -> FloatArray:
    """Seeded random rows of small, common and large values, shape (48, n_features), exact in float32."""
    rng = np.random.default_rng(0)
    scales = np.repeat((0.1, 1.0, 10.0), 16)[:, None]
    return (scales * rng.standard_normal((len(scales), n_features))).astype(np.float32).astype(np.float64)


def disagreement(expected: FloatArray, found: FloatArray, tolerance: float) -> str:
    """How outputs differ from those expected, of shape (n_rows, n_outputs), in words; "" within the tolerance.

    Args:
        tolerance: largest difference, relative to the largest output of the row set where that is above 1.
    """
    if found.size != expected.size or len(found) != len(expected):
        n_rows, n_outputs = expected.shape
        return f"it gives an array of shape {found.shape} for {n_rows} rows and {n_outputs} outputs"
    difference = float(np.abs(found.reshape(expected.shape) - expected).max())
    if difference <= tolerance * max(1.0, float(np.abs(expected).max())):
        return ""
    return f"its outputs differ by up to {difference:.3g}"


def finish(logits: FloatArray, head: Head) -> FloatArray:
    """What a model with this head gives for logits of shape (n_rows, n_outputs)."""
    functions: dict[str, Callable[[FloatArray], FloatArray]] = {
        "": np.asarray,
        "sigmoid": expit,
        "softmax": lambda values: np.asarray(softmax(values, axis=1)),
        "log_softmax": lambda values: np.asarray(log_softmax(values, axis=1)),
    }
    return functions[head](logits)
