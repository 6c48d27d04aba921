"""Repairs of a tiny model with a toy scorer: settings, prompts, texts and how they are called."""

from dataclasses import replace
from functools import cache
from typing import Any

from tiny_lm import tiny_lm
from toy_scorer import WordScorer, text, two_groups

from fairmend.language import RepairSettings, repair_model
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.models.models import LanguageModel
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.repair.repair import Repair, halves

TEXTS = (text(seed=0), text(seed=1))
PROMPTS = two_groups(60)
SETTINGS = RepairSettings(
    alpha=0.34,
    gamma=0.3,
    sampling=Sampling(new_tokens=6),
    reading=ReadingSettings(tokens=120, window=32, stride=16),
    scoring_tokens=None,
    prompts=20,
    loss_scores="first-order",
    seed=3,
)


def small() -> LanguageModel:
    """Three layers of four heads, random weights; another copy each time."""
    return tiny_lm("llama-mha", num_hidden_layers=3)


def repair(lm: LanguageModel, **options: Any) -> Repair:
    """A repair of the prompts and texts, with settings or arguments changed."""
    given = {key: options.pop(key) for key in ("store", "held_out", "scores", "progress", "others") if key in options}
    scorer = options.pop("scorer", WordScorer())
    return repair_model(lm, PROMPTS, scorer, replace(SETTINGS, **options), texts=TEXTS, **given)


@cache
def repaired_once() -> Repair:
    """One repair for all tests that only look at what came out; further judged on prompts of another axis."""
    return repair_model(small(), PROMPTS, WordScorer(), SETTINGS, texts=TEXTS, others=[two_groups(30, "other")])


def search_evaluator(lm: LanguageModel, settings: RepairSettings) -> LanguageEvaluator:
    """An evaluator on the half that is searched with."""
    searched, _ = halves(PROMPTS, settings)
    return LanguageEvaluator(
        lm, searched, Reading(lm, TEXTS[0], settings.reading), WordScorer(), sampling=settings.sampling
    )
