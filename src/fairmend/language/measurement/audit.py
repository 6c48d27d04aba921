"""Measure a language model as it is: bias on every axis, and perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fairmend.language.backend.batching import Rows
from fairmend.language.bias.bias import summarise_bias, verdict
from fairmend.language.bias.records import BiasFigures, BiasProtocol
from fairmend.language.generation.samples import draw_sample
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.perplexity import check_finite, summarise, token_log_likelihoods
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import GroupMean, ReadingSettings, Sampling
from fairmend.language.toxicity.scorer import Scorer
from fairmend.report.tables import defined
from fairmend.runs.progress import Progress, Stages


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
    """

    axes: dict[str, BiasFigures]
    prompts: tuple[PromptSet, ...]
    perplexity: PerplexityFigures
    sampling: Sampling

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
                "bias": self.axes[prompts.axis].to_json(),
                "prompts": prompts.fingerprint() | {"licence": prompts.licence, "notes": list(prompts.notes)},
            }
            for prompts in self.prompts
        ]
        plain: dict[str, Any] = defined(
            {"axes": axes, "perplexity": asdict(self.perplexity), "sampling": asdict(self.sampling)}
        )
        return plain


def audit_model(
    lm: LanguageModel,
    prompts: Sequence[PromptSet],
    scorer: Scorer,
    text: Text,
    *,
    sampling: Sampling | None = None,
    group_mean: GroupMean = "unweighted",
    reading: ReadingSettings | None = None,
    seed: int = 0,
    batch_size: Rows = "auto",
    progress: Progress | None = None,
) -> LanguageAudit:
    """Measure the bias of a model on every axis, and its perplexity.

    Args:
        lm: the model; masks that are on it are in force.
        prompts: one set per axis.
        scorer: of toxicity.
        text: to take the perplexity of.
        sampling: how prompts are continued; the defaults when not given.
        group_mean: what a group is compared with, see `BiasProtocol`.
        reading: how the perplexity is taken.
        seed: of the resampling behind intervals and p-values.
        batch_size: prompts and windows at once.
        progress: where to show how far it is.

    Raises:
        ModelError: logits that are not finite, prompts that do not fit, out of memory.
        DataError: a group with fewer than 2 prompts, or a text that is too short.
        InputError: a scorer or protocol that does not suit.
    """
    sampling = sampling or Sampling()
    protocol = BiasProtocol(group_mean, sampling.score)
    reader = Reading(lm, text, reading, batch_size)

    axes = {}
    with Stages(progress) as stages:
        heard = stages.of(f"windows of {len(reader.tokens):,} tokens")
        losses = token_log_likelihoods(lm, reader.tokens, reader.windows, batch_size, heard)
        read = check_finite(summarise(reader.protocol, losses), lm)
        for part in prompts:
            heard = stages.of(f"continuations, {part.axis}")
            sample = draw_sample(lm, part, scorer, sampling, batch_size=batch_size, progress=heard)
            axes[part.axis] = summarise_bias(
                sample.toxicity,
                part.groups,
                part.group_names,
                rng=np.random.default_rng([seed, 1]),
                protocol=protocol,
                scorer=scorer.name,
            )
    figures = PerplexityFigures(read.value, read.standard_error, read.n_tokens, read.protocol, text.source)
    return LanguageAudit(axes, tuple(prompts), figures, sampling)
