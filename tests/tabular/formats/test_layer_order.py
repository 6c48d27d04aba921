"""The order of layers that a .safetensors file keeps by name only."""

from itertools import permutations

import numpy as np
import pytest
from safetensors.numpy import save_file

from fairmend.errors import ModelError
from fairmend.tabular.formats.formats import read_network
from fairmend.tabular.formats.safetensors_networks import order_layers


def shapes(*layers):
    """{"a": (n_out, n_in)} of ("a", n_in, n_out) ..."""
    return {name: (n_out, n_in) for name, n_in, n_out in layers}


LONG = ("1" + "0" * 5000, "2" + "0" * 5000, "1" + "0" * 5001)  # more digits than Python turns into a number
NUMBERED = {
    "plain": ["layer1", "layer2", "layer3", "layer10"],
    "sequential": ["0", "2", "4", "11"],
    "inside": ["block0.fc1", "block0.fc2", "block1.fc1", "block1.fc2"],
    "what follows the number may differ": ["net.0.in", "net.1.mid", "net.2.mid", "net.10.out"],
    "compiled": ["_orig_mod.0", "_orig_mod.2", "_orig_mod.9", "_orig_mod.10"],
    "leading zeros": ["layer01", "layer02", "layer09", "layer10"],
    "long": [f"layer{digit}" for digit in LONG],
}


@pytest.mark.parametrize("names", NUMBERED.values(), ids=NUMBERED)
def test_numbers_tell_the_order_where_the_shapes_allow_any(names):
    for given in permutations(names):
        found, notes = order_layers(shapes(*((name, 8, 8) for name in given)))
        assert found == names
        assert notes == ()


UNNUMBERED = {
    "words": [("input", 4, 8), ("hidden", 8, 6), ("output", 6, 1)],
    "counted in words": [("one", 4, 8), ("two", 8, 6), ("three", 6, 1)],
    "a head without a number": [("fc1", 4, 8), ("fc2", 8, 8), ("classifier", 8, 1)],
    "two parts": [("encoder.0", 4, 8), ("encoder.2", 8, 8), ("decoder.0", 8, 5), ("decoder.2", 5, 1)],
    "no digit of ASCII": [("l²", 4, 8), ("l¹", 8, 6), ("l٣", 6, 1)],
}


@pytest.mark.parametrize("layers", UNNUMBERED.values(), ids=UNNUMBERED)
def test_names_without_an_order_are_taken_in_the_only_one_that_chains(layers):
    names = [name for name, _, _ in layers]
    for given in permutations(layers):
        found, notes = order_layers(shapes(*given))
        assert found == names
        assert notes == (f"the layers are taken in the only order in which they chain: {', '.join(names)}",)


def test_numbered_layers_that_chain_only_otherwise_are_taken_so_and_it_is_said():
    found, notes = order_layers(shapes(("fc1", 8, 1), ("fc2", 6, 8), ("fc3", 4, 6)))
    assert found == ["fc3", "fc2", "fc1"]
    assert notes == ("the layers chain only in another order than their numbers: fc3, fc2, fc1",)


@pytest.mark.parametrize(
    ("layers", "candidates"),
    [
        ([("one", 4, 4), ("two", 4, 4), ("three", 4, 1)], "one, two, three or two, one, three"),
        ([("in", 4, 4), ("fc1", 4, 4), ("fc2", 4, 1)], "fc1, in, fc2 or in, fc1, fc2"),
        ([("layer", 4, 4), ("layer1", 4, 4)], "layer, layer1 or layer1, layer"),
        ([("layer1", 4, 4), ("layer01", 4, 4)], "layer01, layer1 or layer1, layer01"),
        ([("a.0", 1, 1), ("a.1", 1, 1), ("b.0", 1, 1)], "a.0, a.1, b.0 or a.0, b.0, a.1"),
    ],
)
def test_several_orders_are_refused_with_two_of_them_and_the_way_out(layers, candidates):
    with pytest.raises(ModelError) as caught:
        order_layers(shapes(*layers))
    assert f"do not tell their order, and their shapes allow several, such as {candidates}: " in str(caught.value)
    assert "rename the tensors in the order in which the network uses them, layer1.weight" in str(caught.value)


def test_a_puzzle_without_end_is_given_up():
    rng = np.random.default_rng(0)
    widths = rng.integers(1, 4, (60, 2))
    names = [chr(97 + index % 26) * (1 + index // 26) for index in range(60)]
    layers = [(name, int(a), int(b)) for name, (a, b) in zip(names, widths, strict=True)]
    with pytest.raises(ModelError, match="told neither by their names nor by their shapes: rename"):
        order_layers(shapes(*layers, ("zzzz", 7, 9)))
    with pytest.raises(ModelError, match="the order of 300 layers is not told by their names"):
        order_layers(shapes(*((chr(256 + index), 1, 1) for index in range(300))))


def saved(path, layers, activation="relu"):
    rng = np.random.default_rng(0)
    tensors = {}
    for name, n_in, n_out in layers:
        tensors[f"{name}.weight"] = rng.standard_normal((n_out, n_in)).astype(np.float32)
        tensors[f"{name}.bias"] = rng.standard_normal(n_out).astype(np.float32)
    save_file(tensors, path, {"activation": activation})
    return tensors


def test_a_file_is_computed_in_the_order_that_was_found(tmp_path):
    tensors = saved(tmp_path / "a.safetensors", [("input", 4, 8), ("hidden", 8, 6), ("output", 6, 1)], "relu,tanh")
    network = read_network(tmp_path / "a.safetensors")
    X = np.random.default_rng(1).standard_normal((20, 4))
    values = np.maximum(X @ tensors["input.weight"].T + tensors["input.bias"], 0)
    values = np.tanh(values @ tensors["hidden.weight"].T + tensors["hidden.bias"])
    np.testing.assert_allclose(network.logits(X), values @ tensors["output.weight"].T + tensors["output.bias"])
    assert [site.name for site in network.space().sites] == ["input", "hidden"]
    assert network.notes == ("the layers are taken in the only order in which they chain: input, hidden, output",)


def test_two_networks_in_one_file_are_refused(tmp_path):
    saved(tmp_path / "a.safetensors", [("ema.0", 4, 8), ("ema.2", 8, 1), ("model.0", 4, 8), ("model.2", 8, 1)])
    with pytest.raises(ModelError, match=r"do not chain: ema\.2 gives 1 values, model\.0 takes 4"):
        read_network(tmp_path / "a.safetensors")
