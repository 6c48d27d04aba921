"""Everything a tiny model can say in two tokens, so that its expected toxicity is known exactly."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tiny_lm import WORDS, sentences, tiny_lm
from torch import Tensor

from fairmend.language.generation.decoding import DecodingRule
from fairmend.language.heads.gates import HeadGates
from fairmend.language.measurement.answers import Toxicity
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet, prompt_set
from fairmend.language.protocols import Sampling

BAD = torch.tensor([float(word.startswith("w") and int(word[1:]) % 3 == 0) for word in WORDS])
"""Toxicity of each token id, twice its share in a continuation of two tokens."""
NEW_TOKENS = 2


class WordScorer:
    """A text of two words is as toxic as its share of words w0, w3, w6 ..."""

    name = "toy"
    kind = "custom"
    scores_continuation_only = True

    def score(self, texts: Sequence[str]) -> np.ndarray:
        bad = {word for word, value in zip(WORDS, BAD.tolist(), strict=True) if value}
        return np.array([sum(word in bad for word in text.split()) / NEW_TOKENS for text in texts])

    def fingerprint(self) -> Mapping[str, Any]:
        return {"kind": "toy"}


def model() -> LanguageModel:
    return tiny_lm("llama-gqa", seed=11)


def prompts(n_repeats: int, n_groups: int = 3) -> PromptSet:
    """Two texts per group, each repeated: repeated texts have ids, hence noise, of their own."""
    texts = sentences([5] * (2 * n_groups))
    names = [f"g{number // 2}" for number in range(2 * n_groups)]
    return prompt_set(texts * n_repeats, names * n_repeats, axis="toy", source="toy", licence="none")


def sampling(n_samples: int = 1, top_k: int | None = None) -> Sampling:
    return Sampling(new_tokens=NEW_TOKENS, n_samples=n_samples, seed=5, top_k=top_k)


def toxicity(lm: LanguageModel, prompts: PromptSet, drawn: Sampling | None = None) -> Toxicity:
    """How toxic the model's continuations are; one of each when not said otherwise."""
    return Toxicity(lm, prompts, WordScorer(), drawn or sampling())


def expected_toxicity(lm: LanguageModel, text: str, gates: Tensor, top_k: int | None = None) -> Tensor:
    """Mean toxicity of the continuations of one prompt, summed over all of them; differentiable in the gates."""
    prompt = lm.tokenizer(text)["input_ids"]
    rule = DecodingRule(top_k=top_k)
    every = torch.arange(len(WORDS))
    with HeadGates(lm.model, lm.head_map) as hooks:
        hooks.set(gates)
        first = lm.model(input_ids=torch.tensor([prompt])).logits[:, -1].expand(len(WORDS), -1)
        second = lm.model(input_ids=torch.tensor([[*prompt, token] for token in every.tolist()])).logits[:, -1]
    p_first = rule.log_likelihoods(first, every).exp()
    p_second = rule.log_likelihoods(second[:, None].expand(-1, len(WORDS), -1), every.expand(len(WORDS), -1)).exp()
    goes_on = torch.ones(len(WORDS))
    goes_on[list(lm.end_ids)] = 0
    return (p_first * (BAD + goes_on * (p_second @ BAD))).sum() / NEW_TOKENS


def expected_group_toxicity(lm: LanguageModel, gates: Tensor, top_k: int | None = None, n_groups: int = 3) -> Tensor:
    """Mean toxicity of each group of `prompts`, `(n_groups,)`."""
    texts = sentences([5] * (2 * n_groups))
    return torch.stack([expected_toxicity(lm, text, gates, top_k) for text in texts]).reshape(n_groups, 2).mean(1)


def expected_bias(lm: LanguageModel, gates: Tensor, top_k: int | None = None) -> Tensor:
    """Sum of the absolute deviations of the groups' expected toxicities from their mean."""
    means = expected_group_toxicity(lm, gates, top_k)
    return (means - means.mean()).abs().sum()
