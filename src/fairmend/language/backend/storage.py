"""In which number formats a checkpoint is stored: one in bfloat16 stays so when it is repaired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_WHOLE = ("BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64")


@dataclass(frozen=True)
class Storage:
    """The formats of a checkpoint's tensors.

    Attributes:
        dtypes: by the tensors' names in its files; names may differ from the model's.
        declared: what its configuration says that it is computed in: "bfloat16".
    """

    dtypes: Mapping[str, torch.dtype]
    declared: str


def storage_of(dtypes: Mapping[str, str], config: Mapping[str, Any]) -> Storage | None:
    """How a checkpoint is stored, None where it holds other numbers than float32, bfloat16 and float16.

    Args:
        dtypes: by name, as safetensors calls them.
        config: its config.json.
    """
    floating = {name: dtype for name, dtype in dtypes.items() if dtype not in _WHOLE}
    if not floating or not set(floating.values()) <= _STORED.keys():
        return None
    known = {name: _STORED[dtype] for name, dtype in floating.items()}
    usual = str(Counter(known.values()).most_common(1)[0][0]).removeprefix("torch.")
    says = config.get("dtype", config.get("torch_dtype"))
    return Storage(known, says if says in ("float32", "bfloat16", "float16") else usual)


def in_storage(state: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor] | None:
    """The tensors in the formats that the checkpoint has them in; None where one of them would lose digits.

    Weights that were read from the checkpoint, zeroed or left out here and there, lose nothing. Tensors that share
    their memory share it afterwards.
    """
    narrow_first = sorted(set(storage.dtypes.values()), key=lambda dtype: dtype.itemsize)
    done: dict[tuple[int, torch.Size], Tensor] = {}
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.shape)
        if not tensor.is_floating_point():
            stored[name] = tensor
            continue
        if key not in done:
            # A tensor that transformers renamed or put together is in one of the formats of its parts.
            candidates = [storage.dtypes[name]] if name in storage.dtypes else narrow_first
            exact = next(
                (small for small in map(tensor.to, candidates) if torch.equal(small.to(tensor.dtype), tensor)), None
            )
            if exact is None:
                return None
            done[key] = exact
        stored[name] = done[key]
    return stored
