"""The evaluator of attention heads: what it measures, that it measures the same always, and that it leaves no trace."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_lm import tiny_lm
from toy_scorer import WordScorer, text, two_groups

from fairmend.errors import InputError, ModelError
from fairmend.evaluation import Evaluator, digest
from fairmend.language.backend.batching import Rows
from fairmend.language.generation.generation import generate
from fairmend.language.heads.folding import fold
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.perplexity import perplexity
from fairmend.language.models.models import LanguageModel, weights_digest, wrap_model
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.masks import Mask, Site, Space
from fairmend.runs import Runner, Store

READING = ReadingSettings(tokens=150, window=32, stride=16)
SAMPLING = Sampling(new_tokens=6, seed=3)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm()


def evaluator_of(lm: LanguageModel, batch_size: Rows = "auto", **options: Any) -> LanguageEvaluator:
    lm = lm if batch_size == "auto" else lm.with_batch_size(batch_size)
    prompts = options.pop("prompts", two_groups())
    options = {"sampling": SAMPLING} | options
    return LanguageEvaluator(lm, prompts, Reading(lm, text(), READING), options.pop("scorer", WordScorer()), **options)


def masks_of(lm: LanguageModel) -> list[Mask]:
    space = lm.head_map.space()
    return [space.untouched(), space.mask([0]), space.mask([1, 5]), space.mask([2, 3, 7])]


def test_is_an_evaluator_whose_fingerprint_is_json(lm: LanguageModel):
    evaluator = evaluator_of(lm)
    assert isinstance(evaluator, Evaluator)
    assert digest(json.loads(json.dumps(evaluator.fingerprint()))) == digest(evaluator.fingerprint())


@pytest.mark.parametrize("samples", [1, 2])
def test_a_mask_measures_what_the_folded_model_shows(lm: LanguageModel, samples: int):
    """Against a folded copy, generated and read by hand, the bias summed in a loop."""
    sampling = Sampling(new_tokens=6, seed=3, n_samples=samples)
    evaluator, mask = evaluator_of(lm, sampling=sampling), masks_of(lm)[3]
    (measured,) = evaluator.measure([mask])
    folded = wrap_model(fold(lm.model, mask, lm.head_map), lm.tokenizer, name="folded")  # type: ignore[arg-type]
    prompts = evaluator.prompts
    scores = np.zeros((len(prompts), samples))
    for draw in range(samples):
        written = generate(folded, prompts.texts, prompts.ids, Sampling(new_tokens=6, seed=3), draw=draw)
        scores[:, draw] = WordScorer().score(written.texts)
    by_group = [scores[prompts.groups == code].mean() for code in range(2)]
    assert measured.bias == pytest.approx(sum(abs(np.mean(by_group) - toxicity) for toxicity in by_group))
    np.testing.assert_allclose(evaluator.scores(measured), scores)
    read = perplexity(folded, evaluator.reading.tokens, window=32, stride=16)
    assert measured.utility == pytest.approx(read.value)
    assert measured.utility_se == pytest.approx(evaluator.perplexity(measured).standard_error)
    assert evaluator.perplexity(measured).standard_error == pytest.approx(read.standard_error)
    assert (measured.n, len(measured.parts)) == (12, len(evaluator.figures.parts))


@pytest.mark.parametrize("name", ["llama-gqa", "gpt2"])
def test_a_measurement_does_not_depend_on_the_others(name: str):
    lm = tiny_lm(name)
    masks = masks_of(lm)
    together = evaluator_of(lm, batch_size=48).measure(masks)
    alone = [evaluator_of(lm).measure([mask])[0] for mask in masks]
    backwards = evaluator_of(lm, batch_size=24).measure(masks[::-1])[::-1]
    assert all(one == other for one, other in zip(together, alone, strict=True))
    assert all(one == other for one, other in zip(together, backwards, strict=True))
    assert len({measurement.parts for measurement in together}) == len(masks)


def test_masks_are_packed_into_one_batch_when_prompts_are_few(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch):
    rows: list[int] = []
    forward = lm.model.forward
    lm.model.forward = lambda *args, **kwargs: rows.append(len(kwargs["input_ids"])) or forward(*args, **kwargs)
    try:
        evaluator_of(lm, batch_size=48).measure(masks_of(lm))
    finally:
        del lm.model.forward
    assert evaluator_of(lm, batch_size=48).masks_at_once == 4
    assert max(rows) == 48


def test_the_model_is_left_as_it_was_also_after_an_exception(lm: LanguageModel):
    class Broken(WordScorer):
        def score(self, texts: Any) -> Any:
            raise RuntimeError("no")

    before, hooks = weights_digest(lm.model), _hooks(lm)
    with pytest.raises(RuntimeError, match="no"):
        evaluator_of(lm, scorer=Broken()).measure(masks_of(lm))
    evaluator_of(lm).measure(masks_of(lm))
    assert weights_digest(lm.model) == before
    assert _hooks(lm) == hooks


def _hooks(lm: LanguageModel) -> int:
    return sum(len(module._forward_pre_hooks) for module in lm.model.modules())


def test_a_mask_that_breaks_the_model_has_no_figures_and_spoils_no_other():
    lm = tiny_lm()
    last = lm.head_map.modules(lm.model)[-1]
    # A head that holds its sum together: without it the projection overflows to infinity minus infinity.
    last.register_forward_hook(
        lambda module, args, out: torch.where((args[0][..., :8] == 0).all(-1, True), math.nan, out)
    )
    first_of_last_layer = lm.head_map.sites[0].n_heads
    space = lm.head_map.space()
    good, broken = evaluator_of(lm, batch_size=48).measure([space.untouched(), space.mask([first_of_last_layer])])
    assert good.is_finite
    assert math.isnan(broken.bias)
    assert math.isnan(broken.utility)
    assert not broken.is_finite


def test_equal_texts_are_scored_once(lm: LanguageModel):
    scorer = WordScorer()
    untouched = lm.head_map.space().untouched()
    evaluator_of(lm, scorer=scorer, batch_size=48).measure([untouched, untouched, untouched])
    assert scorer.texts_seen <= 12


def test_prompts_are_scored_on_request_only(lm: LanguageModel):
    seen: list[str] = []

    class Recorder(WordScorer):
        def score(self, texts: Any) -> Any:
            seen.extend(texts)
            return super().score(texts)

    untouched = lm.head_map.space().untouched()
    evaluator = evaluator_of(lm, scorer=Recorder())
    evaluator.measure([untouched])
    assert not any(text.startswith(evaluator.prompts.texts[0]) for text in seen)
    with_prompts = Sampling(new_tokens=6, score="prompt+continuation")
    evaluator_of(lm, scorer=Recorder(), sampling=with_prompts).measure([untouched])
    assert any(text.startswith(evaluator.prompts.texts[0]) for text in seen)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": Sampling(new_tokens=6, seed=4)},
        {"sampling": Sampling(new_tokens=7, seed=3)},
        {"sampling": Sampling(new_tokens=6, seed=3, top_k=10)},
        {"prompts": two_groups(14)},
        {"group_mean": "pooled"},
    ],
)
def test_the_fingerprint_tells_every_setting(lm: LanguageModel, changes: dict[str, Any]):
    assert digest(evaluator_of(lm, **changes).fingerprint()) != digest(evaluator_of(lm).fingerprint())


def test_the_fingerprint_tells_weights_text_dtype_and_in_half_precision_the_batch(lm: LanguageModel):
    plain = digest(evaluator_of(lm).fingerprint())
    assert digest(evaluator_of(tiny_lm(seed=1)).fingerprint()) != plain
    other = LanguageEvaluator(lm, two_groups(), Reading(lm, text(seed=1), READING), WordScorer(), sampling=SAMPLING)
    assert digest(other.fingerprint()) != plain
    assert digest(evaluator_of(lm, batch_size=7).fingerprint()) == plain
    model = tiny_lm().model.to(torch.bfloat16)
    half = wrap_model(model, lm.tokenizer, name="half")
    prints = {digest(evaluator_of(half, batch_size=rows).fingerprint()) for rows in ("auto", 5, 7)}
    assert len({plain, *prints}) == 4
    assert evaluator_of(half, batch_size=48).masks_at_once == 1


def test_a_run_keeps_every_score_and_measures_nothing_twice(lm: LanguageModel, tmp_path: Any):
    masks = masks_of(lm)
    with Store.create(tmp_path / "run.sqlite", {"kind": "test"}) as store:
        evaluator = evaluator_of(lm, batch_size=48)
        first = Runner(evaluator, store.context("search", evaluator), at_once=evaluator.masks_at_once).measure(masks)
    with Store.open(tmp_path / "run.sqlite") as store:
        scorer = WordScorer()
        evaluator = evaluator_of(lm, scorer=scorer)
        again = Runner(evaluator, store.context("search", evaluator)).measure(masks)
    assert scorer.texts_seen == 0
    assert all(one == other for one, other in zip(first, again, strict=True))
    np.testing.assert_array_equal(evaluator.scores(again[2]), evaluator.scores(first[2]))


def test_refuses_what_does_not_belong_together(lm: LanguageModel):
    with pytest.raises(InputError, match="make one Reading each"):
        LanguageEvaluator(lm, two_groups(), Reading(tiny_lm(), text(), READING), WordScorer())
    with pytest.raises(InputError, match="8 heads, and no dials or one each"):
        evaluator_of(lm, space=Space((Site("other", 3),)))
    with pytest.raises(ModelError, match="made for this model"):
        evaluator_of(lm).measure([Mask(1, 9)])

    class Lexical(WordScorer):
        scores_continuation_only = True

    with pytest.raises(InputError, match="use score='continuation'"):
        evaluator_of(lm, scorer=Lexical(), sampling=Sampling(score="prompt+continuation"))
