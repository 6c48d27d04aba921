"""How likely a model finds given continuations: one forward pass, no decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import chain

import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.errors import InputError
from fairmend.language.backend.batching import BatchSize
from fairmend.language.backend.forward import last_logits
from fairmend.language.backend.versions import required
from fairmend.language.generation.decoding import DecodingRule
from fairmend.language.generation.generation import prompt_gates
from fairmend.language.heads.gates import HeadGates
from fairmend.language.models.models import LanguageModel

WHOLE = DecodingRule(top_k=None)
"""The model's own distribution, nothing cut off."""


def continuation_log_likelihoods(
    lm: LanguageModel,
    prompt_ids: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    *,
    gates: npt.ArrayLike | Tensor | None = None,
    rule: DecodingRule = WHOLE,
    batches: BatchSize | None = None,
) -> Tensor:
    """Log-likelihood of every token of given continuations under the model, masked by `gates`.

    Args:
        lm: the model; masks that are already on it stay in force.
        prompt_ids: the tokens of the prompts, such as `Continuations.prompt_ids`.
        continuations: the tokens that follow each prompt, such as `Continuations.tokens`.
        gates: shape `(n_heads,)` or `(n_prompts, n_heads)`; 0 switches a head off. Gates that require a gradient stay
            on the autograd graph, and so does the result; use `batched_log_likelihoods` to go backward batch by batch.
        rule: the distribution: the model's own, or the one that continuations were drawn from (`Continuations.rule`),
            under which a token outside of the top k has -inf.
        batches: cuts the sequences into batches; the model's own when not given.

    Returns:
        float32 `(n_prompts, longest continuation)`, 0 after the end of a continuation.

    Raises:
        InputError: arguments that do not fit together.
        ModelError: out of memory.
    """
    parts = list(batched_log_likelihoods(lm, prompt_ids, continuations, gates=gates, rule=rule, batches=batches))
    order = torch.tensor([row for rows, _ in parts for row in rows])
    return torch.cat([values for _, values in parts])[order.argsort().to(lm.device)]


def batched_log_likelihoods(
    lm: LanguageModel,
    prompt_ids: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    *,
    gates: npt.ArrayLike | Tensor | None = None,
    rule: DecodingRule = WHOLE,
    batches: BatchSize | None = None,
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Like `continuation_log_likelihoods`, batch by batch: yields the numbers of the prompts and their rows.

    Batches are sorted by length. With gates that require a gradient, go backward before the next batch is asked for:
    then one batch's graph is held at a time.
    """
    if len(prompt_ids) != len(continuations) or not prompt_ids or not all(prompt_ids):
        raise InputError(
            f"{len(continuations)} continuations of {len(prompt_ids)} prompts: need one for each, and no empty prompt"
        )
    lm.check_tokens(chain.from_iterable(prompt_ids), "a prompt")
    lm.check_tokens(chain.from_iterable(continuations), "a continuation")
    longest = max(1, *(len(row) for row in continuations))
    row_gates = prompt_gates(lm, gates, len(prompt_ids))
    needs_gradient = row_gates is not None and row_gates.requires_grad and torch.is_grad_enabled()
    sizes = [len(prompt) + len(row) for prompt, row in zip(prompt_ids, continuations, strict=True)]
    batches = batches or lm.batches(12 * lm.vocabulary * (longest + 1))

    def score(rows: Sequence[int]) -> Tensor:
        chosen = None if row_gates is None else row_gates[list(rows) if len(row_gates) > 1 else [0]]
        hooked = HeadGates(lm.model, lm.head_map) if chosen is not None else nullcontext()
        with torch.set_grad_enabled(needs_gradient), hooked as hooks:
            if hooks is not None and chosen is not None:
                hooks.set(chosen if len(chosen) > 1 or len(rows) == 1 else chosen[0])
            return _score(lm, [prompt_ids[row] for row in rows], [continuations[row] for row in rows], longest, rule)

    order = sorted(range(len(sizes)), key=lambda row: sizes[row])
    yield from batches.run(score, order)


def _score(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    longest: int,
    rule: DecodingRule,
) -> Tensor:
    """Log-likelihoods `(rows, longest)` of one batch.

    Padded on the right: what stands behind a sequence cannot influence it, so that neither a mask nor positions are
    needed, whatever the architecture.
    """
    sequences = [[*prompt, *row] for prompt, row in zip(prompts, continuations, strict=True)]
    width = max(len(sequence) for sequence in sequences)
    inputs = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in sequences], device=lm.device)
    first = min(len(prompt) for prompt in prompts) - 1  # the earliest position that predicts a scored token
    # The last token predicts nothing that is scored.
    logits = last_logits(lm.model, inputs[:, : max(1, width - 1)], max(1, width - 1 - first))

    starts = torch.tensor([len(prompt) for prompt in prompts], device=lm.device)[:, None]
    lengths = torch.tensor([len(row) for row in continuations], device=lm.device)[:, None]
    steps = torch.arange(longest, device=lm.device)[None]
    places = (starts + steps).clamp(max=width - 1)
    values = rule.log_likelihoods(_rows_at(logits, (places - 1 - first).clamp(min=0)), inputs.gather(1, places))
    return torch.where(steps < lengths, values, torch.zeros_like(values))


def _rows_at(logits: Tensor, positions: Tensor) -> Tensor:
    """The logits at `positions` `(rows, longest)` of each row."""
    return logits.gather(1, positions[..., None].expand(-1, -1, logits.shape[-1]))


def bytes_backward(lm: LanguageModel, n_tokens: int, n_scored: int) -> int:
    """Memory that going backward needs for one sequence, roughly.

    About 34 hidden-sized and 5 attention-map-sized values per token and layer (Korthikanti et al., "Reducing Activation
    Recomputation in Large Transformer Models", 2022, section 4), of two bytes there and four here; and logits.
    """
    config = lm.model.config.get_text_config(decoder=True)
    attention = lm.turning("heads").head_map.sites
    width, layers = int(required(config, "hidden_size")), len(attention)
    heads = max(site.n_heads for site in attention)
    return 2 * layers * n_tokens * (34 * width + 5 * heads * n_tokens) + 16 * lm.vocabulary * (n_scored + 1)
