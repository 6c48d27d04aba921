"""Measure a language model as it is: bias on every axis, and perplexity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from fairmend.language.bias.bias import summarise_bias, verdict
from fairmend.language.bias.design import design_of
from fairmend.language.bias.records import BiasFigures
from fairmend.language.choices.published import Published, published_scores
from fairmend.language.measurement.answers import Preferences, answers_of
from fairmend.language.measurement.knowledge import KnowledgeFigures, summarise_knowledge
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.perplexity import check_finite, summarise, token_log_likelihoods
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.choices import ChoiceSet
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import Sampling
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.toxicity.scorer import Floats, Scorer
from fairmend.records import Kind, built, plain
from fairmend.runs.progress import Progress, Stages
from fairmend.runs.workers import Task, Workers

_KNOWN = 320  # items of knowledge


@dataclass(frozen=True)
class PerplexityFigures:
    """The perplexity of a model on one text.

    Attributes:
        value: the perplexity.
        standard_error: over windows; NaN with a single one.
        n_tokens: tokens scored.
        protocol: name of the protocol with its window and stride.
        text: where the text is from.
    """

    value: float
    standard_error: float
    n_tokens: int
    protocol: str
    text: str


@dataclass(frozen=True)
class LanguageAudit:
    """What an audit found.

    Attributes:
        axes: the bias of each axis by its name.
        prompts: what was continued, one set per axis.
        perplexity: of the model.
        sampling: how the prompts were continued.
        knowledge: what the model knows; None if that was not asked.
        published: of every benchmark the scores that its authors published, of all items and by group.
    """

    axes: dict[str, BiasFigures]
    prompts: tuple[PromptSet, ...]
    perplexity: PerplexityFigures
    sampling: Sampling
    knowledge: KnowledgeFigures | None = None
    published: Mapping[str, Mapping[str, Published]] = field(default_factory=dict)

    @property
    def verdicts(self) -> dict[str, str]:
        """For every axis in words whether there is anything to repair."""
        return {axis: verdict(figures) for axis, figures in self.axes.items()}

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description, undefined figures as null."""
        axes = [
            {
                "axis": prompts.axis,
                "verdict": self.verdicts[prompts.axis],
                "bias": self.axes[prompts.axis],
                "prompts": prompts.fingerprint() | {"licence": prompts.licence, "notes": list(prompts.notes)},
            }
            for prompts in self.prompts
        ]
        described: dict[str, Any] = plain(
            {
                "axes": axes,
                "perplexity": self.perplexity,
                "sampling": self.sampling,
                "knowledge": self.knowledge,
                "published": self.published,
            }
        )
        return described


AUDIT = Kind("language audit", 1, "audit.json", "saved audit", "audit")


def saved_audit(saved: Mapping[str, Any]) -> LanguageAudit:
    """The audit that a record holds, without its prompts, of which it has digests only.

    Raises:
        KeyError, ValueError: the record lacks an entry, or has one of another type.
    """
    return LanguageAudit(
        axes={entry["axis"]: built(entry["bias"], BiasFigures) for entry in saved["axes"]},
        prompts=(),
        perplexity=built(saved["perplexity"], PerplexityFigures),
        sampling=built(saved["sampling"], Sampling),
        knowledge=None if saved["knowledge"] is None else built(saved["knowledge"], KnowledgeFigures),
        published=built(saved["published"], dict[str, dict[str, Published]]),
    )


def audit_model(
    subject: Subject,
    settings: RepairSettings | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> LanguageAudit:
    """Measure the bias of a model on every axis, and its perplexity.

    Args:
        subject: the model, of which masks that are on it are in force, the prompts of every axis, and the text to judge
            on, which the perplexity is taken of.
        settings: how bias and perplexity are measured, and on how many prompts; nothing is repaired.
        progress: where to show how far it is.
        workers: who measures, one axis at a time each, if there are several; None is this process.

    Raises:
        ModelError: logits that are not finite, prompts that do not fit, out of memory.
        DataError: a group with fewer than 2 prompts, or a text that is too short.
        InputError: a scorer or protocol that does not suit.
    """
    settings = settings or RepairSettings()
    lm, text, sampling, known = subject.lm, subject.texts[1], settings.sampling, subject.knowledge
    reader = Reading(lm, text, settings.reading)

    axes, prompts = {}, subject.sampled(settings)
    elsewhere = _answers(subject, prompts, sampling, workers)
    with Stages(progress) as stages:
        heard = stages.of(f"windows of {len(reader.tokens):,} tokens")
        losses = token_log_likelihoods(lm, reader.tokens, reader.windows, heard)
        read = check_finite(summarise(reader.protocol, losses), lm)
        for part in prompts:
            answers = answers_of(lm, part, subject.scorer, sampling)
            known_already = elsewhere.get(part.axis)
            axes[part.axis] = summarise_bias(
                answers.plainly(stages.of(part.axis)) if known_already is None else known_already,
                design_of(part, settings.group_mean),
                rng=np.random.default_rng([settings.seed, 1]),
                score=answers.quantity,
                scorer=answers.scorer,
            )
        benchmarks = [part for part in prompts if isinstance(part, ChoiceSet)]
        published = {part.axis: scores for part in benchmarks if (scores := published_scores(lm, part))}
        knowledge = None
        if known is not None:
            known = known if len(known) <= _KNOWN else known.sample(_KNOWN, settings.seed)
            knowledge = summarise_knowledge(known, Preferences(lm, known).plainly(stages.of("knowledge"))[:, 0])
    figures = PerplexityFigures(read.value, read.standard_error, read.n_tokens, read.protocol, text.source)
    return LanguageAudit(axes, tuple(prompts), figures, sampling, knowledge, published)


def _answers(
    subject: Subject, prompts: Sequence[PromptSet], sampling: Sampling, workers: Workers | None
) -> dict[str, Floats]:
    """What the model makes of the prompts of every axis, as other processes find it; nothing where there are none."""
    if workers is None or workers.is_here:
        return {}
    if len(prompts) == 1:
        workers.remark("the prompts of a single axis are measured in this process: workers take an axis each")
        return {}
    work = partial(_plainly, subject.lm, subject.scorer, sampling)
    tasks = [Task(work, (part,), partial(str, f"while measuring {part.axis}"), len(part), False) for part in prompts]
    return {prompts[done.number].axis: done.result for done in workers.do(tasks)}


def _plainly(lm: LanguageModel, scorer: Scorer | None, sampling: Sampling, prompts: PromptSet) -> Floats:
    return answers_of(lm, prompts, scorer, sampling).plainly()
