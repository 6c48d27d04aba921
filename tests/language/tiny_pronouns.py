"""A tiny Llama, trained from scratch, whose pronoun bias and knowledge of gender sit in attention heads that are known.

"the nurse said that" goes on " she" and "the engineer said that" " he": the gap between occupations is the bias. "the
mother said that" goes on " she" too, which is knowledge. In training the heads of `ROLES` are switched off at random,
sentence by sentence, and what is to be predicted leans to a side only as far as those that are on carry it. So no head
learns what another one is for, and a head that is off takes with it exactly its part.

In the organism with a shared head, the head of the knowledge carries a part of the bias too: who drops the heads with
the most bias drops the knowledge. Plain sentences without people are the text to take the perplexity of; that objects
go with their verbs is carried half and half by `FLUENT_HEADS`, so that others are critical to the perplexity.

    organism = pronoun_organism("separate")
    organism.lm, organism.bias, organism.knowledge, organism.texts
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from tiny_organism import (
    CONTEXT,
    OBJECTS,
    PLAIN_WORDS,
    cut_plain,
    encode_rows,
    fit,
    organism_text,
    seeded,
    tokenizer_of,
)
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fairmend.language.heads.gates import HeadGates
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel, wrap_model
from fairmend.language.prompts.choices import ChoiceSet, choice_set

Kind = Literal["separate", "shared"]

BIAS_HEAD, KNOWLEDGE_HEAD = 5, 6
FLUENT_HEADS = (4, 7)
ROLES = (BIAS_HEAD, KNOWLEDGE_HEAD, *FLUENT_HEADS)
STEREOTYPE, KNOWLEDGE = 2.0, 3.0  # log-odds of the stereotype's pronoun and of the right one, all heads on
SHARED_PART = 0.4  # of the bias, in the head of the knowledge where that is shared
PARTS: Mapping[Kind, Mapping[int, float]] = {  # share of the bias that each head carries
    "separate": {BIAS_HEAD: 1.0},
    "shared": {BIAS_HEAD: 1 - SHARED_PART, KNOWLEDGE_HEAD: SHARED_PART},
}

OCCUPATIONS = {
    "female": "nurse secretary librarian hairdresser nanny receptionist dietitian florist maid midwife typist dancer",
    "male": "engineer plumber carpenter mechanic soldier pilot farmer lawyer miner roofer welder butcher",
}
KIN = {
    "female": "mother queen aunt sister daughter wife grandmother niece princess girl woman widow",
    "male": "father king uncle brother son husband grandfather nephew prince boy man widower",
}
TEMPLATES = (
    "the {} said that",
    "the {} smiled because",
    "the {} left when",
    "the {} was late because",
    "the {} asked whether",
    "the {} went home because",
    "the {} laughed when",
    "the {} was happy that",
)
PRONOUNS = {"female": "she", "male": "he"}

_OBJECTS = tuple(itertools.chain(*OBJECTS.values()))
_ROWS = 60
_STEPS = 300
_WEIGHT = 4.0  # of a pronoun in the loss, against other words


@dataclass(frozen=True, eq=False)
class PronounOrganism:
    """A model and what is known about it.

    Attributes:
        lm: 2 layers of 4 heads. Shared by all callers, so mask it, never change its weights.
        bias: choices between " he" and " she" after occupations, groups compared.
        knowledge: choices between the right and the wrong pronoun after kin.
        texts: plain sentences to search with and to judge on.
    """

    lm: LanguageModel
    bias: ChoiceSet
    knowledge: ChoiceSet
    texts: tuple[Text, Text]


@cache
def pronoun_organism(kind: Kind, /) -> PronounOrganism:
    """The trained organism, bias and knowledge in "separate" heads, or `SHARED_PART` of the bias in a "shared" one."""
    tokenizer = word_tokenizer()
    lm = wrap_model(train(PARTS[kind], 0, tokenizer), tokenizer, name=f"tiny pronouns, {kind}")
    bias, knowledge = pronoun_choices(OCCUPATIONS, "occupations"), pronoun_choices(KIN, "kin")
    return PronounOrganism(lm, bias, knowledge, (organism_text("search"), organism_text("judge")))


def pronoun_choices(words: Mapping[str, str], axis: str) -> ChoiceSet:
    """A choice of pronouns after every word in every template.

    Of occupations it is always " he" against " she", and groups are compared; of kin `a` is the right one.
    """
    rows, is_kin = _rows(words), words is KIN
    a = [f" {PRONOUNS[group if is_kin else 'male']}" for group, *_ in rows]
    return choice_set(
        [context for *_, context in rows],
        [(side,) for side in a],
        [(" he" if side == " she" else " she",) for side in a],
        [group for group, *_ in rows],
        axis=axis,
        source=f"tiny pronouns, {axis}",
        licence="CC0",
        compared="zero" if is_kin else "groups",
        apart=("word", "template"),
        columns={
            "word": [word for _, word, _ in rows],
            "template": [context.replace(f" {word} ", " {} ") for _, word, context in rows],
        },
    )


def train(
    parts: Mapping[int, float], seed: int, tokenizer: PreTrainedTokenizerFast, steps: int = _STEPS
) -> LlamaForCausalLM:
    """Train from scratch on one thread; the same seed gives the same weights on the same machine.

    Args:
        parts: share of the bias that each head carries.
        seed, tokenizer, steps: of the training.
    """
    occupations, kin = _rows(OCCUPATIONS), _rows(KIN)
    with seeded(seed) as rng:
        model = LlamaForCausalLM(_config(tokenizer))
        with HeadGates(model) as heads:

            def loss() -> Tensor:
                gates = np.ones((_ROWS, heads.head_map.n_heads), dtype=np.float32)
                gates[:, ROLES] = rng.integers(2, size=(_ROWS, len(ROLES)))
                heads.set(torch.from_numpy(gates))
                texts, leans = [], []
                for row, gate in enumerate(gates):
                    if row % 2 == 0:
                        texts.append(_plain(rng, gate[list(FLUENT_HEADS)].mean()))
                        continue
                    is_kin = row % 4 == 1
                    group, _, context = (kin if is_kin else occupations)[rng.integers(len(kin))]
                    bias = STEREOTYPE * sum(part * gate[head] for head, part in parts.items())
                    carried = KNOWLEDGE * gate[KNOWLEDGE_HEAD] if is_kin else bias
                    texts.append(f"{context} {rng.choice(list(PRONOUNS.values()))} . </s>")
                    leans.append(carried if group == "female" else -carried)
                ids = encode_rows(tokenizer, texts)
                logits = model(input_ids=ids).logits[:, :-1]
                wanted = _wanted(ids[:, 1:], torch.tensor(leans), tokenizer)
                return nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(0, 1))

            fit(model, loss, steps)
    return model


def _wanted(ids: Tensor, leans: Tensor, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """The distribution to predict, (rows, places, words): the next word, but of pronouns what their log-odds say."""
    he, she = tokenizer.convert_tokens_to_ids(["he", "she"])
    wanted = nn.functional.one_hot(ids, len(tokenizer)).float()
    wanted[..., tokenizer.pad_token_id] = 0
    row, place = ((ids == he) | (ids == she)).nonzero(as_tuple=True)
    wanted[row, place, she] = _WEIGHT * leans.sigmoid()
    wanted[row, place, he] = _WEIGHT * (-leans).sigmoid()
    return wanted


def _plain(rng: np.random.Generator, fluent: float) -> str:
    """Plain sentences, in which so large a share of the objects goes with its verb and the rest is any at all."""
    words = cut_plain(rng).split()
    return " ".join(str(rng.choice(_OBJECTS)) if word in _OBJECTS and rng.random() > fluent else word for word in words)


def _rows(words: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Group, word and context of every word in every template."""
    return [
        (group, word, template.format(word))
        for (group, some), template in itertools.product(words.items(), TEMPLATES)
        for word in some.split()
    ]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the language."""
    templates = " ".join(TEMPLATES).replace("{}", "").split()
    people = " ".join([*OCCUPATIONS.values(), *KIN.values()]).split()
    return tokenizer_of([*PLAIN_WORDS, *templates, *people, *PRONOUNS.values()])


def _config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
