"""Toxicity scorers: what they promise, and how their scores are checked.

A scorer gives every text a number in [0, 1]. A text without a visible character says nothing and scores 0, whatever
the scorer: a model that stops at once is not toxic (and its perplexity tells if it is broken).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.language.protocols import ScoredText
from fairmend.language.toxicity.custom_functions import as_numbers

Floats = npt.NDArray[np.float64]
ScorerKind = Literal["classifier", "recurrent", "lexical", "custom"]

_ROUNDING = 1e-6  # what a sum of probabilities in single precision may be off by


@runtime_checkable
class Scorer(Protocol):
    """Scores the toxicity of texts.

    A score depends on the text and the fingerprint only: not on the order, on earlier calls or, up to the rounding of
    single precision (1e-5), on the batch.
    """

    @property
    def name(self) -> str:
        """What a figure made with this scorer is labelled with."""

    @property
    def kind(self) -> ScorerKind:
        """ "classifier" for a transformer, "recurrent" for a small and cheap network, "lexical" for one that sees only
        words, "custom" for a user's own."""

    @property
    def scores_continuation_only(self) -> bool:
        """Whether prompts must be kept from it, because it takes the naming of a group for an insult."""

    def score(self, texts: Sequence[str]) -> Floats:
        """Toxicity of every text, shape (n_texts,), each in [0, 1], in the order of the texts; 0 for blank texts."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the scores depend on, JSON-ready."""


def text_to_score(prompt: str, continuation: str, score: ScoredText) -> str:
    """Give the text that is scored for one continuation.

    "continuation" is the continuation as it is. "prompt+continuation" is both, joined as they are and lower-cased, as
    FASP does; it leaks the naming of the group into the score.

    Raises:
        InputError: an unknown `score`.
    """
    if score not in get_args(ScoredText):
        raise InputError(f"score must be one of {', '.join(get_args(ScoredText))}, got {score!r}")
    return continuation if score == "continuation" else (prompt + continuation).lower()


def check_scores_prompts(scorer: Scorer, score: ScoredText) -> None:
    """Refuse a protocol that shows prompts to a scorer that must not see them.

    Raises:
        InputError: `score` includes the prompt and the scorer is for continuations only.
    """
    if score != "continuation" and scorer.scores_continuation_only:
        raise InputError(
            f"the scorer {scorer.name} takes the naming of a group for an insult, so it cannot score {score!r}: use "
            "score='continuation' or a classifier"
        )


def score_texts(scorer: Scorer, texts: Sequence[str]) -> Floats:
    """Toxicity of every text, shape (n_texts,), by a scorer that may be anybody's, see `checked_scores`."""
    return checked_scores(scorer.score(texts), texts, f"the scorer {scorer.name}")


def score_distinct(scorer: Scorer, texts: Sequence[str]) -> Floats:
    """Toxicity of every text, shape (n_texts,), as `score_texts` gives it; equal texts are scored once."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    found: Floats = score_texts(scorer, list(places))[[places[text] for text in texts]]
    return found


def checked_scores(given: Any, texts: Sequence[str], who: str) -> Floats:
    """What a scorer gave as one score in [0, 1] per text; what is outside by rounding is clipped.

    Raises:
        InputError: it is anything else, NaN too.
    """
    expected = f"it must give {len(texts)} numbers in [0, 1], one per text"
    scores = as_numbers(given, who, expected)
    if scores.shape != (len(texts),):
        raise InputError(f"{who} gave an array of shape {scores.shape}: {expected}")
    wrong = np.flatnonzero(~((scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)))
    if wrong.size:
        raise InputError(
            f"{who} gave {scores[wrong[0]]} for {texts[wrong[0]][:60]!r} and {wrong.size} of {len(texts)} texts have "
            f"no score in [0, 1]: {expected}"
        )
    bounded: Floats = scores.clip(0.0, 1.0)
    return bounded


def score_visible(texts: Sequence[str], score: Callable[[list[str]], Floats]) -> Floats:
    """Score the texts that have a visible character with `score`, the others with 0: (n_texts,).

    Raises:
        InputError: `texts` is a single string, or holds something else than strings.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError("texts must be a sequence of strings; for a single text pass [text]")
    visible = [position for position, text in enumerate(texts) if text.strip()]
    scores = np.zeros(len(texts))
    if visible:
        scores[visible] = score([texts[position] for position in visible])
    return scores
