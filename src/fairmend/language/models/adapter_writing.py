"""A repaired model as an adapter of PEFT: two files, written, read again and compared with what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call

from fairmend.errors import ModelError, first_line
from fairmend.language.checkpoints.sources import BUILT_IN
from fairmend.language.heads.adapter import Adapter, merged_weights
from fairmend.language.heads.folding import folded_state
from fairmend.language.models.models import LanguageModel
from fairmend.language.models.writing import allowed_change, logits_of, relative_change
from fairmend.masks import Mask

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def base_of(lm: LanguageModel) -> str:
    """What loads the very weights that were measured: an id of the hub, or a path on this machine."""
    if lm.origin is None or lm.origin.name == BUILT_IN:
        return str(lm.model.config._name_or_path or lm.name)
    return lm.origin.name


def write_adapter(lm: LanguageModel, mask: Mask, adapter: Adapter, wanted: Tensor, part: Path, unharmed: str) -> None:
    """Write an adapter into a directory, read it again, merge it and compare weights and logits.

    PEFT is not needed for it: its format is one JSON file and one of safetensors.

    Args:
        lm: the untouched model.
        mask: what the adapter stands for.
        adapter: of the mask.
        wanted: from `logits_of`, of the masked model.
        part: the directory; made if it does not exist.
        unharmed: what is kept if it is not the same, for messages.

    Raises:
        ModelError: what was written is not what was measured.
        OSError: it cannot be written, or the disk is full.
    """
    part.mkdir(parents=True, exist_ok=True)
    config = {"base_model_name_or_path": base_of(lm), "revision": lm.revision, **adapter.config}
    described = part / CONFIG
    described.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    try:
        save_file(dict(adapter.tensors), part / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk, mostly
        raise OSError(first_line(error)) from error
    (part / WEIGHTS).chmod(described.stat().st_mode & 0o777)  # as the umask has it
    wrong = _difference(lm, mask, Adapter(json.loads(described.read_bytes()), load_file(part / WEIGHTS)), wanted)
    if wrong:
        raise ModelError(f"the adapter as written is not the model that was measured: {wrong}. {unharmed}")


def _difference(lm: LanguageModel, mask: Mask, adapter: Adapter, wanted: Tensor) -> str:
    """What of an adapter is not as it was measured, in words; "" if all is."""
    allowed = allowed_change(lm)
    untouched, folded = lm.model.state_dict(), folded_state(lm.model, mask, lm.head_map)
    merged = merged_weights(lm.model, adapter)
    for name, weight in folded.items():
        change = relative_change(merged.get(name, untouched[name]), weight) if weight.is_floating_point() else 0.0
        if not change <= allowed:
            return f"merged, {name} differs by {change:.1e} of its size, {allowed:.0e} is allowed"
    with torch.no_grad():
        change = relative_change(logits_of(_Merged(lm, merged), lm), wanted)
    return "" if change <= allowed else f"its logits differ by {change:.1e} of their size, {allowed:.0e} is allowed"


class _Merged(torch.nn.Module):
    """The model with some weights in the place of its own, which stay as they are."""

    def __init__(self, lm: LanguageModel, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._called = (lm.model, weights)

    def forward(self, input_ids: Tensor) -> object:
        """What the model gives with these weights."""
        model, weights = self._called
        return functional_call(model, weights, (), {"input_ids": input_ids})
