"""The offline scorer: alt-profanity-check's linear model of words.

It knows words, not meaning: blind to implicit hate, and biased by identity words ("gay" alone scores .95). So it is
labelled lexical everywhere, sees continuations only, and can have the identity words taken out first.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from fairmend.errors import ArtifactError, InputError
from fairmend.language.toxicity.scorer import Floats, Scorer, ScorerKind, score_texts, score_visible

PACKAGE = "alt-profanity-check"
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_OFFENSIVE = 0.85  # a word by itself; identity words that score as much are kept by name
_BLOCK = 8192  # texts: bounds the memory of the sparse word counts


class LexicalScorer:
    """Score texts by their words, with the calibrated linear model of alt-profanity-check.

    Args:
        identity_words: words and phrases to take out of the texts, in any case and with a plural s; hyphens and spaces
            within a phrase are the same. Words are counted, not read, so nothing needs to stand in their place.

    Raises:
        ArtifactError: the package is not installed.
        InputError: an identity word without a letter or digit.
    """

    name: str
    kind: ScorerKind = "lexical"
    scores_continuation_only = True

    def __init__(self, identity_words: Sequence[str] = ()) -> None:
        self._words = _normalised(identity_words)
        self._pattern = _pattern(self._words)
        self._predict = _predictor()
        without = f", {len(self._words)} identity words taken out" if self._words else ""
        self.name = f"lexical ({PACKAGE}{without})"

    def __reduce__(self) -> tuple[Any, ...]:
        return LexicalScorer, (self._words,)

    def score(self, texts: Sequence[str]) -> Floats:
        """Toxicity of every text, shape (n_texts,); 0 for texts with nothing left."""
        return score_visible(
            texts, lambda visible: score_visible([self.stripped(text) for text in visible], self._score)
        )

    def stripped(self, text: str) -> str:
        """The text without identity words."""
        return self._pattern.sub(" ", text) if self._pattern else text

    def fingerprint(self) -> dict[str, Any]:
        """The package's version, its model and the identity words."""
        return {
            "kind": self.kind,
            "package": f"{PACKAGE} {importlib.metadata.version(PACKAGE)}",
            "scikit-learn": importlib.metadata.version("scikit-learn"),
            "identity_words_sha256": hashlib.sha256("\n".join(self._words).encode()).hexdigest(),
        }

    def _score(self, texts: list[str]) -> Floats:
        blocks = [texts[start : start + _BLOCK] for start in range(0, len(texts), _BLOCK)]
        scores = np.concatenate([np.asarray(self._predict(block), dtype=np.float64) for block in blocks])
        clipped: Floats = np.clip(scores, 0.0, 1.0)
        return clipped


def star_offensive(texts: Sequence[str], scorer: Scorer, keep: Collection[str] = ()) -> list[str]:
    """The texts with the inner letters of offensive words starred, "s****d", to be shown or published.

    A word is offensive if the lexical scorer, or `scorer` where that is not installed, gives it more than .85 by
    itself.

    Args:
        texts: to be shown.
        scorer: the run's own.
        keep: texts whose words stay as they are, such as the prompts: identity words are not offensive, whatever a
            scorer of words thinks of them.
    """
    written, kept = ({word.lower() for text in each for word in _WORD.findall(text)} for each in (texts, keep))
    words = sorted(written - kept)
    if not words:
        return list(texts)
    try:
        judge: Scorer = LexicalScorer()
    except ArtifactError:
        judge = scorer
    scores = score_texts(judge, words)
    offensive = {word for word, score in zip(words, scores.tolist(), strict=True) if score > _OFFENSIVE}

    def starred(found: re.Match[str]) -> str:
        word = found[0]
        return word if word.lower() not in offensive or len(word) < 3 else f"{word[0]}{'*' * (len(word) - 2)}{word[-1]}"

    return [_WORD.sub(starred, text) for text in texts]


def _predictor() -> Callable[[list[str]], Any]:
    # On import the package unpickles its model with joblib. That is accepted, because the file is part of the
    # installed package like its code, and no other path can be given.
    try:
        package = importlib.import_module("profanity_check")
    except ImportError as error:
        raise ArtifactError(
            f"the lexical scorer needs the package {PACKAGE}, which is not installed ({error}): "
            "pip install 'fairmend[lexical]'"
        ) from error
    except Exception as error:  # unpickling runs scikit-learn, whose other versions may refuse the model in any way
        raise ArtifactError(
            f"{PACKAGE} {importlib.metadata.version(PACKAGE)} cannot be read with scikit-learn "
            f"{importlib.metadata.version('scikit-learn')} ({type(error).__name__}: {error}): upgrade {PACKAGE}, or "
            "take a classifier"
        ) from error
    predict: Callable[[list[str]], Any] = package.predict_prob
    return predict


def _normalised(words: Sequence[str]) -> tuple[str, ...]:
    if isinstance(words, str):
        raise InputError(f"identity_words must be a sequence of words, got the string {words!r}: pass [{words!r}]")
    blank = [word for word in words if not re.search(r"\w", word)]
    if blank:
        raise InputError(f"identity words need a letter or digit, got {blank[0]!r}: leave it out")
    return tuple(sorted({" ".join(re.split(r"[\s-]+", word.strip().lower())) for word in words}))


def _pattern(words: tuple[str, ...]) -> re.Pattern[str] | None:
    if not words:
        return None
    # Longest first: of "trans" and "trans woman" the phrase must win.
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    phrases = "|".join(r"[\s-]+".join(map(re.escape, word.split(" "))) for word in longest_first)
    return re.compile(rf"(?<!\w)(?:{phrases})(?:e?s)?(?!\w)", re.IGNORECASE)
