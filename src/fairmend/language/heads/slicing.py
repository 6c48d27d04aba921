"""Remove whole key-value groups of heads from a model, so that it becomes smaller, where that is exact."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from fairmend.errors import ModelError
from fairmend.language.backend.batching import is_out_of_memory
from fairmend.language.backend.versions import required, transformers_version
from fairmend.language.heads.folding import fold, projection_weight
from fairmend.language.heads.gates import masked
from fairmend.language.heads.heads import HeadMap, HeadSite, find_heads, probe_ids, probing, run_probe
from fairmend.masks import Mask

_ELIGIBLE = (
    "slicing needs separate q_proj, k_proj, v_proj and o_proj of the plain Llama kind (Llama, Mistral, Mixtral, Qwen2, "
    "Qwen3, Gemma, Granite, SmolLM3 and alike); without slicing dropped heads are zeroed, in every architecture"
)


@dataclass(frozen=True, slots=True)
class Slicing:
    """A sliced model and what the slicing saved.

    Attributes:
        model: loads in plain transformers from `save_pretrained`; computes what the folded model computes.
        removed_groups: key-value groups removed from every layer.
        removed_heads, folded_heads: heads that are gone, and dropped heads that remain as zeroed weights.
        parameters: number of parameters before and after.
        cache_per_token: size of the key-value cache before and after, in numbers per token.
    """

    model: nn.Module
    removed_groups: int
    removed_heads: int
    folded_heads: int
    parameters: tuple[int, int]
    cache_per_token: tuple[int, int]


def slice_groups(model: nn.Module, mask: Mask, head_map: HeadMap | None = None) -> Slicing:
    """Remove as many fully dropped key-value groups as every layer can spare, and fold the other heads of the mask.

    A transformers configuration holds one number of heads for all layers, so every layer loses the same number of
    groups: the smallest number of fully dropped groups over the layers. The result is compared with the masked model.

    Raises:
        ModelError: an architecture that cannot be sliced exactly, no group that every layer can spare, or weights that
            cannot be edited (see `fold`).
    """
    found = find_heads(model) if head_map is None else head_map
    folded = fold(model, mask, found)
    gates = found.gates(mask)
    off = [(each == 0).nonzero()[:, 0].tolist() for each in found.split(gates)]
    spare = {site.name: _dropped_groups(site, heads) for site, heads in zip(found.sites, off, strict=True)}
    n_removed = min(len(groups) for groups in spare.values())
    first = found.sites[0]
    if len({(site.n_heads, site.n_kv_groups, site.head_dim) for site in found.sites}) > 1:
        raise ModelError("layers have different numbers of heads, which one configuration cannot express; use fold")
    if n_removed in (0, first.n_kv_groups):
        thinnest = min(spare, key=lambda name: len(spare[name]))
        raise ModelError(
            f"no key-value group can be removed from every layer: {thinnest} has {len(spare[thinnest])} of "
            f"{first.n_kv_groups} groups of {first.n_heads // first.n_kv_groups} heads fully dropped, and every layer "
            "must lose the same number and keep at least one; use fold"
        )
    state = dict(folded.state_dict())
    for site in found.sites:
        kept = [group for group in range(site.n_kv_groups) if group not in spare[site.name][:n_removed]]
        _slice_layer(folded, site, kept, state)
    sliced = _rebuild(folded, first.n_kv_groups - n_removed, first, state)
    ids = probe_ids(model, 1)
    with masked(model, mask, found), probing(model):
        wanted = run_probe(model, ids).logits
    with probing(sliced):
        change = float((run_probe(sliced, ids).logits - wanted).abs().max() / wanted.abs().max())
    if not change < (1e-4 if wanted.dtype in (torch.float32, torch.float64) else 5e-2):
        raise ModelError(
            f"the sliced model's logits differ from the masked model's by {change:.1e} of their size: {_ELIGIBLE}"
        )
    n_groups, n_sites = first.n_kv_groups, len(found.sites)
    n_before, n_after = (sum(weight.numel() for weight in each.parameters()) for each in (model, sliced))
    removed_heads = n_removed * first.n_heads // n_groups * n_sites
    numbers = 2 * n_sites * first.head_dim
    return Slicing(
        model=sliced,
        removed_groups=n_removed,
        removed_heads=removed_heads,
        folded_heads=int((gates == 0).sum()) - removed_heads,
        parameters=(n_before, n_after),
        cache_per_token=(numbers * n_groups, numbers * (n_groups - n_removed)),
    )


def _dropped_groups(site: HeadSite, heads: list[int]) -> list[int]:
    size = site.n_heads // site.n_kv_groups
    dropped = set(heads)
    return [group for group in range(site.n_kv_groups) if dropped >= set(range(group * size, (group + 1) * size))]


def _slice_layer(model: nn.Module, site: HeadSite, kept: list[int], state: dict[str, Tensor]) -> None:
    """Replace one attention layer's tensors in `state` by those of the kept groups."""
    parent, _, last = site.name.rpartition(".")
    attention = model.get_submodule(parent)
    per_group = site.n_heads // site.n_kv_groups
    features = torch.arange(site.width).view(site.n_kv_groups, per_group * site.head_dim)[kept].flatten()
    kv_features = torch.arange(site.n_kv_groups * site.head_dim).view(site.n_kv_groups, -1)[kept].flatten()
    kv_width = site.n_kv_groups * site.head_dim
    rows = {"q_proj": (site.width, features), "k_proj": (kv_width, kv_features), "v_proj": (kv_width, kv_features)}
    handled = {f"{last}.weight", f"{last}.bias"}
    for name, (n_outputs, index) in rows.items():
        projection = getattr(attention, name, None)  # None is refused like any other kind of layer
        if type(projection) is not nn.Linear or projection.out_features != n_outputs:
            raise ModelError(f"{parent} has no {name} with {n_outputs} outputs: {_ELIGIBLE}")
        projection_weight(projection, site)
        handled |= {f"{name}.weight", f"{name}.bias"}
        for key in (f"{parent}.{name}.weight", f"{parent}.{name}.bias"):
            if key in state:
                state[key] = state[key][index.to(state[key].device)].clone()
    if last != "o_proj":
        raise ModelError(f"the output projection is {site.name}: {_ELIGIBLE}")
    weight = state[f"{site.name}.weight"]
    state[f"{site.name}.weight"] = weight[:, features.to(weight.device)].clone()
    # Norms over the features of one head do not know how many heads there are; anything else would need slicing too.
    extra = [n for n, p in attention.named_parameters() if n not in handled and p.shape != (site.head_dim,)]
    if extra:
        raise ModelError(f"{parent}.{extra[0]} depends on the number of heads: {_ELIGIBLE}")


def _rebuild(model: nn.Module, n_groups: int, site: HeadSite, state: dict[str, Tensor]) -> nn.Module:
    """The same architecture with fewer heads, loaded with `state`."""
    config: Any = copy.deepcopy(model.config)
    if config.get_text_config(decoder=True) is not config or not hasattr(config, "num_key_value_heads"):
        raise ModelError(f"{type(config).__name__} cannot express fewer heads of the same size: {_ELIGIBLE}")
    config.num_attention_heads = n_groups * (site.n_heads // site.n_kv_groups)
    config.num_key_value_heads = n_groups
    config.head_dim = site.head_dim
    try:
        with torch.random.fork_rng(devices=[]):
            kind: Any = type(model)
            sliced = kind(type(config).from_dict(config.to_dict()))  # through JSON, as a saved checkpoint goes
        dtype = next(iter(model.parameters())).dtype
        sliced = sliced.to(device=next(iter(model.parameters())).device, dtype=dtype)
        sliced.load_state_dict(state)
    except (TypeError, ValueError, AttributeError, AssertionError, RuntimeError, StrictDataclassError) as error:
        # A configuration or a constructor that objects to the sizes, or weights that do not fit them.
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{type(model).__name__} of transformers {transformers_version()} cannot be rebuilt with "
            f"{config.num_attention_heads} heads ({type(error).__name__}: {reason}): {_ELIGIBLE}"
        ) from error
    sliced.generation_config = copy.deepcopy(required(model, "generation_config"))
    result: nn.Module = sliced.train(model.training)
    return result
