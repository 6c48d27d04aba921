"""Offensive words masked in the middle, for texts that are shown or published: "s****d"."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from fairmend.errors import ArtifactError
from fairmend.language.toxicity.lexical import LexicalScorer
from fairmend.language.toxicity.scorer import Scorer, score_texts

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_OFFENSIVE = 0.85  # a word by itself; identity words that score as much are kept by name


def mask_offensive(texts: Sequence[str], scorer: Scorer, keep: Collection[str] = ()) -> list[str]:
    """The texts with the inner letters of offensive words starred.

    A word is offensive if the lexical scorer, or `scorer` where that is not installed, gives it more than .85 by
    itself.

    Args:
        texts: to be shown.
        scorer: the run's own.
        keep: texts whose words stay as they are, such as the prompts: identity words are not offensive, whatever a
            scorer of words thinks of them.
    """
    kept = {word for text in keep for word in _words(text)}
    words = sorted({word for text in texts for word in _words(text)} - kept)
    if not words:
        return list(texts)
    try:
        judge: Scorer = LexicalScorer()
    except ArtifactError:
        judge = scorer
    scores = score_texts(judge, words)
    offensive = {word for word, score in zip(words, scores.tolist(), strict=True) if score > _OFFENSIVE}
    return [_WORD.sub(lambda found: _starred(found[0], offensive), text) for text in texts]


def _starred(word: str, offensive: Collection[str]) -> str:
    if word.lower() not in offensive or len(word) < 3:
        return word
    return word[0] + "*" * (len(word) - 2) + word[-1]


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
