"""How weights are stored: quantised ones are unpacked or refused, and bfloat16 stays bfloat16 in a repaired copy."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairmend.errors import ModelError

_ENTRIES = ("quantization_config", "compression_config", "quantization")
_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")


DENSE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Number formats of weights that can be computed with and edited."""

_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_WHOLE = ("BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64")


def quantisation_of(config: Mapping[str, Any]) -> Any:
    """What a config.json says about quantisation, None where it says nothing; the text model's part counts too."""
    parts = [config, *(part for name, part in config.items() if name.endswith("_config") and isinstance(part, dict))]
    return next((part[entry] for part in parts for entry in _ENTRIES if part.get(entry) is not None), None)


def check_quantisation(folder: Path, config: Mapping[str, Any], dtypes: Mapping[str, str]) -> None:
    """Refuse quantised weights that transformers does not unpack, and codes that nothing says how to unpack.

    Args:
        folder: of the checkpoint.
        config: its config.json.
        dtypes: how each tensor is stored, see `Contents`.

    Raises:
        ModelError: names the method and the remedy.
    """
    settings = quantisation_of(config)
    if settings is not None:
        unpacking(settings, folder)
        return
    files = [name for name in _FILES if (folder / name).exists()]
    coded = sorted(name for name, dtype in dtypes.items() if name.endswith("weight") and dtype[:1] in ("I", "U"))
    if files or coded:
        said = f"{files[0]} says so" if files else f"{coded[0]} holds {dtypes[coded[0]]}, no floating point numbers"
        raise ModelError(f"{folder} is quantised ({said}), and its config.json does not say how. {_REMEDY}")


def unpacking(settings: Any, where: object) -> Any:
    """The settings with which transformers unpacks a checkpoint into dense weights while it loads it.

    Args:
        settings: what its config.json says about quantisation.
        where: what is loaded, for messages.

    Raises:
        ModelError: a method that transformers does not know, or does not unpack while loading.
    """
    import transformers
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    method = settings.get("quant_method") if isinstance(settings, dict) else None
    kinds: Mapping[str, Any] = AUTO_QUANTIZATION_CONFIG_MAPPING
    kind = kinds.get(method) if isinstance(method, str) and method != "gguf" else None  # that is one file
    if kind is None or "dequantize" not in inspect.signature(kind).parameters:
        bits = [n for n in ("load_in_4bit", "load_in_8bit", "bits") if isinstance(settings, dict) and n in settings]
        unnamed = f"{bits[0]}={settings[bits[0]]}" if bits else "by a method that config.json does not name"
        named = str(method or unnamed)[:60]
        raise ModelError(
            f"{where} is quantised ({named}): its weights are codes, and transformers {transformers.__version__} does "
            f"not unpack them into dense ones while it loads them. {_REMEDY}"
        )
    try:
        return kind.from_dict({**settings, "dequantize": True})
    except (ValueError, TypeError, KeyError, ImportError) as error:  # some need a package of their own
        raise ModelError(
            f"{where}: transformers {transformers.__version__} does not take its quantization_config ({method}; "
            f"{type(error).__name__}: {error}). {_REMEDY}"
        ) from error


def make_plain(model: Any, dtype: torch.dtype, where: object) -> None:
    """Make a model that was unpacked while it was loaded an ordinary one in `dtype`, which is saved as any other.

    Raises:
        ModelError: some of it is still quantised.
    """
    model.hf_quantizer = None
    model.is_quantized = False
    # How the codes were unpacked would be undone on saving, although the codes are gone.
    model.__dict__.pop("_weight_conversions", None)
    for config in {id(each): each for each in (model.config, model.config.get_text_config(decoder=True))}.values():
        if hasattr(config, "quantization_config"):
            del config.quantization_config
    left = [n for n, p in model.named_parameters() if type(p) is not torch.nn.Parameter or p.dtype not in DENSE]
    if left:
        raise ModelError(f"{where}: {left[0]} is still quantised after transformers unpacked it. {_REMEDY}")
    for parameter in model.parameters():
        # Experts are unpacked to bfloat16 whatever was asked for (transformers 5.17), and lie turned in memory.
        wide = dtype if parameter.dtype.itemsize < dtype.itemsize else parameter.dtype
        parameter.data = parameter.data.to(wide).contiguous()


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


_REMEDY = (
    "Give the checkpoint that it was made from (float32, bfloat16 or float16), or a dense copy: where transformers can "
    "unpack it, model.dequantize() and then model.save_pretrained(DIR); else the tool that quantised it"
)
