"""Does the compiled kernel count what torch counts? A check of the installation, in a second, on a tiny network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fairmend.health import Check, Unsound, check
from fairmend.masks import Mask
from fairmend.tabular.counting.evaluator import Path, Rows, TabularEvaluator
from fairmend.tabular.networks.activations import Activation, FloatArray
from fairmend.tabular.networks.networks import Layer, Network

_WIDTHS = (4, 8, 6, 1)
_N_ROWS, _N_MASKS = 200, 40


def self_check(seed: int = 0) -> Iterator[Check]:
    """Masks of a tiny random network, counted by the kernel and by the batched path, against plain torch."""
    yield check("self-check", "network: kernel as torch", partial(_counts_as_torch, "incremental", seed))
    yield check("self-check", "network: batches as torch", partial(_counts_as_torch, "batched", seed))


def _counts_as_torch(path: Path, seed: int) -> str:
    rng = np.random.default_rng(seed)
    layers = []
    for index, (n_in, n_out) in enumerate(pairwise(_WIDTHS)):
        activation = Activation.parse(("relu", "tanh", "identity")[index])
        weight, bias = rng.normal(size=(n_out, n_in)), rng.normal(size=n_out) / 4
        layers.append(Layer(weight.astype(np.float32), bias.astype(np.float32), activation))
    network = Network(tuple(layers))
    X, y, groups = rng.normal(size=(_N_ROWS, _WIDTHS[0])), np.arange(_N_ROWS) % 2, np.arange(_N_ROWS) // 2 % 2
    space = network.space()
    masks = [space.mask(np.flatnonzero(rng.random(space.n_units) < 0.3).tolist()) for _ in range(_N_MASKS)]
    evaluator = TabularEvaluator(network, Rows(X, y, groups, ("a", "b")), space, path=path)
    for mask, measured in zip(masks, evaluator.measure(masks), strict=True):
        positive = _positives(network, X, mask)
        expected = [int(positive[(groups == group) & (y == label)].sum()) for group in (0, 1) for label in (0, 1)]
        found = [round(part) for part in measured.parts[:4]]
        if found != expected:
            raise Unsound(
                f"{found} people predicted positive by group and label, torch says {expected}, without the neurons "
                f"{list(mask.units())}: do not trust figures of this installation"
            )
    return f"{_N_MASKS} masks on {_N_ROWS} rows"


def _positives(network: Network, X: FloatArray, mask: Mask) -> npt.NDArray[np.bool_]:
    """Who is predicted positive, by torch in float64 and nothing of fairmend but the weights; (n_rows,) booleans."""
    import torch

    values = torch.tensor(X, dtype=torch.float64)
    kept = [torch.tensor(~dropped) for dropped in network.dropped(mask)]
    for index, layer in enumerate(network.layers):
        weight, bias = (torch.tensor(array, dtype=torch.float64) for array in (layer.weight, layer.bias))
        values = torch.nn.functional.linear(values, weight, bias)
        if index < len(kept):
            values = (torch.relu, torch.tanh)[index](values) * kept[index]
    return np.asarray(values[:, 0] > 0)
