"""How prompts are continued and continuations scored, for one or for many masks at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.language.batching import Rows
from fairmend.language.decoding import DecodingRule
from fairmend.language.generation import Continuations, generate
from fairmend.language.models import LanguageModel
from fairmend.language.prompts import PromptSet
from fairmend.language.toxicity import ScoredText, Scorer, check_scores_prompts, text_to_score
from fairmend.masks import Mask

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How prompts are continued.

    Attributes:
        new_tokens: longest continuation.
        samples: independent continuations per prompt; their scores are averaged.
        sample, top_k, temperature: see `fairmend.language.decoding.DecodingRule`.
        max_prompt_tokens: cut longer prompts behind so many tokens; None keeps them whole.
        seed: of the noise, which belongs to the prompt, not to the mask or batch.

    Raises:
        InputError: an option outside its range.
    """

    new_tokens: int = 20
    samples: int = 1
    sample: bool = True
    top_k: int | None = 50
    temperature: float = 1.0
    max_prompt_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("new_tokens", "samples", "max_prompt_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value!r}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed!r}")
        if not self.sample and self.samples > 1:
            raise InputError(f"greedy decoding gives one continuation per prompt: samples={self.samples} must be 1")
        DecodingRule(self.sample, self.top_k, self.temperature)

    @classmethod
    def fasp(cls, seed: int = 1) -> GenerationSettings:
        """As published with FASP: up to 22 prompt tokens, 40 new ones, one sample from the 50 most probable tokens."""
        return cls(new_tokens=40, max_prompt_tokens=22, seed=seed)

    @property
    def name(self) -> str:
        """What stands beside every figure made with these settings."""
        how = "greedy"
        if self.sample:
            how = f"{self.samples} sampled, top-k {self.top_k or 'off'}, temperature {self.temperature:g}"
        cut = f", prompts cut at {self.max_prompt_tokens} tokens" if self.max_prompt_tokens else ""
        return f"{self.new_tokens} new tokens, {how}{cut}"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `GenerationSettings(**it)` reads it back."""
        return asdict(self)


def toxicity_of_masks(
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    masks: Sequence[Mask],
    generation: GenerationSettings,
    *,
    score: ScoredText = "continuation",
    batch_size: Rows = "auto",
) -> Floats:
    """Score the continuations of all prompts under every mask, several masks packed into one batch.

    Every mask sees the same noise. With float32 weights the scores of a mask do not depend on the others.

    Returns:
        Shape (n_masks, n_prompts, samples); NaN where the logits were.

    Raises:
        ModelError: a mask of another model, prompts that do not fit the context, out of memory.
        InputError: a scorer that must not see prompts, with prompts to be scored.
    """
    check_scores_prompts(scorer, score)
    for mask in masks:
        lm.head_map.check(mask)
    scores = np.empty((len(masks), len(prompts), generation.samples))
    for draw in range(generation.samples):
        written = continue_prompts(lm, prompts, masks, generation, draw=draw, batch_size=batch_size)
        found = score_continuations(lm, prompts, scorer, written, generation, score)
        scores[:, :, draw] = found.reshape(len(masks), len(prompts))
    return scores


def continue_prompts(
    lm: LanguageModel,
    prompts: PromptSet,
    masks: Sequence[Mask],
    generation: GenerationSettings,
    *,
    draw: int = 0,
    batch_size: Rows = "auto",
) -> Continuations:
    """The continuations of all prompts under the first mask, then under the second, and so on."""
    gates: Floats | None = np.stack([~mask.dropped() for mask in masks]).astype(np.float64)
    if len(masks) == 1:
        gates = None if masks[0].is_untouched else gates[0]  # type: ignore[index]
    elif gates is not None:
        gates = np.repeat(gates, len(prompts), axis=0)
    return generate(
        lm,
        prompts.texts * len(masks),
        np.tile(prompts.ids, len(masks)),
        new_tokens=generation.new_tokens,
        seed=generation.seed,
        sample=generation.sample,
        top_k=generation.top_k,
        temperature=generation.temperature,
        draw=draw,
        max_prompt_tokens=generation.max_prompt_tokens,
        gates=gates,
        batch_size=batch_size,
    )


def score_continuations(
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    written: Continuations,
    generation: GenerationSettings,
    score: ScoredText,
) -> Floats:
    """The score of every continuation, (n_continuations,); NaN where the model broke. Equal texts are scored once."""
    heads: Sequence[str] = prompts.texts * (len(written) // len(prompts))
    if generation.max_prompt_tokens is not None and score != "continuation":
        heads = [lm.tokenizer.decode(ids, skip_special_tokens=True) for ids in written.prompt_ids]
    texts = [text_to_score(head, text, score) for head, text in zip(heads, written.texts, strict=True)]
    distinct = list(dict.fromkeys(texts))
    known = dict(zip(distinct, scorer.score(distinct).tolist(), strict=True))
    scores = np.array([known[text] for text in texts])
    scores[written.broken] = math.nan
    return scores
