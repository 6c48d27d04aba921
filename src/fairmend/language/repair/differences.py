"""Two language models, or one before and after its repair, on the same prompts with the same noise: the differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fairmend.errors import ModelError
from fairmend.evaluation import Measurement
from fairmend.language.backend.batching import Done
from fairmend.language.bias.bias import paired_change, verdict_on_change
from fairmend.language.bias.records import BiasChange, BiasProtocol
from fairmend.language.generation.generation import generate
from fairmend.language.generation.samples import draw_sample, gates_of, score_continuations
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.judging import PerplexityChange, perplexity_change
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.perplexity import Perplexity, check_finite, summarise, token_log_likelihoods
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.toxicity.lexical import star_offensive
from fairmend.masks import Mask
from fairmend.records import plain
from fairmend.runs.progress import Progress, Stages

N_EXAMPLES = 6
CHOSEN = (
    "chosen because their toxicity changed most: they show what the repair does where it does something, not how often"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """What two models make of the same prompt with the same noise, and the toxicity of each."""

    axis: str
    group: str
    prompt: str
    before: str
    after: str
    toxicity_before: float
    toxicity_after: float

    @property
    def distance(self) -> float:
        """How far the toxicities are apart."""
        return abs(self.toxicity_after - self.toxicity_before)


@dataclass(frozen=True)
class ModelDifferences:
    """How a model differs from another one.

    Attributes:
        axes: change of the bias of each axis by its name.
        perplexity: of both.
        pairs: the continuations that differ, those whose toxicity differs most first.
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
    before, scorer, text = subject.lm, subject.scorer, subject.texts[1]
    if before.tokenizer.get_vocab() != after.tokenizer.get_vocab():
        raise ModelError(
            f"{before.name} and {after.name} have different vocabularies, so that neither noise nor perplexity is "
            "comparable: name a model and a repaired copy of it"
        )
    settings = settings or RepairSettings()
    sampling = settings.sampling
    stages = Stages(progress)
    read = perplexity_change(
        *(_read(lm, text, settings.reading, stages.of(f"text, {lm.name}")) for lm in (before, after))
    )
    axes, pairs, n_continuations = {}, [], 0
    for part in subject.sampled(settings):
        old, new = (
            draw_sample(
                lm,
                part,
                scorer,
                sampling,
                progress=stages.of(f"continuations, {part.axis}, {lm.name}"),
            )
            for lm in (before, after)
        )
        axes[part.axis] = paired_change(
            old.toxicity,
            new.toxicity,
            part.groups,
            part.group_names,
            rng=np.random.default_rng([settings.seed, 1]),
            protocol=BiasProtocol(settings.group_mean, sampling.score),
            scorer=scorer.name,
        )
        groups = [part.group_names[code] for code in part.groups.tolist()]
        for draw, (first, second) in enumerate(zip(old.draws, new.draws, strict=True)):
            scores = old.toxicity[:, draw].tolist(), new.toxicity[:, draw].tolist()
            rows = zip(groups, part.texts, first.texts, second.texts, *scores, strict=True)
            pairs += [Pair(part.axis, *row) for row in rows if row[2] != row[3]]
            n_continuations += len(part)
    stages.close()
    pairs.sort(key=lambda pair: -pair.distance)
    return ModelDifferences(axes, read, tuple(pairs), n_continuations)


def _read(lm: LanguageModel, text: Text, settings: ReadingSettings, progress: Done) -> Perplexity:
    reading = Reading(lm, text, settings)
    values = token_log_likelihoods(lm, reading.tokens, reading.windows, progress)
    return check_finite(summarise(reading.protocol, values), lm)


def largest_changes(
    evaluator: LanguageEvaluator,
    before: Measurement,
    after: Measurement,
    mask: Mask,
    *,
    count: int = N_EXAMPLES,
) -> tuple[Pair, ...]:
    """The continuations whose toxicity a mask changed most, one per prompt; offensive words are masked in the middle.

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
                toxicity_before=float(scores[0][place]),
                toxicity_after=float(scores[1][place]),
            )
    return tuple(found[row] for row in rows)
