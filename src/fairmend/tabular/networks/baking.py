"""Write a mask into a network's weights, so that any runtime gives the repaired predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fairmend.masks import Mask
from fairmend.tabular.networks.activations import FloatArray
from fairmend.tabular.networks.networks import Drop, Layer, Network, emitted


def bake(network: Network, mask: Mask, drop: Drop = "output") -> Network:
    """The repaired network in its original shape: dropped neurons are silent in the weights, dials are in the bias.

    drop="weights" zeroes a neuron's incoming weights, as the published artefact does. Every other meaning zeroes its
    outgoing weights and adds the constant it emits to the biases of the next layer.

    Raises:
        InputError: a mask of another space, or drop="clamp" without constants (see `emitted`).
    """
    dropped = network.dropped(mask)
    weights = [layer.weight.astype(np.float64) for layer in network.layers]
    biases = [layer.bias.astype(np.float64) for layer in network.layers]
    if isinstance(drop, str) and drop == "weights":
        for weight, units in zip(weights, dropped, strict=False):
            weight[units] = 0.0
    else:
        silence(weights, biases, dropped, network.by_layer(emitted(network, drop)))
    biases[-1] += network.shift(mask)
    return _rebuilt(network, weights, biases)


def slim(network: Network, mask: Mask, drop: Drop = "output") -> Network:
    """The repaired network without the dropped neurons: the constants they emit are in the next layer's biases.

    A layer that loses all its neurons keeps one silent neuron, because formats and runtimes allow no empty layer.

    Raises:
        InputError: as `bake`.
    """
    baked = bake(network, mask, emitted(network, drop))
    weights, biases = [layer.weight for layer in baked.layers], [layer.bias for layer in baked.layers]
    for index, units in enumerate(network.dropped(mask)):
        kept = ~units
        if not kept.any():
            kept[0] = True
            weights[index] = np.zeros_like(weights[index])
        weights[index], biases[index] = weights[index][kept], biases[index][kept]
        weights[index + 1] = weights[index + 1][:, kept]
    return _rebuilt(network, weights, biases)


def silence(
    weights: Sequence[FloatArray],
    biases: Sequence[FloatArray],
    dropped: Sequence[npt.NDArray[np.bool_]],
    constants: Sequence[FloatArray],
) -> None:
    """Zero, in place, the outgoing weights of dropped neurons and add what they emit to the next layer's biases.

    Args:
        weights, biases: of all layers, (n_out, n_in) and (n_out,).
        dropped, constants: of the hidden layers, (n_out,): which neurons, and what the next layer receives from them.
    """
    for weight, bias, units, values in zip(weights[1:], biases[1:], dropped, constants, strict=True):
        bias += weight[:, units] @ values[units]  # noqa: PLW2901 - in place is the point
        weight[:, units] = 0.0


def _rebuilt(
    network: Network, weights: Sequence[npt.NDArray[np.floating]], biases: Sequence[npt.NDArray[np.floating]]
) -> Network:
    layers = tuple(
        Layer(weight.astype(np.float32), bias.astype(np.float32), layer.activation, layer.name)
        for layer, weight, bias in zip(network.layers, weights, biases, strict=True)
    )
    return replace(network, layers=layers)
