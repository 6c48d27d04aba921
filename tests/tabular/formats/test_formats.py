"""Network files: round trips, refusals, and bytes that are damaged or hostile."""

import io
import json
import os
import pickle
import shutil
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from fairmend.errors import ModelError, RunError
from fairmend.files import write_atomically
from fairmend.tabular.formats import formats
from fairmend.tabular.formats.formats import read_network, write_onnx, write_safetensors
from fairmend.tabular.formats.onnx_networks import serialize_onnx
from fairmend.tabular.formats.safetensors_networks import parse_safetensors, serialize_safetensors
from fairmend.tabular.networks.activations import Activation
from fairmend.tabular.networks.networks import Layer, Network


def make_network(widths=(5, 6, 4, 1), activations=("relu", "relu")) -> Network:
    rng = np.random.default_rng(0)
    names = [*activations, "identity"]
    return Network(
        tuple(
            Layer(rng.standard_normal((n_out, n_in)), rng.standard_normal(n_out), Activation.parse(name))
            for (n_in, n_out), name in zip(pairwise(widths), names, strict=True)
        )
    )


def tensors(**changes):
    """The tensors of a sound network, with some changed, or removed where None."""
    rng = np.random.default_rng(0)
    found = {
        "layer1.weight": rng.standard_normal((6, 5)).astype(np.float32),
        "layer1.bias": np.zeros(6, np.float32),
        "layer2.weight": rng.standard_normal((1, 6)).astype(np.float32),
        "layer2.bias": np.zeros(1, np.float32),
    }
    found |= {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("activations", [("relu", "relu"), ("leaky_relu(0.2)", "gelu_tanh"), ("elu(0.3)", "silu")])
def test_safetensors_come_back_as_they_were(tmp_path, activations):
    network = make_network(activations=activations)
    write_safetensors(network, tmp_path / "a.safetensors", {"dataset": "adult", "seed": "42"})
    found = read_network(tmp_path / "a.safetensors")
    assert found.digest() == network.digest()
    assert found.notes == ()
    with safe_open(tmp_path / "a.safetensors", "np") as file:  # the library, as an oracle of the format
        assert list(file.keys()) == sorted(f"layer{i}.{part}" for i in (1, 2, 3) for part in ("bias", "weight"))
        assert file.metadata()["dataset"] == "adult"
        np.testing.assert_array_equal(file.get_tensor("layer2.weight"), network.layers[1].weight)


def test_safetensors_are_the_same_bytes_each_time():
    network = make_network()
    one = serialize_safetensors(network, {"a": "1", "b": "2"})
    assert one == serialize_safetensors(network, {"b": "2", "a": "1"})


def test_published_networks_are_read_and_assumed_relu(shared_data):
    network = read_network(shared_data / "neufair" / "models" / "adult-42.safetensors")
    assert network.hidden_widths == (64, 128, 64)
    assert (network.n_features, network.n_outputs) == (34, 1)
    assert network.notes == ("the file names no activation and none was given: relu is assumed",)
    assert {str(layer.activation) for layer in network.layers[:-1]} == {"relu"}
    given_tanh = read_network(shared_data / "neufair" / "models" / "adult-42.safetensors", activation="tanh")
    assert {str(layer.activation) for layer in given_tanh.layers[:-1]} == {"tanh"}


def test_layers_are_taken_in_the_natural_order_of_their_names(tmp_path):
    rng = np.random.default_rng(0)
    widths = list(range(3, 16))
    state = {
        f"net.{3 * index}.weight": rng.standard_normal((n_out, n_in)).astype(np.float16)
        for index, (n_in, n_out) in enumerate(pairwise(widths))
    }
    save_file(state, tmp_path / "a.safetensors")
    network = read_network(tmp_path / "a.safetensors")
    assert network.hidden_widths == tuple(widths[1:-1])
    assert not any(layer.bias.any() for layer in network.layers)
    assert network.space().sites[1].name == "net.3"


def test_a_torch_state_dict_is_read(tmp_path):
    from safetensors.torch import save_file as save_torch

    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    save_torch(module.state_dict(), tmp_path / "a.safetensors")
    X = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.tensor(X)).numpy()
    np.testing.assert_allclose(read_network(tmp_path / "a.safetensors", "tanh").logits(X), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "metadata", "activation", "message"),
    [
        ({"layer1__weight": np.ones((6, 5, 2), np.float32)}, {}, None, "layer1.weight has shape (6, 5, 2)"),
        ({"layer1__bias": np.zeros(5, np.float32)}, {}, None, "6 neurons but a bias of shape (5,)"),
        ({"layer2__weight": np.ones((1, 7), np.float32)}, {}, None, "layers do not chain: layer1 gives 6 values"),
        ({"layer2__weight": np.ones((1, 7), np.float32)}, {}, None, "in the order of their names: layer1, layer2"),
        ({"norm__running_mean": np.ones(6, np.float32)}, {}, None, "found norm.running_mean; read a network with"),
        ({"layer1__weight": None}, {}, None, "found layer1.bias"),
        ({"layer1__weight": np.full((6, 5), np.nan, np.float32)}, {}, None, "'layer1': 30 values of the weight"),
        ({"layer2__bias": np.full(1, np.inf, np.float32)}, {}, None, "'layer2': 1 values of the bias"),
        ({"layer2__bias": np.full(1, 1e300)}, {}, None, "too large for float32"),
        ({"layer1__weight": np.ones((6, 5), np.int8)}, {}, None, "layer1.weight has the type I8: supported are F64"),
        ({}, {"activation": "swish"}, None, "unknown activation 'swish'"),
        ({}, {}, "swish", "unknown activation 'swish'"),
        ({}, {"activation": "tanh"}, "relu", "says that its activation is 'tanh', but 'relu' was given"),
        ({}, {"activation": "tanh,relu"}, None, "2 activations 'tanh,relu' for 1 hidden layers"),
        (
            dict.fromkeys(["layer1__weight", "layer1__bias", "layer2__weight", "layer2__bias"]),
            {"a": "b"},
            None,
            "no tensor",
        ),
    ],
)
def test_tensors_that_are_no_plain_mlp_are_refused(tmp_path, changes, metadata, activation, message):
    path = tmp_path / "a.safetensors"
    save_file(tensors(**changes), path, metadata)
    with pytest.raises(ModelError) as caught:
        read_network(path, activation)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "note"),
    [
        (torch.bfloat16, ("weights of the file are bfloat16 and are turned to float32",)),
        (torch.float16, ("weights of the file are float16 and are turned to float32",)),
        (torch.float64, ("weights of the file are float64 and are rounded to float32",)),
        (torch.float32, ()),
    ],
)
def test_weights_of_other_precisions_are_read_and_said(tmp_path, dtype, note):
    from safetensors.torch import save_file as save_torch

    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).to(dtype)
    save_torch(module.state_dict(), tmp_path / "a.safetensors", {"activation": "relu"})
    network = read_network(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(network.layers[0].weight, module[0].weight.detach().float().numpy())
    assert len(network.notes) == len(note)
    assert all(text in told for text, told in zip(note, network.notes, strict=True))


def test_types_that_hold_no_plain_numbers_are_refused(tmp_path):
    from safetensors.torch import save_file as save_torch

    save_torch({"a.weight": torch.ones(1, 3).to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="has the type F8_E4M3: supported are F64, F32, F16, BF16; save the model as"):
        read_network(tmp_path / "a.safetensors")


class Bomb:
    """A pickle that would make a folder when loaded."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".joblib", ".ckpt", ".safetensors", ".onnx", ".npz"])
@pytest.mark.parametrize("kind", ["pickle 2", "pickle 5", "torch", "torch before 1.6"])
def test_pickles_are_refused_and_not_loaded(tmp_path, suffix, kind):
    bomb, stream = Bomb(tmp_path / "exploded"), io.BytesIO()
    if kind.startswith("pickle"):
        pickle.dump(bomb, stream, protocol=int(kind[-1]))
    else:
        torch.save(bomb, stream, _use_new_zipfile_serialization=kind == "torch")
    path = tmp_path / f"model{suffix}"
    path.write_bytes(stream.getvalue())
    with pytest.raises(ModelError, match=r"not loaded.*safetensors\.torch\.save_file\(model\.state_dict\(\)") as caught:
        read_network(path)
    assert "write_safetensors(read_sklearn(classifier), 'net.safetensors')" in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_suffix_is_refused_whatever_is_inside(tmp_path):
    write_safetensors(make_network(), tmp_path / "a.safetensors")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "a.pt")
    with pytest.raises(ModelError, match="by its suffix a pickle"):
        read_network(tmp_path / "a.pt")


@pytest.mark.parametrize("length", [0x0280, 0x0480])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path, length):
    network = make_network()
    short = serialize_safetensors(network, {"pad": ""})
    payload = serialize_safetensors(network, {"pad": "x" * (length - int.from_bytes(short[:8], "little"))})
    assert payload[:2] in (b"\x80\x02", b"\x80\x04")
    (tmp_path / "a.safetensors").write_bytes(payload)
    assert read_network(tmp_path / "a.safetensors").digest() == network.digest()


def test_paths_that_are_no_network_files_are_refused(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF")
    os.mkfifo(tmp_path / "pipe.onnx")
    for path, message in [
        (tmp_path, "is a folder: name the .safetensors or .onnx file in it"),
        (tmp_path / "no.onnx", "does not exist"),
        (tmp_path / "a.h5" / "no.onnx", "does not exist"),
        (tmp_path / "null\0.onnx", "does not exist"),
        (tmp_path / ("long" * 500 + ".onnx"), "cannot be read (File name too long): check name and permissions"),
        (tmp_path / "a.h5", "has the suffix '.h5': supported are .safetensors and .onnx; export a Keras model"),
        (tmp_path / "pipe.onnx", "is no regular file"),
        (Path("/dev/zero"), "is no regular file"),
    ]:
        with pytest.raises(ModelError) as caught:
            read_network(path)
        assert message in str(caught.value)


def test_an_unreadable_file_is_refused(tmp_path, monkeypatch):
    write_safetensors(make_network(), tmp_path / "a.safetensors")

    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(formats, "open", refuse, raising=False)
    with pytest.raises(ModelError, match=r"cannot be read \(Permission denied\): check its permissions"):
        read_network(tmp_path / "a.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 8, 60, -1])
@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_truncated_files_are_refused(tmp_path, suffix, keep):
    path = tmp_path / f"a{suffix}"
    (write_onnx if suffix == ".onnx" else write_safetensors)(make_network(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="save or download it again"):
        read_network(path)


def header(entries, data=b""):
    """The bytes of a .safetensors file with a header made by hand."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


ONE = json.dumps(entry([1, 1], 0, 4)).encode()


@pytest.mark.parametrize("name", ["l²", "l٣", "9" * 5000, "l" + "0" * 5000 + "1", "a" * 10_000])
def test_names_of_any_kind_are_names(name):
    names = [f"{name}.weight", f"{name}2.weight"]
    network = parse_safetensors(header({names[0]: entry([1, 2], 0, 8), names[1]: entry([3, 1], 8, 20)}, bytes(20)))
    assert network.hidden_widths == (1,)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (header({"l.weight": entry([0, 2**62], 0, 0)}), "l.weight has shape (0, 4611686018427387904), which holds no"),
        (header({"l.weight": entry([1, 1], 0, 4), "l.bias": entry([0], 4, 4)}, bytes(4)), "l.bias has shape (0,)"),
        (header({"l.weight": entry([2**40, 1], 0, 4)}, bytes(4)), "not a complete safetensors file"),
        (header({"l.weight": entry([1], 0, 4)}, bytes(4)), "l.weight has shape (1,): a plain MLP has (n_out, n_in)"),
        (header({"l.weight": entry([1, 1], 0, 4, "X9")}, bytes(4)), "not a complete safetensors file"),
        (header({"a.weight": entry([1, 1], 0, 4), "b.weight": entry([1, 1], 0, 4)}, bytes(4)), "not a complete"),
        (header({"weight": entry([1, 1], 0, 4)}, bytes(4)), "holds pairs NAME.weight and NAME.bias, found weight"),
        (
            header({"a.weight": entry([1, 1], 0, 4), "b.bias": entry([1], 4, 8)}, bytes(8)),
            "holds pairs NAME.weight and NAME.bias, found b.bias",
        ),
        (
            header(b'{"a.weight": %b, "a.weight": %b}' % (ONE, ONE), bytes(4)),
            "two entries of the same name",
        ),
        (header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "not a complete safetensors file"),
    ],
)
def test_headers_that_lie_are_refused(payload, message):
    with pytest.raises(ModelError) as caught:
        parse_safetensors(payload)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["relu(" + " " * 10**6, "relu," * 10**6, "leaky_relu(" + "9" * 10**6 + ")"])
def test_activations_without_end_are_refused_at_once(text):
    payload = header(
        {"__metadata__": {"activation": text}, "a1.weight": entry([1, 1], 0, 4), "a2.weight": entry([1, 1], 4, 8)},
        bytes(8),
    )
    started = time.process_time()
    with pytest.raises(ModelError) as caught:
        parse_safetensors(payload)
    assert time.process_time() - started < 5
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("maximum recursion depth exceeded")])
@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_a_file_that_is_too_much_for_the_machine_is_refused(tmp_path, monkeypatch, kind, error):
    def too_much(*_args):
        raise error

    path = tmp_path / f"a.{kind}"
    (write_onnx if kind == "onnx" else write_safetensors)(make_network(), path)
    monkeypatch.setattr(f"fairmend.tabular.formats.{kind}_networks.parse_{kind}", too_much)
    with pytest.raises(ModelError, match="too large or too deeply nested for this machine"):
        read_network(path)


def flipped(payload, position):
    changed = bytearray(payload)
    changed[position] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("write", [write_safetensors, write_onnx])
def test_a_file_that_reads_back_as_another_network_is_not_passed_over(tmp_path, monkeypatch, write):
    network = make_network()
    weight = network.layers[1].weight.tobytes()

    def damaging(path, payload):
        assert payload.count(weight) == 1
        write_atomically(path, flipped(payload, payload.index(weight) + 5))

    monkeypatch.setattr(formats, "write_atomically", damaging)
    with pytest.raises(RunError, match=r"read back it is not the network that was measured: layer2.weight has other"):
        write(network, tmp_path / "a.file")


def test_a_file_with_another_activation_is_not_passed_over(tmp_path, monkeypatch):
    other = make_network(activations=("relu", "tanh"))
    monkeypatch.setattr(formats, "write_atomically", lambda path, _: write_atomically(path, serialize_onnx(other)))
    with pytest.raises(RunError, match="not the network that was measured: its outputs differ by up to"):
        write_onnx(make_network(), tmp_path / "a.onnx")
    payload = serialize_safetensors(other, {})
    monkeypatch.setattr(formats, "write_atomically", lambda path, _: write_atomically(path, payload))
    with pytest.raises(RunError, match="not the network that was measured: its metadata are"):
        write_safetensors(make_network(), tmp_path / "a.safetensors")


@pytest.mark.parametrize("write", [write_safetensors, write_onnx])
@pytest.mark.parametrize("payload", [b"", b"half"])
def test_a_file_that_cannot_be_read_back_is_not_passed_over(tmp_path, monkeypatch, write, payload):
    monkeypatch.setattr(formats, "write_atomically", lambda path, _: write_atomically(path, payload))
    with pytest.raises(RunError, match="not the network that was measured: it cannot be read"):
        write(make_network(), tmp_path / "a.file")


def test_rounding_of_large_weights_is_no_difference(tmp_path):
    """Two paths of 1e6 that cancel: in float32 the outputs of the file are far off, its weights are right."""
    network = Network(
        (
            Layer(np.array([[1e6, 3e5], [1e6 + 0.25, 3e5 + 0.5]]), np.zeros(2)),
            Layer(np.array([[1.0, -1.0]]), np.zeros(1)),
        )
    )
    write_onnx(network, tmp_path / "a.onnx")


PAYLOAD = serialize_safetensors(make_network(), {})


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_gives_a_network_or_a_model_error(position, byte):
    payload = bytearray(PAYLOAD)
    payload[position] = byte
    with suppress(ModelError):
        assert isinstance(parse_safetensors(bytes(payload)), Network)


SIZES = {"F32": 4, "F64": 8, "BF16": 2, "F16": 2, "I8": 1, "F8_E4M3": 1}
PARTS = st.sampled_from(["layer", "fc", "0", "2", "10", "²", "in", "net.", "", ".weight", ".bias", "0" * 50, "\x1b"])
NAMES = st.tuples(PARTS, PARTS, st.sampled_from([".weight", ".weight", ".bias", ""])).map("".join)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 3]), min_size=1, max_size=3)
ACTIVATIONS = st.sampled_from([None, "relu", "relu,tanh", "swish", "", "elu(1e999)", "leaky_relu(", ",,"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(sorted(SIZES))), max_size=6), ACTIVATIONS, ACTIVATIONS)
def test_any_header_gives_a_network_or_a_model_error(tensors, stored, given_activation):
    entries, stop = {}, 0
    for name, (shape, dtype) in tensors.items():
        start, stop = stop, stop + SIZES[dtype] * int(np.prod(shape))
        entries[name] = entry(shape, start, stop, dtype)
    if stored is not None:
        entries["__metadata__"] = {"activation": stored}
    with suppress(ModelError):
        assert isinstance(parse_safetensors(header(entries, bytes(stop)), given_activation), Network)


@pytest.mark.parametrize("write", [write_safetensors, write_onnx])
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch, write, failing):
    path = tmp_path / "a.file"
    path.write_bytes(b"old")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\): choose a folder"):
        write(make_network(), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.file"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(RunError, match="nowhere"):
        write_safetensors(make_network(), tmp_path / "nowhere" / "a.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="folder cannot be written"):
        write_safetensors(make_network(), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
