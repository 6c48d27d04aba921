"""Masked, baked and slimmed networks predict alike."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairmend.errors import InputError
from fairmend.masks import Mask
from fairmend.tabular.formats.formats import read_network
from fairmend.tabular.networks.activations import NAMES, Activation
from fairmend.tabular.networks.baking import bake, slim
from fairmend.tabular.networks.networks import Layer, Network, decide, emitted


def make_network(widths, activation="relu", seed=0) -> Network:
    rng = np.random.default_rng(seed)
    layers = [
        Layer(rng.standard_normal((n_out, n_in)), rng.standard_normal(n_out), Activation.parse(activation), f"fc{n_in}")
        for n_in, n_out in pairwise(widths)
    ]
    layers[-1] = Layer(layers[-1].weight, layers[-1].bias, name=layers[-1].name)
    return Network(tuple(layers))


def rows(network, n=40, seed=1):
    return np.random.default_rng(seed).standard_normal((n, network.n_features))


def assert_alike(network, repaired, mask, drop, X):
    """Equal logits up to the float32 of folded biases, and equal classes wherever the margin is larger than that."""
    expected, found = network.logits(X, mask, drop), repaired.logits(X)
    tolerance = 1e-5 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    ordered = np.sort(np.hstack([expected, np.zeros_like(expected[:, :1])] if expected.shape[1] == 1 else [expected]))
    clear = ordered[:, -1] - ordered[:, -2] > 2 * tolerance
    np.testing.assert_array_equal(decide(found)[clear], decide(expected)[clear])


@settings(max_examples=150, deadline=None)
@given(
    st.data(),
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.integers(1, 3),
    st.sampled_from(NAMES),
    st.sampled_from(["output", "weights", "clamp", "constants"]),
    st.integers(0, 5),
)
def test_masked_baked_and_slimmed_networks_agree(data, hidden, n_outputs, activation, drop, seed):
    network = make_network((4, *hidden, n_outputs), activation, seed)
    X = rows(network)
    if drop == "clamp":
        drop = emitted(network, "clamp", X)
    elif drop == "constants":
        drop = np.random.default_rng(seed).standard_normal(network.n_units)
    space = network.space(dials=network.threshold_dials(-2, 2, 0.1))
    units = data.draw(st.sets(st.integers(0, network.n_units - 1)))
    dials = data.draw(st.tuples(*[st.floats(-2, 2) for _ in space.dials]))
    mask = space.mask(units, dials)
    baked, slimmed = bake(network, mask, drop), slim(network, mask, drop)
    assert_alike(network, baked, mask, drop, X)
    assert_alike(network, slimmed, mask, drop, X)
    assert baked.hidden_widths == network.hidden_widths
    kept = [max(1, int((~part).sum())) for part in network.dropped(mask)]
    assert list(slimmed.hidden_widths) == kept


def test_dropped_outputs_are_baked_exactly():
    network = make_network((5, 8, 8, 1))
    mask = Mask(0b1010_0110_0001_1000, 16)
    baked = bake(network, mask)
    np.testing.assert_array_equal(baked.logits(rows(network)), network.logits(rows(network), mask))
    assert not baked.layers[1].weight[:, [3, 4]].any()
    assert not baked.layers[2].weight[:, [1, 2, 5, 7]].any()
    np.testing.assert_array_equal(baked.layers[0].weight, network.layers[0].weight)


def test_dropped_weights_are_baked_as_published():
    network = make_network((5, 8, 8, 1))
    baked = bake(network, Mask(0b10, 16), "weights")
    expected = network.layers[0].weight.copy()
    expected[1] = 0
    np.testing.assert_array_equal(baked.layers[0].weight, expected)
    np.testing.assert_array_equal(baked.layers[0].bias, network.layers[0].bias)
    np.testing.assert_array_equal(baked.layers[1].weight, network.layers[1].weight)


def test_the_untouched_mask_changes_nothing():
    network = make_network((5, 8, 1), "gelu")
    assert bake(network, Mask(0, 8)).digest() == slim(network, Mask(0, 8)).digest() == network.digest()


def test_a_layer_without_kept_neurons_keeps_one_silent_neuron():
    network = make_network((5, 3, 2, 1))
    slimmed = slim(network, Mask(0b00111, 5), "weights")
    assert slimmed.hidden_widths == (1, 2)
    assert not slimmed.layers[0].weight.any()
    assert_alike(network, slimmed, Mask(0b00111, 5), "weights", rows(network))


def test_names_and_the_original_are_kept():
    network = make_network((5, 3, 1))
    before = network.digest()
    assert [layer.name for layer in bake(network, Mask(1, 3)).layers] == ["fc5", "fc3"]
    assert network.digest() == before


def test_a_mask_of_another_space_is_refused():
    for change in (bake, slim):
        with pytest.raises(InputError, match="mask is of 4 units, the network has 3"):
            change(make_network((5, 3, 1)), Mask(1, 4))
        with pytest.raises(InputError, match="needs data"):
            change(make_network((5, 3, 1)), Mask(1, 3), "clamp")


@pytest.mark.parametrize("drop", ["output", "weights"])
def test_published_networks_predict_alike_masked_baked_and_slimmed(shared_data, drop):
    for path in sorted((shared_data / "neufair" / "models").glob("*-42.safetensors")):
        network = read_network(path)
        mask = network.space(dials=network.threshold_dials()).sample(np.random.default_rng(0), size=12).turn((0.1,))
        for repaired in (bake(network, mask, drop), slim(network, mask, drop)):
            assert_alike(network, repaired, mask, drop, rows(network, 500))
