"""Which output of an ONNX graph tells the classes, and what beside it may be left aside.

A classifier of scikit-learn is exported with two outputs: the label, and the probabilities as a table or (ZipMap) as
one dictionary per row. The probabilities are followed; that the labels say the same is proved by running them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fairmend.errors import ModelError

if TYPE_CHECKING:
    import onnx

ML_DOMAIN = "ai.onnx.ml"
_LABELLING = frozenset({"ArgMax", "ArrayFeatureExtractor", "Cast", "Gather", "Identity", "Reshape", "Squeeze"})


@dataclass(frozen=True)
class Ends:
    """What of a graph is read.

    Attributes:
        value: the values that the chain ends in.
        table: the output to compare the network with: the same, or [1 - value, value].
        label: an output of predicted labels, to be left aside; "" for none.
        classes: the names of the classes in order, where the graph has them.
        chain: the nodes that lead to `value`, in order.
        aside: the nodes that lead from there to `table` and `label`.
    """

    value: str
    table: str
    label: str
    classes: tuple[str, ...]
    chain: tuple[onnx.NodeProto, ...]
    aside: tuple[onnx.NodeProto, ...]


def find_ends(graph: onnx.GraphProto, supported: str) -> Ends:
    """Sort a checked graph's outputs and nodes.

    Args:
        supported: what to say is supported where the graph is something else.

    Raises:
        ModelError: no output, or several, that could tell the classes; nodes that lead to none of the outputs.
    """
    weights = {weight.name for weight in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    tables, labels, classes = _outputs(graph, producers, _computed(graph, inputs))
    outputs = [value.name for value in graph.output]
    if len(inputs) != 1 or len(tables) != 1 or len(labels) > 1:
        raise ModelError(f"the ONNX graph has inputs {_few(inputs)} and outputs {_few(outputs)}: {supported}")
    table, label = tables[0], labels[0] if labels else ""
    value = _positive(graph, producers, table)
    chain = _leading_to(graph, producers, [value])
    aside = _leading_to(graph, producers, [table, *labels]) - chain
    for index in sorted(_leading_to(graph, producers, labels) - _leading_to(graph, producers, [table])):
        node = graph.node[index]
        if node.op_type not in _LABELLING:
            raise ModelError(f"the ONNX output {label!r} is computed with {node.op_type}: {supported}")
        if node.op_type == "ArrayFeatureExtractor" and not classes:
            classes = _names(graph, node.input[0])
    read, given = chain | aside, frozenset(outputs)
    unused = [node for index, node in enumerate(graph.node) if index not in read and given.isdisjoint(node.output)]
    if unused:
        raise ModelError(
            f"the ONNX output {table!r} is not the end of the chain, {unused[-1].output[0]!r}: {supported}"
        )
    return Ends(
        value,
        table,
        label,
        classes,
        tuple(graph.node[index] for index in sorted(chain)),
        tuple(graph.node[index] for index in sorted(aside)),
    )


def _few(names: list[str]) -> str:
    return f"{names[:5]}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _outputs(
    graph: onnx.GraphProto, producers: dict[str, int], computed: set[str]
) -> tuple[list[str], list[str], tuple[str, ...]]:
    """The outputs of numbers for every class, the outputs of labels, and the names of the classes."""
    from onnx import TensorProto

    floats = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    tables: list[str] = []
    labels: list[str] = []
    classes: tuple[str, ...] = ()
    for output in graph.output:
        node = graph.node[producers[output.name]] if output.name in producers else None
        if node is not None and _is_zip(node):
            tables.append(node.input[0])
            classes = tuple(
                name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
                for attribute in node.attribute
                for name in (*attribute.strings, *attribute.ints)
            )
        elif node is not None and output.name not in computed:
            continue  # a constant, such as the names of the classes
        elif output.type.tensor_type.elem_type in floats:
            tables.append(output.name)
        else:
            labels.append(output.name)
    return tables, labels, classes


def _is_zip(node: onnx.NodeProto) -> bool:
    """Whether a node makes one dictionary per row of a table of probabilities."""
    return node.op_type == "ZipMap" and node.domain == ML_DOMAIN


def _computed(graph: onnx.GraphProto, inputs: Iterable[str]) -> set[str]:
    """The names of all values that depend on the input."""
    found = set(inputs)
    for node in graph.node:
        if not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _leading_to(graph: onnx.GraphProto, producers: dict[str, int], names: Iterable[str]) -> set[int]:
    """The indices of the nodes that the values depend on."""
    found: set[int] = set()
    waiting = list(names)
    while waiting:
        index = producers.get(waiting.pop())
        if index is not None and index not in found:
            found.add(index)
            waiting += graph.node[index].input
    return found


def _positive(graph: onnx.GraphProto, producers: dict[str, int], table: str) -> str:
    """Of a table [1 - p, p] the name of p; of any other its own."""

    def producer(name: str) -> onnx.NodeProto | None:
        return graph.node[producers[name]] if name in producers else None

    node = producer(table)
    while node is not None and node.op_type in ("Identity", "Cast"):
        node = producer(node.input[0])
    if node is None or node.op_type != "Concat" or len(node.input) != 2 or node.attribute[0].i not in (1, -1):
        return table
    negative, positive = node.input
    rest = producer(negative)
    if rest is None or rest.op_type != "Sub" or rest.input[1] != positive or not _is_one(graph, rest.input[0]):
        return table
    return str(positive)


def _is_one(graph: onnx.GraphProto, name: str) -> bool:
    value = _constant(graph, name)
    return value is not None and value.dtype.kind == "f" and value.size > 0 and bool((value == 1).all())


def _names(graph: onnx.GraphProto, name: str) -> tuple[str, ...]:
    """The values of a constant as text; nothing if there is none of the name."""
    value = _constant(graph, name)
    values = [] if value is None else value.reshape(-1).tolist()
    return tuple(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values)


def _constant(graph: onnx.GraphProto, name: str) -> npt.NDArray[np.generic] | None:
    from onnx import numpy_helper

    tensors = [weight for weight in graph.initializer if weight.name == name]
    tensors += [node.attribute[0].t for node in graph.node if node.op_type == "Constant" and name in node.output]
    return np.asarray(numpy_helper.to_array(tensors[0])) if tensors else None
