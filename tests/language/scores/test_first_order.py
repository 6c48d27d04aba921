"""First-order effects against exact enumeration: everything the tiny model can say, with its probability."""

import numpy as np
import pytest
import torch
from enumeration import BAD, WordScorer, expected_bias, expected_group_toxicity, expected_toxicity, prompts, sampling
from enumeration import model as enumerable_model
from tiny_lm import WORDS, sentences, tiny_lm

from fairmend.language.generation.decoding import DecodingRule
from fairmend.language.generation.samples import beginnings, draw_sample
from fairmend.language.measurement.perplexity import PerplexityProtocol
from fairmend.language.models.models import LanguageModel, weights_digest
from fairmend.language.prompts.prompts import prompt_set
from fairmend.language.scores.ablation import masked_losses
from fairmend.language.scores.bias_effects import bias_effects
from fairmend.language.scores.first_order import (
    advantages,
    baselines,
    first_order_losses,
    first_order_toxicity,
    gate_gradients,
)
from fairmend.language.scores.toxicity_by_mask import FIRST_ORDER, MaskToxicity

N_HEADS = 8


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return enumerable_model()


def slopes_of(lm: LanguageModel, function: object, **options: object) -> np.ndarray:
    gates = torch.ones(N_HEADS, requires_grad=True)
    function(lm, gates, **options).backward()  # type: ignore[operator]
    assert gates.grad is not None
    return gates.grad.double().numpy()


@pytest.mark.parametrize("top_k", [None, 20])
def test_score_functions_sum_to_the_true_gradient(lm: LanguageModel, top_k: int | None) -> None:
    text = sentences([5])[0]
    prompt = tuple(lm.tokenizer(text)["input_ids"])
    (end,) = lm.end_ids
    others = [token for token in range(len(WORDS)) if token != end]
    every = [(end,)] + [(first, second) for first in others for second in range(len(WORDS))]
    toxicity = np.array([sum(BAD[token].item() for token in row) / 2 for row in every])

    logs, scores = gate_gradients(lm, [prompt] * len(every), every, DecodingRule(top_k=top_k))
    likely = logs < 0  # outside of the top k the sum of what is finite says nothing
    if top_k is not None:
        p = np.zeros(len(every))
        table = _top_k_likelihoods(lm, prompt, every, top_k)
        p[table > -np.inf] = np.exp(table[table > -np.inf])
    else:
        p = np.exp(logs) * likely
    assert p.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(p @ scores, 0, atol=1e-4)

    estimate = p @ (toxicity[:, None] * scores)
    exact = slopes_of(lm, lambda lm, gates: expected_toxicity(lm, text, gates, top_k))
    np.testing.assert_allclose(estimate, exact, atol=1e-4)
    np.testing.assert_allclose(p @ ((toxicity - 0.3)[:, None] * scores), exact, atol=1e-4)  # any baseline will do
    if top_k is None:
        np.testing.assert_allclose(exact, [_difference(lm, text, head) for head in range(N_HEADS)], atol=1e-3)


def _difference(lm: LanguageModel, text: str, head: int, step: float = 0.01) -> float:
    up, down = torch.ones(N_HEADS), torch.ones(N_HEADS)
    up[head] += step
    down[head] -= step
    with torch.no_grad():
        return float(expected_toxicity(lm, text, up) - expected_toxicity(lm, text, down)) / (2 * step)


def _top_k_likelihoods(lm: LanguageModel, prompt: tuple[int, ...], every: list[tuple[int, ...]], k: int) -> np.ndarray:
    """By hand: log-likelihood of each continuation when only the k most probable tokens are drawn from."""
    found = np.empty(len(every))
    cache: dict[tuple[int, ...], np.ndarray] = {}
    for number, row in enumerate(every):
        total = 0.0
        for place, token in enumerate(row):
            before = (*prompt, *row[:place])
            if before not in cache:
                with torch.no_grad():
                    logits = lm.model(input_ids=torch.tensor([before])).logits[0, -1].double().numpy()
                logits = np.where(logits >= np.sort(logits)[-k], logits, -np.inf)
                cache[before] = logits - np.log(np.exp(logits).sum())
            total += cache[before][token]
        found[number] = total
    return found


@pytest.mark.parametrize("scorer", [None, WordScorer()], ids=["wholes", "beginnings"])
def test_sampled_effects_converge_to_the_gradient_of_the_bias(lm: LanguageModel, scorer: WordScorer | None) -> None:
    sample = draw_sample(lm, prompts(800), WordScorer(), sampling(n_samples=2))
    effects = bias_effects(first_order_toxicity(lm, sample, scorer=scorer), rng=np.random.default_rng(0))
    exact = slopes_of(lm, expected_bias)
    errors = (-effects.effect - exact) / effects.standard_error
    assert effects.form == "first-order"
    assert np.abs(errors).max() < 3.5
    assert np.sqrt((errors**2).mean()) < 2  # standard errors are about right
    assert np.corrcoef(-effects.effect, exact)[0, 1] > 0.85
    assert effects.reliability.value > 0.5
    assert effects.before == pytest.approx(float(expected_bias(lm, torch.ones(N_HEADS))), abs=0.02)


@pytest.mark.parametrize("scorer", [None, WordScorer()], ids=["wholes", "beginnings"])
def test_sampled_group_slopes_converge(lm: LanguageModel, scorer: WordScorer | None) -> None:
    sample = draw_sample(lm, prompts(400), WordScorer(), sampling())
    table = first_order_toxicity(lm, sample, scorer=scorer)
    slopes = table.before - table.without
    for group in range(3):
        exact = slopes_of(lm, lambda lm, gates, group=group: expected_group_toxicity(lm, gates)[group])
        own = slopes[:, sample.prompts.groups == group]
        errors = (own.mean(axis=1) - exact) / (own.std(axis=1, ddof=1) / np.sqrt(own.shape[1]))
        assert np.abs(errors).max() < 3.5


def test_baselines_do_not_see_the_continuation_they_are_for() -> None:
    rng = np.random.default_rng(0)
    toxicity, groups = rng.random((12, 1)), np.arange(12) % 3
    found = baselines(toxicity, groups)
    for prompt in range(12):
        others = [other for other in range(12) if other != prompt and groups[other] == groups[prompt]]
        assert found[prompt, 0] == pytest.approx(toxicity[others, 0].mean())


def test_baselines_follow_the_prompt_where_prompts_differ_and_the_group_where_they_do_not() -> None:
    rng = np.random.default_rng(0)
    groups = np.zeros(400, dtype=np.int64)
    alike = 0.5 + 0.1 * rng.standard_normal((400, 3))
    level = rng.random((400, 1))
    different = level + 0.01 * rng.standard_normal((400, 3))
    np.testing.assert_allclose(baselines(alike, groups), 0.5, atol=0.03)
    np.testing.assert_allclose(baselines(different, groups), np.tile(level, 3), atol=0.05)


def test_several_samples_per_prompt_lower_the_noise(lm: LanguageModel) -> None:
    few, many = (
        first_order_toxicity(lm, draw_sample(lm, prompts(60), WordScorer(), sampling(n_samples)))
        for n_samples in (1, 4)
    )
    noise = [(table.without - table.before).std(axis=1).mean() for table in (few, many)]
    assert 1.7 < noise[0] / noise[1] < 2.3  # 2 is the square root of 4


def test_beginnings_are_scored_as_they_stood_before_each_token(lm: LanguageModel) -> None:
    sample = draw_sample(lm, prompts(20), WordScorer(), sampling(n_samples=2))
    begun = beginnings(lm, sample, WordScorer())
    assert begun.shape == (120, 2, 2)
    assert not begun[..., 0].any(), "nothing was said before the first token"
    for number, draw in enumerate(sample.draws):
        firsts = [BAD[draw.tokens(row)[0]].item() / 2 for row in range(120)]
        np.testing.assert_allclose(begun[:, number, 1], firsts)
    assert begun.any()


def test_beginnings_lower_the_noise(lm: LanguageModel) -> None:
    sample = draw_sample(lm, prompts(300), WordScorer(), sampling())
    tables = [first_order_toxicity(lm, sample, scorer=scorer) for scorer in (None, WordScorer())]
    noise = [(table.without - table.before).std(axis=1).mean() for table in tables]
    assert noise[1] < 0.9 * noise[0]


def test_what_is_said_already_does_not_count_for_the_tokens_after_it() -> None:
    """Toxicity that the first token decides, among prompts and samples that are alike otherwise."""
    rng = np.random.default_rng(0)
    first = rng.integers(2, size=(200, 2)).astype(float)
    begun = np.stack([np.zeros_like(first), first, first], axis=-1)
    found = advantages(first, np.arange(200) % 2, begun)
    np.testing.assert_allclose(found[..., 0], first - baselines(first, np.arange(200) % 2))
    np.testing.assert_allclose(found[..., 1:], 0, atol=1e-12)


def test_losses_follow_the_gradient_of_the_loss() -> None:
    lm = tiny_lm("gpt2")
    tokens = torch.from_numpy(np.random.default_rng(0).integers(4, 96, 90))
    protocol = PerplexityProtocol("standard", 16, 10)
    found = first_order_losses(lm, tokens, protocol)
    exact = masked_losses(lm, tokens, protocol)
    np.testing.assert_allclose(found.before, exact.before, rtol=1e-5)
    step = 1e-2
    nearly = masked_losses(lm, tokens, protocol, 1 - step * torch.eye(N_HEADS))
    np.testing.assert_allclose(found.effect, nearly.effect / step, atol=2e-3)
    assert np.corrcoef(found.effect, exact.effect)[0, 1] > 0.5
    one_by_one = first_order_losses(lm.with_batch_size(1), tokens, protocol)
    np.testing.assert_allclose(found.without, one_by_one.without, rtol=1e-5)


def test_the_model_keeps_no_trace(lm: LanguageModel) -> None:
    digest = weights_digest(lm.model)
    first_order_toxicity(lm.with_batch_size(5), draw_sample(lm, prompts(2), WordScorer(), sampling()))
    assert weights_digest(lm.model) == digest
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in lm.model.parameters())
    assert not any(module._forward_pre_hooks for module in lm.model.modules())


def toxicity_table(before: np.ndarray, without: np.ndarray, n_groups: int) -> MaskToxicity:
    n = len(before)
    names = [f"g{number % n_groups}" for number in range(n)]
    made = prompt_set([f"w{number}" for number in range(n)], names, axis="toy", source="toy", licence="none")
    return MaskToxicity(before, without, made, (FIRST_ORDER,) * len(without), np.ones((len(without), n_groups)), 1, "")


def test_noise_in_the_signs_does_not_leak_into_the_effects() -> None:
    """Where change and toxicity share their noise and no group differs, effects must be 0 on average."""
    rng = np.random.default_rng(0)
    crossed, plugged = [], []
    for _ in range(60):
        before = rng.random(40)
        table = toxicity_table(before, before[None] * 0.5, n_groups=2)
        crossed.append(bias_effects(table, rng=rng).effect[0])
        plugged.append(bias_effects(table, rng=rng, form="difference").effect[0])
    assert abs(np.mean(crossed)) < 3 * np.std(crossed) / np.sqrt(60)
    assert np.mean(plugged) < -0.02  # what is avoided


def test_groups_that_differ_clearly_count_with_their_full_sign() -> None:
    rng = np.random.default_rng(1)
    level = np.tile([0.0, 0.1, 0.7], 200)
    before = level + 0.02 * rng.standard_normal(600)
    without = before.copy()
    without[level > 0.5] -= 0.2
    effects = bias_effects(toxicity_table(before, without[None], 3), rng=rng)
    # The mean falls by a fifteenth: two groups below it come nearer by that, the third by .2 less that.
    assert effects.effect[0] == pytest.approx(-4 / 15, abs=1e-9)
    assert effects.before == pytest.approx(0.8 / 3 + 0.5 / 3 + 1.3 / 3, abs=0.01)
