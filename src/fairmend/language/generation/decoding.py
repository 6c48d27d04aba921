"""From logits to a token: the distribution that a continuation is drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fairmend.errors import InputError
from fairmend.language.generation.coupling import gumbel_noise

_SPARE = 14  # tokens beyond the k-th that are looked at, for ties


@dataclass(frozen=True)
class DecodingRule:
    """How the next token is chosen.

    Attributes:
        sample: draw it; otherwise take the most probable token.
        top_k: draw from the k most probable tokens only, ties with the k-th included; None draws from all.
        temperature: the logits are divided by it before drawing.
    """

    sample: bool = True
    top_k: int | None = 50
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be a positive number or None, got {self.top_k}")
        if not 0 < self.temperature < float("inf"):
            raise InputError(
                f"temperature must be positive, got {self.temperature}: use sample=False for greedy decoding"
            )

    def choose(self, logits: Tensor, streams: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Choose one token per row.

        Args:
            logits: `(rows, vocabulary)`.
            streams: noise streams of the rows' prompts, `(rows,)`.
            step: number of the new token, from 0.

        Returns:
            tokens `(rows,)` and their log-likelihood `(rows,)` in float64 under the distribution they were drawn from;
            under the whole distribution when greedy. NaN logits give a NaN log-likelihood.
        """
        if not self.sample:
            tokens = logits.argmax(-1, keepdim=True)
            return tokens[:, 0], _log_softmax_at(logits, tokens)[:, 0]
        values, candidates = self._candidates(logits)
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
        if not self.sample:
            return _log_softmax_at(logits, tokens[..., None])[..., 0]
        vocabulary = logits.shape[-1]
        if self.top_k is None or self.top_k >= vocabulary:
            return _log_softmax_at(logits, tokens[..., None], self.temperature)[..., 0]
        values = logits.topk(min(vocabulary, self.top_k + _SPARE), dim=-1).values
        least = values[..., self.top_k - 1, None].detach()
        if bool((values[..., -1:] == least).any()):  # more ties than there was room for
            values = logits
        values = values.masked_fill(values < least, float("-inf"))
        chosen = logits.gather(-1, tokens[..., None])
        chosen = chosen.masked_fill(chosen < least, float("-inf"))
        values, chosen = values.float() / self.temperature, chosen.float() / self.temperature
        return (chosen - values.logsumexp(-1, keepdim=True))[..., 0]

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and ids of the tokens to draw from, `(rows, k or more)`; logits outside of the top k are -inf."""
        vocabulary = logits.shape[-1]
        if self.top_k is None or self.top_k >= vocabulary:
            return logits, torch.arange(vocabulary, device=logits.device).expand_as(logits)
        values, ids = logits.topk(min(vocabulary, self.top_k + _SPARE), dim=-1)
        least = values[:, self.top_k - 1, None]
        if bool((values[:, -1:] == least).any()):  # more ties than there was room for, as bfloat16 can have
            return logits.masked_fill(logits < least, float("-inf")), torch.arange(
                vocabulary, device=logits.device
            ).expand_as(logits)
        return values.masked_fill(values < least, float("-inf")), ids


def _log_softmax_at(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-softmax at some tokens only: no second tensor of the size of the vocabulary is kept for the result."""
    logits = logits.float() if temperature == 1 else logits.float() / temperature
    return logits.gather(-1, tokens) - logits.logsumexp(-1, keepdim=True)
