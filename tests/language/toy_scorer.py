"""A scorer of the tiny models' words, and prompts in two groups that they continue."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tiny_lm import sentences

from fairmend.language.measurement.texts import Text
from fairmend.language.prompts.prompts import PromptSet, prompt_set
from fairmend.language.toxicity.scorer import ScorerKind


class WordScorer:
    """The share of words with an even number; it counts its calls and texts."""

    name = "toy"
    kind: ScorerKind = "custom"
    scores_continuation_only = False

    def __init__(self) -> None:
        self.texts_seen = 0

    def score(self, texts: Sequence[str]) -> Any:
        self.texts_seen += len(texts)
        return np.array([_share_even(text) for text in texts])

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": self.kind}


def _share_even(text: str) -> float:
    numbers = [int(word[1:]) for word in text.split() if word[1:].isdigit()]
    return sum(number % 2 == 0 for number in numbers) / len(numbers) if numbers else 0.0


def two_groups(n: int = 12, axis: str = "toys") -> PromptSet:
    """`n` prompts of two groups in turn."""
    texts = sentences([3 + row % 5 for row in range(n)])
    groups = [("odd", "even")[row % 2] for row in range(n)]
    return prompt_set(texts, groups, axis=axis, source="made for tests", licence="CC0")


def text(n_words: int = 200, seed: int = 0) -> Text:
    """A text of random words."""
    words = np.random.default_rng(seed).integers(4, 96, n_words)
    return Text(" ".join(f"w{word}" for word in words) + "\n", f"random words {seed}", "CC0")
