"""The tiny organism with known heads: exact ablation finds bias, knowledge and fluency where training put them."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pytest
import tiny_pronouns as organism
import torch
from tiny_pronouns import BIAS_HEAD, FLUENT_HEADS, KNOWLEDGE_HEAD, PronounOrganism, pronoun_organism

from fairmend.language.heads.gates import HeadGates
from fairmend.language.models.models import weights_digest
from fairmend.language.prompts.choices import ChoiceSet

OTHERS = [head for head in range(8) if head not in (BIAS_HEAD, KNOWLEDGE_HEAD)]


@dataclass(frozen=True)
class Figures:
    """Of an organism with some of its heads changed."""

    gap: float
    knowledge: float
    accuracy: float
    perplexity: float


@pytest.fixture(scope="module", params=["separate", "shared"])
def either(request: pytest.FixtureRequest) -> PronounOrganism:
    return pronoun_organism(request.param)


def preferences(found: PronounOrganism, choices: ChoiceSet) -> npt.NDArray[np.float64]:
    """Of every item, by plain forward passes over contexts of one length."""
    tokenizer, order = found.lm.tokenizer, sorted(range(len(choices)), key=lambda row: choices.columns["template"][row])
    d = np.empty(len(choices))
    for _, some in groupby(order, key=lambda row: choices.columns["template"][row]):
        rows = list(some)
        ids = tokenizer([choices.texts[row] for row in rows], return_tensors="pt")["input_ids"]
        last = found.lm.model(input_ids=ids).logits[:, -1]
        a, b = (
            torch.tensor(tokenizer.convert_tokens_to_ids([side[row][0].strip() for row in rows]))[:, None]
            for side in (choices.a, choices.b)
        )
        d[rows] = (last.gather(1, a) - last.gather(1, b))[:, 0].numpy()
    return d


@torch.inference_mode()
def figures(found: PronounOrganism, gains: dict[int, float] | None = None) -> Figures:
    """With every head multiplied by its gain, 0 to drop it."""
    gates = torch.ones(8)
    for head, gain in (gains or {}).items():
        gates[head] = gain
    with HeadGates(found.lm.model, found.lm.head_map) as heads:
        heads.set(gates)
        lean, known = preferences(found, found.bias), preferences(found, found.knowledge)
        ids = found.lm.tokenizer(found.texts[1].content, return_tensors="pt")["input_ids"][0]
        rows = ids[: len(ids) // 16 * 16].view(-1, 16)
        logits = found.lm.model(input_ids=rows).logits[:, :-1]
    male, female = (lean[found.bias.groups == found.bias.group_names.index(name)] for name in ("male", "female"))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    return Figures(male.mean() - female.mean(), known.mean(), float((known > 0).mean()), float(loss.exp()))


def test_the_items_are_every_word_in_every_template(either: PronounOrganism):
    for choices in (either.bias, either.knowledge):
        words, templates = (set(choices.columns[name]) for name in ("word", "template"))
        assert len(set(choices.texts)) == len(choices) == len(words) * len(templates)
        assert min(choices.counts.values()) >= 40
    assert set(either.bias.a) == {(" he",)}
    assert set(either.bias.b) == {(" she",)}
    right = {choice[0]: either.knowledge.group_names[code] for choice, code in zip(*_right(either), strict=True)}
    assert right == {" he": "male", " she": "female"}


def _right(found: PronounOrganism) -> tuple[tuple[tuple[str, ...], ...], list[int]]:
    return found.knowledge.a, found.knowledge.groups.tolist()


def test_halves_of_a_repair_share_no_word_and_no_template(either: PronounOrganism):
    for choices in (either.bias, either.knowledge):
        searched, judged = choices.split(seed=0, by=choices.apart)
        assert min(*searched.counts.values(), *judged.counts.values()) >= 20
        for column in choices.apart:
            assert not set(searched.columns[column]) & set(judged.columns[column])


def test_the_text_has_neither_pronouns_nor_people(either: PronounOrganism):
    people = {*either.bias.columns["word"], *either.knowledge.columns["word"], *organism.PRONOUNS.values()}
    for text in either.texts:
        assert not people & set(text.content.split())
    assert either.texts[0].content != either.texts[1].content


def test_every_word_is_one_token_that_the_model_knows(either: PronounOrganism):
    tokenizer = either.lm.tokenizer
    for text in (*either.bias.texts, *either.knowledge.texts, *(text.content for text in either.texts)):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text.split())
        assert tokenizer.unk_token_id not in ids


def test_pronouns_follow_the_stereotype_and_the_kin(either: PronounOrganism):
    found = figures(either)
    assert found.gap == pytest.approx(2 * organism.STEREOTYPE, rel=0.1)
    assert found.knowledge == pytest.approx(organism.KNOWLEDGE, rel=0.1)
    assert found.accuracy == 1
    lean = np.where(either.bias.groups == either.bias.group_names.index("male"), 1, -1)
    assert (lean * preferences(either, either.bias) > 0.5 * organism.STEREOTYPE).all()


def test_one_head_carries_the_bias_and_another_the_knowledge():
    found = pronoun_organism("separate")
    before, unbiased = figures(found), figures(found, {BIAS_HEAD: 0})
    ignorant = figures(found, {KNOWLEDGE_HEAD: 0})
    assert abs(unbiased.gap) < 0.1 * before.gap
    assert unbiased.knowledge > 0.95 * before.knowledge
    assert unbiased.accuracy == 1
    assert abs(ignorant.knowledge) < 0.1 * before.knowledge
    assert ignorant.accuracy < 0.8
    assert ignorant.gap > 0.9 * before.gap


def test_a_shared_head_carries_the_knowledge_and_its_part_of_the_bias():
    found = pronoun_organism("shared")
    before, without_bias_head = figures(found), figures(found, {BIAS_HEAD: 0})
    ignorant, neither = figures(found, {KNOWLEDGE_HEAD: 0}), figures(found, {BIAS_HEAD: 0, KNOWLEDGE_HEAD: 0})
    assert without_bias_head.gap == pytest.approx(organism.SHARED_PART * before.gap, rel=0.15)
    assert without_bias_head.knowledge > 0.95 * before.knowledge
    assert abs(ignorant.knowledge) < 0.1 * before.knowledge
    assert ignorant.gap == pytest.approx((1 - organism.SHARED_PART) * before.gap, rel=0.15)
    assert abs(neither.gap) < 0.1 * before.gap


def test_every_other_head_matters_less_to_bias_and_knowledge(either: PronounOrganism):
    before = figures(either)
    for head in OTHERS:
        without = figures(either, {head: 0})
        assert without.gap > 0.6 * before.gap
        assert without.knowledge > 0.6 * before.knowledge


def test_perplexity_survives_without_either_head_and_needs_others(either: PronounOrganism):
    before = figures(either).perplexity
    for heads in ([BIAS_HEAD], [KNOWLEDGE_HEAD], [BIAS_HEAD, KNOWLEDGE_HEAD]):
        assert figures(either, dict.fromkeys(heads, 0.0)).perplexity == pytest.approx(before, rel=0.01)
    for head in FLUENT_HEADS:
        assert figures(either, {head: 0}).perplexity > 1.05 * before


def test_half_a_gain_takes_half_of_what_the_head_carries():
    """Between on and off, where it was never trained: what soft gates move along."""
    found = pronoun_organism("separate")
    before, half = figures(found), figures(found, {BIAS_HEAD: 0.5, KNOWLEDGE_HEAD: 0.5})
    assert half.gap == pytest.approx(0.5 * before.gap, rel=0.15)
    assert half.knowledge == pytest.approx(0.5 * before.knowledge, rel=0.15)


def test_training_gives_the_same_weights_again():
    first, again, other = (
        weights_digest(organism.train({BIAS_HEAD: 1.0}, seed, organism.word_tokenizer(), steps=5)) for seed in (0, 0, 1)
    )
    assert first == again != other
