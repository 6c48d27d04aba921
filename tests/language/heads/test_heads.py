"""Attention heads are found in every architecture, proven to be in order, and refused with a reason otherwise."""

import copy
from typing import Any

import pytest
import torch
import transformers
from architectures import ARCHITECTURES, GROUPED, SIZES, tiny
from head_order import prove_head_order
from shrinking import shrunk
from silent_heads import with_silent_head
from torch import Tensor, nn

from fairmend.errors import InputError, ModelError
from fairmend.language.heads.gates import masked
from fairmend.language.heads.heads import HeadSite, find_heads

IDS = torch.arange(3, 15).view(1, -1)
ONE_GROUP = {"gemma", "falcon-multi-query", "gpt-bigcode"}
TWO_GROUPS = {name for name, (_, arguments) in ARCHITECTURES.items() if arguments.get("num_key_value_heads") == 2}
TWO_GROUPS.add("falcon-new-decoder")
HEAD_DIM = {"llama-odd-head-dim": 6, "qwen3": 12, "gemma": 12, "deepseek-v3": 12}


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model(input_ids=IDS, use_cache=False).logits
    return result


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_head_of_every_architecture_is_found(name: str) -> None:
    sites = find_heads(tiny(name)).sites
    n_kv_groups = 1 if name in ONE_GROUP else 2 if name in TWO_GROUPS else 4
    assert [site.layer for site in sites] == [0, 1]
    assert {(site.n_heads, site.head_dim, site.n_kv_groups) for site in sites} == {
        (4, HEAD_DIM.get(name, 8), n_kv_groups)
    }
    assert {site.is_coupled for site in sites} == {name == "bitnet"}


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "bitnet"])
def test_head_order_is_proven_by_the_attention_matrices(name: str) -> None:
    model = tiny(name)
    head_map = find_heads(model)
    order = prove_head_order(model, head_map)
    assert order.unread == {}
    assert set(order.residuals) == {site.name for site in head_map.sites}
    assert max(order.residuals.values()) < 1e-7


def test_the_norm_over_all_heads_of_bitnet_defeats_the_proof() -> None:
    model = tiny("bitnet")
    with pytest.raises(ModelError, match="a norm over all heads"):
        prove_head_order(model, find_heads(model))


@pytest.mark.parametrize("name", ["llama-gqa", "gpt2", "gpt-oss", "deepseek-v3", "mistral-sliding"])
def test_switching_off_a_head_is_silencing_it_in_the_attention_kernel(name: str) -> None:
    model = tiny(name)
    head_map = find_heads(model)
    assert with_silent_head(model, lambda: logits(model), None)[1] == 2
    for unit in range(head_map.n_heads):
        wanted, _ = with_silent_head(model, lambda: logits(model), divmod(unit, 4))
        with masked(model, head_map.space().mask([unit]), head_map):
            torch.testing.assert_close(logits(model), wanted)


class Reordered(nn.Module):
    """An output projection that reads the heads in reverse order: the weights are permuted to match."""

    def __init__(self, projection: nn.Linear, n_heads: int) -> None:
        super().__init__()
        self.inner = projection
        self.n_heads = n_heads

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.inner(features.unflatten(-1, (self.n_heads, -1)).flip(-2).flatten(-2))
        return result


def reordered() -> Any:
    model: Any = tiny("llama-gqa")
    model.model.layers[1].self_attn.o_proj = Reordered(model.model.layers[1].self_attn.o_proj, 4)
    return model


def test_heads_in_another_order_are_refused_by_the_finder() -> None:
    with pytest.raises(ModelError, match=r"layers\.1\.self_attn\.o_proj\.inner.*another order"):
        find_heads(reordered())


def test_heads_in_another_order_are_refused_by_the_proof() -> None:
    honest = find_heads(tiny("llama-gqa"))
    first, second = honest.sites
    claimed = HeadSite(f"{second.name}.inner", 1, second.n_heads, second.head_dim, second.n_kv_groups, second.kind)
    head_map = type(honest)(honest.architecture, (first, claimed))
    with pytest.raises(ModelError, match="slice 0 of the projection's input belongs to attention head 3, not 0"):
        prove_head_order(reordered(), head_map)


def test_the_model_is_left_as_it_was() -> None:
    model: Any = tiny("gemma3")
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy({**model.state_dict(), **dict(model.named_buffers())})
    kernels = model.config._attn_implementation
    random_state = torch.get_rng_state()
    prove_head_order(model, find_heads(model))
    assert torch.equal(torch.get_rng_state(), random_state)
    after = {**model.state_dict(), **dict(model.named_buffers())}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == kernels
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_kernel_that_cannot_be_watched_is_replaced_while_probing_and_restored() -> None:
    model: Any = tiny("llama-gqa")
    model.set_attn_implementation("flex_attention")
    assert find_heads(model).n_heads == 8
    assert model.config._attn_implementation == "flex_attention"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gpt2", "llama-gqa", "mixtral", "deepseek-v3", "bitnet"])
def test_half_precision_gives_the_same_map(name: str, dtype: torch.dtype) -> None:
    model: Any = tiny(name)
    assert find_heads(copy.deepcopy(model).to(dtype)) == find_heads(model)


@pytest.mark.parametrize(
    ("kind", "attention_layers"),
    [
        ("recurrent_gemma", [1]),
        ("olmo_hybrid", [1]),
        ("nemotron_h", [2]),
        ("jamba", [1]),
        ("qwen3_next", [1]),
        ("minimax", [0]),
        ("lfm2", [1]),
        ("falcon_h1", [0, 1]),
    ],
)
def test_layers_without_attention_of_hybrids_have_no_heads(kind: str, attention_layers: list[int]) -> None:
    assert [site.layer for site in find_heads(shrunk(kind)).sites] == attention_layers


def test_layers_may_have_different_numbers_of_heads() -> None:
    head_map = find_heads(shrunk("laguna"))
    assert [site.n_heads for site in head_map.sites] == [4, 8]
    assert head_map.space().n_units == head_map.n_heads == 12


def test_a_block_that_runs_several_times_is_one_set_of_heads() -> None:
    names = [site.name for site in find_heads(shrunk("hrm_text")).sites]
    assert len(names) == len(set(names)) == 4


def refused(model: nn.Module, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        find_heads(model)


def test_what_has_no_heads_to_switch_off_is_refused_with_the_reason() -> None:
    small: dict[str, Any] = {**SIZES, "is_decoder": False}
    refused(shrunk("mamba"), "has no attention heads")
    refused(shrunk("diffllama"), "not read by a linear layer of its own")
    refused(shrunk("jetmoe"), "cannot be switched off one by one")
    refused(nn.Linear(4, 4), "not a model of transformers")
    refused(transformers.LlamaModel(transformers.LlamaConfig(**SIZES)), "no language-model head")
    refused(transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**SIZES)), "no language-model head")
    refused(transformers.BertForMaskedLM(transformers.BertConfig(**small)), "looks at later tokens")
    t5 = transformers.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    refused(transformers.T5ForConditionalGeneration(t5), "encoder-decoder")


def test_weights_that_are_not_finite_are_refused() -> None:
    model: Any = tiny("llama-gqa")
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight[0, 0] = float("nan")
    refused(model, "not finite")


def test_heads_that_say_nothing_are_still_found() -> None:
    model: Any = tiny("llama-mha")
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight[:16] = 0
    assert find_heads(model) == find_heads(tiny("llama-mha"))


def test_heads_are_found_while_a_mask_is_on() -> None:
    model = tiny("llama-gqa")
    head_map = find_heads(model)
    with masked(model, head_map.space().mask([0, 1, 2, 3, 6])):
        assert find_heads(model) == head_map


def test_the_space_has_one_site_per_attention_layer() -> None:
    space = find_heads(tiny("gpt2")).space(min_drop=1, max_drop=3, frozen={0, 5})
    assert [site.units for site in space.sites] == [4, 4]
    assert (space.min_drop, space.largest, space.frozen) == (1, 3, frozenset({0, 5}))
    with pytest.raises(InputError, match="frozen units"):
        find_heads(tiny("gpt2")).space(frozen={8})


def test_a_map_of_another_model_does_not_resolve() -> None:
    head_map = find_heads(tiny("llama-gqa"))
    with pytest.raises(ModelError, match="has no module"):
        head_map.modules(tiny("gpt2"))
    wider = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**GROUPED, "head_dim": 12}))
    with pytest.raises(ModelError, match="48 input features"):
        head_map.modules(wider)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # raised by importing torch.compile
def test_a_map_fits_a_copy_of_the_model_and_its_compiled_form() -> None:
    model = tiny("llama-gqa")
    head_map = find_heads(model)
    assert len(head_map.modules(copy.deepcopy(model))) == 2
    assert find_heads(torch.compile(model)) == head_map
