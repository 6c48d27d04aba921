"""Toxicity scorers: what they promise, and how one is chosen by name.

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
ScorerKind = Literal["classifier", "lexical", "custom"]

_ROUNDING = 1e-6  # what a sum of probabilities in single precision may be off by

DEFAULT_SCORER = "unitary/unbiased-toxic-roberta"
"""The published Detoxify model "unbiased", which the published figures were measured with."""


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
        """ "classifier" for a neural network, "lexical" for one that sees only words, "custom" for a user's own."""

    @property
    def scores_continuation_only(self) -> bool:
        """Whether prompts must be kept from it, because it takes the naming of a group for an insult."""

    def score(self, texts: Sequence[str]) -> Floats:
        """Toxicity of every text, shape (n_texts,), each in [0, 1], in the order of the texts; 0 for blank texts."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the scores depend on, JSON-ready."""


def load_scorer(
    spec: str = DEFAULT_SCORER,
    *,
    label: str | None = None,
    device: str = "auto",
    batch_size: int = 64,
    identity_words: Sequence[str] = (),
    revision: str | None = None,
) -> Scorer:
    """Load the scorer that `spec` names.

    Args:
        spec: one of
            an id on the Hugging Face hub or a local directory: any sequence-classification model of transformers;
            "detoxify:PATH": a checkpoint file of Detoxify;
            "lexical": the offline word-based scorer of alt-profanity-check (extra "lexical");
            "python:MODULE:FUNCTION": a function that takes a list of texts and gives a score for each.
        label: the classifier's label to score by; "toxicity" or "toxic" when not given.
        device: of a classifier: "auto" takes a GPU if there is one, or any name that torch knows.
        batch_size: texts per batch; halved by itself when memory runs out.
        identity_words: for "lexical" only: words and phrases that are taken out of the text before it is scored, such
            as the descriptors of the axis.
        revision: of a model on the hub.

    Raises:
        InputError: a malformed spec, an option that the scorer does not have, or no such label.
        ModelError: the model or checkpoint is no classifier, or is damaged.
        ArtifactError: the model is neither cached nor reachable; the message says what to fetch.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    scheme, _, rest = spec.partition(":")
    is_classifier = spec != "lexical" and scheme != "python"
    if label is not None and not is_classifier:
        raise InputError(f"the scorer {spec!r} has no labels, got label={label!r}: leave it out")
    if identity_words and spec != "lexical":
        raise InputError(f"only the scorer 'lexical' takes identity words, {spec!r} does not: leave them out")
    if revision is not None and (not is_classifier or scheme == "detoxify"):
        raise InputError(f"the scorer {spec!r} has no revisions, got {revision!r}: leave it out")
    if spec == "lexical":
        from fairmend.language.toxicity.lexical import LexicalScorer

        return LexicalScorer(identity_words)
    if scheme == "python":
        from fairmend.language.toxicity.custom_scorers import load_custom

        return load_custom(spec)

    if scheme == "detoxify":
        from fairmend.language.toxicity.detoxify import load_detoxify

        return load_detoxify(rest, label=label, device=device, batch_size=batch_size)
    from fairmend.language.toxicity.classifiers import load_classifier

    return load_classifier(spec, label=label, device=device, batch_size=batch_size, revision=revision)


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
