"""The network description: reference forward, meanings of "drop", dials, refusals."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fairmend.errors import DataError, InputError, ModelError
from fairmend.masks import Mask
from fairmend.tabular.networks import networks
from fairmend.tabular.networks.activations import NAMES, Activation
from fairmend.tabular.networks.networks import Layer, Network, decide, emitted

TORCH = {
    "identity": lambda x: x,
    "relu": functional.relu,
    "leaky_relu(0.2)": lambda x: functional.leaky_relu(x, 0.2),
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu(0.7)": lambda x: functional.elu(x, 0.7),
}


def make_network(widths=(5, 4, 3, 1), activation="relu", seed=0) -> Network:
    rng = np.random.default_rng(seed)
    last = len(widths) - 2
    return Network(
        tuple(
            Layer(
                rng.standard_normal((n_out, n_in)),
                rng.standard_normal(n_out),
                Activation.parse("identity" if index == last else activation),
            )
            for index, (n_in, n_out) in enumerate(pairwise(widths))
        )
    )


def rows(n=20, n_features=5, seed=1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, n_features))


@pytest.mark.parametrize("text", TORCH)
def test_activations_are_those_of_torch(text):
    values = np.concatenate([np.linspace(-30, 30, 301), [-1e3, 0.0, 1e3]])
    expected = TORCH[text](torch.tensor(values)).numpy()
    activation = Activation.parse(text)
    np.testing.assert_allclose(activation(values), expected, rtol=1e-12, atol=1e-14)
    assert str(activation) == text


def test_every_named_activation_is_compared_with_torch():
    assert {Activation.parse(text).name for text in TORCH} == set(NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swish", "unknown activation 'swish': supported are identity, relu"),
        ("relu(3)", "relu takes no parameter"),
        ("elu(x)", "'x' is not a number"),
        ("elu(inf)", "must be finite"),
        ("relu(", "unknown activation 'relu('"),
        ("r" * 100, f"unknown activation '{'r' * 60}'"),
        ("", "unknown activation ''"),
    ],
)
def test_activations_that_mean_nothing_are_refused(text, message):
    with pytest.raises(ModelError) as caught:
        Activation.parse(text)
    assert message in str(caught.value)


def test_defaults_of_parameters_are_those_of_torch():
    assert Activation.parse(" Leaky_ReLU ") == Activation("leaky_relu", 0.01)
    assert Activation.parse("elu") == Activation("elu", 1.0)


@pytest.mark.parametrize("text", TORCH)
def test_logits_are_those_of_torch(text):
    network = make_network(activation=text)
    value = torch.tensor(rows())
    for index, layer in enumerate(network.layers):
        value = functional.linear(value, torch.tensor(layer.weight).double(), torch.tensor(layer.bias).double())
        if index < 2:
            value = TORCH[text](value)
    np.testing.assert_allclose(network.logits(rows()), value.numpy(), rtol=1e-12)


def test_blocks_of_rows_change_nothing(monkeypatch):
    network, mask = make_network(), Mask(0b101, 7)
    whole = network.logits(rows(23), mask)
    monkeypatch.setattr(networks, "_BLOCK", 20)
    np.testing.assert_allclose(network.logits(rows(23), mask), whole, rtol=1e-13)
    assert network.logits(np.empty((0, 5))).shape == (0, 1)


def test_a_dropped_neuron_emits_its_constant():
    network = make_network()
    X, mask = rows(), Mask(0b0100010, 7)  # neuron 1 of hidden 1, neuron 1 of hidden 2
    weights = [layer.weight.astype(np.float64) for layer in network.layers]
    biases = [layer.bias.astype(np.float64) for layer in network.layers]
    for drop in ("output", "weights", np.arange(7) - 2.5):
        constants = emitted(network, drop)
        first = np.maximum(X @ weights[0].T + biases[0], 0)
        first[:, 1] = constants[1]
        second = np.maximum(first @ weights[1].T + biases[1], 0)
        second[:, 1] = constants[5]
        np.testing.assert_allclose(network.logits(X, mask, drop), second @ weights[2].T + biases[2], rtol=1e-12)


def test_dropping_weights_is_zeroing_the_incoming_row_with_the_bias_kept():
    network = make_network(activation="sigmoid")
    constants = emitted(network, "weights")
    biases = np.concatenate([layer.bias for layer in network.layers[:-1]])
    np.testing.assert_allclose(constants, 1 / (1 + np.exp(-biases.astype(np.float64))))
    assert not emitted(network, "output").any()


def test_clamp_is_the_largest_output_over_the_data(monkeypatch):
    network, X = make_network(), rows(30)
    first = np.maximum(X @ network.layers[0].weight.T.astype(np.float64) + network.layers[0].bias, 0)
    constants = emitted(network, "clamp", X)
    np.testing.assert_allclose(constants[:4], first.max(axis=0))
    monkeypatch.setattr(networks, "_BLOCK", 20)
    np.testing.assert_allclose(emitted(network, "clamp", X), constants, rtol=1e-13)
    with pytest.raises(DataError, match="at least one row"):
        emitted(network, "clamp", X[:0])


def test_dials_shift_the_logits():
    binary, several = make_network(), make_network((5, 4, 3))
    assert [dial.name for dial in binary.threshold_dials(-1, 1, 0.1)] == ["output bias"]
    assert [dial.name for dial in several.threshold_dials(-1, 1, 0.1)] == ["output bias 1", "output bias 2"]
    np.testing.assert_array_equal(binary.logits(rows(), Mask(0, 7, (0.5,))), binary.logits(rows()) + 0.5)
    np.testing.assert_array_equal(
        several.logits(rows(), Mask(0, 4, (0.5, -1.0))), several.logits(rows()) + np.array([0.0, 0.5, -1.0])
    )
    with pytest.raises(InputError, match="takes none or 1"):
        binary.logits(rows(), Mask(0, 7, (0.5, 0.5)))


def test_the_space_has_one_site_per_hidden_layer():
    network = make_network((5, 4, 3, 2))
    space = network.space(1, 3, frozen=[2], dials=network.threshold_dials())
    assert [(site.name, site.units) for site in space.sites] == [("hidden 1", 4), ("hidden 2", 3)]
    assert (space.min_drop, space.max_drop, space.frozen, len(space.dials)) == (1, 3, {2}, 1)
    assert (network.n_features, network.n_outputs, network.n_classes, network.n_units) == (5, 2, 2, 7)
    assert make_network().n_classes == 2
    with pytest.raises(ModelError, match="no hidden layer"):
        make_network((5, 1)).space()


def test_decisions():
    assert decide(np.array([[-1.0], [0.0], [1e-300]])).tolist() == [0, 0, 1]
    assert decide(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])).tolist() == [0, 2]


def test_the_digest_depends_on_weights_and_activations_only():
    network = make_network()
    same = Network(tuple(Layer(la.weight, la.bias, la.activation, "x") for la in network.layers), ("read somewhere",))
    assert same.digest() == network.digest() == make_network().digest()
    assert make_network(seed=1).digest() != network.digest()
    assert make_network(activation="tanh").digest() != network.digest()


def test_weights_are_copied_and_cannot_be_changed():
    weight = np.ones((1, 2))
    layer = Layer(weight, np.zeros(1))
    weight[:] = 5
    assert layer.weight.tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0, 0] = 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Network(()), "at least one layer"),
        (lambda: Layer(np.ones(3), np.ones(3)), "shape (n_out, n_in), got (3,)"),
        (lambda: Layer(np.ones((2, 0)), np.ones(2)), "got (2, 0)"),
        (lambda: Layer(np.ones((2, 3)), np.ones(3)), "2 neurons but a bias of shape (3,)"),
        (lambda: Layer(np.full((1, 1), np.nan), np.ones(1), name="fc"), "layer 'fc': 1 values of the weight are NaN"),
        (lambda: Layer(np.ones((1, 1)), np.full(1, 1e39)), "too large for float32"),
        (lambda: Network((Layer(np.ones((2, 3)), np.ones(2)), Layer(np.ones((1, 3)), np.ones(1)))), "do not chain"),
        (lambda: Network((Layer(np.ones((1, 3)), np.ones(1), Activation("relu")),)), "must give logits, but relu"),
    ],
)
def test_networks_that_cannot_be_are_refused(build, message):
    with pytest.raises(ModelError) as caught:
        build()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: n.logits(rows(n_features=4)), "rows of 5 features, got an array of shape (20, 4)"),
        (lambda n: n.logits([["a"] * 5]), "got an array of dtype <U1"),
        (lambda n: n.logits(rows(), Mask(1, 6)), "the mask is of 6 units, the network has 7"),
        (lambda n: n.logits(rows(), Mask(1, 7), "clamp"), "needs data: pass emitted("),
        (lambda n: n.logits(rows(), Mask(1, 7), "zero"), "must be one of output, weights, clamp"),
        (lambda n: emitted(n, np.zeros(3)), "shape (7,); got shape (3,)"),
        (lambda n: emitted(n, np.full(7, np.inf)), "one finite number"),
    ],
)
def test_arguments_that_cannot_work_are_refused(call, message):
    with pytest.raises(InputError) as caught:
        call(make_network())
    assert message in str(caught.value)


@given(st.integers(0, 2**7 - 1), st.integers(0, 6))
def test_dropping_a_neuron_that_already_emits_its_constant_changes_nothing(bits, unit):
    network = make_network(seed=3)
    mask = Mask(bits & ~(1 << unit), 7)
    position = unit if unit < 4 else unit - 4
    layers = list(network.layers)
    layer = layers[unit >= 4]
    weight = layer.weight.copy()
    weight[position] = 0
    layers[unit >= 4] = Layer(weight, layer.bias, layer.activation)
    silenced = Network(tuple(layers))
    np.testing.assert_allclose(
        silenced.logits(rows(), mask, "weights"), network.logits(rows(), mask.flip(unit), "weights"), rtol=1e-12
    )
