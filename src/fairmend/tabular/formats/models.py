"""Networks of every kind that a person may hold: torch modules, scikit-learn classifiers, files and our own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

from fairmend.errors import ModelError
from fairmend.masks import Mask
from fairmend.tabular.formats.formats import read_network
from fairmend.tabular.formats.sklearn_networks import bake_sklearn, read_sklearn
from fairmend.tabular.formats.wrappers import is_sklearn, is_torch, unwrapped, way_inside
from fairmend.tabular.networks.baking import bake
from fairmend.tabular.networks.networks import Drop, Network

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier
    from torch import nn

    Model: TypeAlias = Network | nn.Module | MLPClassifier | str | os.PathLike[str]

SUPPORTED = (
    "a torch.nn.Module, a fitted scikit-learn MLPClassifier, a fairmend Network, or a .safetensors or .onnx file"
)


def is_model(value: Any) -> bool:
    """Whether a value is a network of some kind, rather than data."""
    value = unwrapped(value)
    return isinstance(value, (Network, str, os.PathLike)) or is_torch(value) or is_sklearn(value)


def read_model(model: Model) -> Network:
    """The network of a model of any kind.

    Raises:
        ModelError: something else, or a model that cannot be read; the message names the part.
    """
    model = unwrapped(model)
    if isinstance(model, Network):
        return model
    if isinstance(model, (str, os.PathLike)):
        return read_network(model)
    if is_torch(model):
        from fairmend.tabular.formats.torch_networks import read_torch

        return read_torch(model)
    if is_sklearn(model):
        return read_sklearn(model)
    raise ModelError(f"expected {SUPPORTED}, got {type(model).__name__}{way_inside(model)}")


def bake_model(model: Model, network: Network, mask: Mask, drop: Drop) -> Any:
    """A repaired copy of the same kind as the model: a module, a classifier, or a `Network` for our own and files.

    Of a wrapper that was taken off (see `unwrapped`) the copy is of what was inside.

    Args:
        model: what was given; it is left as it is.
        network: what `read_model` read from it.
        mask, drop: see `fairmend.tabular.networks.baking.bake`.
    """
    model = unwrapped(model)
    if is_torch(model):
        from fairmend.tabular.formats.torch_networks import bake_torch

        return bake_torch(model, mask, drop)
    if is_sklearn(model):
        return bake_sklearn(model, mask, drop)
    return bake(network, mask, drop)
