"""Gates switch heads off for the whole model or per row of a batch, and leave no trace."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, tiny
from torch import Tensor

from fairmend.errors import InputError, ModelError
from fairmend.language.heads.folding import fold
from fairmend.language.heads.gates import HeadGates, masked
from fairmend.language.heads.heads import find_heads
from fairmend.masks import Mask

IDS = torch.arange(3, 15).view(1, -1)


@torch.no_grad()
def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    result: Tensor = model(input_ids=ids).logits
    return result


def some_masks(model: Any, n_masks: int, size: int = 3) -> tuple[Any, list[Mask]]:
    head_map = find_heads(model)
    rng = np.random.default_rng(1)
    return head_map, [head_map.space().sample(rng, size) for _ in range(n_masks)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_masking_equals_folding_bit_for_bit(name: str) -> None:
    model = tiny(name)
    head_map, (mask,) = some_masks(model, 1)
    untouched = logits(model)
    with masked(model, mask, head_map):
        gated = logits(model)
    assert torch.equal(gated, logits(fold(model, mask, head_map)))
    assert not torch.equal(gated, untouched)
    assert torch.equal(logits(model), untouched)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_with_their_own_masks_generate_as_if_alone(name: str) -> None:
    model: Any = tiny(name)
    head_map, masks = some_masks(model, 3)
    prompts = torch.tensor([[0, 0, 0, 5, 9], [0, 7, 30, 41, 8], [11, 12, 60, 14, 15]])
    options: dict[str, Any] = {
        "max_new_tokens": 6,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    model.generation_config.eos_token_id = None
    attention = (prompts != 0).long()
    with HeadGates(model, head_map) as gates:
        gates.drop(*masks)
        together = model.generate(prompts, attention_mask=attention, **options)
    for row, mask in enumerate(masks):
        one = slice(row, row + 1)
        with masked(model, mask, head_map):
            alone = model.generate(prompts[one], attention_mask=attention[one], **options)
        assert together.sequences.shape == (3, 11)
        assert torch.equal(together.sequences[one], alone.sequences)
        for batched, single in zip(together.logits, alone.logits, strict=True):
            torch.testing.assert_close(batched[one], single, rtol=1e-4, atol=1e-4)


def test_expand_repeats_the_gates_for_beams() -> None:
    model: Any = tiny("llama-gqa")
    head_map, masks = some_masks(model, 2)
    model.generation_config.eos_token_id = None
    prompts = IDS.view(2, 6)
    attention = torch.ones_like(prompts)
    with HeadGates(model, head_map) as gates:
        gates.drop(*masks, expand=3)
        together = model.generate(prompts, attention_mask=attention, max_new_tokens=5, num_beams=3)
    for row, mask in enumerate(masks):
        one = slice(row, row + 1)
        with masked(model, mask, head_map):
            alone = model.generate(prompts[one], attention_mask=attention[one], max_new_tokens=5, num_beams=3)
        assert torch.equal(together[one], alone)


def test_open_gates_change_nothing() -> None:
    model = tiny("gpt2")
    untouched = logits(model)
    with HeadGates(model) as gates:
        assert torch.equal(logits(model), untouched)
        gates.drop(gates.head_map.space().mask([1]))
        assert not torch.equal(logits(model), untouched)
        gates.reset()
        assert torch.equal(logits(model), untouched)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # raised by importing torch.compile
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_gates_are_changed_in_place_and_obeyed_by_a_compiled_model() -> None:
    model = tiny("llama-gqa")
    head_map, masks = some_masks(model, 4)
    wanted = []
    for mask in masks:
        with masked(model, mask, head_map):
            wanted.append(logits(model))
    torch._dynamo.reset()
    graphs = []

    def count_graphs(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    with HeadGates(model, head_map) as gates:
        compiled = torch.compile(model, backend=count_graphs)
        addresses = [gate.values.data_ptr() for gate in gates._gates]
        untouched = logits(compiled)
        n_graphs = len(graphs)
        for mask, expected in zip(masks, wanted, strict=True):
            gates.drop(mask)
            torch.testing.assert_close(logits(compiled), expected)
        assert len(graphs) == n_graphs > 0
        assert [gate.values.data_ptr() for gate in gates._gates] == addresses
        gates.reset()
        assert torch.equal(logits(compiled), untouched)


def test_gradients_with_respect_to_row_gates_are_first_order_effects() -> None:
    model: Any = tiny("gpt2").double()  # no part of GPT-2 falls back to float32
    head_map = find_heads(model)
    ids = IDS.view(2, 6)
    gates_in = torch.ones(2, head_map.n_heads, dtype=torch.float64, requires_grad=True)

    def row_losses() -> Tensor:
        result: Tensor = model(input_ids=ids).logits.log_softmax(-1)[..., 7].sum(-1)
        return result

    with HeadGates(model, head_map) as gates:
        gates.set(gates_in)
        (gradient,) = torch.autograd.grad(row_losses().sum(), gates_in)
        step = 1e-6
        for unit in range(head_map.n_heads):
            with torch.no_grad():
                shifted = torch.ones(head_map.n_heads, dtype=torch.float64)
                shifted[unit] += step
                gates.set(shifted)
                up = row_losses()
                shifted[unit] -= 2 * step
                gates.set(shifted)
                down = row_losses()
            torch.testing.assert_close(gradient[:, unit], (up - down) / (2 * step), rtol=1e-5, atol=1e-6)


def test_gates_made_in_inference_mode_can_be_set_outside_of_it() -> None:
    model = tiny("gpt2")
    head_map, (mask,) = some_masks(model, 1)
    with masked(model, mask, head_map):
        wanted = logits(model)
    with torch.inference_mode():
        gates = HeadGates(model, head_map)
    gates.drop(mask)
    assert torch.equal(logits(model), wanted)
    gates.remove()


def test_an_exception_leaves_the_model_as_it_was() -> None:
    model = tiny("gpt2")
    before = copy.deepcopy(model.state_dict())
    untouched = logits(model)
    with pytest.raises(RuntimeError, match="stop"), masked(model, find_heads(model).space().mask([0, 5])):
        raise RuntimeError("stop")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(model), untouched)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_nested_blocks_drop_the_heads_of_both() -> None:
    model = tiny("mixtral")
    space = find_heads(model).space()
    with masked(model, space.mask([0, 1, 6])):
        both = logits(model)
    with masked(model, space.mask([0, 1])):
        outer = logits(model)
        with masked(model, space.mask([1, 6])):
            assert torch.equal(logits(model), both)
        assert torch.equal(logits(model), outer)


def test_a_mask_of_another_model_is_refused_before_anything_happens() -> None:
    model = tiny("gpt2")
    with pytest.raises(ModelError, match="the mask has 9 units"), masked(model, Mask(1, 9)):
        pass
    with pytest.raises(ModelError, match="1 dials"), masked(model, Mask(1, 8, (0.5,))):
        pass
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_hook_point_that_is_gone_is_refused() -> None:
    model: Any = tiny("llama-gqa")
    head_map, (mask,) = some_masks(model, 1)
    del model.model.layers[1].self_attn.o_proj
    with pytest.raises(ModelError, match=r"no module 'model\.layers\.1\.self_attn\.o_proj'"):
        HeadGates(model, head_map).drop(mask)
    model.model.layers[1].self_attn.o_proj = torch.nn.Linear(48, 32)
    with pytest.raises(ModelError, match="48 input features"):
        HeadGates(model, head_map).drop(mask)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_gates_that_do_not_fit_the_batch_or_the_model_are_refused() -> None:
    model = tiny("llama-gqa")
    with HeadGates(model) as gates:
        with pytest.raises(InputError, match=r"gates of shape \(7,\)"):
            gates.set(torch.ones(7))
        with pytest.raises(InputError, match="no mask given"):
            gates.drop()
        gates.set(torch.zeros(3, 8))
        with pytest.raises(InputError, match="the gates are for 3 rows, the batch has 2"):
            logits(model, IDS.view(2, 6))
