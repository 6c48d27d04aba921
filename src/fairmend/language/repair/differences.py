"""Two language models, or one before and after its repair, on the same prompts with the same noise: the differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.language.backend.batching import Done
from fairmend.language.bias.bias import paired_change, verdict_on_change
from fairmend.language.bias.design import design_of
from fairmend.language.bias.records import BiasChange
from fairmend.language.generation.generation import generate
from fairmend.language.generation.samples import Floats, draw_sample, gates_of, score_continuations
from fairmend.language.measurement.answers import Preferences
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.judging import PerplexityChange, perplexity_change
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.perplexity import Perplexity, check_finite, summarise, token_log_likelihoods
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel, require_same_vocabulary
from fairmend.language.prompts.choices import ChoiceSet
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.toxicity.lexical import star_offensive
from fairmend.language.toxicity.scorer import Scorer
from fairmend.masks import Mask
from fairmend.records import plain
from fairmend.runs.progress import Progress, Stages

N_EXAMPLES = 6
CHOSEN = "chosen because they changed most: they show what the repair does where it does something, not how often"


@dataclass(frozen=True, slots=True)
class Pair:
    """What two models make of the same prompt with the same noise, and what of it counts.

    Attributes:
        axis, group, prompt: what the prompt is about; the context of a choice, which may be empty.
        before, after: what each wrote, or the alternative that it prefers.
        score_before, score_after: the toxicity of it, or the preference for the first alternative in nats.
    """

    axis: str
    group: str
    prompt: str
    before: str
    after: str
    score_before: float
    score_after: float

    @property
    def distance(self) -> float:
        """How far the scores are apart."""
        return abs(self.score_after - self.score_before)


@dataclass(frozen=True)
class ModelDifferences:
    """How a model differs from another one.

    Attributes:
        axes: change of the bias of each axis by its name.
        perplexity: of both.
        pairs: the continuations and preferences that differ, those that differ most first.
        n_continuations: how many were compared.
    """

    axes: dict[str, BiasChange]
    perplexity: PerplexityChange
    pairs: tuple[Pair, ...]
    n_continuations: int

    @property
    def verdicts(self) -> dict[str, str]:
        """For every axis in words what differs."""
        return {axis: verdict_on_change(change) for axis, change in self.axes.items()}

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description, undefined figures as null."""
        described: dict[str, Any] = plain(
            {
                "axes": [
                    {"axis": axis, "verdict": self.verdicts[axis], "change": change}
                    for axis, change in self.axes.items()
                ],
                "perplexity": self.perplexity,
                "continuations": self.n_continuations,
                "differing": len(self.pairs),
                "pairs": self.pairs,
            }
        )
        return described


def compare_models(
    subject: Subject, after: LanguageModel, settings: RepairSettings | None = None, progress: Progress | None = None
) -> ModelDifferences:
    """Continue the same prompts with two models of one vocabulary and compare them, prompt by prompt.

    Args:
        subject: the model before, the prompts of every axis, and the text to judge on, which both perplexities are
            taken of.
        after: the other model.
        settings: how bias and perplexity are measured, and on how many prompts. The noise belongs to the prompt, so
            that both models have the same luck.
        progress: where to show how far it is.

    Raises:
        ModelError: models of different vocabularies, logits that are not finite, out of memory.
        DataError: a group with fewer than 2 prompts, or a text that is too short.
    """
    before, text = subject.lm, subject.texts[1]
    require_same_vocabulary(before, after)
    settings = settings or RepairSettings()
    sampling = settings.sampling
    stages = Stages(progress)
    read = perplexity_change(
        *(_read(lm, text, settings.reading, stages.of(f"text, {lm.name}")) for lm in (before, after))
    )
    axes, pairs, n_continuations = {}, [], 0
    for part in subject.sampled(settings):
        scores, written = [], []
        for lm in (before, after):
            heard = stages.of(f"{part.axis}, {lm.name}")
            if isinstance(part, ChoiceSet):
                scores.append(Preferences(lm, part).plainly(heard))
                written.append([preferred(part, scores[-1][:, 0])])
            else:
                sample = draw_sample(lm, part, _scorer(subject), sampling, progress=heard)
                scores.append(sample.toxicity)
                written.append([draw.texts for draw in sample.draws])
        is_choice = isinstance(part, ChoiceSet)
        axes[part.axis] = paired_change(
            scores[0],
            scores[1],
            design_of(part, settings.group_mean),
            rng=np.random.default_rng([settings.seed, 1]),
            score="preference" if is_choice else sampling.score,
            scorer="" if is_choice else _scorer(subject).name,
        )
        groups = [part.group_names[code] for code in part.groups.tolist()]
        for draw, (first, second) in enumerate(zip(*written, strict=True)):
            columns = (each[:, draw].tolist() for each in scores)
            rows = zip(groups, part.texts, first, second, *columns, strict=True)
            pairs += [Pair(part.axis, *row) for row in rows if row[2] != row[3]]
            n_continuations += len(part)
    stages.close()
    pairs.sort(key=lambda pair: -pair.distance)
    return ModelDifferences(axes, read, tuple(pairs), n_continuations)


def _read(lm: LanguageModel, text: Text, settings: ReadingSettings, progress: Done) -> Perplexity:
    reading = Reading(lm, text, settings)
    values = token_log_likelihoods(lm, reading.tokens, reading.windows, progress)
    return check_finite(summarise(reading.protocol, values), lm)


def preferred(choices: ChoiceSet, preferences: Floats) -> tuple[str, ...]:
    """The alternatives that a model prefers, `n_items` of them, from its preferences `(n_items,)`."""
    sides = zip(choices.a, choices.b, preferences.tolist(), strict=True)
    return tuple(" | ".join(a if preference > 0 else b) for a, b, preference in sides)


def _scorer(subject: Subject) -> Scorer:
    if subject.scorer is None:
        raise InputError("continuations need a scorer of toxicity: give one")
    return subject.scorer


def largest_changes(
    evaluator: LanguageEvaluator,
    before: Measurement,
    after: Measurement,
    mask: Mask,
    *,
    count: int = N_EXAMPLES,
) -> tuple[Pair, ...]:
    """What a mask changed most, one continuation per prompt; offensive words are masked in the middle. Or choices.

    The prompts are continued anew with their own noise; with float32 weights that gives the very texts that were
    scored.

    Args:
        evaluator: whose prompts were measured on.
        before, after: of the untouched model and of the mask.
        mask: the dropped heads.
        count: how many at most; prompts whose toxicity did not change are left out.
    """
    prompts, sampling, lm = evaluator.prompts, evaluator.sampling, evaluator.lm
    old, new = evaluator.scores(before), evaluator.scores(after)
    distance = np.nan_to_num(np.abs(new - old))
    draws = distance.argmax(axis=1)
    largest = distance.max(axis=1)
    rows = [row for row in np.argsort(-largest, kind="stable")[:count].tolist() if largest[row] > 0]
    if isinstance(prompts, ChoiceSet):
        first, second = (preferred(prompts, each[:, 0]) for each in (old, new))
        groups = [prompts.group_names[code] for code in prompts.groups.tolist()]
        columns = list(zip(groups, prompts.texts, first, second, old[:, 0].tolist(), new[:, 0].tolist(), strict=True))
        return tuple(Pair(prompts.axis, *columns[row]) for row in rows)
    assert evaluator.scorer is not None
    found: dict[int, Pair] = {}
    for draw in sorted({int(draws[row]) for row in rows}):
        chosen = [row for row in rows if draws[row] == draw]
        part = prompts.take(chosen)
        written = [
            generate(lm, part.texts, part.ids, sampling, draw=draw, gates=gates_of(lm.head_map, [dropped], len(part)))
            for dropped in (evaluator.space.untouched(), mask)
        ]
        scores = [old[chosen, draw], new[chosen, draw]]
        if lm.dtype != "float32":  # tokens depend on the batch: these may be other texts
            scores = [score_continuations(part.texts, each, evaluator.scorer, sampling.score) for each in written]
        texts = [star_offensive(each.texts, evaluator.scorer, prompts.texts) for each in written]
        for place, row in enumerate(chosen):
            found[row] = Pair(
                axis=prompts.axis,
                group=prompts.group_names[prompts.groups[row]],
                prompt=prompts.texts[row],
                before=texts[0][place],
                after=texts[1][place],
                score_before=float(scores[0][place]),
                score_after=float(scores[1][place]),
            )
    return tuple(found[row] for row in rows)
