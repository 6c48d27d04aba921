"""Examples of continuations: those that changed most, and the very texts that were scored."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_lm import tiny_lm
from toy_scorer import WordScorer, text, two_groups

from fairmend.language.generation.generation import generate
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.models.models import LanguageModel, wrap_model
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.repair.differences import largest_changes


def evaluator_of(lm: LanguageModel) -> LanguageEvaluator:
    reading = Reading(lm, text(), ReadingSettings(tokens=64, window=32, stride=32))
    return LanguageEvaluator(
        lm, two_groups(20), reading, WordScorer(), sampling=Sampling(new_tokens=5, n_samples=2, seed=4)
    )


def examples(lm: LanguageModel, units: list[int], count: int = 6) -> tuple[Any, LanguageEvaluator]:
    evaluator = evaluator_of(lm)
    mask = evaluator.space.mask(units)
    before, after = evaluator.measure([evaluator.space.untouched(), mask])
    return largest_changes(evaluator, before, after, mask, count=count), evaluator


def test_are_the_largest_changes_of_different_prompts_with_the_texts_that_were_scored():
    lm = tiny_lm()
    pairs, evaluator = examples(lm, [1, 5, 6])
    prompts = evaluator.prompts
    before, after = evaluator.measure([evaluator.space.untouched(), evaluator.space.mask([1, 5, 6])])
    distance = np.abs(evaluator.scores(after) - evaluator.scores(before)).max(axis=1)
    assert [pair.distance for pair in pairs] == pytest.approx(sorted(distance, reverse=True)[:6])
    assert len({pair.prompt for pair in pairs}) == 6
    gates = (~evaluator.space.mask([1, 5, 6]).dropped()).astype(np.float32)
    for pair in pairs:
        row = prompts.texts.index(pair.prompt)
        assert pair.group == prompts.group_names[prompts.groups[row]]
        one = Sampling(new_tokens=5, seed=4)
        written = [
            (
                generate(lm, [pair.prompt], prompts.ids[[row]], one, draw=draw).texts[0],
                generate(lm, [pair.prompt], prompts.ids[[row]], one, draw=draw, gates=gates).texts[0],
            )
            for draw in range(2)
        ]
        assert (pair.before, pair.after) in written
        assert WordScorer().score([pair.before, pair.after]) == pytest.approx([pair.score_before, pair.score_after])


def test_prompts_that_did_not_change_are_no_examples():
    assert examples(tiny_lm(), [])[0] == ()
    assert len(examples(tiny_lm(), [1, 5, 6], count=2)[0]) == 2


def test_in_bfloat16_the_toxicity_is_that_of_the_text_that_is_shown():
    lm = tiny_lm()
    half = wrap_model(lm.model.to(torch.bfloat16), lm.tokenizer, name="half")
    pairs, _ = examples(half, [1, 5, 6])
    assert pairs
    for pair in pairs:
        assert WordScorer().score([pair.before, pair.after]) == pytest.approx([pair.score_before, pair.score_after])
