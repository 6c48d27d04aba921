"""What everything rests on, proven for every model before anything is measured on it.

Two rows of a few tokens are read in one pass, and then as `generation` reads them: the shorter one padded on the left,
token by token with a cache, beside a third row that leaves on the way, and then in another order. The logits must be
the same.

How much they may differ is judged by what would be seen if it went wrong, which is measured too: the logits without the
tokens before, and with the padding in sight. A quarter of that is refused, and so is more than a bound that rounding
stays far below. Differences are those of logits less their mean over the vocabulary, relative to their length.

A gate is compared with silencing the same head inside its attention kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fairmend.errors import ModelError
from fairmend.language.backend.forward import (
    CachedRows,
    embedding,
    is_exact,
    last_logits,
    plain,
    vocabulary_of,
    why_not_finite,
)
from fairmend.language.backend.versions import NEWEST_TESTED, OLDEST, required, transformers_version
from fairmend.language.checkpoints.checkpoints import quiet_transformers
from fairmend.language.heads.attention_probe import KernelWatch
from fairmend.language.heads.gates import HeadGates
from fairmend.language.heads.heads import N_POSITIONS, HeadMap, probe_ids, probing, run_probe

_LONGEST = 8  # tokens of the longer row before the cache is used: as wide as the narrowest batch of `generation`
_STEPS = 2  # tokens read with the cache; the rows are reordered between them


# Relative differences of logits in a dtype: those that rounding explains always, and those it never does.
_EXACT = (1e-5, 1e-3)
_ROUNDED = (3e-2, 0.25)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two ways to the same logits are apart.

    Attributes:
        difference: relative to the logits.
        without: the same if what is proven did not hold at all.
        allowed: largest difference that is accepted.
    """

    difference: float
    without: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within what is allowed; not if it is NaN."""
        return self.difference <= self.allowed


@dataclass(frozen=True, slots=True)
class Decoding:
    """What was proven of a model's decoding."""

    cache: Agreement
    padding: Agreement


def prove_decoding(model: nn.Module, context: int, filler: int, name: str) -> Decoding:
    """Prove that decoding with the cache equals one pass over everything, and that left padding changes nothing.

    Four short passes. Weights, modes, hooks and random generators are as before.

    Args:
        model: a causal language model in evaluation mode.
        context: its largest number of tokens.
        filler: the token to pad with.
        name: of the model, for messages.

    Raises:
        ModelError: it does not hold, with the difference and the release of transformers; or the model's forward lacks
            the cache, the mask or positions; or its logits are not finite.
    """
    long = min(_LONGEST, context - _STEPS)
    if long < 2:
        raise ModelError(f"{name} has a context of {context} tokens, too few to continue a text: need {_STEPS + 2}")
    short, width = max(1, long // 3), long + _STEPS
    ids = _distinct_tokens(model, 2 * width, filler).view(2, width)
    # The shorter row begins with the last token of the longer one, so that one pass over both also says what the logits
    # of that token are if those before it are forgotten; a third row has the shorter one's padding in sight.
    ids[1, 0] = ids[0, -1]
    in_sight = torch.cat([torch.full((long - short,), filler), ids[1, : short + _STEPS]])
    device, vocabulary = required(model, "device"), vocabulary_of(model)
    forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with forked, torch.no_grad(), quiet_transformers():
        whole = last_logits(model, torch.stack([*ids, in_sight]).to(device), width).cpu().double()
        if not bool(torch.isfinite(whole).all()):
            raise ModelError(f"{name} gives logits that are not finite without any mask: {why_not_finite(model)}")
        if whole.shape[-1] < vocabulary:
            raise ModelError(
                f"{name} gives logits of {whole.shape[-1]:,} tokens, but its configuration says vocab_size="
                f"{vocabulary:,}: its last layer and its configuration do not belong together"
            )
        begun = [ids[0, :long].tolist(), ids[1, :short].tolist()]
        rows = CachedRows(model, [*begun, begun[0]], long, filler)
        read = [rows.next_logits().cpu().double()]
        for step in range(_STEPS):
            if step == 1:  # one row leaves, the others change places
                rows.select(torch.tensor([1, 0]))
            now = [0, 1, 0] if step == 0 else [1, 0]
            following = torch.stack([ids[0, long + step], ids[1, short + step]])
            rows.append(following[now])
            read.append(rows.next_logits().cpu().double()[[now.index(0), now.index(1)]])
    after_long, after_short = (
        [_distance(logits[row], whole[row, first - 1 + step]) for step, logits in enumerate(read)]
        for row, first in enumerate((long, short))
    )
    cache = _agreement(model, after_long, _distance(whole[1, 0], whole[0, -1]))
    padding = _agreement(model, after_short, _distance(whole[2, long - 1], whole[1, short - 1]))
    if not cache.holds:
        raise _refuted(model, "decoding with the cache does not equal one pass over the same tokens", cache)
    if not padding.holds:
        raise _refuted(model, "padding a prompt on the left, masked and with its own positions, changes it", padding)
    return Decoding(cache, padding)


def prove_gates(model: nn.Module, head_map: HeadMap) -> Agreement:
    """Prove that the gate of every head does what silencing that head in its attention kernel does.

    Two passes of five tokens, with a row for each head of a layer: row h + 1 is without the h-th head of every layer.

    Args:
        model: a causal language model.
        head_map: its heads.

    Raises:
        ModelError: a gate switches off something else, or nothing.
    """
    inside = plain(model)
    n_rows = 1 + max(site.n_heads for site in head_map.sites)
    # Where a norm over all heads sits before the projection, silencing one head rescales the others, and its gate does
    # not: there, all of a layer's heads go at once.
    at_once = any(site.is_coupled for site in head_map.sites)

    def chosen(n_heads: int) -> Tensor:
        """Which of a layer's heads each row is without, (n_rows, n_heads)."""
        off = torch.zeros(n_rows, n_heads, dtype=torch.bool)
        numbers = torch.arange(n_rows - 1)
        off[numbers + 1, numbers % n_heads] = True
        return off.any(dim=1, keepdim=True).expand(-1, n_heads) if at_once else off

    def silence(output: Tensor, _: Tensor | None) -> Tensor:
        heads = output.reshape(n_rows, -1, *output.shape[-2:])
        off = chosen(heads.shape[1]).to(heads.device)
        return heads.masked_fill(off[..., None, None], 0).reshape(output.shape)

    with probing(inside):
        ids = probe_ids(inside, n_rows)
        with KernelWatch(N_POSITIONS, silence, lambda values: None):
            silenced = run_probe(inside, ids).logits.cpu().double()
        with HeadGates(model, head_map) as gates:
            gates.set(torch.cat([(~chosen(site.n_heads)).float() for site in head_map.sites], dim=1))
            gated = run_probe(inside, ids).logits.cpu().double()
    found = _agreement(
        model,
        [_distance(gated[row], silenced[row]) for row in range(n_rows)],
        max(_distance(silenced[0], silenced[row]) for row in range(1, n_rows)),
    )
    if not found.holds:
        raise _refuted(model, "a head's gate does not do what silencing the head in its attention does", found)
    return found


def _distinct_tokens(model: nn.Module, n_tokens: int, filler: int) -> Tensor:
    """Token ids spread over the vocabulary, none of them the filler; they repeat where the vocabulary is smaller."""
    vocabulary = min(vocabulary_of(model), len(embedding(model)))
    ids = torch.arange(1, n_tokens + 1) * max(1, vocabulary // (n_tokens + 1)) % vocabulary
    return torch.where(ids == filler, (ids + 1) % vocabulary, ids)


def _distance(found: Tensor, expected: Tensor) -> float:
    """Length of the difference of logits, of each less its mean over the vocabulary, relative to the expected ones.

    Less their mean, because only differences between logits matter; GPT-2's lie near -100, with differences of a few.
    """
    found, expected = (logits - logits.mean(dim=-1, keepdim=True) for logits in (found, expected))
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def _agreement(model: nn.Module, differences: Sequence[float], without: float) -> Agreement:
    worst = max(differences, key=lambda difference: math.inf if math.isnan(difference) else difference)
    always, never = _EXACT if is_exact(model) else _ROUNDED
    return Agreement(worst, without, max(always, min(never, without / 4)))


def _refuted(model: nn.Module, what: str, found: Agreement) -> ModelError:
    return ModelError(
        f"{type(plain(model)).__name__}: {what}. Logits differ by {found.difference:.1e} of their size, "
        f"{found.allowed:.1e} is allowed for {required(model, 'dtype')}, in transformers {transformers_version()} "
        f"({OLDEST} to {NEWEST_TESTED} are supported). Figures would be wrong, so nothing was measured: try another "
        "release of transformers, float32, or attn_implementation='eager' for a model loaded in Python, and report it"
    )
