"""Follow the data flow of an ONNX graph, node by node."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.special import erf

from fairmend.errors import ModelError
from fairmend.tabular.formats.onnx_outputs import FLOATS, ML_DOMAIN, SUPPORTED, Ends
from fairmend.tabular.networks.activations import Activation, FloatArray
from fairmend.tabular.networks.chains import Chain, row_of

Constant = npt.NDArray[np.generic]

_SHAPES = frozenset({"Flatten", "Identity", "Squeeze", "Reshape"})
_COMPOSED = ("silu", "gelu", "gelu_tanh")  # activations that exporters write as several operators
_PROBES = np.linspace(-4.0, 4.0, 33)


def trace(graph: onnx.GraphProto, ends: Ends) -> Chain:
    """The linear layers, scalings and activations of a checked graph.

    Raises:
        ModelError: an operator that is not supported, or does not continue one chain.
    """
    return _Walk(graph, ends).chain


class _Walk:
    """One pass over the nodes of a graph, which ONNX keeps in topological order, into a `Chain`."""

    def __init__(self, graph: onnx.GraphProto, ends: Ends) -> None:
        if len(graph.sparse_initializer):
            raise ModelError(f"the ONNX graph has sparse weights: save them dense; {SUPPORTED}")
        self.chain = Chain(SUPPORTED)
        self._constants: dict[str, Constant] = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
        current = ends.input.name
        # how many nodes still read a value
        readers = Counter(name for node in ends.chain for name in set(node.input))
        composed: dict[str, FloatArray] = {}  # values at the probes inside a composed activation
        unread: set[str] = set()  # those of them that a later node reads
        for node in ends.chain:
            label = f"node {node.name or node.output[0]!r} ({node.op_type})"
            if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) != (ML_DOMAIN, "Scaler"):
                raise ModelError(f"{label} is of the domain {node.domain!r}: {SUPPORTED}")
            if not composed and readers[current] > 1:
                composed, unread = {current: _PROBES}, {current}
            for name in set(node.input):
                readers[name] -= 1
                if not readers[name]:
                    unread.discard(name)
            if all(name in self._constants for name in node.input):
                self._constants[node.output[0]] = self._fold(label, node)
                continue
            if composed:
                current = node.output[0]
                composed[current] = self._probe(label, node, composed)
                if readers[current]:
                    unread.add(current)
                if unread <= {current}:  # the branches have come together again
                    self._composed(label, composed[current])
                    composed = {}
                continue
            if [name for name in node.input if name not in self._constants and name] != [current]:
                raise ModelError(f"{label} is not one link of a chain: {SUPPORTED}")
            self._step(label, node, current)
            current = node.output[0]
        if current != ends.value:
            raise ModelError(f"the ONNX output {ends.value!r} is not the end of the chain, {current!r}: {SUPPORTED}")

    def _fold(self, label: str, node: onnx.NodeProto) -> Constant:
        """The value of a node whose inputs are all constant."""
        settings = _settings(node)
        if node.op_type == "Constant":
            value = next(iter(settings.values()))
            return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
        if node.op_type == "Identity":
            return self._constants[node.input[0]]
        if node.op_type == "Cast":
            return self._constants[node.input[0]].astype(helper.tensor_dtype_to_np_dtype(settings["to"]))
        if node.op_type == "Transpose":
            return np.transpose(self._constants[node.input[0]], settings.get("perm"))
        raise ModelError(f"{label} computes a constant: {SUPPORTED}; simplify the graph before")

    def _step(self, label: str, node: onnx.NodeProto, current: str) -> None:
        settings, kind = _settings(node), node.op_type
        if kind in ("Gemm", "MatMul"):
            self._linear(label, node, settings, current)
        elif kind in ("Add", "Sub", "Mul", "Div"):
            first = node.input[0] == current
            value = row_of(label, self._constant(label, node.input[1 if first else 0]))
            self.chain.arithmetic(label, kind.lower(), value, first)
        elif kind == "BatchNormalization":
            if settings.get("training_mode") or len(node.output) > 1:
                raise ModelError(f"{label} is in training mode: export the model in eval mode")
            scale, shift, mean, variance = (np.asarray(self._constant(label, name)) for name in node.input[1:5])
            factor = scale / np.sqrt(variance.astype(np.float64) + settings.get("epsilon", 1e-5))
            self.chain.scaling(label, factor, shift - mean * factor)
        elif kind in ("Softmax", "LogSoftmax"):
            if settings.get("axis", -1) not in (1, -1):
                raise ModelError(f"{label} is over axis {settings['axis']}: supported is axis 1, over the outputs")
            self.chain.end(label, "softmax" if kind == "Softmax" else "log_softmax")
        elif kind == "Dropout":
            if len(node.input) > 2 and bool(np.any(self._constant(label, node.input[2]))):
                raise ModelError(f"{label} is in training mode: export the model in eval mode")
        elif kind == "Scaler":
            offset, scale = (np.asarray(settings.get(part, ()), dtype=np.float64) for part in ("offset", "scale"))
            if not offset.size or not scale.size:
                raise ModelError(f"{label} lacks an offset or a scale: {SUPPORTED}")
            self.chain.scaling(label, scale, -offset * scale)
        elif kind == "Cast":
            if settings.get("to") not in FLOATS:
                raise ModelError(f"{label} rounds to whole numbers: {SUPPORTED}")
        elif (activation := Activation.of(kind, _options(settings))) is not None:
            self.chain.activate(label, activation)
        elif kind not in _SHAPES:
            raise ModelError(f"{label}: {SUPPORTED}")

    def _linear(self, label: str, node: onnx.NodeProto, settings: dict[str, Any], current: str) -> None:
        if node.input[0] != current or settings.get("transA"):
            raise ModelError(f"{label} has its input on the right or transposed: {SUPPORTED}")
        weight = self._constant(label, node.input[1])
        if weight.ndim != 2:
            raise ModelError(f"{label} has a weight of shape {weight.shape}: supported is (n_in, n_out)")
        matrix = settings.get("alpha", 1.0) * (weight if settings.get("transB") else weight.T)
        bias = None
        if len(node.input) > 2 and node.input[2]:
            bias = settings.get("beta", 1.0) * row_of(label, self._constant(label, node.input[2]))
            bias = np.broadcast_to(bias, matrix.shape[:1])
        self.chain.linear(label, matrix, bias)

    def _constant(self, label: str, name: str) -> npt.NDArray[np.float64]:
        if name not in self._constants:
            raise ModelError(f"{label} needs a constant {name!r}: {SUPPORTED}")
        with np.errstate(invalid="ignore"):  # a signalling NaN warns when widened; Layer refuses it
            return np.asarray(self._constants[name], dtype=np.float64)

    def _probe(self, label: str, node: onnx.NodeProto, known: dict[str, FloatArray]) -> FloatArray:
        """The output at the probes of a node inside a composed activation."""
        operator = _ELEMENTWISE.get(node.op_type)
        arguments = [known.get(name, self._constants.get(name)) for name in node.input]
        if operator is None or any(a is None or (n not in known and a.size > 1) for a, n in zip(arguments, node.input)):  # noqa: B905
            raise ModelError(f"{label} is in a part of the graph with branches: {SUPPORTED}")
        with np.errstate(all="ignore"):
            return np.asarray(operator(*(np.asarray(a, dtype=np.float64) for a in arguments)) + 0.0 * _PROBES)

    def _composed(self, label: str, values: FloatArray) -> None:
        """Recognise an activation by its values, up to a factor, which some exporters multiply last."""
        for name in _COMPOSED:
            expected = Activation(name)(_PROBES)
            factor = float(values[-1] / expected[-1])
            if math.isfinite(factor) and factor != 0 and np.allclose(values, factor * expected, rtol=1e-4, atol=1e-5):
                self.chain.activate(label, Activation(name))
                if not math.isclose(factor, 1.0, rel_tol=1e-5):
                    self.chain.scaling(label, factor, 0.0)
                return
        raise ModelError(f"{label} ends a part of the graph with branches that is no known activation: {SUPPORTED}")


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Tanh": np.tanh,
    "Erf": erf,
    "Sigmoid": Activation("sigmoid"),
}


def _settings(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an activation: alpha as the shortest decimal of the float32, 0.2 rather than 0.20000000298."""
    options: dict[str, Any] = {}
    if "alpha" in settings:
        options["alpha"] = float(str(np.float32(settings["alpha"])))
    if "approximate" in settings:
        options["approximate"] = settings["approximate"].decode()
    return options
