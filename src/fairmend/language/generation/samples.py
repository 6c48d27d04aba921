"""Continuations with their toxicity: of one model, and of many masks packed into one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fairmend.errors import ModelError
from fairmend.language.backend.batching import Done
from fairmend.language.backend.forward import why_not_finite
from fairmend.language.generation.generation import Continuations, continuation_texts, generate
from fairmend.language.heads.heads import HeadMap
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import Sampling, ScoredText
from fairmend.language.toxicity.scorer import Scorer, check_scores_prompts, score_distinct, score_texts, text_to_score
from fairmend.masks import Mask
from fairmend.runs.parts import Arrays, Keep, keep_nothing

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ScoredSample:
    """Continuations of one model with their toxicity.

    Attributes:
        prompts: what was continued, in groups.
        draws: one set of continuations of all prompts per sample.
        toxicity: `(n_prompts, n_samples)`, in [0, 1].
        sampling: how they were drawn.
        scorer: name of the toxicity scorer.
    """

    prompts: PromptSet
    draws: tuple[Continuations, ...]
    toxicity: Floats
    sampling: Sampling
    scorer: str

    @property
    def prompt_ids(self) -> list[tuple[int, ...]]:
        """Tokens of the prompt of every continuation, sample after sample, `n_samples * n_prompts` of them."""
        return [ids for draw in self.draws for ids in draw.prompt_ids]

    @property
    def continuations(self) -> list[tuple[int, ...]]:
        """Tokens of every continuation, in the same order."""
        return [draw.tokens(row) for draw in self.draws for row in range(len(draw))]

    @property
    def log_likelihoods(self) -> Floats:
        """Recorded when drawn, in the same order, `(n_samples * n_prompts, new_tokens)`."""
        return np.concatenate([draw.log_likelihoods for draw in self.draws])


def draw_sample(
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    sampling: Sampling | None = None,
    *,
    progress: Done | None = None,
    keep: Keep = keep_nothing,
) -> ScoredSample:
    """Continue every prompt and score the continuations.

    Args:
        lm: the model; masks that are already on it stay in force.
        prompts: what to continue.
        scorer: gives the toxicity.
        sampling: the defaults when not given.
        progress: told how many continuations are drawn.
        keep: keeps the continuations and their scores.

    Raises:
        InputError: a scorer that must not see prompts is asked to.
        ModelError: the model's logits are not finite, or a prompt does not fit.
    """
    sampling = sampling or Sampling()
    check_scores_prompts(scorer, sampling.score)
    total, done = len(prompts) * sampling.n_samples, 0

    def drawn(number: int) -> Continuations:
        def told(name: str, make: Callable[[], Arrays]) -> Arrays:
            nonlocal done
            part = keep(f"continuation {number}: {name}", make)
            done += len(part["tokens"])
            if progress is not None:
                progress(done, total)
            return part

        return generate(lm, prompts.texts, prompts.ids, sampling, draw=number, keep=told)

    draws = tuple(drawn(number) for number in range(sampling.n_samples))
    if any(draw.broken.any() for draw in draws):
        raise ModelError(f"{lm.name} gives logits that are not finite without any mask: {why_not_finite(lm.model)}")

    def scored(draw: Continuations) -> Arrays:
        return {"toxicity": score_continuations(prompts.texts, draw, scorer, sampling.score)}

    columns = [
        keep(f"scores of continuation {number}", partial(scored, draw))["toxicity"] for number, draw in enumerate(draws)
    ]
    toxicity = np.stack(columns, axis=1)
    return ScoredSample(prompts, draws, toxicity, sampling, scorer.name)


def score_continuations(prompts: Sequence[str], draw: Continuations, scorer: Scorer, score: ScoredText) -> Floats:
    """Toxicity of every continuation `(n_prompts,)`; NaN where the model broke. Equal texts are scored once."""
    texts = [text_to_score(prompt, text, score) for prompt, text in zip(prompts, draw.texts, strict=True)]
    return np.where(draw.broken, np.nan, score_distinct(scorer, texts))


def beginnings(lm: LanguageModel, sample: ScoredSample, scorer: Scorer) -> Floats:
    """Toxicity of what stood before each token of each continuation, `(n_prompts, n_samples, longest continuation)`.

    Before the first token that of an empty continuation; after the last one that of the whole. Equal texts are scored
    once.

    Args:
        lm: the model that wrote the sample.
        sample: from `draw_sample`.
        scorer: the one that it was scored with.
    """
    prompts, score = sample.prompts.texts, sample.sampling.score
    longest = max(1, int(max(draw.lengths.max() for draw in sample.draws)))
    found = np.empty((len(prompts), len(sample.draws), longest))
    known: dict[str, float] = {}
    for number, draw in enumerate(sample.draws):
        for step in range(longest):
            written = continuation_texts(lm, draw.prompt_ids, draw.token_ids, np.minimum(draw.lengths, step))
            texts = [text_to_score(prompt, text, score) for prompt, text in zip(prompts, written, strict=True)]
            new = [text for text in dict.fromkeys(texts) if text not in known]
            known |= dict(zip(new, score_texts(scorer, new).tolist(), strict=True)) if new else {}
            found[:, number, step] = [known[text] for text in texts]
    return found


def toxicity_of_parts(
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    parts: Sequence[tuple[Mask, Codes]],
    sampling: Sampling | None = None,
    second: Scorer | None = None,
) -> list[Floats]:
    """Score the continuations of some prompts under each mask, all of them in one batch.

    Every mask sees the same noise. With float32 weights the scores of a mask do not depend on the others.

    Args:
        lm: the model.
        prompts: what to continue.
        scorer: gives the toxicity.
        parts: masks of the model's heads, each with the numbers of the prompts to continue under it; not empty.
        sampling: the defaults when not given.
        second: scores the same continuations too, always without their prompts.

    Returns:
        One array of shape (n_prompts of the part, n_samples) per part; NaN where the logits were. With a second scorer
        as many columns follow, which it gave.

    Raises:
        ModelError: a mask of another model, prompts that do not fit the context, out of memory.
        InputError: a scorer that must not see prompts is asked to.
    """
    sampling = sampling or Sampling()
    check_scores_prompts(scorer, sampling.score)
    sizes = [len(rows) for _, rows in parts]
    chosen = np.concatenate([rows for _, rows in parts])
    texts, ids = [prompts.texts[row] for row in chosen.tolist()], prompts.ids[chosen]
    gates = gates_of(lm.head_map, [mask for mask, _ in parts], sizes)
    columns, opinions = [], []
    for number in range(sampling.n_samples):
        draw = generate(lm, texts, ids, sampling, draw=number, gates=gates)
        columns.append(score_continuations(texts, draw, scorer, sampling.score))
        if second is not None:
            opinions.append(score_continuations(texts, draw, second, "continuation"))
    return np.split(np.stack(columns + opinions, axis=1), np.cumsum(sizes)[:-1])


def gates_of(
    head_map: HeadMap, masks: Sequence[Mask], n_prompts: int | Sequence[int]
) -> npt.NDArray[np.float32] | None:
    """Gates of one mask for the whole batch, or of each row for several; None where no head is changed.

    Args:
        head_map: the heads that the masks are of.
        masks: each for as many rows in a row as `n_prompts` says.
        n_prompts: of every mask, or of each.

    Raises:
        ModelError: a mask of another model.
    """
    gates = np.stack([head_map.gates(mask).numpy() for mask in masks])
    if all(mask.is_untouched for mask in masks):
        return None
    return gates[0] if len(masks) == 1 else np.repeat(gates, n_prompts, axis=0)
