"""Generation: coupled noise, independence of the batch, masks per row, likelihoods."""

import inspect

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lm import sentences, tiny_lm

from fairmend.errors import InputError, ModelError
from fairmend.language.backend.batching import BatchSize, available_memory, is_out_of_memory
from fairmend.language.generation.coupling import _draw, gumbel_noise, prompt_streams
from fairmend.language.generation.decoding import DecodingRule
from fairmend.language.generation.generation import NO_TOKEN, Continuations, generate
from fairmend.language.generation.likelihoods import batched_log_likelihoods, continuation_log_likelihoods
from fairmend.language.heads.gates import masked
from fairmend.language.models.models import LanguageModel
from fairmend.language.protocols import Sampling
from fairmend.masks import Mask

LENGTHS = [3, 11, 5, 8, 9, 1, 17, 2, 6, 14, 4, 7]
PROMPTS = sentences(LENGTHS)
IDS = np.arange(100, 100 + len(PROMPTS))


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm()


def assert_same(first: Continuations, second: Continuations) -> None:
    assert first.token_ids.tolist() == second.token_ids.tolist()
    assert first.texts == second.texts
    np.testing.assert_allclose(first.log_likelihoods, second.log_likelihoods, atol=1e-6)


def taken(found: Continuations, rows: list[int]) -> list[tuple[int, ...]]:
    return [found.tokens(row) for row in rows]


def mask_of(dropped: np.ndarray) -> Mask:
    return Mask(sum(1 << unit for unit in np.flatnonzero(dropped).tolist()), len(dropped))


def next_logits(lm: LanguageModel, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([tokens])).logits[0, -1]


# --- noise


def test_noise_is_the_published_splitmix64():
    outputs = _draw(torch.tensor(1234567), torch.arange(5)).tolist()
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [value % (1 << 64) for value in outputs] == known


def test_noise_depends_on_seed_id_sample_and_step():
    tokens = torch.arange(50)[None]
    base = gumbel_noise(prompt_streams(1, [7]), 0, tokens)
    others = [
        gumbel_noise(prompt_streams(2, [7]), 0, tokens),
        gumbel_noise(prompt_streams(1, [8]), 0, tokens),
        gumbel_noise(prompt_streams(1, [7], sample=1), 0, tokens),
        gumbel_noise(prompt_streams(1, [7]), 1, tokens),
    ]
    assert all(not bool((base == other).any()) for other in others)
    assert torch.equal(base, gumbel_noise(prompt_streams(1, [7]), 0, tokens))


def test_noise_of_a_token_does_not_depend_on_the_other_tokens_or_rows():
    streams = prompt_streams(3, [5, -9, 2**62])
    whole = gumbel_noise(streams, 4, torch.arange(200).expand(3, -1))
    part = gumbel_noise(streams[1:2], 4, torch.tensor([[150, 3]]))
    assert part[0].tolist() == [whole[1, 150].item(), whole[1, 3].item()]


def test_noise_has_the_gumbel_distribution():
    noise = gumbel_noise(prompt_streams(0, np.arange(400)), 0, torch.arange(500).expand(400, -1)).flatten()
    assert abs(noise.mean().item() - 0.57722) < 0.01
    assert abs(noise.var().item() - np.pi**2 / 6) < 0.02
    for value in (-1.0, 0.0, 1.0, 3.0):
        assert abs((noise <= value).double().mean().item() - np.exp(-np.exp(-value))) < 0.004


def test_noise_of_neighbouring_prompts_steps_and_tokens_is_uncorrelated():
    noise = torch.stack(
        [gumbel_noise(prompt_streams(0, np.arange(60)), s, torch.arange(60).expand(60, -1)) for s in range(60)]
    )
    centred = (noise - noise.mean()) / noise.std()
    for axis in range(3):
        lagged = (centred.narrow(axis, 0, 59) * centred.narrow(axis, 1, 59)).mean()
        assert abs(lagged.item()) < 0.01


def test_ids_must_be_integers():
    with pytest.raises(InputError, match="ids must be a row of integers"):
        prompt_streams(0, [0.5])


# --- the rule


def test_tokens_are_drawn_with_their_probability():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -9.0]).expand(20_000, -1)
    tokens, _ = DecodingRule(top_k=3).choose(logits, prompt_streams(0, np.arange(20_000)), 0)
    expected = torch.tensor([2.0, 1.0, 0.0]).softmax(-1)
    shares = torch.bincount(tokens, minlength=5) / 20_000
    assert shares[3:].tolist() == [0, 0]
    np.testing.assert_allclose(shares[:3], expected, atol=0.012)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 1.0))
def test_similar_distributions_rarely_draw_different_tokens(seed: int, change: float):
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(60, generator=generator) * 2
    second = first + change * torch.randn(60, generator=generator)
    streams = prompt_streams(seed, np.arange(4000))
    rule = DecodingRule(top_k=None)
    drawn = [rule.choose(logits.expand(4000, -1), streams, 0)[0] for logits in (first, second)]
    differ = (drawn[0] != drawn[1]).double().mean().item()
    variation = 0.5 * (first.softmax(-1) - second.softmax(-1)).abs().sum().item()
    bound = 2 * variation / (1 + variation)
    assert differ <= bound + 4 * np.sqrt(0.25 / 4000)


def test_ties_with_the_last_of_the_top_k_stay_in():
    logits = torch.zeros(2000, 300)
    logits[:, 0] = 1.0
    tokens, likelihood = DecodingRule(top_k=2).choose(logits, prompt_streams(0, np.arange(2000)), 0)
    assert len(tokens.unique()) > 250
    whole = logits[0].log_softmax(-1)
    np.testing.assert_allclose(likelihood, whole[tokens], atol=1e-6)


def test_likelihoods_are_those_of_the_cut_distribution():
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    rule = DecodingRule(top_k=10, temperature=0.7)
    tokens, likelihood = rule.choose(logits, prompt_streams(0, np.arange(5)), 0)
    np.testing.assert_allclose(rule.log_likelihoods(logits, tokens), likelihood, atol=1e-5)
    least = logits.argmin(-1)
    assert torch.isneginf(rule.log_likelihoods(logits, least)).all()


@pytest.mark.parametrize("options", [{"top_k": 0}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_a_rule_that_cannot_work_is_refused(options: dict[str, float]):
    with pytest.raises(InputError, match=r"top_k|temperature"):
        DecodingRule(**options)  # type: ignore[arg-type]


# --- continuations


def test_greedy_continuations_are_those_of_transformers(lm: LanguageModel):
    found = generate(lm, PROMPTS, IDS, Sampling(new_tokens=12, top_k=1))
    for row, prompt in enumerate(found.prompt_ids):
        reference = lm.model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, max_new_tokens=12
        )
        assert found.tokens(row) == tuple(reference[0, len(prompt) :].tolist())


def test_sampled_continuations_follow_the_definition(lm: LanguageModel):
    found = generate(lm, PROMPTS, IDS, Sampling(new_tokens=8, seed=5, top_k=20))
    for row, prompt in enumerate(found.prompt_ids):
        tokens = list(prompt)
        for step in range(found.lengths[row]):
            scores = next_logits(lm, tokens).double()
            scores[scores < scores.topk(20).values[-1]] = -torch.inf
            scores = scores.log_softmax(-1)
            noise = gumbel_noise(prompt_streams(5, IDS[[row]]), step, torch.arange(96)[None])[0]
            best = int((scores + noise).argmax())
            assert found.token_ids[row, step] == best
            assert found.log_likelihoods[row, step] == pytest.approx(scores[best].item(), abs=1e-4)
            tokens.append(best)


@pytest.mark.parametrize("top_k", [50, 1])
def test_a_continuation_depends_on_neither_batch_nor_order_nor_neighbours(lm: LanguageModel, top_k: int):
    whole = generate(lm, PROMPTS, IDS, Sampling(new_tokens=10, seed=1, top_k=top_k))
    generator = np.random.default_rng(0)
    for rows_at_once in (1, 2, 5, 100):
        order = generator.permutation(len(PROMPTS))[: generator.integers(1, len(PROMPTS) + 1)]
        prompts = [PROMPTS[row] for row in order]
        part = generate(
            lm.with_batch_size(rows_at_once),
            prompts,
            IDS[order],
            Sampling(new_tokens=10, seed=1, top_k=top_k),
        )
        assert part.token_ids.tolist() == whole.token_ids[order].tolist()
        np.testing.assert_allclose(part.log_likelihoods, whole.log_likelihoods[order], atol=1e-6)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_left_padding_changes_nothing_in_any_architecture(name: str):
    lm = tiny_lm(name)
    found = generate(lm, PROMPTS[:5], IDS[:5], Sampling(new_tokens=6, seed=2))
    for row, prompt in enumerate(found.prompt_ids):
        added = torch.tensor(found.tokens(row))
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([[*prompt, *added]])).logits[0, len(prompt) - 1 : -1]
        expected = DecodingRule().log_likelihoods(logits, added)
        np.testing.assert_allclose(found.log_likelihoods[row, : len(added)], expected, atol=2e-4)


def test_a_text_stops_at_its_end(lm: LanguageModel):
    found = generate(lm, PROMPTS * 5, np.arange(60), Sampling(new_tokens=30, seed=3, top_k=None, temperature=2.0))
    ended = [found.tokens(row)[-1] == 2 for row in range(60)]
    assert any(ended)
    assert not all(ended)
    for row in range(60):
        length = found.lengths[row]
        assert 2 not in found.token_ids[row, : length - 1]
        assert (found.token_ids[row, length:] == NO_TOKEN).all()
        assert (found.log_likelihoods[row, length:] == 0).all()
        assert ended[row] or length == 30
        assert "</s>" not in found.texts[row]


def test_texts_are_what_was_added_to_the_prompt(lm: LanguageModel):
    found = generate(lm, ["w4 w5"], [1], Sampling(new_tokens=4))
    assert found.texts[0].split() == [f"w{token}" for token in found.tokens(0)]


def test_longer_continuations_begin_like_shorter_ones(lm: LanguageModel):
    short, long = (generate(lm, PROMPTS, IDS, Sampling(new_tokens=n, seed=4)) for n in (5, 15))
    assert long.token_ids[:, :5].tolist() == short.token_ids.tolist()


def test_further_draws_of_a_prompt_differ(lm: LanguageModel):
    first, second = (generate(lm, PROMPTS, IDS, Sampling(new_tokens=10, seed=4), draw=draw) for draw in (0, 1))
    assert not any(a == b for a, b in zip(first.texts, second.texts, strict=True))


def test_prompts_are_cut_behind_the_tokens_that_are_allowed(lm: LanguageModel):
    found = generate(lm, PROMPTS, IDS, Sampling(new_tokens=3, max_prompt_tokens=4))
    assert max(len(prompt) for prompt in found.prompt_ids) == 4
    cut = [" ".join(prompt.split()[:4]) for prompt in PROMPTS]
    assert_same(found, generate(lm, cut, IDS, Sampling(new_tokens=3)))


# --- masks


def test_masks_packed_into_one_batch_are_as_one_at_a_time(lm: LanguageModel):
    generator = np.random.default_rng(1)
    dropped = [generator.random(lm.head_map.n_heads) < 0.4 for _ in range(4)]
    dropped[0][:] = False
    gates = np.repeat(~np.array(dropped), len(PROMPTS), axis=0).astype(float)
    packed = generate(lm, PROMPTS * 4, np.tile(IDS, 4), Sampling(new_tokens=10, seed=6), gates=gates)
    for number, drop in enumerate(dropped):
        rows = list(range(number * len(PROMPTS), (number + 1) * len(PROMPTS)))
        with masked(lm.model, mask_of(drop), lm.head_map):
            alone = generate(lm, PROMPTS, IDS, Sampling(new_tokens=10, seed=6))
        same_for_all = generate(lm, PROMPTS, IDS, Sampling(new_tokens=10, seed=6), gates=(~drop).astype(float))
        assert taken(packed, rows) == taken(alone, list(range(len(PROMPTS)))) == taken(same_for_all, list(range(12)))
    assert taken(packed, list(range(12))) != taken(packed, list(range(12, 24)))
    assert_same(
        generate(lm, PROMPTS, IDS, Sampling(new_tokens=10, seed=6)),
        generate(lm, PROMPTS, IDS, Sampling(new_tokens=10, seed=6)),
    )


def test_gates_of_another_shape_are_refused(lm: LanguageModel):
    with pytest.raises(InputError, match=r"need \(8,\) or \(12, 8\)"):
        generate(lm, PROMPTS, IDS, Sampling(new_tokens=2), gates=np.ones((3, 8)))


def test_a_mask_that_breaks_the_model_is_reported_not_raised():
    broken = tiny_lm("llama-mha")
    with torch.no_grad():
        broken.model.model.embed_tokens.weight[9] = float("nan")
    found = generate(broken, ["w4 w5", "w9 w5"], [1, 2], Sampling(new_tokens=4))
    assert found.broken.tolist() == [False, True]
    assert found.lengths[1] == 0
    assert found.texts[1] == ""
    assert np.isnan(found.log_likelihoods[1, 0])


# --- likelihoods of given continuations


def test_likelihoods_of_continuations_are_those_they_were_drawn_with(lm: LanguageModel):
    found = generate(lm, PROMPTS, IDS, Sampling(new_tokens=9, seed=7))
    tokens = taken(found, list(range(len(PROMPTS))))
    again = continuation_log_likelihoods(lm.with_batch_size(5), found.prompt_ids, tokens, rule=DecodingRule())
    np.testing.assert_allclose(again, found.log_likelihoods, atol=2e-5)


def test_likelihoods_under_a_mask_are_those_of_single_forward_passes(lm: LanguageModel):
    generator = np.random.default_rng(0)
    gates = (generator.random((len(PROMPTS), 8)) < 0.6).astype(float)
    found = generate(lm, PROMPTS, IDS, Sampling(new_tokens=9, seed=7))
    tokens = taken(found, list(range(len(PROMPTS))))
    values = continuation_log_likelihoods(lm.with_batch_size(4), found.prompt_ids, tokens, gates=gates)
    for row, (prompt, added) in enumerate(zip(found.prompt_ids, tokens, strict=True)):
        with masked(lm.model, mask_of(gates[row] == 0), lm.head_map), torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([[*prompt, *added]])).logits[0].log_softmax(-1)
        for step, token in enumerate(added):
            assert values[row, step].item() == pytest.approx(logits[len(prompt) + step - 1, token].item(), abs=2e-5)
        assert (values[row, len(added) :] == 0).all()


def test_likelihoods_have_the_gradient_of_the_gates(lm: LanguageModel):
    prompts, tokens = [(5, 6, 7), (8, 9, 10, 11)], [(12, 13), (14,)]
    gates = torch.ones(2, 8, requires_grad=True)
    continuation_log_likelihoods(lm, prompts, tokens, gates=gates).sum().backward()
    assert gates.grad is not None
    step = 1e-2
    for row, head in [(0, 1), (0, 6), (1, 3)]:
        sums = []
        for sign in (1, -1):
            moved = torch.ones(2, 8)
            moved[row, head] += sign * step
            sums.append(continuation_log_likelihoods(lm, prompts, tokens, gates=moved).sum().item())
        assert gates.grad[row, head].item() == pytest.approx((sums[0] - sums[1]) / (2 * step), abs=2e-3)


def test_one_batch_after_the_other_adds_up_to_the_same_gradient(lm: LanguageModel):
    prompts, tokens = [(5, 6, 7), (8, 9, 10, 11), (3, 4)], [(12, 13), (14,), (15, 16, 17)]
    at_once, in_turn = (torch.ones(8, requires_grad=True) for _ in range(2))
    continuation_log_likelihoods(lm, prompts, tokens, gates=at_once).sum().backward()
    for _, values in batched_log_likelihoods(lm.with_batch_size(1), prompts, tokens, gates=in_turn):
        values.sum().backward()
    assert at_once.grad is not None
    assert in_turn.grad is not None
    torch.testing.assert_close(at_once.grad, in_turn.grad)


# --- memory, refusals


def test_a_batch_that_does_not_fit_is_halved_until_it_does(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch):
    prompts, ids = PROMPTS * 3, np.arange(36)
    expected = generate(lm, prompts, ids, Sampling(new_tokens=6, seed=8))
    forward, sizes = lm.model.forward, []

    def small_memory(*args: object, input_ids: torch.Tensor, **options: object) -> object:
        sizes.append(len(input_ids))
        if len(input_ids) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, input_ids=input_ids, **options)

    small_memory.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(lm.model, "forward", small_memory)
    assert_same(generate(lm, prompts, ids, Sampling(new_tokens=6, seed=8)), expected)
    assert max(sizes) > 8
    with pytest.raises(ModelError, match="out of memory with 10 rows at once"):
        generate(lm.with_batch_size(10), prompts, ids, Sampling(new_tokens=6, seed=8))


def test_batch_sizes_shrink_and_stay_small():
    sizes = BatchSize("auto", torch.device("cpu"))
    seen = []

    def work(part: object) -> int:
        n = len(part)  # type: ignore[arg-type]
        seen.append(n)
        if n > 10:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return n

    assert sum(result for _, result in sizes.run(work, range(100))) == 100
    assert seen[:5] == [100, 50, 25, 12, 6]
    assert [len(part) for part, _ in sizes.run(work, range(9))] == [6, 3]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def work(part: object) -> int:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        list(BatchSize("auto", torch.device("cpu")).run(work, range(3)))
    assert is_out_of_memory(MemoryError())
    assert available_memory() > 0


def test_large_rows_start_with_a_small_batch():
    assert BatchSize("auto", torch.device("cpu"), bytes_per_row=1 << 60).rows == 1


@pytest.mark.parametrize(
    ("prompts", "ids", "options", "said"),
    [
        ([], [], {}, "at least one"),
        (["w4"], [1, 2], {}, "1 prompts need as many ids, got 2"),
        (["w4", ""], [1, 2], {}, "has no tokens"),
        (["w4"], [1], {"new_tokens": 0}, "must be at least 1"),
        (["w4"], [1], {"max_prompt_tokens": 0}, "must be at least 1"),
        (["w4"], [1], {"new_tokens": 64}, "does not fit the 64 tokens"),
    ],
)
def test_what_cannot_work_is_refused(lm: LanguageModel, prompts: list[str], ids: list[int], options: dict, said: str):
    with pytest.raises(InputError, match=said):
        generate(lm, prompts, ids, Sampling(**{"new_tokens": 4, **options}))
    with pytest.raises(InputError, match="batch size must be"):
        generate(lm.with_batch_size(0), ["w4"], [1], Sampling(new_tokens=4))
