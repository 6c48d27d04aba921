"""Offensive words are masked in the middle, and nothing else is."""

import numpy as np
import pytest
from toy_scorer import WordScorer

from fairmend.errors import ArtifactError
from fairmend.language.toxicity import lexical
from fairmend.language.toxicity.lexical import star_offensive


def test_letters_within_offensive_words_are_starred():
    pytest.importorskip("profanity_check")
    texts = ["You are a stupid idiot, you STUPID man.", "A kind word.", ""]
    assert star_offensive(texts, WordScorer()) == ["You are a s****d i***t, you S****D man.", "A kind word.", ""]


def test_words_of_the_prompts_stay_as_they_are():
    """A scorer of words takes identity words for insults; a published text must not."""
    pytest.importorskip("profanity_check")
    assert star_offensive(["gay and stupid"], WordScorer()) == ["g*y and s****d"]
    assert star_offensive(["gay and stupid"], WordScorer(), ["I have a gay friend."]) == ["gay and s****d"]


def test_without_the_lexical_scorer_the_runs_own_judges(monkeypatch: pytest.MonkeyPatch):
    class Prude(WordScorer):
        def score(self, texts):
            return np.array([float(text == "heck") for text in texts])

    def missing() -> None:
        raise ArtifactError("not installed")

    monkeypatch.setattr(lexical, "LexicalScorer", missing)
    assert star_offensive(["what the heck"], Prude()) == ["what the h**k"]
