"""A gain per head: gated, folded, saved and read back it is the same model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from architectures import ARCHITECTURES, tiny
from hypothesis import given
from hypothesis import strategies as st
from tiny_lm import tiny_lm
from torch import Tensor
from toy_scorer import WordScorer, text, two_groups
from transformers import AutoModelForCausalLM

from fairmend.errors import InputError, ModelError
from fairmend.language.generation.samples import toxicity_of_parts
from fairmend.language.heads.folding import fold, folded_state
from fairmend.language.heads.gates import HeadGates, masked
from fairmend.language.heads.heads import HeadMap, find_heads, gains_of
from fairmend.language.heads.slicing import slice_groups
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.models.models import wrap_model
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.records.checkpoints import read_mask, write_checkpoint
from fairmend.language.records.results import count_heads, describe_mask, heads_in_words, mask_for
from fairmend.masks import Mask
from fairmend.records import built, document, plain

IDS = torch.arange(3, 15).view(1, -1)
GAINS = [0.5, 1, 0, 1.5, 1.25, 0, 0.75, 1]
LM = tiny_lm()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model(input_ids=IDS).logits
    return result


def some_gains(head_map: HeadMap, seed: int = 2) -> npt.NDArray[np.float64]:
    return np.clip(np.random.default_rng(seed).uniform(-0.3, 1.5, head_map.n_heads), 0, 1.5)


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gates_folds_and_gains_of_zero_agree(name: str, tmp_path: Path) -> None:
    model: Any = tiny(name)
    head_map = find_heads(model)
    untouched, mask = logits(model), head_map.mask(some_gains(head_map))
    with masked(model, mask, head_map):
        gated = logits(model)
    fold(model, mask, head_map).save_pretrained(tmp_path)  # type: ignore[operator]
    plain_model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert relative(logits(plain_model), gated) <= 1e-6
    assert relative(gated, untouched) > 1e-3
    assert torch.equal(logits(model), untouched)
    dropped, zeroed = head_map.space().mask([0, 5]), np.ones(head_map.n_heads)
    zeroed[[0, 5]] = 0
    dials_only = Mask(0, head_map.n_heads, tuple(zeroed - 1))
    seen = [logits(fold(model, each, head_map)) for each in (dropped, head_map.mask(zeroed), dials_only)]
    with masked(model, dials_only, head_map):
        seen.append(logits(model))
    assert all(torch.equal(each, seen[0]) for each in seen)


def test_a_gain_multiplies_the_columns_of_its_head() -> None:
    model: Any = tiny("gpt2")
    head_map = find_heads(model)
    folded: Any = fold(model, head_map.mask(GAINS), head_map)
    for layer, gains in enumerate(np.split(np.array(GAINS), 2)):
        before, after = (m.transformer.h[layer].attn.c_proj for m in (model, folded))
        wide = torch.tensor(gains).float().repeat_interleave(8)[:, None]
        assert torch.equal(after.weight, before.weight * wide)
        assert not torch.signbit(after.weight[wide[:, 0] == 0]).any()
        assert torch.equal(after.bias, before.bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_a_gain_as_its_gate_does(dtype: torch.dtype) -> None:
    model: Any = tiny("llama-gqa").to(dtype)
    mask = find_heads(model).mask(GAINS)
    with masked(model, mask):
        gated = logits(model)
    assert relative(logits(fold(model, mask)), gated) < 2e-2


def test_gains_of_nested_blocks_multiply_and_rows_have_their_own() -> None:
    model: Any = tiny("llama-gqa")
    head_map = find_heads(model)
    masks = [head_map.mask(GAINS), head_map.mask(np.sqrt(GAINS)), head_map.space(gains=True).untouched()]
    with masked(model, masks[0]):
        once = logits(model)
    with masked(model, masks[1]), masked(model, masks[1]):
        torch.testing.assert_close(logits(model), once)
    with HeadGates(model, head_map) as gates, torch.no_grad():
        gates.drop(*masks)
        rows = model(input_ids=IDS.expand(3, -1)).logits
    torch.testing.assert_close(rows[:1], once, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rows[2:], logits(model), rtol=1e-4, atol=1e-4)


def test_slicing_removes_groups_of_gain_zero_and_scales_the_rest() -> None:
    model: Any = tiny("llama-gqa")
    head_map = find_heads(model)
    gains = np.array([0, 0, 0.5, 1.5, 1, 0, 0, 0])
    mask = Mask(0b0000_0001, 8, tuple(gains - 1))  # one head by its bit, the others by their gains
    sliced = slice_groups(model, mask, head_map)
    assert (sliced.removed_groups, sliced.removed_heads, sliced.folded_heads) == (1, 4, 1)
    with masked(model, mask, head_map):
        torch.testing.assert_close(logits(sliced.model), logits(model))


def test_gains_outside_the_limits_or_of_another_model_are_refused() -> None:
    for wrong in ([1.6, *GAINS[1:]], [-0.1, *GAINS[1:]], [np.nan, *GAINS[1:]]):
        with pytest.raises(InputError, match="outside the space"):
            LM.head_map.mask(wrong)
    with pytest.raises(InputError, match=r"gains of shape \(7,\).*8 heads"):
        LM.head_map.mask(GAINS[1:])
    with pytest.raises(ModelError, match=r"3 dials.*no dials or one each"):
        LM.head_map.gates(Mask(0, 8, (0.0,) * 3))


def test_the_dials_are_named_after_layer_and_head() -> None:
    dials = LM.head_map.space(gains=True).dials
    assert [dial.name for dial in dials[3:5]] == ["gain of 0.3", "gain of 1.0"]
    assert {(dial.low, dial.high) for dial in dials} == {(-1.0, 0.5)}
    assert not LM.head_map.space().dials


@given(st.lists(st.floats(0, 1.5), min_size=8, max_size=8), st.integers(0, 255))
def test_every_mask_comes_back_as_it_was(gains: list[float], bits: int) -> None:
    mask = LM.head_map.mask(gains)
    assert gains_of(mask) == pytest.approx(gains, abs=1e-15)
    assert mask.units() == tuple(unit for unit, gain in enumerate(gains_of(mask)) if gain == 0)
    assert built(json.loads(json.dumps(plain(mask))), Mask) == mask
    for each in (mask, Mask(bits, 8, mask.dials), Mask(bits, 8)):
        again = mask_for(json.loads(document(describe_mask(each, LM))), LM)
        assert torch.equal(LM.head_map.gates(again), LM.head_map.gates(each))
        assert again.bits == each.bits
        assert mask_for(json.loads(document(describe_mask(again, LM))), LM) == again
    counts = count_heads(gains_of(mask), 8)
    assert counts["heads"] == 8
    assert counts["dropped"] == mask.size
    assert sum(counts.values()) - 8 == sum(gain != 1 for gain in gains_of(mask))


def test_gains_replay_from_mask_json_as_plain_transformers_loads_them(tmp_path: Path) -> None:
    mask = LM.head_map.mask(GAINS)
    write_checkpoint(LM, mask, tmp_path / "out", {"mask.json": document(describe_mask(mask, LM))})
    assert read_mask(tmp_path / "out", LM) == mask
    state = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(state[name], each) for name, each in folded_state(LM.model, mask, LM.head_map).items())
    words = heads_in_words(count_heads(gains_of(mask), 8))
    assert words == "2 of 8 heads dropped, 2 turned down, 2 turned up"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gains": ...}, "KeyError: 'gains'"),
        ({"gains": [0.5] * 7}, "outside the space"),
        ({"gains": [2.0] * 8}, "outside the space"),
        ({"gains": ["1"] * 8}, "gains is no list of numbers"),
        ({"gains": [True] * 8}, "gains is no list of numbers"),
        ({"gains": [0.5] * 8}, "gives a dropped head a gain other than 0"),
        ({"space": plain(LM.head_map.space())}, "has the entry 'gains'"),
    ],
)
def test_a_mask_with_edited_gains_is_refused(changes: dict[str, Any], said: str) -> None:
    whole = describe_mask(LM.head_map.mask(GAINS), LM)
    with pytest.raises(ModelError, match=said):
        mask_for({name: value for name, value in {**whole, **changes}.items() if value is not ...}, LM)


def test_an_evaluator_measures_gains_as_the_folded_model_shows_them() -> None:
    reading, sampling = ReadingSettings(tokens=80, window=32, stride=16), Sampling(new_tokens=4, seed=3)
    space = LM.head_map.space(gains=True)
    evaluator = LanguageEvaluator(
        LM, two_groups(), Reading(LM, text(), reading), WordScorer(), sampling=sampling, space=space
    )
    masks = [LM.head_map.mask(GAINS), LM.head_map.mask([1, *GAINS[1:]]), space.untouched()]
    measured = evaluator.measure(masks)
    assert len({each.utility for each in measured}) == 3
    folded = wrap_model(fold(LM.model, masks[0], LM.head_map), LM.tokenizer, name="folded")  # type: ignore[arg-type]
    (of_folded,) = evaluator_of_plain(folded, reading, sampling).measure([folded.head_map.space().untouched()])
    assert measured[0].bias == pytest.approx(of_folded.bias)
    assert measured[0].utility == pytest.approx(of_folded.utility)
    rows = np.arange(len(evaluator.prompts))
    (scores,) = toxicity_of_parts(LM, evaluator.prompts, WordScorer(), [(masks[0], rows)], sampling)
    np.testing.assert_array_equal(scores, evaluator.scores(measured[0]))


def evaluator_of_plain(lm: Any, reading: ReadingSettings, sampling: Sampling) -> LanguageEvaluator:
    return LanguageEvaluator(lm, two_groups(), Reading(lm, text(), reading), WordScorer(), sampling=sampling)
