"""Noise that belongs to a prompt, not to a batch: every mask is measured with the same luck.

To compare two masks, both continue the same prompts with the same noise, so that their continuations differ only where
the masks matter. The noise of a token depends on (seed, prompt id, step, token) and on nothing else.

Which noise. A token is drawn with the Gumbel-max trick: the largest of log-probability + Gumbel noise of the token.
The alternative is one uniform number per step, put through the inverse of the cumulative distribution over token ids.
Both draw from the right distribution; they differ in how often two slightly different distributions p and q draw the
same token. With t the total variation distance of p and q:

* Gumbel-max: different with probability at most 2 t / (1 + t), whatever the order of the tokens, and no scheme in
  which p and q are sampled without knowing each other does better in general (Bavarian, Ghazi, Haramaty, Kamath,
  Rivest, Sudan, "Optimality of Correlated Sampling Strategies", Theory of Computing 2020; Daliri, Musco, Suresh,
  "Coupling without Communication and Drafter-Invariant Speculative Decoding", 2024).
* Inverse cumulative distribution: a change of one early token's probability shifts the boundaries of all tokens after
  it, so that the probability of a difference is a sum of up to k - 1 shifts; and a token that enters or leaves the top
  k moves all of them.

Where the noise is from. SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA
2014) as a counter-based generator: the state after `seed` starts the stream of prompts, whose outputs start the
streams of steps, whose outputs start the streams of tokens. Any single number is had without those before it, so that
only the k tokens in question need any. Integer arithmetic, hence the same on every machine and device.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.errors import InputError

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # the odd number nearest to 2^64 / golden ratio, as a signed integer
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_SAMPLES = 0x5A  # start of the stream of further samples, apart from that of the steps


def prompt_streams(seed: int, ids: npt.ArrayLike | Tensor, sample: int = 0) -> Tensor:
    """The noise stream of each prompt, int64 `(n_prompts,)`.

    Args:
        seed: of the whole measurement.
        ids: a number per prompt, `(n_prompts,)`, such as `PromptSet.ids`; equal ids have equal noise.
        sample: which of several independent continuations of the same prompt.

    Raises:
        InputError: ids that are not a row of integers.
    """
    numbers = ids if isinstance(ids, Tensor) else torch.from_numpy(np.atleast_1d(np.asarray(ids)).copy())
    if numbers.dim() != 1 or numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise InputError(f"ids must be a row of integers, got {numbers.dtype} of shape {tuple(numbers.shape)}")
    start = _draw(torch.tensor(seed % (1 << 63)), torch.tensor(0))
    streams = _draw(start, numbers.to(torch.int64))
    return streams if sample == 0 else _draw(streams ^ _SAMPLES, torch.tensor(sample))


def gumbel_noise(streams: Tensor, step: int, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise of some tokens at one step.

    Args:
        streams: `(rows,)` from `prompt_streams`.
        step: number of the new token, from 0.
        tokens: token ids `(rows, k)`.

    Returns:
        float64 `(rows, k)`.
    """
    streams = streams.to(tokens.device)
    bits = _draw(_draw(streams, torch.tensor(step, device=tokens.device))[:, None], tokens)
    # 52 bits and a half: never 0, never 1.
    uniform = (_shifted(bits, 12).to(torch.float64) + 0.5) * 2.0**-52
    return -torch.log(-torch.log(uniform))


def _draw(state: Tensor, counter: Tensor) -> Tensor:
    """Output number `counter` of the SplitMix64 generator that starts in `state`."""
    mixed = state + (counter + 1) * _GOLDEN  # wraps around, as it should
    mixed = (mixed ^ _shifted(mixed, 30)) * _FIRST
    mixed = (mixed ^ _shifted(mixed, 27)) * _SECOND
    return mixed ^ _shifted(mixed, 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """A right shift that fills up with zeros, which torch has for no signed integer."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
