"""A folded checkpoint is an ordinary checkpoint; slicing removes whole key-value groups where that is exact."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import tiny
from shrinking import shrunk
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from fairmend.errors import ModelError
from fairmend.language.heads.folding import fold
from fairmend.language.heads.gates import masked
from fairmend.language.heads.heads import find_heads
from fairmend.language.heads.slicing import slice_groups

IDS = torch.arange(3, 15).view(1, -1)
SLICEABLE = [
    *["llama-mha", "llama-gqa", "llama-odd-head-dim", "mistral-sliding", "mixtral", "qwen2", "qwen3"],
    *["gemma2", "gemma3", "granite", "cohere", "smollm3"],
]


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model(input_ids=IDS).logits
    return result


def test_folding_zeroes_the_columns_of_a_linear_and_keeps_the_bias() -> None:
    model: Any = tiny("llama-gqa")
    folded: Any = fold(model, find_heads(model).space().mask([1, 6]))
    for layer, head in enumerate([1, 2]):
        before, after = (m.model.layers[layer].self_attn.o_proj for m in (model, folded))
        columns = slice(head * 8, head * 8 + 8)
        assert not after.weight[:, columns].any()
        kept = torch.ones(32, dtype=torch.bool)
        kept[columns] = False
        assert torch.equal(after.weight[:, kept], before.weight[:, kept])
        assert torch.equal(after.bias, before.bias)


def test_folding_zeroes_the_rows_of_gpt2() -> None:
    model: Any = tiny("gpt2")
    folded: Any = fold(model, find_heads(model).space().mask([3]))
    before, after = (m.transformer.h[0].attn.c_proj for m in (model, folded))
    assert not after.weight[24:].any()
    assert torch.equal(after.weight[:24], before.weight[:24])
    assert torch.equal(after.bias, before.bias)


def test_folding_copies_unless_told_otherwise() -> None:
    model = tiny("gpt2")
    mask = find_heads(model).space().mask([0])
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, mask)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert fold(model, mask, inplace=True) is model
    assert torch.equal(logits(model), logits(folded))


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa", "bitnet"])
def test_a_folded_checkpoint_loads_in_plain_transformers(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    mask = find_heads(model).space().mask([0, 2, 7])
    fold(model, mask).save_pretrained(tmp_path)  # type: ignore[operator]
    with masked(model, mask):
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_folds_bit_for_bit(dtype: torch.dtype) -> None:
    model: Any = tiny("llama-gqa").to(dtype)
    mask = find_heads(model).space().mask([0, 2, 7])
    with masked(model, mask):
        gated = logits(model)
    assert torch.equal(logits(fold(model, mask)), gated)


class QuantisedParameter(nn.Parameter):
    """Stands for the parameter classes of quantisation libraries."""


def refused(model: Any, reason: str, unit: int = 0) -> None:
    head_map = find_heads(tiny("llama-gqa"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if not tensor.is_meta}
    with pytest.raises(ModelError, match=reason):
        fold(model, head_map.space().mask([5, unit]), head_map, inplace=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if name in before)


def test_weights_that_cannot_be_edited_are_refused_with_the_remedy() -> None:
    model: Any = tiny("llama-gqa")
    weight = model.model.layers[0].self_attn.o_proj.weight
    model.model.layers[0].self_attn.o_proj.weight = QuantisedParameter(weight.detach())
    refused(model, r"quantised \(QuantisedParameter.*Fold the unquantised checkpoint")
    model.model.layers[0].self_attn.o_proj.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)
    refused(model, r"quantised \(Parameter, torch.int8\)")
    model.model.layers[0].self_attn.o_proj.weight = nn.Parameter(weight.detach().to("meta"))
    refused(model, "off-loaded.*load the model without device_map")


def test_weights_made_by_a_parametrisation_are_refused() -> None:
    model: Any = tiny("llama-gqa")
    nn.utils.parametrizations.weight_norm(model.model.layers[0].self_attn.o_proj)
    refused(model, "has no weight of its own")


def test_tied_weights_are_refused() -> None:
    model: Any = tiny("llama-gqa")
    model.model.layers[0].self_attn.o_proj.weight = model.model.layers[1].self_attn.o_proj.weight
    refused(model, "shares its memory with")
    zamba = shrunk("zamba")
    with pytest.raises(ModelError, match="shares its memory with"):
        fold(zamba, find_heads(zamba).space().mask([0]))


def test_weights_that_the_mask_leaves_alone_may_be_anything() -> None:
    model: Any = tiny("llama-gqa")
    head_map = find_heads(model)
    model.model.layers[0].self_attn.o_proj.weight = nn.Parameter(torch.empty(32, 32, device="meta"))
    folded: Any = fold(model, head_map.space().mask([4]), head_map)
    assert not folded.model.layers[1].self_attn.o_proj.weight[:, :8].any()


def test_a_compiled_wrapper_and_a_foreign_mask_are_refused() -> None:
    model = tiny("llama-gqa")
    with pytest.raises(ModelError, match="the mask has 8 units"):
        fold(shrunk("laguna"), find_heads(model).space().mask([0]))

    class Compiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = model

    with pytest.raises(ModelError, match="pass the model that was compiled"):
        fold(Compiled(), find_heads(model).space().mask([0]))


@pytest.mark.parametrize("name", SLICEABLE)
def test_slicing_is_exact_and_loads_in_plain_transformers(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    head_map = find_heads(model)
    n_groups = head_map.sites[0].n_kv_groups
    # The first half of the groups of one layer, the second half of the other's, and a head beside them.
    mask = head_map.space().mask([0, 1, 6, 7, 3])
    sliced = slice_groups(model, mask, head_map)
    assert (sliced.removed_groups, sliced.removed_heads, sliced.folded_heads) == (n_groups // 2, 4, 1)
    assert sliced.parameters[1] < sliced.parameters[0]
    assert sliced.cache_per_token[1] < sliced.cache_per_token[0]
    sliced.model.save_pretrained(tmp_path)  # type: ignore[operator]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert sum(p.numel() for p in loaded.parameters()) == sliced.parameters[1]
    with masked(model, mask, head_map):
        torch.testing.assert_close(logits(loaded), logits(model))


def test_slicing_needs_a_group_that_every_layer_can_spare() -> None:
    model = tiny("llama-gqa")
    space = find_heads(model).space()
    with pytest.raises(ModelError, match=r"layers\.1\.self_attn\.o_proj has 0 of 2 groups of 2 heads fully dropped"):
        slice_groups(model, space.mask([0, 1, 4, 7]))
    with pytest.raises(ModelError, match="keep at least one"):
        slice_groups(model, space.mask(range(8)))


@pytest.mark.parametrize("name", ["gpt2", "phi3", "olmo2", "deepseek-v3", "gpt-oss", "stablelm", "opt-prenorm"])
def test_slicing_refuses_architectures_where_it_is_not_exact(name: str) -> None:
    model = tiny(name)
    with pytest.raises(ModelError, match="slicing needs separate q_proj"):
        slice_groups(model, find_heads(model).space().mask([0, 1, 4, 5]))
