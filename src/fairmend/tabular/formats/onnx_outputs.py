"""Which output of an ONNX graph tells the classes, and what beside it may be left aside.

A classifier of scikit-learn is exported with two outputs: the label, and the probabilities as a table or (ZipMap) as
one dictionary per row. The probabilities are followed; that the labels say the same is proved by running them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from fairmend.errors import ModelError

SUPPORTED = (
    "supported is one chain of Gemm, MatMul, Add, Sub, Mul and Div with constants, BatchNormalization, Scaler, "
    "Dropout, Flatten and Identity with Relu, LeakyRelu, Gelu, Elu, Tanh, Sigmoid or x * Sigmoid(x), ending in one "
    "output of logits, Sigmoid on one output, Softmax or LogSoftmax, beside which labels are left aside"
)
ML_DOMAIN = "ai.onnx.ml"
FLOATS = {
    int(TensorProto.FLOAT): "float32",
    int(TensorProto.FLOAT16): "float16",
    int(TensorProto.DOUBLE): "float64",
    int(TensorProto.BFLOAT16): "bfloat16",
}
"""Names of the element types of floats, by their numbers."""
_LABELLING = frozenset({"ArgMax", "ArrayFeatureExtractor", "Cast", "Gather", "Identity", "Reshape", "Squeeze"})


@dataclass(frozen=True)
class Ends:
    """What of a graph is read.

    Attributes:
        input: the rows.
        value: the values that the chain ends in.
        table: the output to compare the network with: the same, or [1 - value, value].
        label: an output of predicted labels, to be left aside; "" for none.
        classes: the names of the classes in order, where the graph has them.
        chain: the nodes that lead to `value`, in order.
        aside: the nodes that lead from there to `table` and `label`.
    """

    input: onnx.ValueInfoProto
    value: str
    table: str
    label: str
    classes: tuple[str, ...]
    chain: tuple[onnx.NodeProto, ...]
    aside: tuple[onnx.NodeProto, ...]


def find_ends(graph: onnx.GraphProto) -> Ends:
    """Sort a checked graph's outputs and nodes.

    Raises:
        ModelError: no output, or several, that could tell the classes; nodes that lead to none of the outputs.
    """
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    values = _Values(graph)
    tables, labels, classes = _outputs(values, [value.name for value in inputs])
    outputs = [value.name for value in graph.output]
    if len(inputs) != 1 or len(tables) != 1 or len(labels) > 1:
        given = [value.name for value in inputs]
        raise ModelError(f"the ONNX graph has inputs {_few(given)} and outputs {_few(outputs)}: {SUPPORTED}")
    table, label = tables[0], labels[0] if labels else ""
    value = _positive(values, table)
    chain = values.leading_to([value])
    aside = values.leading_to([table, *labels]) - chain
    for index in sorted(values.leading_to(labels) - values.leading_to([table])):
        node = graph.node[index]
        if node.op_type not in _LABELLING:
            raise ModelError(f"the ONNX output {label!r} is computed with {node.op_type}: {SUPPORTED}")
        if node.op_type == "ArrayFeatureExtractor" and not classes:
            names = values.constant(node.input[0])
            classes = () if names is None else _as_texts(names.reshape(-1).tolist())
    read, given_out = chain | aside, frozenset(outputs)
    unused = [node for index, node in enumerate(graph.node) if index not in read and given_out.isdisjoint(node.output)]
    if unused:
        raise ModelError(
            f"the ONNX output {table!r} is not the end of the chain, {unused[-1].output[0]!r}: {SUPPORTED}"
        )
    ordered = (tuple(graph.node[index] for index in sorted(nodes)) for nodes in (chain, aside))
    return Ends(inputs[0], value, table, label, classes, *ordered)


class _Values:
    """The values of a graph by name: which node makes each, or which constant it is."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self._producers = {name: index for index, node in enumerate(graph.node) for name in node.output}

    def producer(self, name: str) -> onnx.NodeProto | None:
        return self.graph.node[self._producers[name]] if name in self._producers else None

    def leading_to(self, names: Iterable[str]) -> set[int]:
        """The indices of the nodes that the values depend on."""
        found: set[int] = set()
        waiting = list(names)
        while waiting:
            index = self._producers.get(waiting.pop())
            if index is not None and index not in found:
                found.add(index)
                waiting += self.graph.node[index].input
        return found

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        node = self.producer(name)
        tensors = [weight for weight in self.graph.initializer if weight.name == name]
        if node is not None and node.op_type == "Constant":
            tensors.append(node.attribute[0].t)
        return np.asarray(numpy_helper.to_array(tensors[0])) if tensors else None


def _few(names: list[str]) -> str:
    return f"{names[:5]}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _outputs(values: _Values, inputs: Iterable[str]) -> tuple[list[str], list[str], tuple[str, ...]]:
    """The outputs of numbers for every class, the outputs of labels, and the names of the classes."""
    computed = set(inputs)  # all values that depend on the input
    for node in values.graph.node:
        if not computed.isdisjoint(node.input):
            computed.update(node.output)
    tables: list[str] = []
    labels: list[str] = []
    classes: tuple[str, ...] = ()
    for output in values.graph.output:
        made = values.producer(output.name)
        if made is not None and made.op_type == "ZipMap" and made.domain == ML_DOMAIN:  # one dictionary per row
            tables.append(made.input[0])
            classes = _as_texts(name for attribute in made.attribute for name in (*attribute.strings, *attribute.ints))
        elif made is not None and output.name not in computed:
            continue  # a constant, such as the names of the classes
        elif output.type.tensor_type.elem_type in FLOATS:
            tables.append(output.name)
        else:
            labels.append(output.name)
    return tables, labels, classes


def _positive(values: _Values, table: str) -> str:
    """Of a table [1 - p, p] the name of p; of any other its own."""
    node = values.producer(table)
    while node is not None and node.op_type in ("Identity", "Cast"):
        node = values.producer(node.input[0])
    if node is None or node.op_type != "Concat" or len(node.input) != 2 or node.attribute[0].i not in (1, -1):
        return table
    negative, positive = node.input
    rest = values.producer(negative)
    if rest is None or rest.op_type != "Sub" or rest.input[1] != positive:
        return table
    one = values.constant(rest.input[0])
    is_one = one is not None and one.dtype.kind == "f" and one.size > 0 and bool((one == 1).all())
    return str(positive) if is_one else table


def _as_texts(names: Iterable[object]) -> tuple[str, ...]:
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)
