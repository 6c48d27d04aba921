"""What a model and its repaired copy make of one prompt: how they go on, and which of two alternatives they prefer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fairmend.language.choices.encoding import encode_choices
from fairmend.language.choices.likelihoods import preferences
from fairmend.language.generation.generation import generate
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.choices import choice_set
from fairmend.language.protocols import Sampling


@dataclass(frozen=True)
class Reply:
    """What one model makes of a prompt.

    Attributes:
        continuation: how it goes on.
        preference: log P(a | prompt) - log P(b | prompt) in nats: positive where it prefers the first alternative; None
            where the model gives no probabilities.
    """

    continuation: str
    preference: float | None


def reply(lm: LanguageModel, prompt: str, alternatives: tuple[str, str], sampling: Sampling) -> Reply:
    """Continue a prompt and compare two alternatives after it; models of one vocabulary have the same noise.

    Args:
        lm: the model.
        prompt: what is continued; not empty.
        alternatives: words that follow the prompt, without the space before them.
        sampling: length, seed and kind of the continuation.

    Raises:
        InputError, ModelError: a prompt that cannot be continued, see `generate`.
        DataError: alternatives that cannot be told apart, see `encode_choices`.
    """
    first, second = ((f" {text}",) for text in alternatives)
    items = choice_set([prompt], [first], [second], ["all"], axis="chat", source="the prompt", licence="the user's own")
    preference = float(preferences(lm, encode_choices(lm, items), [(None, np.array([0]))])[0][0])
    written = generate(lm, [prompt], [0], sampling).texts[0]
    return Reply(written, None if math.isnan(preference) else preference)
