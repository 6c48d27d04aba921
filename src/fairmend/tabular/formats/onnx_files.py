"""ONNX files: the checked model in their bytes, with the weights that lie in files beside them.

torch.onnx.export keeps larger weights in NAME.onnx.data. A file is hostile until it is parsed, so one rule holds for
every tensor, wherever in the model it is: data outside the .onnx comes from a regular file in its folder, of exactly
the size that the tensor declares.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from fairmend.errors import ModelError, RunError, first_line
from fairmend.files import open_plain

MAX_NODES = 10_000
"""Nodes of the largest graph that is looked at; a network of 1,000 layers has about 5,000."""

# of an element, by the number of its type: integers, truth values and floats, bfloat16 among them
_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
_IN_ONE_PIECE = "torch.onnx.export(..., external_data=False), or onnx.save(onnx.load(path), path)"


def load_model(payload: bytes, folder: Path | None = None) -> onnx.ModelProto:
    """The checked model in the bytes of an .onnx file, all of its weights inside.

    Args:
        folder: where the file lies; None for bytes alone, which then must hold everything.

    Raises:
        ModelError: bytes that are damaged, a graph that is too large, or weights elsewhere than in a regular file of
            the folder, or of another size than declared.
    """
    try:
        model = onnx.load_model_from_string(payload)
        if len(model.graph.node) > MAX_NODES:
            raise ModelError(
                f"the ONNX graph has {len(model.graph.node):,} nodes: supported are at most {MAX_NODES:,}, which is "
                "more than a plain MLP needs; simplify the graph before"
            )
        if len(model.training_info):
            raise ModelError("the ONNX model holds a graph for training beside its own: export it for inference")
        _fetch_weights(model, folder)
        onnx.checker.check_model(model)
    except ModelError:
        raise
    except (DecodeError, onnx.checker.ValidationError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"not a valid ONNX model ({first_line(error)}): save or download it again") from error
    _require_distinct_names(model.graph)
    return model


def _require_distinct_names(graph: onnx.GraphProto) -> None:
    """Refuse a name for two values: which of them a runtime takes is its own affair."""
    weights = [weight.name for weight in graph.initializer]
    inputs = [value.name for value in graph.input if value.name not in set(weights)]  # old files list weights there
    computed = [name for node in graph.node for name in node.output if name]
    name, times = max(Counter([*weights, *inputs, *computed]).items(), key=lambda item: item[1], default=("", 1))
    if times > 1:
        raise ModelError(f"the ONNX graph has {times} values of the name {name!r}: save or download it again")


def _fetch_weights(model: onnx.ModelProto, folder: Path | None) -> None:
    """Put what lies in other files into the model."""
    tensors = list(_tensors(model))
    for tensor in tensors:
        if any(size < 0 for size in tensor.dims):  # numpy would find out the size by itself
            raise ModelError(f"the ONNX tensor {tensor.name!r} is of shape {list(tensor.dims)}: save it again")
    external = [
        tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data)
    ]
    if external and folder is None:
        names = ", ".join(tensor.name or "(without name)" for tensor in external[:3])
        raise ModelError(
            f"the weights {names} are in another file, and only the bytes of the model were given: read it by its "
            f"path, or save it in one piece, {_IN_ONE_PIECE}"
        )
    taken: Counter[str] = Counter()
    for tensor in external:
        assert folder is not None
        location, content = _fetch(tensor, folder, taken)
        taken[location] += len(content)
        tensor.raw_data = content
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor inside a message: weights, sparse ones, attributes, subgraphs, functions, training graphs."""
    for _, value in message.ListFields():
        parts = [value] if isinstance(value, Message) else value
        if isinstance(parts, (str, bytes, int, float)):
            continue
        for part in parts:
            if not isinstance(part, Message):
                break  # a list of numbers or texts
            if isinstance(part, onnx.TensorProto):
                yield part
            else:
                yield from _tensors(part)


def _fetch(tensor: onnx.TensorProto, folder: Path, taken: Counter[str]) -> tuple[str, bytes]:
    """The place and the bytes of a tensor's data in a file beside the model."""
    label = f"the data of the weight {tensor.name!r}"
    settings = {entry.key: entry.value for entry in tensor.external_data}
    location = settings.get("location", "")
    if tensor.data_type not in _BYTES:
        raise ModelError(
            f"{label} is of element type {tensor.data_type}: supported are plain numbers; save the model as float32"
        )
    declared = math.prod(tensor.dims) * _BYTES[tensor.data_type]
    with _open(label, folder, location) as file:
        size = os.fstat(file.fileno()).st_size
        offset = _whole(label, settings.get("offset", "0"))
        length = _whole(label, settings["length"]) if "length" in settings else size - offset
        if length != declared:
            raise ModelError(
                f"{label} takes {declared:,} bytes, but {length:,} bytes of {location!r} are declared: save or "
                "download both files again"
            )
        if offset + length > size or taken[location] + length > size:
            raise ModelError(
                f"{label} and what is before it need more than the {size:,} bytes that {location!r} has: save or "
                "download both files again"
            )
        checksum = settings.get("checksum", "")
        if checksum and checksum.lower() != hashlib.file_digest(file, "sha1").hexdigest():
            raise ModelError(
                f"{location!r} is not the file that the model was saved with (its SHA-1 is not {checksum[:40]!r}): "
                "save or download both files again"
            )
        file.seek(offset)
        content = file.read(length)
    if len(content) != length:
        raise ModelError(f"{location!r} became shorter while it was read: try again")
    return location, content


def _open(label: str, folder: Path, location: str) -> BufferedReader:
    """Open a regular file of the folder, without following a link."""
    named = PureWindowsPath(location)  # takes both kinds of slashes for one
    if not location or "\0" in location or named.anchor or location.startswith("/") or ".." in named.parts:
        raise ModelError(
            f"{label} is in {location!r}, which is not in the folder of the .onnx file and is not followed: save the "
            f"model in one piece, {_IN_ONE_PIECE}"
        )
    path = folder
    for part in PurePosixPath(location).parts:
        path /= part
        if path.is_symlink():
            raise ModelError(f"{label} is in {location!r}, which is a link and is not followed: copy the file there")
    try:
        return os.fdopen(open_plain(path, os.O_RDONLY), "rb")
    except RunError as error:
        raise ModelError(f"{label} is in {location!r}, which is no regular file and is not read: {error}") from error
    except OSError as error:
        raise ModelError(
            f"{label} is in {location!r}, which cannot be read beside the .onnx file ({error.strerror or error}): put "
            f"the two files into one folder, or save the model in one piece, {_IN_ONE_PIECE}"
        ) from error


def _whole(label: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(f"{label} has the offset or length {text[:30]!r}: a number of bytes is needed")
    return int(text)
