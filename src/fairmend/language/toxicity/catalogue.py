"""Scorers of toxicity by name, and the one that calls a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from fairmend.artifacts import Progress
from fairmend.errors import ArtifactError, InputError
from fairmend.language.toxicity.custom_functions import called, load_function, source_digest
from fairmend.language.toxicity.scorer import Floats, Scorer, ScorerKind, checked_scores, score_visible

DEFAULT_SCORER = "unitary/unbiased-toxic-roberta"
"""The published Detoxify model "unbiased", which the published figures were measured with."""


def load_scorer(
    spec: str = DEFAULT_SCORER,
    *,
    label: str | None = None,
    device: str = "auto",
    batch_size: int = 64,
    identity_words: Sequence[str] = (),
    revision: str | None = None,
    progress: Progress | None = None,
) -> Scorer:
    """Load the scorer that `spec` names.

    Args:
        spec: one of
            an id on the Hugging Face hub or a local directory: any sequence-classification model of transformers;
            "detoxify:PATH": a checkpoint file of Detoxify;
            "lexical": the offline word-based scorer of alt-profanity-check (extra "lexical");
            "toxblock": the offline recurrent network of tox-block (extra "toxblock"), fetched once, 18 MB;
            "python:MODULE:FUNCTION": a function that takes a list of texts and gives a score for each.
        label: the classifier's label to score by; "toxicity" or "toxic" when not given.
        device: of a classifier: "auto" takes a GPU if there is one, or any name that torch knows.
        batch_size: texts per batch; halved by itself when memory runs out.
        identity_words: for "lexical" only: words and phrases that are taken out of the text before it is scored, such
            as the descriptors of the axis.
        revision: of a model on the hub.
        progress: told how far the download of "toxblock" is.

    Raises:
        InputError: a malformed spec, an option that the scorer does not have, or no such label.
        ModelError: the model or checkpoint is no classifier, or is damaged.
        ArtifactError: the model is neither cached nor reachable; the message says what to fetch.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    scheme, _, rest = spec.partition(":")
    is_classifier = spec not in ("lexical", "toxblock") and scheme != "python"
    if label is not None and not is_classifier:
        raise InputError(f"the scorer {spec!r} has no labels to choose from, got label={label!r}: leave it out")
    if identity_words and spec != "lexical":
        raise InputError(f"only the scorer 'lexical' takes identity words, {spec!r} does not: leave them out")
    if revision is not None and (not is_classifier or scheme == "detoxify"):
        raise InputError(f"the scorer {spec!r} has no revisions, got {revision!r}: leave it out")
    if spec == "lexical":
        from fairmend.language.toxicity.lexical import LexicalScorer

        return LexicalScorer(identity_words)
    if spec == "toxblock":
        from fairmend.language.toxicity.toxblock import ToxBlockScorer

        return ToxBlockScorer(progress)
    if scheme == "python":
        return CustomScorer(load_function(spec, "scorer", ("texts",)), spec)
    from fairmend.language.toxicity.classifier_files import read_classifier, read_detoxify
    from fairmend.language.toxicity.classifiers import ClassifierScorer

    model, tokenizer, name = read_detoxify(rest) if scheme == "detoxify" else read_classifier(spec, revision)
    scorer = ClassifierScorer(model, tokenizer, name=name, label=label, device=device, batch_size=batch_size)
    place = rest if scheme == "detoxify" else spec
    if Path(place).expanduser().exists():  # found from every folder
        spec = spec.removesuffix(place) + str(Path(place).expanduser().absolute())
    scorer.reload = partial(load_scorer, spec, label=label, device=device, batch_size=batch_size, revision=revision)
    return scorer


def second_scorer(first: Scorer) -> Scorer | None:
    """An offline scorer of another kind than `first`, for a second opinion; None where none is at hand.

    That is tox-block's, or the lexical one beside it or where it is missing. Nothing is downloaded: each counts only
    where its package is installed and, of tox-block, the wheel cached. It is for continuations, without their prompts.
    """
    from fairmend.language.toxicity.lexical import LexicalScorer
    from fairmend.language.toxicity.toxblock import ToxBlockScorer, is_cached

    with suppress(ArtifactError):  # a cache that cannot be read
        if first.kind != ToxBlockScorer.kind and is_cached():
            return ToxBlockScorer()
    with suppress(ArtifactError):  # not installed, or not with this scikit-learn
        if first.kind != LexicalScorer.kind:
            return LexicalScorer()
    return None


class CustomScorer:
    """A function that takes a list of texts and gives one score in [0, 1] for each.

    Args:
        function: called with every visible text of a call at once; batching is its own affair.
        name: what the figures are labelled with; error messages name it.
    """

    kind: ScorerKind = "custom"
    scores_continuation_only = False

    def __init__(self, function: Callable[[list[str]], Any], name: str) -> None:
        self.name = name
        self._function = function

    def __reduce__(self) -> tuple[Any, ...]:
        is_named = self.name.startswith("python:")
        return (load_scorer, (self.name,)) if is_named else (CustomScorer, (self._function, self.name))

    def score(self, texts: Sequence[str]) -> Floats:
        """Toxicity of every text, shape (n_texts,), 0 for blank texts. Scores outside [0, 1] by rounding are clipped.

        Raises:
            InputError: the function fails, or gives anything but one number in [0, 1] per text.
        """
        return score_visible(texts, self._checked)

    def fingerprint(self) -> dict[str, Any]:
        """The function's name and the SHA-256 of the file that defines it, null when it has none."""
        return {"kind": self.kind, "name": self.name, "source_sha256": source_digest(self._function)}

    def _checked(self, texts: list[str]) -> Floats:
        who = f"the scorer {self.name}"
        return checked_scores(called(self._function, who, list(texts)), texts, who)
