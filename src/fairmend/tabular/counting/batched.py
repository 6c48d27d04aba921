"""The plain path: logits of several masks at once in torch, for any number of outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from fairmend.masks import Mask
from fairmend.tabular.networks.activations import Activation, FloatArray
from fairmend.tabular.networks.networks import Network

_VALUES = 1 << 23  # activations held at a time per layer: 64 MiB of float64


class BatchedForward:
    """Runs masked copies of a network over fixed rows, in float64.

    Args:
        network: what to run.
        X: (n_rows, n_features).
        emitted: (n_units,) what a dropped unit emits.
    """

    def __init__(self, network: Network, X: npt.ArrayLike, emitted: FloatArray) -> None:
        self._network = network
        self._weights = [_tensor(layer.weight).T for layer in network.layers]
        self._biases = [_tensor(layer.bias) for layer in network.layers]
        self._emitted = [_tensor(part) for part in network.by_layer(emitted)]
        # Nothing that is dropped comes before the first hidden layer: its outputs are computed once.
        self._first = _apply(network.layers[0].activation, _tensor(X) @ self._weights[0] + self._biases[0])

    def logits(self, masks: Sequence[Mask]) -> Iterator[tuple[slice, FloatArray]]:
        """(which masks, logits of shape (n_masks_of_the_slice, n_rows, n_outputs)), slice by slice."""
        widest = max(layer.n_out for layer in self._network.layers)
        step = max(1, _VALUES // (len(self._first) * widest))
        for start in range(0, len(masks), step):
            part = slice(start, min(start + step, len(masks)))
            yield part, self._run(masks[part])

    @torch.inference_mode()
    def _run(self, masks: Sequence[Mask]) -> FloatArray:
        dropped = np.stack([mask.dropped() for mask in masks])
        sites = np.split(dropped, np.cumsum(self._network.hidden_widths)[:-1], axis=1)
        values = self._first
        for index, layer in enumerate(self._network.layers):
            if index:
                values = _apply(layer.activation, values @ self._weights[index] + self._biases[index])
            if index < len(sites):
                gone = torch.as_tensor(sites[index], device=values.device)[:, None, :]
                values = torch.where(gone, self._emitted[index], values)
        shifts = np.stack([self._network.shift(mask) for mask in masks])
        out: FloatArray = values.double().cpu().numpy() + shifts[:, None, :]
        return out


def _apply(activation: Activation, z: torch.Tensor) -> torch.Tensor:
    given, options = activation.torch_arguments()
    out: torch.Tensor = getattr(torch.nn, activation.kind.torch)(*given, **options)(z)
    return out


def _tensor(array: npt.ArrayLike) -> torch.Tensor:
    return torch.as_tensor(np.array(array, dtype=np.float64))
