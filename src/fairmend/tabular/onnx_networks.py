"""MLPs in the ONNX format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fairmend.errors import ModelError
from fairmend.tabular.activations import Activation, FloatArray
from fairmend.tabular.networks import Network
from fairmend.tabular.onnx_tracing import SUPPORTED, trace

if TYPE_CHECKING:
    import onnx

_OPERATORS = {
    "relu": "Relu",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
    "gelu": "Gelu",
    "gelu_tanh": "Gelu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
}
_OPSET, _OPSET_WITH_GELU, _IR_VERSION = 17, 20, 9


def parse_onnx(payload: bytes) -> Network:
    """The network in the bytes of an .onnx file.

    Raises:
        ModelError: bytes that are damaged, weights kept in another file, operators that form no MLP, or outputs that
            differ from what the layers say.
    """
    model = _load(payload)
    try:
        chain = trace(model.graph)
        network = chain.network(lambda _: "")
    except ModelError:
        raise
    except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the ONNX graph is malformed ({error}): save or download it again") from error
    numbers = np.dtype(_input_type(model))

    def run(rows: FloatArray) -> FloatArray:
        try:
            with np.errstate(all="ignore"):  # exp overflows in branches that are not taken
                found: Any = _reference(model).run(None, {_input(model).name: rows.astype(numbers)})
        except Exception as error:  # the reference runtime raises many kinds for a graph that cannot run
            raise ModelError(f"the ONNX graph does not run on rows of {rows.shape[1]} features: {error}") from error
        return np.asarray(found[0], dtype=np.float64)

    chain.prove(network, run, max(1e-4, 64 * float(np.finfo(numbers).eps)))
    return network


def serialize_onnx(network: Network, probability: bool = False) -> bytes:
    """The bytes of an .onnx file that computes the logits, or the probabilities."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, value = [], [], "X"
    for index, layer in enumerate(network.layers, start=1):
        is_last = index == len(network.layers)
        names = [f"layer{index}.weight", f"layer{index}.bias"]
        weights += [numpy_helper.from_array(a, n) for a, n in zip((layer.weight, layer.bias), names, strict=True)]
        linear = "logits" if is_last else f"layer{index}"
        nodes.append(helper.make_node("Gemm", [value, *names], [linear], name=linear, transB=1))
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
        weights,
    )
    # the oldest opset that has all operators, for the sake of old runtimes
    opset = _OPSET_WITH_GELU if any(node.op_type == "Gelu" for node in nodes) else _OPSET
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="fairmend")
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _activation_nodes(activation: Activation, source: str, target: str) -> list[onnx.NodeProto]:
    from onnx import helper

    if activation.name == "silu":
        gate = f"{target}.gate"
        return [
            helper.make_node("Sigmoid", [source], [gate], name=gate),
            helper.make_node("Mul", [source, gate], [target], name=target),
        ]
    settings: dict[str, Any] = {}
    if activation.name in ("leaky_relu", "elu"):
        settings["alpha"] = activation.parameter
    elif activation.name == "gelu_tanh":
        settings["approximate"] = "tanh"
    return [helper.make_node(_OPERATORS[activation.name], [source], [target], name=target, **settings)]


def _load(payload: bytes) -> onnx.ModelProto:
    """The checked model; nothing outside its own bytes is read."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(payload)
        external = [w.name for w in model.graph.initializer if w.data_location == onnx.TensorProto.EXTERNAL]
        if external:
            raise ModelError(
                f"the weights {', '.join(external[:3])} are in another file, which is not followed: save the model in "
                "one piece, onnx.save(model, path, save_as_external_data=False)"
            )
        onnx.checker.check_model(model)
    except ModelError:
        raise
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"not a valid ONNX model ({reason}): save or download it again") from error
    if model.functions:
        raise ModelError(f"the ONNX model defines functions of its own, {model.functions[0].name!r}: {SUPPORTED}")
    return model


def _reference(model: onnx.ModelProto) -> Any:
    """The reference runtime, in inference."""
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):
        # the reference one normalises by the batch before opset 14, as if training
        def _run(self, x: Any, scale: Any, bias: Any, mean: Any, var: Any, epsilon: float = 1e-5, **_: Any) -> Any:
            return ((scale * (x - mean) / np.sqrt(var + epsilon) + bias).astype(x.dtype),)

    return ReferenceEvaluator(model, new_ops=[BatchNormalization])


def _input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    weights = {weight.name for weight in model.graph.initializer}
    value: onnx.ValueInfoProto
    for value in model.graph.input:
        if value.name not in weights:
            return value
    raise ModelError(f"the ONNX graph has no input: {SUPPORTED}")


def _input_type(model: onnx.ModelProto) -> np.dtype[Any]:
    from onnx import TensorProto

    value = _input(model)
    number = value.type.tensor_type.elem_type
    supported = {
        int(TensorProto.FLOAT): "float32",
        int(TensorProto.DOUBLE): "float64",
        int(TensorProto.FLOAT16): "float16",
    }
    if number not in supported:
        raise ModelError(
            f"the ONNX input {value.name!r} is of element type {number}: supported are 1 (float), 10 (float16) and "
            "11 (double)"
        )
    return np.dtype(supported[number])
