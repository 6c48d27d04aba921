"""ONNX networks: onnxruntime predicts as the network does, and graphs of other makers are read."""

import warnings
from contextlib import suppress
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fairmend.errors import ModelError
from fairmend.tabular.formats.formats import read_network, write_onnx
from fairmend.tabular.formats.onnx_networks import parse_onnx, serialize_onnx
from fairmend.tabular.networks.activations import NAMES, Activation
from fairmend.tabular.networks.networks import Layer, Network, decide

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 5)).astype(np.float32)
W1, W2 = RNG.standard_normal((5, 6)).astype(np.float32), RNG.standard_normal((6, 1)).astype(np.float32)
B1, B2 = RNG.standard_normal(6).astype(np.float32), RNG.standard_normal(1).astype(np.float32)


def make_network(widths=(5, 6, 4, 1), activation="relu") -> Network:
    rng = np.random.default_rng(0)
    layers = [
        Layer(rng.standard_normal((n_out, n_in)), rng.standard_normal(n_out), Activation.parse(activation))
        for n_in, n_out in pairwise(widths)
    ]
    layers[-1] = Layer(layers[-1].weight, layers[-1].bias)
    return Network(tuple(layers))


def runtime(payload):
    session = onnxruntime.InferenceSession(payload, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: X})[0]


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("activation", NAMES)
def test_onnxruntime_predicts_as_the_network(tmp_path, activation, n_outputs):
    network = make_network((5, 6, 4, n_outputs), activation)
    write_onnx(network, tmp_path / "a.onnx")
    payload = (tmp_path / "a.onnx").read_bytes()
    found = runtime(payload)
    np.testing.assert_allclose(found, network.logits(X), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(decide(found), network.predict(X))
    model = onnx.load_model_from_string(payload)
    assert ([value.name for value in model.graph.input], [value.name for value in model.graph.output]) == (
        ["X"],
        ["logits"],
    )
    assert read_network(tmp_path / "a.onnx").digest() == network.digest()


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_probabilities(tmp_path, n_outputs):
    network = make_network((5, 6, n_outputs))
    payload = serialize_onnx(network, probability=True)
    logits = network.logits(X)
    powers = np.exp(logits)
    expected = 1 / (1 + np.exp(-logits)) if n_outputs == 1 else powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(runtime(payload), expected, rtol=1e-4, atol=1e-6)
    assert onnx.load_model_from_string(payload).graph.output[0].name == "probability"
    assert parse_onnx(payload).digest() == network.digest()
    assert serialize_onnx(network) == serialize_onnx(network) != payload


def test_published_networks_predict_alike_in_onnxruntime(shared_data):
    for path in sorted((shared_data / "neufair" / "models").glob("*-42.safetensors")):
        network = read_network(path)
        rows = np.random.default_rng(0).standard_normal((300, network.n_features)).astype(np.float32)
        session = onnxruntime.InferenceSession(serialize_onnx(network), providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, {"X": rows})[0], network.logits(rows), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("opset", [9, 13, 18, 20])
def test_exports_of_torch_are_read(tmp_path, opset):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(5, 7),
        nn.GELU(),
        nn.Linear(7, 6, bias=False),
        nn.BatchNorm1d(6),
        nn.SiLU(),
        nn.Linear(6, 5),
        nn.GELU(approximate="tanh"),
        nn.BatchNorm1d(5),
        nn.Dropout(),
        nn.Linear(5, 4),
        nn.LeakyReLU(0.2),
        nn.Linear(4, 3),
    )
    module(torch.randn(64, 5) * 2 + 1)
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.tensor(X),), tmp_path / "a.onnx", opset_version=opset, dynamo=False, input_names=["X"]
        )
    network = read_network(tmp_path / "a.onnx")
    names = [str(layer.activation) for layer in network.layers]
    assert names == ["gelu", "silu", "gelu_tanh", "leaky_relu(0.2)", "identity"]
    np.testing.assert_allclose(network.logits(X), runtime((tmp_path / "a.onnx").read_bytes()), rtol=1e-4, atol=1e-5)


def graph(nodes, constants=None, inputs=("X",), outputs=("Y",), kind=TensorProto.FLOAT, opset=17, shape=("n", None)):
    """The bytes of a model of (operator, inputs, output, attributes) nodes with the constants W1, B1, W2, B2."""
    arrays = {"W1": W1, "B1": B1, "W2": W2, "B2": B2} | (constants or {})
    used = {name for node in nodes for name in node[1]}
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    made = helper.make_graph(
        [helper.make_node(node[0], node[1], [node[2]], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "test",
        [helper.make_tensor_value_info(name, kind, ["n", 5]) for name in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name in outputs],
        [
            numpy_helper.from_array(array if array.dtype.kind == "i" else array.astype(dtype), name)
            for name, array in arrays.items()
            if name in used
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString()


FIRST = ("Gemm", ["X", "W1", "B1"], "a")
LAST = ("Gemm", ["r", "W2", "B2"], "Y")
RELU = ("Relu", ["a"], "r")
GOOD = {
    "matmul and add": [("MatMul", ["X", "W1"], "m"), ("Add", ["B1", "m"], "a"), RELU, LAST],
    "scaled input": [("Sub", ["X", "C"], "s"), ("Div", ["s", "D"], "t"), ("Gemm", ["t", "W1"], "a"), RELU, LAST],
    "gemm factors": [("Gemm", ["X", "W1", "B1"], "a", {"alpha": 0.5, "beta": 2.0}), RELU, LAST],
    "gemm with one bias": [("Gemm", ["X", "W1", "B2"], "a"), RELU, LAST],
    "subtracted from": [FIRST, ("Sub", ["E", "a"], "b"), ("Relu", ["b"], "r"), LAST],
    "scaled by one number": [("Mul", ["X", "E"], "s"), ("Gemm", ["s", "W1"], "a"), RELU, LAST],
    "constants": [
        ("Constant", [], "V", {"value": numpy_helper.from_array(np.ascontiguousarray(W1.T))}),
        ("Identity", ["V"], "U"),
        ("Transpose", ["U"], "T", {"perm": [1, 0]}),
        ("MatMul", ["X", "T"], "a"),
        RELU,
        LAST,
    ],
    "shapes": [("Identity", ["X"], "i"), ("Flatten", ["i"], "f"), ("Gemm", ["f", "W1"], "a"), RELU, LAST],
    "silu times two": [
        FIRST,
        ("Sigmoid", ["a"], "g"),
        ("Mul", ["g", "a"], "b"),
        ("Mul", ["b", "E"], "r"),
        LAST,
    ],
    "squeezed": [FIRST, RELU, ("Gemm", ["r", "W2"], "y"), ("Squeeze", ["y", "ONE"], "Y")],
}
CONSTANTS = {
    "C": np.array([[0.1, -0.2, 0.3, 0.4, 0.5]]),
    "D": np.array([1.0, 2.0, 0.5, 4.0, 1.5]),
    "E": np.array([2.0]),
    "ONE": np.array([1], dtype=np.int64),
    "ZERO": np.array([0.0]),
    "W3": np.ones((2, 6, 2)),
    "M": np.ones((2, 5)),
}


@pytest.mark.parametrize("name", GOOD)
def test_graphs_of_other_makers_are_read(name):
    payload = graph(GOOD[name], CONSTANTS, shape=("n",) if name == "squeezed" else ("n", None))
    np.testing.assert_allclose(parse_onnx(payload).logits(X)[:, 0], runtime(payload).reshape(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_graphs_of_other_precisions_are_read(kind):
    network = parse_onnx(graph([FIRST, RELU, LAST], kind=kind))
    expected = np.maximum(X @ W1 + B1, 0) @ W2 + B2
    np.testing.assert_allclose(network.logits(X), expected, rtol=1e-2, atol=1e-2)


BATCH = {name: np.ones(6) for name in ("S", "O", "A", "V")}
BAD = {
    "another operator": ([FIRST, ("Softplus", ["a"], "r"), LAST], "(Softplus): supported is one chain"),
    "a residual": (
        [FIRST, ("Tanh", ["a"], "t"), ("Add", ["t", "a"], "s"), ("Gemm", ["s", "W2"], "Y")],
        "no known activation",
    ),
    "a branch": (
        [FIRST, ("Softplus", ["a"], "s"), ("Mul", ["s", "a"], "r"), LAST],
        "(Softplus) is in a part of the graph with branches",
    ),
    "divided by the input": ([("Div", ["D", "X"], "s"), ("Gemm", ["s", "W1"], "Y")], "divides by the input or by 0"),
    "divided by 0": ([("Div", ["X", "ZERO"], "s"), ("Gemm", ["s", "W1"], "Y")], "divides by the input or by 0"),
    "a table of shifts": ([("Add", ["X", "M"], "s"), ("Gemm", ["s", "W1"], "Y")], "constant of shape (2, 5)"),
    "a weight of three dimensions": ([FIRST, ("MatMul", ["a", "W3"], "Y")], "weight of shape (2, 6, 2)"),
    "input on the right": ([("MatMul", ["M", "X"], "Y")], "input on the right or transposed"),
    "input transposed": ([("Gemm", ["X", "W1"], "Y", {"transA": 1})], "input on the right or transposed"),
    "softmax over rows": ([FIRST, ("Softmax", ["a"], "Y", {"axis": 0})], "is over axis 0"),
    "multi-label": ([FIRST, ("Sigmoid", ["a"], "Y")], "a multi-label model"),
    "weights that are computed": ([("Neg", ["W1"], "N"), ("MatMul", ["X", "N"], "Y")], "(Neg) computes a constant"),
    "layers that do not fit": ([FIRST, ("MatMul", ["a", "W1"], "Y")], "takes 5 values but gets 6"),
    "dropout in training": (
        [FIRST, ("Dropout", ["a", "", "T"], "r"), LAST],
        "is in training mode: export the model in eval mode",
    ),
    "batch normalisation in training": (
        [FIRST, ("BatchNormalization", ["a", "S", "O", "A", "V"], "r", {"training_mode": 1}), LAST],
        "is in training mode: export the model in eval mode",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_graphs_that_are_no_mlp_are_refused(name):
    nodes, message = BAD[name]
    with pytest.raises(ModelError) as caught:
        parse_onnx(graph(nodes, CONSTANTS | BATCH | {"T": np.array([1], dtype=np.int64)}))
    assert message in str(caught.value)


def with_external_weights():
    model = onnx.load_model_from_string(graph([FIRST, RELU, LAST]))
    weight = model.graph.initializer[0]
    weight.data_location = TensorProto.EXTERNAL
    weight.ClearField("raw_data")
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "../../secret"
    return model.SerializeToString()


def with_function():
    domain = helper.make_opsetid("", 17)
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [domain]
    )
    model = onnx.load_model_from_string(graph([FIRST, RELU, LAST]))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (lambda: b"", "not a valid ONNX model"),
        (lambda: b"hello, this is text", "not a valid ONNX model"),
        (with_external_weights, "external_data=False)"),
        (with_function, "defines functions of its own, 'Twice'"),
        (lambda: graph([FIRST, RELU, LAST], inputs=("X", "Z")), "inputs ['X', 'Z']"),
        (lambda: graph([FIRST, RELU, LAST], outputs=("Y", "r")), "outputs ['Y', 'r']"),
        (lambda: graph([FIRST, RELU, LAST], outputs=("a",)), "'a' is not the end of the chain"),
        (lambda: graph([("Gemm", ["X", "W1"], "Y")], {"W1": np.full((5, 1), np.nan)}), "are NaN, infinite"),
        (
            lambda: graph([FIRST, RELU, LAST], kind=TensorProto.BFLOAT16),
            "is of element type 16: supported are 1 (float)",
        ),
    ],
)
def test_models_that_cannot_be_read_are_refused(payload, message):
    with pytest.raises(ModelError) as caught:
        parse_onnx(payload())
    assert message in str(caught.value)


def test_an_activation_beside_an_onnx_file_is_refused(tmp_path):
    write_onnx(make_network(), tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="leave the activation 'relu' out"):
        read_network(tmp_path / "a.onnx", activation="relu")


PAYLOAD = serialize_onnx(make_network((5, 3, 1)))


@settings(max_examples=200, deadline=None)
@example(253, 127)  # a signalling NaN among the weights
@given(st.integers(0, len(PAYLOAD) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_a_network_or_a_model_error(position, byte):
    payload = bytearray(PAYLOAD)
    payload[position] = byte
    with suppress(ModelError):
        assert isinstance(parse_onnx(bytes(payload)), Network)
