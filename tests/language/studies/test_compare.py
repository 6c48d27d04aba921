"""Pruning methods side by side: the same scores, the same held-out data, every distinct set measured once."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_lm import tiny_lm
from tiny_organism import organism_prompts, organism_text, tiny_organism
from toy_scorer import WordScorer, text, two_groups

from fairmend.errors import DataError, InputError, RunError
from fairmend.language.heads.folding import fold
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.models.models import LanguageModel, weights_digest, wrap_model
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.records.run_directories import open_run
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject, halves
from fairmend.language.studies.compare import ComparisonSettings, MethodComparison, compare_methods, rule_name
from fairmend.language.toxicity.catalogue import load_scorer
from fairmend.records import built
from fairmend.report.study import load_study
from fairmend.search.names import METHODS

TEXTS = (text(seed=0), text(seed=1))
PROMPTS = two_groups(60)
SHARED = RepairSettings(
    sampling=Sampling(new_tokens=6),
    reading=ReadingSettings(tokens=120, window=32, stride=16),
    scoring_tokens=None,
    scoring_samples=1,
    prompts=20,
    loss_scores="first-order",
    seed=3,
)
SETTINGS = ComparisonSettings(alphas=(0.17, 0.34), gammas=(0.3, 0.5), random_draws=2, shared=SHARED)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm("llama-mha", num_hidden_layers=3)


def subject(lm: LanguageModel, **changes: Any) -> Subject:
    return Subject(lm, PROMPTS, WordScorer(), TEXTS, **changes)


@pytest.fixture(scope="module")
def compared(lm: LanguageModel) -> Any:
    return compare_methods(subject(lm, others=[two_groups(30, "other")]), SETTINGS)


def test_every_method_at_every_share(compared: Any, lm: LanguageModel):
    names = [rule_name(row.rule) for row in compared.rows]
    assert len(set(names)) == len(names) == 2 * (2 + 4 + 2)
    assert {row.rule.method for row in compared.rows} == set(METHODS)
    assert all(row.mask.size == int(12 * row.rule.alpha) for row in compared.rows)


def test_figures_are_those_of_a_folded_copy_on_the_judging_half(compared: Any, lm: LanguageModel):
    row = next(row for row in compared.rows if row.rule.method == "gradient")
    folded = wrap_model(fold(lm.model, row.mask, lm.head_map), lm.tokenizer, name="folded")  # type: ignore[arg-type]
    _, judged = halves(PROMPTS, SHARED)
    reading = Reading(folded, TEXTS[1], SHARED.reading)
    evaluator = LanguageEvaluator(folded, judged, reading, WordScorer(), sampling=SHARED.sampling)
    (plain,) = evaluator.measure([folded.head_map.space().untouched()])
    assert row.judgement.main.change.after.value == pytest.approx(plain.bias)
    assert row.judgement.perplexity.after == pytest.approx(plain.utility)


def test_no_prompt_is_both_scored_on_and_judged_on(compared: Any):
    assert not set(compared.search_prompts.texts) & set(compared.judge.prompts.texts)


def test_other_axes_are_watched(compared: Any):
    assert [axis.axis for axis in compared.untouched.axes] == ["toys", "other"]
    cells = compared.tables()[0].rows
    assert all(math.isfinite(row["change[other]"]) for row in cells)
    assert cells[0]["change"] == cells[0]["change[other]"] == 0


def test_the_model_is_left_as_it_was(compared: Any, lm: LanguageModel):
    assert weights_digest(lm.model) == weights_digest(tiny_lm("llama-mha", num_hidden_layers=3).model)


def test_fasp_makes_the_organism_fairer_than_chance_does():
    prompts, scorer = organism_prompts(), load_scorer("python:tiny_organism:rude_share")
    shared = replace(SHARED, prompts=100, reading=ReadingSettings(tokens=500, window=16, stride=16))
    settings = ComparisonSettings(("fasp", "random"), (0.26,), (0.5,), shared=shared)
    texts = (organism_text("search"), organism_text("judge"))
    found = compare_methods(Subject(tiny_organism(), prompts, scorer, texts), settings)
    fasp, *drawn = [row.judgement.main.change for row in found.rows]
    assert fasp.interval.high < 0
    assert fasp.change < np.mean([each.change for each in drawn])


def test_a_directory_belongs_to_one_comparison(tmp_path: Path, lm: LanguageModel, compared: Any):
    open_run(tmp_path / "out", subject(lm), SETTINGS, kind=SETTINGS.kind).close()
    with pytest.raises(RunError, match=r"settings\.alphas: was \[0\.17, 0\.34\], is \[0\.2\]"):
        open_run(tmp_path / "out", subject(lm), replace(SETTINGS, alphas=(0.2,)), kind=SETTINGS.kind)
    with pytest.raises(RunError, match="has not finished"):
        load_study(tmp_path / "out", MethodComparison)
    compared.save(SETTINGS, tmp_path / "out")
    saved = load_study(tmp_path / "out", MethodComparison)
    assert built(saved["settings"], ComparisonSettings) == SETTINGS
    assert [row["dropped"] for row in saved["rows"]] == [list(row.mask.units()) for row in compared.rows]
    (tmp_path / "out" / "compare.json").write_text("{}")
    with pytest.raises(RunError, match="is not the result of a fairmend language comparison"):
        load_study(tmp_path / "out", MethodComparison)
    (tmp_path / "out" / "compare.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        load_study(tmp_path / "out", MethodComparison)


def test_settings_that_cannot_work_are_refused(lm: LanguageModel):
    with pytest.raises(InputError, match="alphas needs one or more different values"):
        ComparisonSettings(alphas=())
    with pytest.raises(InputError, match="their sum must be at most 1"):
        ComparisonSettings(alphas=(0.5,), gammas=(0.6,))
    with pytest.raises(InputError, match=r"alpha=0\.05 of 12 heads is none"):
        compare_methods(subject(lm), ComparisonSettings(alphas=(0.05,)))
    with pytest.raises(DataError, match="others of the same groups"):
        compare_methods(subject(lm, judge_prompts=organism_prompts()), SETTINGS)
