"""Plain MLPs in the safetensors format: tensor pairs NAME.weight and NAME.bias, the activation in the metadata."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize, safe_open

from fairmend.errors import ModelError
from fairmend.tabular.networks.activations import IDENTITY, Activation
from fairmend.tabular.networks.networks import Layer, Network, precision_notes

_PRECISIONS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_OTHERWISE = "read a network with other parts from ONNX, or from Python with read_torch"

Shape = tuple[int, int]
_Pieces = tuple[str | tuple[int, str], ...]

_MOST = 200  # layers that are tried in other orders than that of their names
_STEPS = 20_000  # of trying, after which an order counts as untold


def parse_safetensors(payload: bytes, activation: str | None = None) -> Network:
    """The network in the bytes of a .safetensors file; see `formats.read_network`.

    Raises:
        ModelError: bytes that are damaged, or tensors that form no plain MLP.
    """
    try:
        tensors = dict(deserialize(payload))  # type: ignore[no-untyped-call]  # the library has no types here
        metadata = _metadata(payload)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ModelError(f"not a complete safetensors file ({error}): save or download it again") from error
    found = _layer_names(list(tensors))
    names, notes = order_layers({name: _shape(f"{name}.weight", tensors[f"{name}.weight"]) for name in found})
    activations, assumed = _activations(metadata.get("activation"), activation, len(names) - 1)
    layers = []
    for name, function in zip(names, [*activations, IDENTITY], strict=True):
        weight = _tensor(f"{name}.weight", tensors[f"{name}.weight"])
        bias = tensors.get(f"{name}.bias")
        offset = np.zeros(len(weight), np.float32) if bias is None else _tensor(f"{name}.bias", bias)
        layers.append(Layer(weight, offset, function, name))
    precise = precision_notes(_PRECISIONS[str(entry["dtype"])] for entry in tensors.values())
    try:
        return Network(tuple(layers), (*notes, *assumed, *precise))
    except ModelError as error:
        raise ModelError(f"{error}. The layers in the order of their names: {', '.join(names)}") from error


def serialize_safetensors(network: Network, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a .safetensors file. Written here, because the library orders metadata at random."""
    entries = _entries(network, metadata)
    header: dict[str, object] = {"__metadata__": dict(sorted(entries.items()))} if entries else {}
    blocks: list[bytes] = []
    start = 0
    for name, array in network.tensors().items():
        block = array.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, start + len(block)]}
        start += len(block)
        blocks.append(block)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return len(text).to_bytes(8, "little") + text + b"".join(blocks)


def prove_safetensors(path: str | os.PathLike[str], network: Network, metadata: Mapping[str, str]) -> str:
    """How a file, read by the plain library, differs from a network, in words; "" if no bit does."""
    with safe_open(path, "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        told = file.metadata() or {}
    expected = network.tensors()
    if found.keys() != expected.keys():
        return f"it holds {', '.join(sorted(found))}"
    for name, array in expected.items():
        if found[name].dtype != array.dtype or found[name].shape != array.shape:
            return f"{name} is {found[name].dtype} of shape {found[name].shape}"
        if found[name].tobytes() != array.tobytes():
            return f"{name} has other values"
    if told != _entries(network, metadata):
        return f"its metadata are {told}"
    return ""


def _entries(network: Network, metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata of a network's file."""
    activations = [str(layer.activation) for layer in network.layers[:-1]]
    entries = {str(key): str(value) for key, value in metadata.items()}
    if activations:
        entries["activation"] = activations[0] if len(set(activations)) == 1 else ",".join(activations)
    return entries


def _metadata(payload: bytes) -> dict[str, str]:
    """The text entries in the header, which `deserialize` has checked but does not return."""
    length = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + length], object_pairs_hook=_distinct)
    found = header.get("__metadata__") or {}
    return {str(key): str(value) for key, value in found.items()}


def _distinct(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """The entries of an object in the header; which of two of the same name is meant is not known."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("its header has two entries of the same name")
    return entries


def _layer_names(tensors: Sequence[str]) -> list[str]:
    """The names before .weight."""
    layers = {name.removesuffix(".weight") for name in tensors if name.endswith(".weight")}
    allowed = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    others = sorted(set(tensors) - allowed)
    if others or not layers:
        raise ModelError(
            f"a plain MLP holds pairs NAME.weight and NAME.bias, found {', '.join(others[:5]) or 'no tensor'}; "
            f"{_OTHERWISE}"
        )
    return sorted(layers)


def _activations(stored: str | None, given: str | None, n_hidden: int) -> tuple[list[Activation], tuple[str, ...]]:
    """The activation of each hidden layer, and notes."""
    notes: tuple[str, ...] = ()
    if stored is None and given is None and n_hidden:
        notes = ("the file names no activation and none was given: relu is assumed",)
    parsed = [_parse_activations(text, n_hidden) for text in (stored, given) if text is not None]
    if len(parsed) == 2 and parsed[0] != parsed[1]:
        raise ModelError(f"the file says that its activation is {stored!r}, but {given!r} was given: leave it out")
    return (parsed[0] if parsed else [Activation("relu")] * n_hidden), notes


def _parse_activations(text: str, n_hidden: int) -> list[Activation]:
    given = text.count(",") + 1
    if given not in (1, n_hidden):
        raise ModelError(f"{given} activations {text[:80]!r} for {n_hidden} hidden layers: give one, or one each")
    activations = [Activation.parse(part) for part in text.split(",")]
    return activations if given == n_hidden else activations * n_hidden


def _shape(name: str, entry: Mapping[str, Any]) -> tuple[int, int]:
    shape = entry["shape"]
    if len(shape) != 2:
        raise ModelError(f"{name} has shape {tuple(shape)}: a plain MLP has (n_out, n_in); {_OTHERWISE}")
    return shape[0], shape[1]


def _tensor(name: str, entry: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    stored = str(entry["dtype"])
    if stored not in _PRECISIONS:
        raise ModelError(
            f"{name} has the type {stored}: supported are {', '.join(_PRECISIONS)}; save the model as float32"
        )
    data, shape = entry["data"], entry["shape"]
    if 0 in shape:  # the other sides may then be larger than any array can have
        raise ModelError(f"{name} has shape {tuple(shape)}, which holds no number: a layer needs neurons and inputs")
    if stored == "BF16":  # the upper half of a float32
        return (np.frombuffer(bytes(data), "<u2").astype("<u4") << 16).view("<f4").reshape(shape).astype(np.float32)
    # a float64 value beyond float32 becomes infinite here and is refused, with the layer's name, by Layer
    with np.errstate(over="ignore"):
        return np.frombuffer(bytes(data), dtype=_STORED[stored]).reshape(shape).astype(np.float32)


def order_layers(shapes: Mapping[str, Shape]) -> tuple[list[str], tuple[str, ...]]:
    """The names of the layers in the order of use, and notes.

    Names that first differ in a number ("fc2" and "fc10", "block0.out" and "block1.in") are in the order of these
    numbers. Of names that do not differ so ("input", "hidden", "output"), and of numbered layers that do not chain,
    the only order is taken in which each layer takes what the one before gives. Names of which no order chains come
    back sorted.

    Args:
        shapes: (n_out, n_in) of each layer.

    Raises:
        ModelError: the names tell no order, and the shapes allow several.
    """
    names = sorted(shapes, key=lambda name: (_pieces(name), name))
    certain = all(_precedes(*pair) for pair in pairwise(names))
    if certain and _chains(names, shapes):
        return names, ()
    found = _orders(names, shapes, _precedes)
    if len(found) > 1:
        shown = " or ".join(_shown(order) for order in found)
        raise ModelError(
            f"the names of the layers do not tell their order, and their shapes allow several, such as {shown}: "
            "rename the tensors in the order in which the network uses them, layer1.weight, layer1.bias, "
            "layer2.weight, ...; or read the network from ONNX, or from Python with read_torch"
        )
    if not found:  # by their numbers they do not chain
        found = _orders(names, shapes, lambda _, __: False)
        if len(found) != 1:
            return names, ()
        return found[0], (f"the layers chain only in another order than their numbers: {_shown(found[0])}",)
    return found[0], (f"the layers are taken in the only order in which they chain: {_shown(found[0])}",)


def _shown(order: Sequence[str]) -> str:
    return ", ".join(order[:8]) + (", ..." if len(order) > 8 else "")


def _pieces(name: str) -> _Pieces:
    """A name cut into texts and numbers; a number as its length and digits, so that it may be of any length."""
    parts = re.split(r"([0-9]+)", name)
    digits = [part.lstrip("0") for part in parts[1::2]]
    pieces: list[str | tuple[int, str]] = list(parts)
    pieces[1::2] = [(len(number), number) for number in digits]
    return tuple(pieces)


def _precedes(name: str, other: str) -> bool:
    """Whether the first thing in which the names differ is a number, the smaller one in `name`."""
    for mine, its in zip(_pieces(name), _pieces(other), strict=False):
        if mine != its:
            return isinstance(mine, tuple) and isinstance(its, tuple) and mine < its
    return False


def _chains(names: Sequence[str], shapes: Mapping[str, Shape]) -> bool:
    return all(shapes[before][0] == shapes[after][1] for before, after in pairwise(names))


def _orders(names: Sequence[str], shapes: Mapping[str, Shape], precedes: Callable[[str, str], bool]) -> list[list[str]]:
    """At most two orders in which the layers chain and none comes after one that it precedes."""
    if len(names) > _MOST:
        raise ModelError(
            f"the order of {len(names)} layers is not told by their names, {names[0]}, {names[1]}, ...: rename the "
            "tensors layer1.weight, layer1.bias, layer2.weight, ... in the order in which the network uses them"
        )
    earlier = {name: {other for other in names if precedes(other, name)} for name in names}
    found: list[list[str]] = []
    waiting: list[list[str]] = [[]]
    for _ in range(_STEPS):
        if not waiting or len(found) == 2:
            return found
        path = waiting.pop()
        if len(path) == len(names):
            found.append(path)
            continue
        taken = set(path)
        waiting += [
            [*path, name]
            for name in reversed(names)
            if name not in taken and earlier[name] <= taken and (not path or shapes[path[-1]][0] == shapes[name][1])
        ]
    raise ModelError(
        f"the order of the layers {_shown(names)} is told neither by their names nor by their shapes: "
        "rename the tensors layer1.weight, layer1.bias, layer2.weight, ... in the order in which the network uses them"
    )
