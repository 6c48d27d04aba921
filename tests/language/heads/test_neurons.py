"""The neurons of feed-forward blocks as units: found, gated, folded, saved and read back like heads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, tiny
from tiny_lm import tiny_lm
from torch import Tensor
from transformers import AutoModelForCausalLM

from fairmend.errors import ModelError
from fairmend.language.heads.folding import fold
from fairmend.language.heads.gates import HeadGates, masked
from fairmend.language.heads.heads import find_heads, gains_of
from fairmend.language.heads.neurons import with_neurons
from fairmend.language.records.checkpoints import read_mask, write_checkpoint
from fairmend.language.records.results import count_heads, describe_mask, heads_in_words
from fairmend.records import document

IDS = torch.arange(3, 15).view(1, -1)
EXPERTS = ("mixtral", "gpt-oss")  # none of theirs reads every token


@torch.no_grad()
def logits(model: Any, rows: int = 1) -> Tensor:
    result: Tensor = model(input_ids=IDS.expand(rows, -1)).logits
    return result


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def gains(n_units: int, n_heads: int) -> np.ndarray:
    """Some neurons off, some turned; heads as they are."""
    found = np.clip(np.random.default_rng(2).uniform(-0.3, 1.5, n_units), 0, 1.5)
    found[:n_heads] = 1
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gates_of_neurons_fold_into_what_plain_transformers_loads(name: str, tmp_path: Path) -> None:
    model: Any = tiny(name)
    heads = find_heads(model)
    if name in EXPERTS:
        with pytest.raises(ModelError, match="--soft-units heads"):
            with_neurons(model, heads)
        return
    units = with_neurons(model, heads)
    assert units.sites[: len(heads.sites)] == heads.sites
    assert len({site.layer for site in units.sites}) == len({site.layer for site in heads.sites})
    untouched, mask = logits(model), units.mask(gains(units.n_heads, heads.n_heads))
    with masked(model, mask, units):
        gated = logits(model)
    fold(model, mask, units).save_pretrained(tmp_path)  # type: ignore[operator]
    plain_model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert relative(logits(plain_model), gated) <= 2e-6
    assert relative(gated, untouched) > 1e-3
    assert torch.equal(logits(model), untouched)


def test_a_neuron_is_what_the_last_projection_reads() -> None:
    """Dropping a neuron is zeroing its activation, by a hook of the test's own; a row of a batch has its own gates."""
    model: Any = tiny("gpt2")
    units = with_neurons(model, find_heads(model))
    site = units.sites[-1]
    assert site.name == "transformer.h.1.mlp.c_proj"
    assert (site.n_heads, site.head_dim) == (model.config.n_inner or 4 * model.config.n_embd, 1)
    one = units.space().mask([units.n_heads - 1])

    def off(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
        changed = args[0].clone()
        changed[..., -1] = 0
        return (changed,)

    hook = model.get_submodule(site.name).register_forward_pre_hook(off)
    expected = logits(model)
    hook.remove()
    with HeadGates(model, units) as gates:
        gates.drop(one, units.space().untouched())
        rows = logits(model, rows=2)
    torch.testing.assert_close(rows[:1], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rows[1:], logits(model), rtol=1e-5, atol=1e-6)


def test_gains_of_all_units_are_saved_and_read_back(tmp_path: Path) -> None:
    lm = tiny_lm()
    turned = lm.turning("all")
    n_heads, n_units = lm.head_map.n_heads, turned.head_map.n_heads
    mask = turned.head_map.mask(gains(n_units, n_heads))
    assert turned.turning("heads").head_map is lm.head_map
    assert turned.with_units_of(lm.head_map.mask(np.ones(n_heads))).units == "heads"
    write_checkpoint(lm, mask, tmp_path / "out", {"mask.json": document(describe_mask(mask, lm))})
    assert read_mask(tmp_path / "out", lm) == mask
    saved: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with masked(lm.model, mask, turned.head_map):
        assert relative(logits(saved), logits(lm.model)) <= 2e-6
    counts = count_heads(gains_of(mask), n_heads)
    assert counts["neurons"] == n_units - n_heads
    assert f"of {n_heads} heads and {n_units - n_heads:,} neurons dropped" in heads_in_words(counts)
    edited = json.loads((tmp_path / "out" / "mask.json").read_text())
    edited["space"]["sites"] = edited["space"]["sites"][:-1]
    (tmp_path / "other.json").write_text(json.dumps(edited))
    with pytest.raises(ModelError):
        read_mask(tmp_path / "other.json", lm)
