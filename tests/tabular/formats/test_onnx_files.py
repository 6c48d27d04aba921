"""Weights beside an .onnx file: read from its folder, and from nowhere else, wherever in the model they belong."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fairmend.errors import ModelError
from fairmend.tabular.formats import onnx_files
from fairmend.tabular.formats.formats import read_network
from fairmend.tabular.formats.onnx_networks import parse_onnx

RNG = np.random.default_rng(0)
W1, W2 = RNG.standard_normal((5, 6)).astype(np.float32), RNG.standard_normal((6, 1)).astype(np.float32)
LAYERS = [
    helper.make_node("MatMul", ["X", "W1"], ["a"]),
    helper.make_node("Relu", ["a"], ["r"]),
    helper.make_node("MatMul", ["r", "W2"], ["Y"]),
]


def model(nodes=LAYERS, weights=(W1, W2), **more):
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["n", None])],
        [numpy_helper.from_array(w, f"W{i}") for i, w in enumerate(weights, 1) if w is not None],
        **more,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def outside(tensor, **words):
    """The tensor with its data declared to be in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in words.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return tensor


def as_weight(**words):
    made = model()
    outside(made.graph.initializer[0], **words)
    return made


def as_constant(**words):
    value = outside(numpy_helper.from_array(W1, "V"), **words)
    return model([helper.make_node("Constant", [], ["W1"], value=value), *LAYERS], (None, W2))


def as_sparse(**words):
    made = model()
    sparse = made.graph.sparse_initializer.add()
    sparse.dims.extend([6, 5])
    sparse.values.CopyFrom(outside(numpy_helper.from_array(np.ones(1, np.float32), "S"), **words))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "I"))
    return made


def in_a_branch(**words):
    value = outside(numpy_helper.from_array(W1, "V"), **words)
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["w"], value=value)],
        "branch",
        [],
        [helper.make_tensor_value_info("w", TensorProto.FLOAT, [5, 6])],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    choice = helper.make_node("If", ["yes"], ["W1"], then_branch=branch, else_branch=branch)
    made = model([choice, *LAYERS], (None, W2))
    made.graph.initializer.append(yes)
    return made


def save(made, folder: Path) -> Path:
    (folder / "net.onnx").write_bytes(made.SerializeToString())
    return folder / "net.onnx"


def test_what_onnx_saves_in_two_files_is_read_as_if_it_were_one(tmp_path):
    whole = parse_onnx(model().SerializeToString())
    onnx.save(model(), tmp_path / "net.onnx", save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    assert (tmp_path / "net.onnx.data").stat().st_size == W1.nbytes + W2.nbytes
    assert read_network(tmp_path / "net.onnx").digest() == whole.digest()
    data = bytearray((tmp_path / "net.onnx.data").read_bytes())
    data[2] ^= 1
    (tmp_path / "net.onnx.data").write_bytes(data)
    assert read_network(tmp_path / "net.onnx").digest() != whole.digest()


@pytest.mark.parametrize("place", [as_weight, as_constant])
@pytest.mark.parametrize(
    "words",
    [
        {"location": "w.data"},
        {"location": "w.data", "offset": 0, "length": 120},
        {"location": "./w.data"},
        {"location": "more/shifted.data", "offset": 8},
        {"location": "more/shifted.data", "offset": 8, "length": 120},
    ],
)
def test_data_in_the_folder_is_read_wherever_it_belongs(tmp_path, place, words):
    (tmp_path / "more").mkdir()
    (tmp_path / "w.data").write_bytes(W1.tobytes())
    (tmp_path / "more" / "shifted.data").write_bytes(bytes(8) + W1.tobytes())
    found = read_network(save(place(**words), tmp_path))
    np.testing.assert_array_equal(found.layers[0].weight, W1.T)


@pytest.mark.parametrize("place", [as_weight, as_constant, as_sparse, in_a_branch])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"location": "../w.data"}, "which is not in the folder of the .onnx file and is not followed"),
        ({"location": "more/../w.data"}, "not in the folder"),
        ({"location": "/dev/zero"}, "not in the folder"),
        ({"location": "..\\w.data"}, "not in the folder"),
        ({"location": "C:\\w.data"}, "not in the folder"),
        ({"location": ""}, "not in the folder"),
        ({}, "not in the folder"),
        ({"location": "nowhere.data"}, "cannot be read beside the .onnx file (No such file or directory)"),
        ({"location": "link.data"}, "which is a link and is not followed"),
        ({"location": "linked/w.data"}, "which is a link and is not followed"),
        ({"location": "pipe.data"}, "no regular file"),
        ({"location": "more"}, "no regular file"),
        ({"location": "w.data", "offset": "²"}, "has the offset or length '²'"),
        ({"location": "w.data", "offset": -4}, "has the offset or length '-4'"),
        ({"location": "w.data", "length": "9" * 5000}, "has the offset or length '999"),
    ],
)
def test_data_from_elsewhere_is_refused_wherever_it_belongs(tmp_path, monkeypatch, place, words, message):
    folder = tmp_path / "folder"
    (folder / "more").mkdir(parents=True)
    for file in (tmp_path / "w.data", folder / "w.data", folder / "more" / "w.data"):
        file.write_bytes(W1.tobytes())
    (folder / "link.data").symlink_to("w.data")
    (folder / "linked").symlink_to("more")
    os.mkfifo(folder / "pipe.data")
    monkeypatch.chdir(folder)
    with pytest.raises(ModelError) as caught:
        read_network(save(place(**words), folder))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"length": 60}, "takes 120 bytes, but 60 bytes of 'w.data' are declared"),
        ({"offset": 4}, "takes 120 bytes, but 116 bytes of 'w.data' are declared"),
        ({"offset": 4, "length": 120}, "need more than the 120 bytes that 'w.data' has"),
        ({"offset": 10**18, "length": 120}, "need more than the 120 bytes"),
    ],
)
def test_data_of_another_size_than_declared_are_refused(tmp_path, words, message):
    (tmp_path / "w.data").write_bytes(W1.tobytes())
    with pytest.raises(ModelError) as caught:
        read_network(save(as_weight(location="w.data", **words), tmp_path))
    assert message in str(caught.value)


def test_a_checksum_is_checked(tmp_path):
    (tmp_path / "w.data").write_bytes(W1.tobytes())
    right = hashlib.sha1(W1.tobytes()).hexdigest()
    assert read_network(save(as_weight(location="w.data", checksum=right), tmp_path)).hidden_widths == (6,)
    with pytest.raises(ModelError, match=r"'w\.data' is not the file that the model was saved with"):
        read_network(save(as_weight(location="w.data", checksum=right[::-1]), tmp_path))


WORDS = st.sampled_from(["w.data", "./w.data", "", ".", "..", "a/b", "0", "120", "-1", "1e3", "²", "9" * 30, "\0"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([as_weight, as_constant, as_sparse, in_a_branch]),
    st.dictionaries(st.sampled_from(["location", "offset", "length", "checksum", "else"]), WORDS),
)
def test_any_words_about_the_data_give_a_network_or_a_model_error(tmp_path, place, words):
    (tmp_path / "w.data").write_bytes(W1.tobytes())
    with suppress(ModelError):
        np.testing.assert_array_equal(read_network(save(place(**words), tmp_path)).layers[0].weight, W1.T)


def test_the_same_data_cannot_be_taken_for_any_number_of_weights(tmp_path):
    (tmp_path / "w.data").write_bytes(W1.tobytes())
    made = as_weight(location="w.data")
    made.graph.initializer.append(outside(numpy_helper.from_array(W1, "again"), location="w.data"))
    with pytest.raises(ModelError, match="'again' and what is before it need more than the 120 bytes"):
        read_network(save(made, tmp_path))


def test_bytes_alone_name_the_way_to_one_file():
    with pytest.raises(ModelError, match=r"torch\.onnx\.export\(\.\.\., external_data=False\)"):
        parse_onnx(as_weight(location="w.data").SerializeToString())


def branching(n_nodes: int) -> onnx.ModelProto:
    """x times the sum of as many sigmoids of x as there are nodes for."""
    half = n_nodes // 2 - 1
    nodes = [LAYERS[0], *(helper.make_node("Sigmoid", ["a"], [f"s{i}"]) for i in range(half))]
    nodes += [helper.make_node("Add", ["s0" if i == 1 else f"t{i - 1}", f"s{i}"], [f"t{i}"]) for i in range(1, half)]
    return model([*nodes, helper.make_node("Mul", ["a", f"t{half - 1}"], ["r"]), LAYERS[2]])


def straight(n_nodes: int) -> onnx.ModelProto:
    names = ["X", *(f"i{i}" for i in range(n_nodes))]
    nodes = [helper.make_node("Identity", [names[i]], [names[i + 1]]) for i in range(n_nodes)]
    return model([*nodes, helper.make_node("MatMul", [names[-1], "W1"], ["a"]), *LAYERS[1:]])


@pytest.mark.parametrize("made", [branching(3000), straight(3000)], ids=["branching", "straight"])
def test_the_time_grows_with_the_nodes_and_not_with_their_cube(made):
    payload, started = made.SerializeToString(), time.process_time()
    assert parse_onnx(payload).hidden_widths == (6,)
    assert time.process_time() - started < 15


def test_graphs_with_more_nodes_than_any_plain_network_are_refused():
    with pytest.raises(ModelError, match="20,003 nodes: supported are at most 10,000"):
        parse_onnx(straight(20_000).SerializeToString())


def sized(dims, data=bytes(24)):
    made = model()
    weight = made.graph.initializer[0]
    weight.ClearField("dims")
    weight.dims.extend(dims)
    weight.raw_data = data
    return made


def twice():
    made = model()
    made.graph.initializer.append(numpy_helper.from_array(2 * W1, "W1"))
    return made


@pytest.mark.parametrize(
    "made",
    [
        sized([2**40, 5]),
        sized([2**62, 2**62]),
        sized([-1, 6]),
        sized([0, 2**62], b""),
        sized([5, 2**40], b""),
        twice(),
        model([LAYERS[0], helper.make_node("Relu", ["a"], ["W2"]), helper.make_node("Relu", ["W2"], ["Y"])]),
        model([helper.make_node("Relu", ["Y"], ["a"]), helper.make_node("Relu", ["a"], ["Y"])]),
        model(weights=(W1 * np.inf, W2)),
        model(weights=(W1, np.full_like(W2, np.nan))),
    ],
    ids=["rows", "product", "negative", "none", "empty", "twice", "shadowing", "cycle", "infinite", "nan"],
)
def test_graphs_that_lie_about_themselves_are_refused(made):
    with pytest.raises(ModelError):
        parse_onnx(made.SerializeToString())


def test_a_graph_for_training_is_not_passed_over():
    made = model()
    made.training_info.add()
    with pytest.raises(ModelError, match="holds a graph for training beside its own: export it for inference"):
        parse_onnx(made.SerializeToString())


def test_a_name_of_two_values_is_refused_whatever_the_checker_of_the_library_says(monkeypatch):
    monkeypatch.setattr(onnx.checker, "check_model", lambda _: None)
    with pytest.raises(ModelError, match="2 values of the name 'W1'"):
        onnx_files.load_model(twice().SerializeToString())


class Broken:
    def __init__(self, *_args, **_options):
        raise TypeError("unexpected keyword argument 'new_ops'")


def test_a_library_that_changed_is_named_and_not_the_file(monkeypatch):
    monkeypatch.setattr("fairmend.tabular.formats.onnx_networks.ReferenceEvaluator", Broken)
    with pytest.raises(ModelError, match=f"of onnx {onnx.__version__} does not run even a graph that fairmend wrote"):
        parse_onnx(model().SerializeToString())


def test_a_graph_that_cannot_run_is_named_and_not_the_library():
    shape = numpy_helper.from_array(np.array([7, 5]), "S")
    made = model([helper.make_node("Reshape", ["X", "S"], ["x"]), helper.make_node("MatMul", ["x", "W1"], ["a"])])
    made.graph.node.extend(LAYERS[1:])
    made.graph.initializer.append(shape)
    with pytest.raises(ModelError, match="the ONNX graph does not run on 48 rows of 5 features"):
        parse_onnx(made.SerializeToString())
