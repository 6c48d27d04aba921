"""Networks of every kind that a person may hold: torch modules, scikit-learn classifiers, files and our own.

A file is hostile until it is parsed: pickles are refused without being opened by a loader, whatever their name says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fairmend.errors import ModelError, RunError
from fairmend.files import write_atomically
from fairmend.masks import Mask
from fairmend.tabular.formats.sklearn_networks import WAY_TO_A_FILE, bake_sklearn, read_sklearn
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
_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib"})
_KERAS_SUFFIXES = frozenset({".h5", ".keras"})
_OF_KERAS = "export a Keras model, model.export('net.onnx', format='onnx')"
_REMEDY = (
    "loading it could run code of whoever made it. Convert it where you trust it: "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors'), or torch.onnx.export. "
    f"{WAY_TO_A_FILE}"
)


def read_network(path: str | os.PathLike[str], activation: str | None = None) -> Network:
    """The network in a .safetensors file of a plain MLP, or in an .onnx file of one.

    A .safetensors file holds tensor pairs NAME.weight (n_out, n_in) and NAME.bias (optional), in the natural order of
    their names ("layer2" before "layer10") or, where the names tell none, in the only order in which they chain (then
    `Network.notes` says so). The activation of the hidden layers is, first found: the file's metadata key
    "activation", the argument, relu (then `Network.notes` says so). It is one name for all hidden layers or one per
    layer, separated by commas: "relu", "leaky_relu(0.2)", "tanh,relu".

    An .onnx file says itself which activations it has; the argument is then not allowed. Weights in a file beside it
    (NAME.onnx.data, as torch.onnx.export writes) are read from there; of a classifier's outputs the probabilities are
    read and the labels left aside.

    Raises:
        ModelError: a missing, damaged or unsupported file, a pickle, tensors that form no plain MLP, weights that are
            not finite, or an activation that contradicts the file.
    """
    file = Path(path)
    payload = _read(file)
    suffix = file.suffix.lower()
    try:
        if suffix == ".safetensors":
            from fairmend.tabular.formats.safetensors_networks import parse_safetensors

            return parse_safetensors(payload, activation)
        if activation is not None:
            raise ModelError(f"an .onnx file names its own activations: leave the activation {activation!r} out")
        from fairmend.tabular.formats.onnx_networks import parse_onnx

        return parse_onnx(payload, file.parent)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error
    except (MemoryError, RecursionError) as error:
        raise ModelError(
            f"{file} is too large or too deeply nested for this machine ({error!r}): a plain MLP is needed"
        ) from error


def write_safetensors(
    network: Network, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write layer1.weight, layer1.bias, layer2.weight, ... with the activations in the metadata; same bytes each time.

    Args:
        metadata: further text entries; "activation" is set here.

    Raises:
        RunError: the file cannot be written, and nothing half-written is left; or it reads back otherwise.
    """
    from fairmend.tabular.formats.safetensors_networks import prove_safetensors, serialize_safetensors

    write_atomically(path, serialize_safetensors(network, metadata or {}))
    _require_alike(path, lambda: prove_safetensors(path, network, metadata or {}))


def write_onnx(network: Network, path: str | os.PathLike[str], probability: bool = False) -> None:
    """Write an ONNX graph from "X", float (n, n_features), to "logits", float (n, n_outputs); same bytes each time.

    Args:
        probability: end in a sigmoid (one output) or softmax; the output is then called "probability".

    Raises:
        RunError: the file cannot be written, and nothing half-written is left; or it reads back otherwise.
    """
    from fairmend.tabular.formats.onnx_networks import prove_onnx, serialize_onnx

    write_atomically(path, serialize_onnx(network, probability))
    _require_alike(path, lambda: prove_onnx(Path(path).read_bytes(), network, probability))


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


def _require_alike(path: str | os.PathLike[str], prove: Callable[[], str]) -> None:
    """Read a file back that was just written: what is saved is what was measured.

    Args:
        prove: tells in words how the file differs from the network, by means that others read it with.
    """
    from safetensors import SafetensorError

    try:
        detail = prove()
    except (OSError, SafetensorError, ModelError) as error:
        detail = f"it cannot be read ({error})"
    if detail:
        raise RunError(
            f"{path} was written, but read back it is not the network that was measured: {detail}. Do not use it; "
            "write it again, to another disk if this one is at fault"
        )


def _read(file: Path) -> bytes:
    """The bytes of a file that may be a network."""
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # a null character is a ValueError
        raise ModelError(f"{file} does not exist: name a .safetensors or .onnx file") from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror or error}): check name and permissions") from error
    if stat.S_ISDIR(mode):
        raise ModelError(f"{file} is a folder: name the .safetensors or .onnx file in it")
    suffix = file.suffix.lower()
    if suffix in _PICKLE_SUFFIXES:
        raise ModelError(f"{file} is by its suffix a pickle, which is not loaded: {_REMEDY}")
    if not stat.S_ISREG(mode):
        raise ModelError(f"{file} is no regular file: name a .safetensors or .onnx file")
    try:
        with open(file, "rb") as stream:
            first = stream.read(16)
            if _is_pickle(first):
                raise ModelError(f"{file} is by its first bytes a pickle or zip file, which is not loaded: {_REMEDY}")
            if suffix not in (".safetensors", ".onnx"):
                way = f"; {_OF_KERAS}" if suffix in _KERAS_SUFFIXES else ""
                raise ModelError(f"{file} has the suffix {suffix!r}: supported are .safetensors and .onnx{way}")
            return first + stream.read()
    except MemoryError as error:
        raise ModelError(f"{file} is larger than the memory of this machine: a plain MLP is needed") from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror or error}): check its permissions") from error


def _is_pickle(first: bytes) -> bool:
    """Whether a file starts like a zip (torch.save today) or a pickle of protocol 2 and later."""
    # a safetensors header of, say, 640 bytes also starts with 0x80 0x02; then zeros and a brace follow
    is_header = len(first) > 8 and first[8:9] == b"{" and first[4:8] == bytes(4)
    starts_pickle = len(first) > 1 and first[0] == 0x80 and 2 <= first[1] <= 5
    return first.startswith(b"PK\x03\x04") or (starts_pickle and not is_header)
