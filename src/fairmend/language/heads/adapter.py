"""A mask as an adapter of PEFT: the smallest files that give a repaired model, beside the untouched checkpoint.

Multiplying the heads' slices of the input of an output projection W is W diag(g) = W + B A, where A holds the rows of
the identity at the features that change and B what changes in their columns: a low-rank adapter (LoRA, Hu et al.,
2022), exact, of a rank of (heads changed in the layer) x (features per head). (IA)3 (Liu et al., 2022) holds g itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fairmend.language.heads.folding import affected_sites, folded_state, projection_weight
from fairmend.language.heads.heads import HeadMap
from fairmend.masks import Mask

LARGEST_SERVED_RANK = 512
"""The most that vLLM's option --max-lora-rank allows."""

_PREFIX = "base_model.model."  # of PEFT's names for the parts of a causal language model


@dataclass(frozen=True)
class Adapter:
    """An adapter as PEFT reads it.

    Attributes:
        config: adapter_config.json but for the model that it belongs to.
        tensors: adapter_model.safetensors, float32.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def rank(self) -> int:
        """The largest rank of a layer; 0 of (IA)3, which has none."""
        return int(self.config.get("r", 0))

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def in_words(self) -> str:
        """Kind, layers, rank and size, and where it is too large to be served."""
        layers, size = len(self.config["target_modules"]), f"{self.size / 1e6:.2g} MB"
        if not self.rank:
            return f"(IA)3 adapter: {layers} output projections, a factor per input feature, {size}."
        said = f"LoRA adapter: {layers} output projections, rank up to {self.rank}, {size}."
        if self.rank > LARGEST_SERVED_RANK:
            said += f" vLLM serves ranks up to {LARGEST_SERVED_RANK} only (--max-lora-rank): give it the checkpoint."
        return said


def low_rank_adapter(model: nn.Module, mask: Mask, head_map: HeadMap) -> Adapter:
    """The mask as a LoRA: what PEFT merges it to is `fold(model, mask)`, up to rounding.

    Where a projection gives fewer features than the mask changes, B is the identity and A what changes: exact as well,
    of that smaller rank. Of gains that change every head, the rank is the full one; nothing smaller is exact.

    Raises:
        ModelError: see `fold`.
    """
    folded = folded_state(model, mask, head_map)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, gates, weight, turned in _targets(model, mask, head_map):
        after = folded[f"{name}.weight"]
        change = (after.T if turned else after).float() - weight.float()
        features = (gates != 1).nonzero()[:, 0].to(weight.device)
        if not len(features):  # of a mask that changes nothing: PEFT reads no adapter without a rank
            features = torch.arange(1, device=weight.device)
        if len(features) <= len(weight):
            down = nn.functional.one_hot(features, weight.shape[1]).float()
            up = change[:, features]
        else:
            down, up = change, torch.eye(len(weight), device=weight.device)
        tensors |= {f"{_PREFIX}{name}.lora_A.weight": down, f"{_PREFIX}{name}.lora_B.weight": up.contiguous()}
        ranks[name] = len(down)
    rank = max(ranks.values())
    smaller = {name: each for name, each in ranks.items() if each != rank}
    config = {
        **_config("LORA", model, list(ranks)),
        "r": rank,
        "lora_alpha": rank,  # a scale of 1
        "rank_pattern": smaller,
        "alpha_pattern": smaller,
        "lora_dropout": 0.0,
        "bias": "none",
    }
    return Adapter(config, _stored(tensors))


def scaling_adapter(model: nn.Module, mask: Mask, head_map: HeadMap) -> Adapter:
    """The mask as an (IA)3 adapter, which multiplies the inputs of the output projections: kilobytes, exact.

    Raises:
        ModelError: see `fold`.
    """
    tensors = {
        f"{_PREFIX}{name}.ia3_l": gates.to(weight.dtype).float()[None]  # rounded like the gates of the masked model
        for name, gates, weight, _ in _targets(model, mask, head_map)
    }
    names = [name.removeprefix(_PREFIX).removesuffix(".ia3_l") for name in tensors]
    return Adapter(_config("IA3", model, names) | {"feedforward_modules": names}, _stored(tensors))


def merged_weights(model: nn.Module, adapter: Adapter) -> dict[str, Tensor]:
    """The weights that an adapter changes, by name, as PEFT merges them.

    Raises:
        KeyError: an adapter of another model, or an incomplete one.
    """
    merged: dict[str, Tensor] = {}
    for name in adapter.config["target_modules"]:
        weight = model.get_submodule(name).get_parameter("weight").detach()
        wide = weight.float().T if adapter.config["fan_in_fan_out"] else weight.float()
        if adapter.rank:
            up, down = (adapter.tensors[f"{_PREFIX}{name}.lora_{part}.weight"].to(weight.device) for part in "BA")
            wide = wide + up @ down
        else:
            wide = wide * adapter.tensors[f"{_PREFIX}{name}.ia3_l"].to(weight.device)
        merged[f"{name}.weight"] = (wide.T if adapter.config["fan_in_fan_out"] else wide).to(weight.dtype)
    return merged


def _targets(model: nn.Module, mask: Mask, head_map: HeadMap) -> list[tuple[str, Tensor, Tensor, bool]]:
    """Name, gate per input feature, weight (outputs, inputs) and whether it is kept turned, of what a mask changes."""
    affected = affected_sites(model, mask, head_map)
    if not affected:
        first = head_map.sites[0]
        affected = [(first, torch.ones(first.width))]
    found = []
    for site, gates in affected:
        module = model.get_submodule(site.name)
        weight = projection_weight(module, site).detach()
        turned = isinstance(module, Conv1D)
        found.append((site.name, gates, weight.T if turned else weight, turned))
    return found


def _config(kind: str, model: nn.Module, names: list[str]) -> dict[str, Any]:
    return {
        "peft_type": kind,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "target_modules": names,
        "fan_in_fan_out": isinstance(model.get_submodule(names[0]), Conv1D),
    }


def _stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
