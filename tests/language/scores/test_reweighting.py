"""Toxicity under masks, generated and re-weighted, against exact enumeration."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from enumeration import BAD, WordScorer, expected_bias, expected_group_toxicity, prompts, sampling
from enumeration import model as enumerable_model
from tiny_lm import WORDS, sentences

from fairmend.errors import InputError
from fairmend.language.generation.generation import Continuations
from fairmend.language.generation.samples import ScoredSample, draw_sample
from fairmend.language.heads.gates import HeadGates
from fairmend.language.models.models import LanguageModel, weights_digest
from fairmend.language.prompts.prompts import prompt_set
from fairmend.language.protocols import Sampling
from fairmend.language.scores.bias_effects import bias_effects
from fairmend.language.scores.mask_runs import single_heads
from fairmend.language.scores.reweighting import likelihood_ratios, reweighted_means, reweighted_toxicity
from fairmend.language.scores.toxicity_by_mask import generated_toxicity

N_HEADS = 8


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return enumerable_model()


def next_token(lm: LanguageModel, text: str, gates: torch.Tensor) -> np.ndarray:
    """Probability of every next token."""
    with torch.no_grad(), HeadGates(lm.model, lm.head_map) as hooks:
        hooks.set(gates)
        logits = lm.model(input_ids=torch.tensor([lm.tokenizer(text)["input_ids"]])).logits[0, -1]
    return logits.double().softmax(-1).numpy()


def every_token_once(lm: LanguageModel, text: str, top_k: int | None) -> tuple[ScoredSample, np.ndarray]:
    """A sample of all continuations of one token that can be drawn, and the probability of each."""
    p = next_token(lm, text, torch.ones(N_HEADS))
    tokens = np.arange(len(p)) if top_k is None else np.argsort(-p)[:top_k]
    p = p[tokens] / p[tokens].sum()
    made = prompt_set([text] * len(tokens), ["a", "b"] * (len(tokens) // 2), axis="", source="-", licence="")
    draw = Continuations(
        token_ids=tokens[:, None],
        lengths=np.ones(len(tokens), dtype=np.int64),
        texts=tuple(WORDS[token] for token in tokens),
        log_likelihoods=np.log(p)[:, None],
        broken=np.zeros(len(tokens), dtype=np.bool_),
        prompt_ids=(tuple(lm.tokenizer(text)["input_ids"]),) * len(tokens),
    )
    return ScoredSample(made, (draw,), BAD.double().numpy()[tokens, None], Sampling(1, top_k=top_k), "toy"), p


def test_weighted_by_its_probability_every_continuation_gives_the_masked_models_toxicity(lm: LanguageModel) -> None:
    text = sentences([5])[0]
    sample, p = every_token_once(lm, text, None)
    weights = likelihood_ratios(lm, sample, single_heads(N_HEADS)).weights[:, :, 0]
    for head, gates in enumerate(single_heads(N_HEADS)):
        masked = next_token(lm, text, gates)
        np.testing.assert_allclose(p * weights[head], masked, rtol=1e-4)
        assert p * weights[head] @ sample.toxicity[:, 0] == pytest.approx(masked @ BAD.numpy(), rel=1e-4)


def test_coverage_is_what_the_top_k_lets_be_seen(lm: LanguageModel) -> None:
    text = sentences([5])[0]
    sample, p = every_token_once(lm, text, 20)
    weights = likelihood_ratios(lm, sample, single_heads(N_HEADS)).weights[:, :, 0]
    for head, gates in enumerate(single_heads(N_HEADS)):
        masked = next_token(lm, text, gates)
        allowed = np.argsort(-masked)[:20]
        covered = np.isin(allowed, sample.draws[0].token_ids[:, 0])
        assert p @ weights[head] == pytest.approx(masked[allowed[covered]].sum() / masked[allowed].sum(), rel=1e-4)
    assert (p * weights).sum(axis=1).min() < 1


def test_bias_converges_to_the_truth_by_both_ways(lm: LanguageModel) -> None:
    settings = sampling(n_samples=2)
    sample = draw_sample(lm, prompts(150), WordScorer(), settings)
    masks = single_heads(N_HEADS)[[0, 3, 5, 7]]
    with torch.no_grad():
        before = float(expected_bias(lm, torch.ones(N_HEADS)))
        truth = np.array([float(expected_bias(lm, gates)) for gates in masks]) - before
        groups = np.stack([expected_group_toxicity(lm, gates).numpy() for gates in masks])
    for table in (
        reweighted_toxicity(lm, sample, masks),
        generated_toxicity(lm, sample.prompts, WordScorer(), masks, settings),
    ):
        effects = bias_effects(table, rng=np.random.default_rng(0))
        assert effects.form == "difference"
        assert np.abs((effects.effect - truth) / effects.standard_error).max() < 3.5
        for group in range(3):
            own = table.without[:, sample.prompts.groups == group]
            errors = (own.mean(axis=1) - groups[:, group]) / (own.std(axis=1, ddof=1) / np.sqrt(own.shape[1]))
            assert np.abs(errors).max() < 3.5


def test_the_untouched_model_has_weights_of_one(lm: LanguageModel) -> None:
    sample = draw_sample(lm, prompts(4), WordScorer(), sampling(n_samples=2, top_k=20))
    table = reweighted_toxicity(lm, sample, torch.ones(1, N_HEADS))
    np.testing.assert_allclose(table.without[0], table.before, atol=1e-5)
    np.testing.assert_allclose(table.effective_sizes, 2 * 8, rtol=1e-5)


def test_resuming_changes_no_weight(lm: LanguageModel) -> None:
    sample = draw_sample(lm, prompts(3), WordScorer(), sampling())
    resumed = likelihood_ratios(lm.with_batch_size(7), sample, single_heads(N_HEADS))
    whole = likelihood_ratios(lm, sample, single_heads(N_HEADS), resume=False)
    assert (resumed.method, whole.method) == ("layer resume", "masking")
    np.testing.assert_allclose(resumed.weights, whole.weights, rtol=1e-3)


def test_means_errors_and_sizes_are_those_of_self_normalised_importance_sampling() -> None:
    rng = np.random.default_rng(0)
    weights, toxicity, groups = rng.exponential(size=(2, 30, 1)), rng.random((30, 1)), np.arange(30) % 2
    found = reweighted_means(weights, toxicity, groups, 2)
    for mask in range(2):
        for group in range(2):
            own = groups == group
            weight, value = weights[mask, own, 0], toxicity[own, 0]
            mean = np.average(value, weights=weight)
            error = np.linalg.norm(weight * (value - mean)) / weight.sum()  # of a ratio of sums
            assert found[mask, own].mean() == pytest.approx(mean)
            assert found[mask, own].std() / np.sqrt(15) == pytest.approx(error)


def test_masks_the_sample_says_too_little_about_are_generated_with(lm: LanguageModel) -> None:
    settings = sampling(n_samples=2)
    sample = draw_sample(lm, prompts(10), WordScorer(), settings)
    kept = reweighted_toxicity(lm, sample)
    shares = kept.effective_sizes / 40
    limit = float(np.median(shares.min(axis=1)))
    mixed = reweighted_toxicity(lm, sample, fallback=WordScorer(), least_effective=limit)
    generated = generated_toxicity(lm, sample.prompts, WordScorer(), sampling=settings)
    thin = shares.min(axis=1) < limit
    assert 0 < thin.sum() < N_HEADS
    assert mixed.methods == tuple("generated" if is_thin else "reweighted" for is_thin in thin)
    assert sorted(mixed.method.split(", ")) == sorted([f"{8 - thin.sum()} reweighted", f"{thin.sum()} generated"])
    np.testing.assert_array_equal(mixed.without[thin], generated.without[thin])
    np.testing.assert_allclose(mixed.without[~thin], kept.without[~thin])
    assert (mixed.effective_sizes[thin] == 40).all()


def test_effective_sizes_are_kishs(lm: LanguageModel) -> None:
    sample = draw_sample(lm, prompts(5), WordScorer(), sampling())
    ratios = likelihood_ratios(lm, sample, single_heads(N_HEADS))
    sizes = ratios.effective_sizes(sample.prompts.groups, 3)
    own = ratios.weights[2, sample.prompts.groups == 1].ravel()
    assert sizes[2, 1] == pytest.approx(own.sum() ** 2 / (own @ own))


def test_packed_masks_give_what_each_gives_alone(lm: LanguageModel) -> None:
    made, settings = prompts(2), sampling(n_samples=2, top_k=20)
    packed = generated_toxicity(lm, made, WordScorer(), sampling=settings)
    for head, gates in enumerate(single_heads(N_HEADS)):
        alone = generated_toxicity(lm.with_batch_size(4), made, WordScorer(), gates[None], settings)
        np.testing.assert_array_equal(packed.without[head], alone.without[0])
        np.testing.assert_array_equal(packed.before, alone.before)


def test_equal_texts_are_scored_once(lm: LanguageModel) -> None:
    seen: list[str] = []

    class Watching(WordScorer):
        def score(self, texts: Sequence[str]) -> np.ndarray:
            assert len(set(texts)) == len(texts)
            seen.extend(texts)
            return super().score(texts)

    generated_toxicity(lm, prompts(5), Watching(), single_heads(N_HEADS)[:1], sampling(top_k=2))
    assert len(seen) < 60


def test_the_model_is_as_before(lm: LanguageModel) -> None:
    digest = weights_digest(lm.model)
    reweighted_toxicity(lm, draw_sample(lm, prompts(2), WordScorer(), sampling()))
    assert weights_digest(lm.model) == digest
    assert not any(module._forward_pre_hooks or "forward" in module.__dict__ for module in lm.model.modules())


def test_a_share_outside_of_0_to_1_is_refused(lm: LanguageModel) -> None:
    sample = draw_sample(lm, prompts(1), WordScorer(), sampling())
    with pytest.raises(InputError, match="least_effective must lie in"):
        reweighted_toxicity(lm, sample, least_effective=2)
