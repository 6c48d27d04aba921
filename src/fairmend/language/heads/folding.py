"""Make a mask permanent: scale the weights that read its heads, to zero for dropped ones; the result loads anywhere."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fairmend.errors import ModelError
from fairmend.language.backend.forward import plain
from fairmend.language.backend.stored_formats import DENSE
from fairmend.language.heads.heads import HeadMap, HeadSite, find_heads
from fairmend.masks import Mask


def fold(model: nn.Module, mask: Mask, head_map: HeadMap | None = None, *, inplace: bool = False) -> nn.Module:
    """Return a copy of `model` in which the weights that read the dropped heads are zero.

    Zeroes the columns of the output projection (rows of GPT-2's Conv1D) of every dropped head, and multiplies those of
    the others by the head's gain; its bias stays. The result computes what the masked model computes, exactly without
    gains and up to rounding with them, needs no code of fairmend, and is saved with `save_pretrained`.

    Args:
        model: a causal language model with floating-point weights in memory.
        mask: the heads to drop, and the gains of the others.
        head_map: the model's heads; found when not given.
        inplace: change `model` itself and return it, instead of a deep copy.

    Raises:
        ModelError: the mask belongs to another model, or weights that cannot be edited: quantised, off-loaded, held by
            an adapter or a parametrisation, shared between layers. Nothing is changed then.
    """
    found = find_heads(model) if head_map is None else head_map
    affected = affected_sites(model, mask, found)
    result = model if inplace else copy.deepcopy(model)
    with torch.no_grad():
        for site, gates in affected:
            module = result.get_submodule(site.name)
            _scale(projection_weight(module, site), module, gates)
    return result


def folded_state(model: nn.Module, mask: Mask, head_map: HeadMap) -> dict[str, Tensor]:
    """The tensors that `fold(model, mask).state_dict()` has, by name, without a copy of those that stay as they are.

    Raises:
        ModelError: see `fold`.
    """
    state = dict(model.state_dict())
    for site, gates in affected_sites(model, mask, head_map):
        weight = state[f"{site.name}.weight"]
        scaled = weight.clone()
        _scale(scaled, model.get_submodule(site.name), gates)
        state |= dict.fromkeys([name for name, each in state.items() if each.data_ptr() == weight.data_ptr()], scaled)
    return state


def require_foldable(model: nn.Module, head_map: HeadMap) -> None:
    """Refuse a model whose heads cannot be folded, before anything is measured.

    Raises:
        ModelError: see `fold`.
    """
    _require_editable(model, head_map, list(head_map.sites))


def projection_weight(module: nn.Module, site: HeadSite) -> nn.Parameter:
    """The weight of an output projection, if it is an ordinary tensor that can be edited.

    Raises:
        ModelError: it is quantised, off-loaded, or made by an adapter or a parametrisation.
    """
    weight = module._parameters.get("weight")
    if weight is None or not isinstance(module, (nn.Linear, Conv1D)):
        raise ModelError(
            f"{site.name} ({type(module).__name__}) has no weight of its own: merge the adapter "
            "(merge_and_unload), remove the parametrisation, or load the model without quantisation, then fold"
        )
    if weight.is_meta:
        raise ModelError(
            f"{site.name}.weight is off-loaded, not in memory: load the model without device_map (or with "
            "device_map='cpu') and enough memory, then fold"
        )
    if type(weight) is not nn.Parameter or type(weight.data) is not torch.Tensor or weight.dtype not in DENSE:
        raise ModelError(
            f"{site.name}.weight is quantised ({type(weight).__name__}, {weight.dtype}): masks work on it, folding "
            "does not. Fold the unquantised checkpoint (float32, bfloat16 or float16) and quantise the result"
        )
    return weight


def affected_sites(model: nn.Module, mask: Mask, head_map: HeadMap) -> list[tuple[HeadSite, Tensor]]:
    """The output projections of heads that a mask changes, each with a gate per input feature.

    Raises:
        ModelError: see `fold`.
    """
    if plain(model) is not model:
        raise ModelError("this is the wrapper that torch.compile returns: pass the model that was compiled")
    split = zip(head_map.sites, head_map.split(head_map.gates(mask)), strict=True)
    affected = [(site, gates.repeat_interleave(site.head_dim)) for site, gates in split if bool((gates != 1).any())]
    _require_editable(model, head_map, [site for site, _ in affected])
    return affected


def _scale(weight: Tensor, module: nn.Module, gates: Tensor) -> None:
    inputs = 0 if isinstance(module, Conv1D) else 1
    wide = gates.to(weight.device, weight.dtype)  # rounded like the gates of the masked model
    weight.mul_(wide[:, None] if inputs == 0 else wide)
    weight.index_fill_(inputs, (wide == 0).nonzero()[:, 0], 0.0)  # not -0, nor what 0 times infinity is


def _require_editable(model: nn.Module, head_map: HeadMap, affected: list[HeadSite]) -> None:
    head_map.modules(model)
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not parameter.is_meta:
            owners.setdefault(parameter.untyped_storage().data_ptr(), []).append(name)
    # A block that several layers run is one module under several names: one set of heads, dropped in all of them.
    names_of = {id(module): name for name, module in model.named_modules()}
    for site in affected:
        module = model.get_submodule(site.name)
        weight = projection_weight(module, site)
        sharing = owners[weight.untyped_storage().data_ptr()]
        others = [name for name in sharing if id(model.get_submodule(name.rpartition(".")[0])) != id(module)]
        if others:
            raise ModelError(
                f"{names_of[id(module)]}.weight shares its memory with {others[0]}: scaling it would change that too. "
                "Untie the weights first"
            )
