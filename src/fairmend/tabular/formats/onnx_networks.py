"""MLPs in the ONNX format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from fairmend.errors import ModelError, first_line
from fairmend.tabular.formats.onnx_files import load_model
from fairmend.tabular.formats.onnx_outputs import FLOATS, ML_DOMAIN, SUPPORTED, Ends, find_ends
from fairmend.tabular.formats.onnx_tracing import trace
from fairmend.tabular.formats.sklearn_networks import WAY_TO_A_FILE
from fairmend.tabular.networks.activations import Activation, FloatArray
from fairmend.tabular.networks.chains import Head, disagreement, finish, probe_rows
from fairmend.tabular.networks.networks import Network, decide, precision_notes

_OPSET, _OPSET_WITH_GELU, _IR_VERSION = 17, 20, 9


def parse_onnx(payload: bytes, folder: Path | None = None) -> Network:
    """The network in the bytes of an .onnx file.

    Args:
        folder: where the file lies, for weights in a file beside it; None for bytes that hold everything.

    Raises:
        ModelError: bytes that are damaged, weights that cannot be had, operators that form no MLP, or outputs that
            differ from what the layers say.
    """
    model = load_model(payload, folder)
    try:
        return _read(model)
    except ModelError as error:
        if model.producer_name == "skl2onnx" or any(domain.domain == ML_DOMAIN for domain in model.opset_import):
            raise ModelError(f"{error}. {WAY_TO_A_FILE}") from error
        raise


def _read(model: onnx.ModelProto) -> Network:
    try:
        if model.functions:
            raise ModelError(f"the ONNX model defines functions of its own, {model.functions[0].name!r}: {SUPPORTED}")
        ends = find_ends(model.graph)
        chain = trace(model.graph, ends)
        network = chain.network(lambda _: "")
        dtype = _input_type(ends.input)
    except ModelError:
        raise
    except (ArithmeticError, IndexError, KeyError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise ModelError(f"the ONNX graph is malformed ({error!r}): save or download it again") from error
    if model.producer_name == "skl2onnx" and not chain.head:
        raise ModelError("the ONNX graph is a regressor of scikit-learn, whose output is a number and tells no class")
    if ends.table != ends.value and chain.head != "sigmoid":
        raise ModelError(f"the ONNX output {ends.table!r} is [1 - p, p] of a p that no sigmoid gives: {SUPPORTED}")
    outputs = [ends.table] + ([ends.label] if ends.label else [])
    evaluate = _evaluator(model, ends.input, (*ends.chain, *ends.aside), outputs)

    def run(rows: FloatArray) -> FloatArray:
        table = np.asarray(evaluate(rows.astype(dtype))[0], dtype=np.float64)
        return table if ends.table == ends.value or table.ndim < 2 else table[:, 1:]

    chain.prove(network, run, max(1e-4, 64 * float(np.finfo(dtype).eps)))
    notes = _labelled(network, ends, evaluate, dtype) if ends.label or ends.classes else ()
    precisions = [FLOATS[w.data_type] for w in model.graph.initializer if w.data_type in FLOATS]
    return replace(network, notes=(*notes, *precision_notes(precisions)), classes=ends.classes)


def _labelled(
    network: Network, ends: Ends, evaluate: Callable[[npt.NDArray[Any]], list[Any]], dtype: np.dtype[Any]
) -> tuple[str, ...]:
    """What to tell about names of classes and an output of labels, which must be those of the largest output."""
    if ends.classes and len(ends.classes) != network.n_classes:
        raise ModelError(
            f"the ONNX graph names {len(ends.classes)} classes, {', '.join(ends.classes[:5])}, and tells "
            f"{network.n_classes} apart: {SUPPORTED}"
        )
    if ends.label:
        rows = probe_rows(network.n_features)
        logits = network.logits(rows)
        full = np.hstack([np.zeros_like(logits), logits]) if network.n_outputs == 1 else logits
        ordered = np.sort(full, axis=1)
        clear = ordered[:, -1] - ordered[:, -2] > 1e-2  # a tie may fall either way in float32
        labels = np.asarray(evaluate(rows.astype(dtype))[1]).reshape(-1)
        if len(labels) != len(rows):
            raise ModelError(f"the ONNX output {ends.label!r} is no label per row: {SUPPORTED}")
        found = set(zip(decide(logits)[clear].tolist(), map(str, labels[clear].tolist()), strict=True))
        told = dict(found)
        mixed = len(found) > len(told) or len(set(told.values())) < len(told)
        if mixed or (ends.classes and any(ends.classes[k] != label for k, label in told.items())):
            raise ModelError(
                f"the labels of the ONNX output {ends.label!r} are not those of the largest probability: {SUPPORTED}"
            )
    aside = f"its output {ends.label!r} is left aside" if ends.label else "its dictionaries are read as a table"
    if not ends.classes:
        return (f"the class is read from {ends.table!r} of the ONNX file; {aside}",)
    names = ", ".join(ends.classes[:10]) + (", ..." if len(ends.classes) > 10 else "")
    return (f"the ONNX file names its classes, in this order, {names}; {aside}",)


def serialize_onnx(network: Network, probability: bool = False) -> bytes:
    """The bytes of an .onnx file that computes the logits, or the probabilities."""
    nodes, value = [], "X"
    for index, layer in enumerate(network.layers, start=1):
        is_last = index == len(network.layers)
        linear = "logits" if is_last else f"layer{index}"
        sources = [value, f"layer{index}.weight", f"layer{index}.bias"]
        nodes.append(helper.make_node("Gemm", sources, [linear], name=linear, transB=1))
        value = linear
        if not is_last and layer.activation.name != "identity":
            value = f"hidden{index}"
            nodes += _activation_nodes(layer.activation, linear, value)
    if probability:
        operator = helper.make_node("Sigmoid", ["logits"], ["probability"], name="probability")
        if network.n_outputs > 1:
            operator = helper.make_node("Softmax", ["logits"], ["probability"], name="probability", axis=1)
        nodes.append(operator)
        value = "probability"
    graph = helper.make_graph(
        nodes,
        "fairmend",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", network.n_features])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", network.n_outputs])],
        [numpy_helper.from_array(array, name) for name, array in network.tensors().items()],
    )
    # the oldest opset that has all operators, for the sake of old runtimes
    opset = _OPSET_WITH_GELU if any(node.op_type == "Gelu" for node in nodes) else _OPSET
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="fairmend")
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _activation_nodes(activation: Activation, source: str, target: str) -> list[onnx.NodeProto]:
    kind = activation.kind
    if not kind.onnx:  # silu
        gate = f"{target}.gate"
        return [
            helper.make_node("Sigmoid", [source], [gate], name=gate),
            helper.make_node("Mul", [source, gate], [target], name=target),
        ]
    settings: dict[str, Any] = {} if kind.default is None else {"alpha": activation.parameter}
    if kind.approximate != "none":
        settings["approximate"] = kind.approximate
    return [helper.make_node(kind.onnx, [source], [target], name=target, **settings)]


def prove_onnx(payload: bytes, network: Network, probability: bool = False) -> str:
    """How the bytes of an .onnx file that `serialize_onnx` made differ from a network, in words; "" if they do not.

    The weights must be the same bit for bit, and the reference evaluator, which runs the file as any runtime would,
    must give the network's outputs on seeded random rows: in float32 or, where rounding is large, with the file's
    weights in float64.
    """
    model = load_model(payload)
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    for name, array in network.tensors().items():
        found = weights.get(name)
        if found is None or found.shape != array.shape or found.tobytes() != array.tobytes():
            return f"{name} has other values"
    rows = probe_rows(network.n_features)
    head: Head = "" if not probability else "sigmoid" if network.n_outputs == 1 else "softmax"
    expected = finish(network.logits(rows), head)
    detail = ""
    for dtype in (np.float32, np.float64):
        for weight in model.graph.initializer:
            weight.CopyFrom(numpy_helper.from_array(weights[weight.name].astype(dtype), weight.name))
        evaluate = _evaluator(model, model.graph.input[0], model.graph.node, [model.graph.output[0].name])
        detail = disagreement(expected, np.asarray(evaluate(rows.astype(dtype))[0], dtype=np.float64), 1e-4)
        if not detail:
            break
    return detail


def _evaluator(
    model: onnx.ModelProto, source: onnx.ValueInfoProto, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]
) -> Callable[[npt.NDArray[Any]], list[Any]]:
    """The values of some outputs for rows, by the reference evaluator, in inference.

    Raises:
        ModelError: the graph does not run; whether the fault is the graph's or the library's is found out.
    """
    graph = onnx.helper.make_graph(
        nodes, "read", [source], [onnx.helper.make_empty_tensor_value_info(output) for output in outputs]
    )
    graph.initializer.extend(model.graph.initializer)
    plain = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)

    def evaluate(rows: npt.NDArray[Any]) -> list[Any]:
        try:
            return _run(plain, rows)
        except Exception as error:  # the evaluator raises many kinds for a graph that cannot run
            reason = first_line(error)[:200]
            if not _evaluator_works():
                raise ModelError(
                    f"the reference evaluator of onnx {onnx.__version__} does not run even a graph that fairmend "
                    f"wrote ({reason}): the library has changed; install a version that fairmend supports"
                ) from error
            raise ModelError(
                f"the ONNX graph does not run on {len(rows)} rows of {rows.shape[1]} features in onnx "
                f"{onnx.__version__}: {reason}"
            ) from error

    return evaluate


def _run(model: onnx.ModelProto, rows: npt.NDArray[Any]) -> list[Any]:
    class BatchNormalization(OpRun):
        # The reference one normalises by the batch before opset 14, as if training. Of the attributes that the operator
        # ever had only one matters here; one that is new is refused.
        def _run(self, x: Any, scale: Any, bias: Any, mean: Any, var: Any, **options: Any) -> Any:
            new = options.keys() - {"epsilon", "momentum", "training_mode", "is_test", "spatial", "consumed_inputs"}
            if new or options.get("training_mode"):
                raise ValueError(f"a batch normalisation is in training mode, or has the options {sorted(new)}")
            epsilon = options.get("epsilon")
            epsilon = 1e-5 if epsilon is None else epsilon  # the default of the operator
            return ((scale * (x - mean) / np.sqrt(var + epsilon) + bias).astype(x.dtype),)

    with np.errstate(all="ignore"):  # exp overflows in branches that are not taken
        return list(
            ReferenceEvaluator(model, new_ops=[BatchNormalization]).run(None, {model.graph.input[0].name: rows})
        )


def _evaluator_works() -> bool:
    """Whether the reference evaluator runs a graph that is known to be sound."""
    known = f"""<ir_version: {_IR_VERSION}, opset_import: ["" : {_OPSET}]>
        known (float[n, 2] X) => (float[n, 1] Y)
        <float[2, 1] w = {{2, 2}}, float[1] one = {{1}}, float[1] zero = {{0}}>
        {{
            a = Gemm (X, w)
            b = BatchNormalization <epsilon = 0.0> (a, one, zero, zero, one)
            Y = Relu (b)
        }}"""
    try:
        return bool(np.array_equal(_run(onnx.parser.parse_model(known), np.array([[1, 2]], np.float32))[0], [[6]]))
    except Exception:  # what a changed library raises is not known
        return False


def _input_type(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    number = value.type.tensor_type.elem_type
    if number not in FLOATS or number == TensorProto.BFLOAT16:  # which NumPy does not have
        raise ModelError(
            f"the ONNX input {value.name!r} is of element type {number}: supported are 1 (float), 10 (float16) and "
            "11 (double)"
        )
    return np.dtype(FLOATS[number])
