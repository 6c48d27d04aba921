"""From logits to a token: the distribution that continuations are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fairmend.errors import InputError
from fairmend.language.generation.coupling import gumbel_noise
from fairmend.language.protocols import Sampling

_SPARE = 14  # tokens beyond the k-th that are looked at, for ties


@dataclass(frozen=True)
class DecodingRule:
    """How the next token is drawn.

    Attributes:
        top_k: from the k most probable tokens only, ties with the k-th included; None draws from all, 1 is greedy.
        temperature: the logits are divided by it before drawing.
    """

    top_k: int | None = 50
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be a positive number or None, got {self.top_k}")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature must be positive, got {self.temperature}: use top_k=1 for greedy decoding")

    def choose(self, logits: Tensor, streams: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Choose one token per row.

        Args:
            logits: `(rows, vocabulary)`.
            streams: noise streams of the rows' prompts, `(rows,)`.
            step: number of the new token, from 0.

        Returns:
            tokens `(rows,)` and their log-likelihood `(rows,)` in float64 under the distribution they were drawn from.
            NaN logits give a NaN log-likelihood.
        """
        values, candidates, _ = self._candidates(logits)
        if logits.device.type == "mps":  # has no float64
            values, candidates = values.cpu(), candidates.cpu()
        scores = (values.double() / self.temperature).log_softmax(-1)
        best = (scores + gumbel_noise(streams, step, candidates)).argmax(-1, keepdim=True)
        return candidates.gather(-1, best)[:, 0], scores.gather(-1, best)[:, 0]

    def log_likelihoods(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Log-likelihood of given tokens under the distribution that `choose` draws from; differentiable.

        Args:
            logits: `(..., vocabulary)`.
            tokens: `(...)`.

        Returns:
            `(...)` in float32; -inf for a token outside of the top k.
        """
        values, _, least = self._candidates(logits)
        chosen = logits.gather(-1, tokens[..., None])
        if least is not None:
            chosen = chosen.masked_fill(chosen < least, float("-inf"))
        values, chosen = values.float(), chosen.float()
        if self.temperature != 1:  # else no second tensor of the size of the vocabulary is kept for the gradient
            values, chosen = values / self.temperature, chosen / self.temperature
        return (chosen - values.logsumexp(-1, keepdim=True))[..., 0]

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits, -inf outside of the top k, and ids of the tokens to draw from, `(..., k or more)`; the k-th logit."""
        vocabulary = logits.shape[-1]
        every = torch.arange(vocabulary, device=logits.device).expand_as(logits)
        if self.top_k is None or self.top_k >= vocabulary:
            return logits, every, None
        values, ids = logits.topk(min(vocabulary, self.top_k + _SPARE), dim=-1)
        least = values[..., self.top_k - 1, None].detach()
        if bool((values[..., -1:] == least).any()):  # more ties than there was room for, as bfloat16 can have
            values, ids = logits, every
        return values.masked_fill(values < least, float("-inf")), ids, least


def rule_of(sampling: Sampling) -> DecodingRule:
    """How each token is drawn."""
    return DecodingRule(sampling.top_k, sampling.temperature)
