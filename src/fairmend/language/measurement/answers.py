"""What a model makes of the prompts of one axis, as numbers: how toxic its continuations are, or what it prefers.

The kind of the prompts decides: a `ChoiceSet` is answered by preferences, any other `PromptSet` by toxicity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

from fairmend.errors import InputError, ModelError
from fairmend.language.backend.batching import Done
from fairmend.language.backend.forward import why_not_finite
from fairmend.language.choices.encoding import encode_choices
from fairmend.language.choices.likelihoods import preferences
from fairmend.language.generation.generation import encode_prompts
from fairmend.language.generation.samples import Codes, Floats, draw_sample, toxicity_of_parts
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.choices import ChoiceSet
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import Averaged, Sampling
from fairmend.language.toxicity.scorer import Scorer, check_scores_prompts
from fairmend.masks import Mask

_FIXED_ROWS = {"cpu": 128}  # of "auto", where tokens depend on the batch (bfloat16, float16)
_FIXED_ROWS_ON_GPU = 512
_ENOUGH_ROWS = {"cpu": 128}  # of "auto", for several masks at once
_ENOUGH_ROWS_ON_GPU = 1024


class Answers(Protocol):
    """What a model makes of prompts: one number per prompt and sample."""

    lm: LanguageModel
    n_samples: int
    quantity: Averaged
    """What the numbers are: the toxicity of which text, or the preference."""
    scorer: str
    """Name of what gave them; "" where the model itself did."""
    described: str
    """How they came about, in words."""

    @property
    def prompts(self) -> PromptSet:
        """The prompts."""

    def under(self, parts: Sequence[tuple[Mask, Codes]]) -> list[Floats]:
        """The numbers of some prompts under each mask, `(n_rows, n_samples)` each; NaN where the mask broke the model.

        With a second scorer as many columns follow, which it gave. Every mask sees the same noise. With float32 weights
        the numbers of a mask do not depend on the others.

        Raises:
            ModelError: a mask of another model, out of memory.
        """

    def plainly(self, progress: Done | None = None) -> Floats:
        """The numbers of the model as it is, `(n_prompts, n_samples)`.

        Raises:
            ModelError: logits that are not finite, out of memory.
        """

    def n_tokens(self, rows: Codes) -> int:
        """How many tokens go through the model for some prompts under one mask, continuations at their full length."""

    def fingerprint(self) -> dict[str, Any]:
        """Everything the numbers depend on beside model and prompts, JSON-ready."""


class Toxicity:
    """How toxic a model's continuations of prompts are, see `Answers`.

    Args:
        lm, prompts, scorer, sampling: what is continued, how, and what scores it.
        second: scores the same continuations too, see `toxicity_of_parts`.

    Raises:
        InputError: a scorer that the protocol does not suit, or prompts without tokens.
        ModelError: prompts that the model cannot read.
    """

    def __init__(
        self, lm: LanguageModel, prompts: PromptSet, scorer: Scorer, sampling: Sampling, second: Scorer | None = None
    ) -> None:
        check_scores_prompts(scorer, sampling.score)
        # Prompts that the model cannot read are refused now, not when their turn comes.
        self._lengths = np.array([len(tokens) for tokens in encode_prompts(lm, prompts.texts, sampling)])
        self.lm = lm
        if lm.dtype != "float32" and lm.batch_size == "auto":
            self.lm = lm.with_batch_size(_FIXED_ROWS.get(lm.device.type, _FIXED_ROWS_ON_GPU))
        self.prompts = prompts
        self.judge = scorer
        self.second = second
        self.sampling = sampling
        self.n_samples = sampling.n_samples
        self.quantity: Averaged = sampling.score
        self.scorer = scorer.name
        self.described = f"by {scorer.name}; {_described(sampling)}"

    def under(self, parts: Sequence[tuple[Mask, Codes]]) -> list[Floats]:
        """See `Answers`."""
        return toxicity_of_parts(self.lm, self.prompts, self.judge, parts, self.sampling, self.second)

    def plainly(self, progress: Done | None = None) -> Floats:
        """See `Answers`."""
        return draw_sample(self.lm, self.prompts, self.judge, self.sampling, progress=progress).toxicity

    def n_tokens(self, rows: Codes) -> int:
        """See `Answers`."""
        return self.n_samples * int((self._lengths[rows] + self.sampling.new_tokens).sum())

    def fingerprint(self) -> dict[str, Any]:
        """See `Answers`."""
        found: dict[str, Any] = {
            "sampling": asdict(self.sampling),
            "scorer": {"name": self.judge.name, **self.judge.fingerprint()},
        }
        if self.second is not None:
            found["second_scorer"] = {"name": self.second.name, **self.second.fingerprint()}
        if self.lm.dtype != "float32":
            found["batch_size"] = self.lm.batch_size
        return found


class Preferences:
    """Which of two alternatives a model prefers, in nats, see `Answers`.

    Raises:
        DataError: items that cannot be told apart or do not fit the model, see `encode_choices`.
    """

    n_samples = 1
    quantity: Averaged = "preference"
    scorer = ""
    described = "log P(a | context) - log P(b | context)"

    def __init__(self, lm: LanguageModel, prompts: ChoiceSet) -> None:
        self.lm = lm
        self.prompts = prompts
        self.encoded = encode_choices(lm, prompts)  # refused now, not when their turn comes

    def __reduce__(self) -> tuple[Any, ...]:
        return Preferences, (self.lm, self.prompts)

    def under(self, parts: Sequence[tuple[Mask, Codes]]) -> list[Floats]:
        """See `Answers`."""
        return [values[:, None] for values in preferences(self.lm, self.encoded, parts)]

    def plainly(self, progress: Done | None = None) -> Floats:
        """See `Answers`."""
        (found,) = self.under([(self.lm.head_map.space().untouched(), np.arange(len(self.prompts)))])
        if not bool(np.isfinite(found).all()):
            raise ModelError(
                f"{self.lm.name} gives logits that are not finite without any mask: {why_not_finite(self.lm.model)}"
            )
        if progress is not None:
            progress(len(found), len(found))
        return found

    def n_tokens(self, rows: Codes) -> int:
        """See `Answers`."""
        return self.encoded.n_tokens(rows)

    def fingerprint(self) -> dict[str, Any]:
        """See `Answers`."""
        return {"quantity": self.quantity}


def answers_of(
    lm: LanguageModel, prompts: PromptSet, scorer: Scorer | None, sampling: Sampling, second: Scorer | None = None
) -> Answers:
    """What the model makes of these prompts.

    Raises:
        InputError: prompts to continue and no scorer, or one that does not suit.
        DataError, ModelError: prompts that the model cannot read.
    """
    if isinstance(prompts, ChoiceSet):
        return Preferences(lm, prompts)
    if scorer is None:
        raise InputError(f"the continuations of {prompts.axis} need a scorer of toxicity: give one")
    return Toxicity(lm, prompts, scorer, sampling, second)


def masks_at_once(lm: LanguageModel, n_prompts: int) -> int:
    """How many masks are put into one batch with so many prompts each."""
    if lm.dtype != "float32":
        return 1
    rows = lm.batch_size if lm.batch_size != "auto" else _ENOUGH_ROWS.get(lm.device.type, _ENOUGH_ROWS_ON_GPU)
    return max(1, int(rows) // n_prompts)


def _described(sampling: Sampling) -> str:
    """What stands beside every bias that was measured on such continuations."""
    cut = f", prompts cut at {sampling.max_prompt_tokens} tokens" if sampling.max_prompt_tokens else ""
    top = "" if sampling.top_k is None else f" from the {sampling.top_k} most probable tokens"
    heat = "" if sampling.temperature == 1 else f" at temperature {sampling.temperature:g}"
    return f"{sampling.n_samples} sample(s) of {sampling.new_tokens} new tokens{top}{heat}{cut}"
