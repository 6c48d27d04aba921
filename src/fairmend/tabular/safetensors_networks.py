"""Plain MLPs in the safetensors format: tensor pairs NAME.weight and NAME.bias, the activation in the metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fairmend.errors import ModelError
from fairmend.tabular.activations import IDENTITY, Activation
from fairmend.tabular.networks import Layer, Network

_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def parse_safetensors(payload: bytes, activation: str | None = None) -> Network:
    """The network in the bytes of a .safetensors file; see `formats.read_network`.

    Raises:
        ModelError: bytes that are damaged, or tensors that form no plain MLP.
    """
    from safetensors import SafetensorError, deserialize

    try:
        tensors = dict(deserialize(payload))  # type: ignore[no-untyped-call]  # the library has no types here
        metadata = _metadata(payload)
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"not a complete safetensors file ({error}): save or download it again") from error
    names = _layer_names(list(tensors))
    activations, notes = _activations(metadata.get("activation"), activation, len(names) - 1)
    layers = []
    for name, function in zip(names, [*activations, IDENTITY], strict=True):
        weight = _tensor(f"{name}.weight", tensors[f"{name}.weight"])
        if weight.ndim != 2:
            raise ModelError(f"{name}.weight has shape {weight.shape}: a plain MLP has (n_out, n_in); {_OTHERWISE}")
        bias = tensors.get(f"{name}.bias")
        offset = np.zeros(len(weight), np.float32) if bias is None else _tensor(f"{name}.bias", bias)
        layers.append(Layer(weight, offset, function, name))
    try:
        return Network(tuple(layers), notes)
    except ModelError as error:
        raise ModelError(f"{error}. The layers in the order of their names: {', '.join(names)}") from error


def serialize_safetensors(network: Network, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a .safetensors file. Written here, because the library orders metadata at random."""
    activations = [str(layer.activation) for layer in network.layers[:-1]]
    entries = {str(key): str(value) for key, value in metadata.items()}
    if activations:
        entries["activation"] = activations[0] if len(set(activations)) == 1 else ",".join(activations)
    header: dict[str, object] = {"__metadata__": dict(sorted(entries.items()))} if entries else {}
    blocks: list[bytes] = []
    start = 0
    for index, layer in enumerate(network.layers, start=1):
        for part, array in (("weight", layer.weight), ("bias", layer.bias)):
            block = array.astype("<f4").tobytes()
            header[f"layer{index}.{part}"] = {
                "dtype": "F32",
                "shape": list(array.shape),
                "data_offsets": [start, start + len(block)],
            }
            start += len(block)
            blocks.append(block)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return len(text).to_bytes(8, "little") + text + b"".join(blocks)


_OTHERWISE = "read a network with other parts from ONNX, or from Python with read_torch"


def _metadata(payload: bytes) -> dict[str, str]:
    """The text entries in the header, which `deserialize` has checked but does not return."""
    length = int.from_bytes(payload[:8], "little")
    found = json.loads(payload[8 : 8 + length]).get("__metadata__") or {}
    return {str(key): str(value) for key, value in found.items()}


def _layer_names(tensors: Sequence[str]) -> list[str]:
    """The names before .weight in natural order: numbers within names count as numbers."""
    layers = {name.removesuffix(".weight") for name in tensors if name.endswith(".weight")}
    allowed = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    others = sorted(set(tensors) - allowed)
    if others or not layers:
        raise ModelError(
            f"a plain MLP holds pairs NAME.weight and NAME.bias, found {', '.join(others[:5]) or 'no tensor'}; "
            f"{_OTHERWISE}"
        )

    def natural(name: str) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name)]

    return sorted(layers, key=natural)


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
    activations = [Activation.parse(part) for part in text.split(",")]
    if len(activations) == 1:
        return activations * n_hidden
    if len(activations) != n_hidden:
        raise ModelError(f"{len(activations)} activations {text!r} for {n_hidden} hidden layers: give one, or one each")
    return activations


def _tensor(name: str, entry: Mapping[str, object]) -> npt.NDArray[np.float32]:
    dtype = _FLOATS.get(str(entry["dtype"]))
    if dtype is None:
        raise ModelError(
            f"{name} has the type {entry['dtype']}: supported are {', '.join(_FLOATS)}; save the model as float32"
        )
    data, shape = entry["data"], entry["shape"]
    assert isinstance(data, (bytes, bytearray))
    assert isinstance(shape, (list, tuple))
    # a float64 value beyond float32 becomes infinite here and is refused, with the layer's name, by Layer
    with np.errstate(over="ignore"):
        return np.frombuffer(bytes(data), dtype=dtype).reshape(shape).astype(np.float32)
