"""A scoring of heads that is interrupted anywhere goes on to the same scores and does nothing twice."""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from enumeration import prompts, sampling, toxicity
from tiny_lm import tiny_lm

from fairmend.language.measurement.perplexity import PerplexityProtocol
from fairmend.language.models.models import LanguageModel
from fairmend.language.scores import first_order
from fairmend.language.scores import toxicity_by_mask as mask_toxicity
from fairmend.language.scores.head_scores import HeadScores, score_heads
from fairmend.runs.store import Section, Store

METHODS = [("exact", "generated"), ("exact", "reweighted"), ("first-order", "first-order")]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm("llama-gqa", seed=11)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_order, "_SEQUENCES_PER_PART_ON_CPU", 10)
    monkeypatch.setattr(mask_toxicity, "_ROWS_PER_CALL_ON_CPU", 60)


class Watched(Section):
    """A section of a store in which Ctrl-C strikes after so many records."""

    def __init__(self, store: Store, strikes_after: int | None = None) -> None:
        super().__init__(store, "scores")
        self.recorded: list[str] = []
        self.strikes_after = strikes_after

    def record(self, kind: str, payload: Mapping[str, Any]) -> int:
        if len(self.recorded) == self.strikes_after:
            raise KeyboardInterrupt
        self.recorded.append(payload["name"])
        return super().record(kind, payload)


def score(lm: LanguageModel, methods: tuple[Any, Any], store: Section | None, seed: int = 0) -> HeadScores:
    lm = lm.with_batch_size(4)
    return score_heads(
        lm,
        torch.from_numpy(np.random.default_rng(0).integers(4, 96, 50)),
        PerplexityProtocol("standard", 12, 11),
        [toxicity(lm, prompts(5), replace(sampling(2), seed=seed))],
        loss_method=methods[0],
        bias_method=methods[1],
        store=store,
    )


def plain(scores: HeadScores) -> str:
    with np.printoptions(floatmode="unique", threshold=100_000):
        return repr(asdict(scores))


@pytest.mark.parametrize("methods", METHODS)
def test_an_interrupted_scoring_goes_on(tmp_path: Path, lm: LanguageModel, methods: tuple[str, str]) -> None:
    whole = score(lm, methods, None)
    with Store.create(tmp_path / "whole.sqlite", {}) as store:
        watched = Watched(store)
        assert plain(score(lm, methods, watched)) == plain(whole)
    parts = watched.recorded
    assert len(parts) == len(set(parts)) > 8

    for strikes_after in (0, len(parts) // 3, len(parts) - 1):
        path = tmp_path / f"{strikes_after}.sqlite"
        with Store.create(path, {}) as store, contextlib.suppress(KeyboardInterrupt):
            first = Watched(store, strikes_after)
            score(lm, methods, first)
        with Store.open(path) as store:
            second = Watched(store)
            resumed = score(lm, methods, second)
        assert plain(resumed) == plain(whole)
        assert len(first.recorded) == strikes_after
        assert first.recorded + second.recorded == parts


def test_another_scoring_in_the_same_store_takes_nothing_of_it(tmp_path: Path, lm: LanguageModel) -> None:
    methods = ("first-order", "first-order")
    with Store.create(tmp_path / "run.sqlite", {}) as store:
        score(lm, methods, Watched(store))
        assert plain(score(lm, methods, Watched(store), seed=1)) == plain(score(lm, methods, None, seed=1))
        again = Watched(store)
        score(lm, methods, again)
    assert again.recorded == []
