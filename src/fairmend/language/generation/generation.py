"""Continue prompts: batched, with a cache, and with noise that belongs to the prompt.

A continuation does not depend on the batch it was made in. Its prompt is padded on the left to a multiple of eight
tokens, so that the shape in which its attention is computed follows from the prompt alone; and on the CPU a batch is
filled up to eight rows per thread, because matrix products with fewer than four rows per thread are computed by another
routine, which rounds differently. With float32 on the CPU tokens are then the same in every batch (tested), and
log-probabilities nearly always bit for bit; the largest difference seen is 7e-8. What remains: where a library rounds
differently for different numbers of rows (GPUs, other processors), log-probabilities differ by some 1e-6, and a token
changes when its two best candidates are that close, about once in a million tokens. In bfloat16 and float16 tokens do
depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.errors import InputError, ModelError
from fairmend.language.backend.forward import CachedRows, text_config
from fairmend.language.backend.tokenizers import decode, encode
from fairmend.language.backend.versions import required
from fairmend.language.generation.coupling import prompt_streams
from fairmend.language.generation.decoding import rule_of
from fairmend.language.heads.gates import HeadGates
from fairmend.language.models.models import LanguageModel
from fairmend.language.protocols import Sampling
from fairmend.runs.parts import Arrays, KeepOne, keep_nothing

NO_TOKEN = -1  # fills the token ids after a continuation's end
_WIDTH_STEP = 8
_FEWEST_ROWS_PER_THREAD = 8


@dataclass(frozen=True, eq=False)
class Continuations:
    """What a model wrote after each prompt.

    Attributes:
        token_ids: `(n_prompts, new_tokens)`; -1 after the end. The token that ends a text is part of it.
        lengths: number of tokens, `(n_prompts,)`.
        texts: the continuations without the prompts and without special tokens.
        log_likelihoods: of each token under the distribution it was drawn from, `(n_prompts, new_tokens)`; 0 after
            the end.
        broken: whether the logits were NaN somewhere, as a mask can make them, `(n_prompts,)`; the text stops there.
        prompt_ids: the tokens of each prompt as the model saw them.
    """

    token_ids: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    texts: tuple[str, ...]
    log_likelihoods: npt.NDArray[np.float64]
    broken: npt.NDArray[np.bool_]
    prompt_ids: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.texts)

    def tokens(self, index: int) -> tuple[int, ...]:
        """The tokens of one continuation."""
        return tuple(self.token_ids[index, : self.lengths[index]].tolist())


def generate(
    lm: LanguageModel,
    prompts: Sequence[str],
    ids: npt.ArrayLike,
    sampling: Sampling,
    *,
    draw: int = 0,
    gates: npt.ArrayLike | Tensor | None = None,
    keep: KeepOne = keep_nothing,
) -> Continuations:
    """Continue each prompt once.

    Args:
        lm: the model; masks that are already on it stay in force.
        prompts: texts, none empty.
        ids: a number per prompt, `(n_prompts,)`, that its noise follows from, such as `PromptSet.ids`. To try several
            masks at once, repeat prompts and ids and give every row its gates.
        sampling: how. The noise of a prompt depends on (seed, id, draw, step) only; see `coupling`.
        draw: which of several independent continuations of the same prompts.
        gates: shape `(n_heads,)` for all prompts or `(n_prompts, n_heads)`; 0 switches a head off.
        keep: keeps what is written, batch by batch.

    Raises:
        InputError: arguments that do not fit together.
        ModelError: a prompt that does not fit the model's context, a model without a cache, or out of memory.
    """
    encoded = encode_prompts(lm, prompts, sampling)
    streams = prompt_streams(sampling.seed, ids, draw)
    if len(streams) != len(prompts):
        raise InputError(f"{len(prompts)} prompts need as many ids, got {len(streams)}")
    row_gates = prompt_gates(lm, gates, len(prompts))

    shape = (len(prompts), sampling.new_tokens)
    tokens, likelihoods = np.full(shape, NO_TOKEN, np.int64), np.zeros(shape)
    per_token = (
        4
        * int(required(text_config(lm.model), "num_hidden_layers"))
        * int(required(text_config(lm.model), "hidden_size"))
    )
    longest = max(len(prompt) for prompt in encoded) + sampling.new_tokens
    # Twice keys and values, of at most four bytes, since the cache grows by copying; and some copies of the logits.
    batches = lm.batches(4 * per_token * longest + 16 * lm.vocabulary)
    with torch.inference_mode(), HeadGates(lm.model, lm.head_map) if row_gates is not None else nullcontext() as hooks:

        def decode(rows: Sequence[int]) -> Arrays:
            filled = [*rows, *[rows[0]] * (_fewest_rows(lm.device) - len(rows))]
            chosen = None if row_gates is None else row_gates[filled if len(row_gates) > 1 else [0] * len(filled)]
            found, scores = _decode(lm, [encoded[row] for row in filled], streams[filled], sampling, hooks, chosen)
            return {"tokens": found[: len(rows)], "log_likelihoods": scores[: len(rows)]}

        def kept(rows: Sequence[int]) -> Arrays:
            return keep(f"{len(rows)} prompts from {rows[0]} on", partial(decode, rows))

        for width in sorted({_width(prompt) for prompt in encoded}):
            rows = [row for row, prompt in enumerate(encoded) if _width(prompt) == width]
            for part, found in batches.run(kept, rows):
                tokens[list(part)], likelihoods[list(part)] = found["tokens"], found["log_likelihoods"]

    is_broken = np.isnan(likelihoods)
    tokens[is_broken] = NO_TOKEN
    lengths = (tokens != NO_TOKEN).sum(axis=1)
    texts = continuation_texts(lm, encoded, tokens, lengths)
    return Continuations(tokens, lengths, texts, likelihoods, np.asarray(is_broken.any(axis=1), np.bool_), encoded)


def encode_prompts(lm: LanguageModel, prompts: Sequence[str], sampling: Sampling) -> tuple[tuple[int, ...], ...]:
    """The token ids of each prompt, checked to leave room for the new ones.

    Raises:
        InputError: no prompts, prompts of no tokens, or one that has none.
        ModelError: a prompt that does not fit the model's context, or has a token without an embedding.
    """
    if not prompts:
        raise InputError("no prompts given: generation needs at least one")
    new_tokens, max_prompt_tokens = sampling.new_tokens, sampling.max_prompt_tokens
    if max_prompt_tokens is not None and max_prompt_tokens < 1:
        raise InputError(f"new_tokens={new_tokens} and max_prompt_tokens={max_prompt_tokens} must be 1 or more")
    encoded = [tuple(row[:max_prompt_tokens]) for row in encode(lm.name, lm.tokenizer, prompts)["input_ids"]]
    for prompt, tokens in zip(prompts, encoded, strict=True):
        if not tokens:
            raise InputError(f"the prompt {prompt!r} has no tokens: leave it out, or begin it with a word")
        lm.check_tokens(tokens, f"the prompt {prompt[:60]!r}")
        if len(tokens) + new_tokens > lm.context:
            raise ModelError(
                f"the prompt {prompt[:60]!r} has {len(tokens)} tokens; with {new_tokens} new ones it does not fit the "
                f"{lm.context} tokens of {lm.name}: shorten it, or lower new_tokens or max_prompt_tokens"
            )
    return tuple(encoded)


def prompt_gates(lm: LanguageModel, gates: npt.ArrayLike | Tensor | None, n_prompts: int) -> Tensor | None:
    """Gates as a tensor `(1, n_heads)` or `(n_prompts, n_heads)`, on the autograd graph if they were on one.

    Raises:
        InputError: another shape.
    """
    if gates is None:
        return None
    values = gates if isinstance(gates, Tensor) else torch.from_numpy(np.array(gates, dtype=np.float32))
    values = values.float() if values.dim() != 1 else values.float()[None]
    if values.dim() != 2 or values.shape[1] != lm.head_map.n_heads or values.shape[0] not in (1, n_prompts):
        n_heads = lm.head_map.n_heads
        raise InputError(f"gates of shape {tuple(values.shape)}: need ({n_heads},) or ({n_prompts}, {n_heads})")
    return values


def _decode(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    streams: Tensor,
    sampling: Sampling,
    hooks: HeadGates | None,
    gates: Tensor | None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Token ids and log-likelihoods `(rows, new_tokens)` of one batch; rows that have ended leave it."""
    shape = (len(prompts), sampling.new_tokens)
    tokens, likelihoods = np.full(shape, NO_TOKEN, np.int64), np.zeros(shape)
    end_ids = torch.tensor(lm.end_ids, dtype=torch.long)
    batch = CachedRows(lm.model, prompts, max(_width(prompt) for prompt in prompts), lm.filler)
    streams = streams.to("cpu" if lm.device.type == "mps" else lm.device)
    rows = np.arange(shape[0])  # which prompt each row of the batch continues
    running = torch.ones(shape[0], dtype=torch.bool)
    if hooks is not None and gates is not None:
        hooks.set(gates)
    for step in range(sampling.new_tokens):
        chosen, likelihood = rule_of(sampling).choose(batch.next_logits(), streams, step)
        chosen, likelihood = chosen.cpu(), likelihood.double().cpu()
        live = running.numpy()
        tokens[rows[live], step] = chosen.numpy()[live]
        likelihoods[rows[live], step] = likelihood.numpy()[live]
        running &= ~torch.isin(chosen, end_ids) & ~likelihood.isnan()
        if not bool(running.any()) or step == sampling.new_tokens - 1:
            break
        batch.append(chosen)
        n_kept = max(int(running.sum()), _fewest_rows(lm.device))
        if n_kept <= 0.75 * len(rows):
            # Running rows first, then as many finished ones as keep the batch from getting too small.
            kept = torch.argsort((~running).long(), stable=True)[:n_kept]
            batch.select(kept)
            streams = streams[kept.to(streams.device)]
            if hooks is not None and gates is not None:
                gates = gates[kept.to(gates.device)]
                hooks.set(gates)
            rows, running = rows[kept.numpy()], running[kept]
    return tokens, likelihoods


def _fewest_rows(device: torch.device) -> int:
    return _FEWEST_ROWS_PER_THREAD * torch.get_num_threads() if device.type == "cpu" else 1


def _width(prompt: Sequence[int]) -> int:
    return -(-len(prompt) // _WIDTH_STEP) * _WIDTH_STEP


def continuation_texts(
    lm: LanguageModel,
    encoded: Sequence[Sequence[int]],
    tokens: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
) -> tuple[str, ...]:
    """The text of the first `lengths` tokens after each prompt.

    Decoded with the prompt, because some tokenizers drop the space before a first word.
    """
    added = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
    heads = decode(lm.name, lm.tokenizer, [list(prompt) for prompt in encoded])
    wholes = decode(lm.name, lm.tokenizer, [[*prompt, *row] for prompt, row in zip(encoded, added, strict=True)])
    alone = decode(lm.name, lm.tokenizer, added)
    return tuple(
        whole.removeprefix(head) if whole.startswith(head) else text
        for head, whole, text in zip(heads, wholes, alone, strict=True)
    )
