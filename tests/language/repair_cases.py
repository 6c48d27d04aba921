"""Repairs of a tiny model with a toy scorer: settings, prompts, texts and how they are called."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tiny_lm import tiny_lm
from toy_scorer import WordScorer, text, two_groups

from fairmend.language import RepairSettings, open_run, repair_model
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.models.models import LanguageModel
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.repair.repair import Repair
from fairmend.language.repair.subject import Subject, halves
from fairmend.runs import Store

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


def subject(lm: LanguageModel, **changes: Any) -> Subject:
    """What is repaired and judged on."""
    return Subject(**{"lm": lm, "prompts": PROMPTS, "scorer": WordScorer(), "texts": TEXTS} | changes)


def start(out: Path, lm: LanguageModel, settings: RepairSettings = SETTINGS, scorer: Any = None) -> Store:
    """The store of a new run of such a repair."""
    return open_run(out, subject(lm, scorer=scorer or WordScorer()), settings)


def repair(lm: LanguageModel, **options: Any) -> Repair:
    """A repair of the prompts and texts, with settings or arguments changed."""
    given = {key: options.pop(key) for key in ("store", "held_out", "scores", "progress") if key in options}
    about = {key: options.pop(key) for key in ("scorer", "others") if key in options}
    return repair_model(subject(lm, **about), replace(SETTINGS, **options), **given)


@cache
def repaired_once() -> Repair:
    """One repair for all tests that only look at what came out; further judged on prompts of another axis."""
    return repair_model(subject(small(), others=[two_groups(30, "other")]), SETTINGS)


def search_evaluator(lm: LanguageModel, settings: RepairSettings) -> LanguageEvaluator:
    """An evaluator on the half that is searched with."""
    searched, _ = halves(PROMPTS, settings)
    return LanguageEvaluator(
        lm, searched, Reading(lm, TEXTS[0], settings.reading), WordScorer(), sampling=settings.sampling
    )
