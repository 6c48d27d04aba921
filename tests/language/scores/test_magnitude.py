"""Weight norms of heads, against norms taken by hand from the layouts of several architectures."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, tiny

from fairmend.language.heads.heads import find_heads
from fairmend.language.models.models import weights_digest
from fairmend.language.scores.magnitude import head_magnitudes

Parts = list[torch.Tensor]


def llama(layer: Any, head: int) -> Parts:
    attention, d = layer.self_attn, layer.self_attn.head_dim
    own, group = slice(head * d, head * d + d), slice(head // 2 * d, head // 2 * d + d)
    key, value = attention.k_proj.weight[group], attention.v_proj.weight[group]
    return [attention.q_proj.weight[own], key, value, attention.o_proj.weight[:, own]]


def gpt2(layer: Any, head: int) -> Parts:
    fused, own = layer.attn.c_attn.weight, slice(head * 8, head * 8 + 8)
    return [*(third[:, own] for third in fused.split(32, dim=1)), layer.attn.c_proj.weight[own]]


def neox(layer: Any, head: int) -> Parts:
    attention = layer.attention
    rows = attention.query_key_value.weight[head * 24 : head * 24 + 24]  # query, key, value of a head in a row
    return [rows, attention.dense.weight[:, head * 8 : head * 8 + 8]]


def multi_query(layer: Any, head: int) -> Parts:
    fused, own = layer.self_attention.query_key_value.weight, slice(head * 8, head * 8 + 8)
    return [fused[own], fused[32:], layer.self_attention.dense.weight[:, own]]


@pytest.mark.parametrize(
    ("name", "layers", "parts"),
    [
        ("llama-gqa", "model.layers", llama),
        ("qwen3", "model.layers", llama),
        ("gpt2", "transformer.h", gpt2),
        ("gpt-neox-parallel", "gpt_neox.layers", neox),
        ("falcon-multi-query", "transformer.h", multi_query),
    ],
)
def test_equals_the_norm_of_the_rows_that_the_layout_says(name: str, layers: str, parts: Callable[[Any, int], Parts]):
    model = tiny(name).requires_grad_(False)
    expected = [
        sum(float(part.double().square().sum()) for part in parts(layer, head)) ** 0.5
        for layer in model.get_submodule(layers)  # type: ignore[union-attr]
        for head in range(4)
    ]
    found = head_magnitudes(model)
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert found.without_rows == ()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_magnitudes_and_is_left_as_it_was(name: str):
    model = tiny(name)
    model.requires_grad_(False)
    model.get_output_embeddings().requires_grad_(True)
    before, learned = weights_digest(model), [p.requires_grad for p in model.parameters()]
    found = head_magnitudes(model)
    assert found.values.shape == (find_heads(model).n_heads,)
    assert np.all(found.values > 0)
    assert weights_digest(model) == before
    assert [p.requires_grad for p in model.parameters()] == learned
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert bool(found.without_rows) == (name == "bitnet")


def test_larger_weights_of_one_head_raise_that_head_alone():
    model = tiny("llama-mha")
    before = head_magnitudes(model).values
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[16:24] *= 3
    after = head_magnitudes(model).values
    assert np.flatnonzero(after > before * 1.01).tolist() == [4 + 2]
    np.testing.assert_allclose(np.delete(after, 6), np.delete(before, 6))
