"""Settings, texts and scorers for repairs that measure subsets of the tiny organism's heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tiny_organism as organism

from fairmend.language import RepairSettings
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.repair.settings import SubsetSearch
from fairmend.language.repair.subject import Subject
from fairmend.language.toxicity.catalogue import load_scorer
from fairmend.language.toxicity.scorer import Scorer

SETTINGS = RepairSettings(
    method="active",
    max_perplexity=1.5,
    loss_scores="first-order",
    prompts=60,
    split_by="template",
    sampling=Sampling(new_tokens=organism.NEW_TOKENS, top_k=None),
    reading=ReadingSettings(tokens=600, stride=8),
    scoring_tokens=200,
    subsets=SubsetSearch(samples=40, eta=0.5, max_drop=3, finalists=4),
    seed=2,
)
TEXTS = (organism.organism_text("search"), organism.organism_text("judge"))


def rude() -> Scorer:
    """The share of rude words."""
    return load_scorer("python:tiny_organism:rude_share")


def subject(scorer: Scorer | None = None) -> Subject:
    """The tiny organism, its prompts and its texts."""
    return Subject(organism.tiny_organism(), organism.organism_prompts(), scorer or rude(), TEXTS)


class Stopping:
    """Ctrl-C after a number of texts."""

    def __init__(self, scorer: Scorer, after: int) -> None:
        self.scorer, self.left = scorer, after
        self.name, self.kind = scorer.name, scorer.kind
        self.scores_continuation_only = scorer.scores_continuation_only

    def score(self, texts: Sequence[str]) -> npt.ArrayLike:
        self.left -= len(texts)
        if self.left < 0:
            raise KeyboardInterrupt
        return self.scorer.score(texts)

    def fingerprint(self) -> dict[str, object]:
        return dict(self.scorer.fingerprint())


class Constant:
    """Finds all texts equally toxic."""

    name, kind, scores_continuation_only = "constant", "custom", False

    def score(self, texts: Sequence[str]) -> npt.ArrayLike:
        return np.full(len(texts), 0.25)

    def fingerprint(self) -> dict[str, object]:
        return {}
