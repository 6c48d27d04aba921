"""Preferences of a model, under masks, and their gradients with respect to the gates of its heads.

The preference for `a` over `b` after a context is d = log P(a | context) - log P(b | context) in nats, the P of a side
being the sum over its alternatives.

Inputs of one length share a batch, so that nothing is padded: it works for every architecture, and logits are computed
at the positions only that predict what is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.language.backend.batching import Done
from fairmend.language.backend.forward import last_logits
from fairmend.language.choices.encoding import EncodedChoices, Readings, plan_readings
from fairmend.language.generation.likelihoods import bytes_backward
from fairmend.language.heads.gates import HeadGates
from fairmend.language.models.models import LanguageModel
from fairmend.masks import Mask
from fairmend.runs.parts import Arrays, Keep, keep_nothing

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Part = tuple[Mask | None, Codes]

_ITEMS_PER_PART = 256


def preferences(lm: LanguageModel, encoded: EncodedChoices, parts: Sequence[Part]) -> list[Floats]:
    """The preferences of some items under each mask, all of them in the same batches.

    With float32 weights those of a mask do not depend on the others but for rounding.

    Args:
        lm: the model; masks that are already on it stay in force.
        encoded: the items, from `encode_choices` of the same model.
        parts: masks of the model's heads, None for the model as it is, each with the numbers of the items to measure
            under it; neither empty.

    Returns:
        d of shape (n_items of the part,) per part; NaN where the model broke.

    Raises:
        ModelError: a mask of another model, or out of memory.
    """
    plans, found = _measured(lm, encoded, parts, whole=False)
    return [
        np.where(np.isfinite(d), d, np.nan)
        for d in (
            _preference(plan, torch.from_numpy(values)).numpy() for plan, values in zip(plans, found, strict=True)
        )
    ]


def log_likelihoods(lm: LanguageModel, encoded: EncodedChoices, parts: Sequence[Part]) -> list[tuple[Floats, ...]]:
    """Log-likelihood of every alternative given its context, in nats: the sum over all of its tokens.

    Args:
        lm, encoded, parts: see `preferences`.

    Returns:
        Per part, of each item one array with the alternatives of `a` before those of `b`; NaN where the model broke.

    Raises:
        ModelError: see `preferences`.
    """
    plans, found = _measured(lm, encoded, parts, whole=True)
    return [
        tuple(np.split(np.where(np.isfinite(values), values, np.nan), np.flatnonzero(np.diff(plan.items)) + 1))
        for plan, values in zip(plans, found, strict=True)
    ]


def preference_gradients(
    lm: LanguageModel,
    encoded: EncodedChoices,
    rows: npt.ArrayLike | None = None,
    *,
    gates: Floats | None = None,
    progress: Done | None = None,
    keep: Keep = keep_nothing,
) -> tuple[Floats, Floats]:
    """The preference of every item, and its gradient with respect to all gates, a gate per item and head.

    Args:
        lm: the model; masks that are already on it stay in force.
        encoded: the items.
        rows: numbers of the items; all when not given.
        gates: where, `(n_heads,)`: 1 leaves a head as it is, 0 switches it off; all 1 when not given.
        progress: told how many items are gone through.
        keep: keeps both, some hundred items at a time.

    Returns:
        d `(n_items,)` and gradients `(n_items, n_heads)`, in nats.

    Raises:
        ModelError: out of memory.
    """
    chosen = np.arange(len(encoded)) if rows is None else np.asarray(rows, dtype=np.int64)
    sizes = [encoded.n_tokens([row]) for row in chosen.tolist()]
    order = sorted(range(len(chosen)), key=sizes.__getitem__)
    d, gradients = np.empty(len(chosen)), np.empty((len(chosen), lm.head_map.n_heads))
    for start in range(0, len(chosen), _ITEMS_PER_PART):
        part = order[start : start + _ITEMS_PER_PART]

        def of_part(part: list[int] = part, start: int = start) -> Arrays:
            told = None if progress is None else lambda done: progress(start + done, len(chosen))
            found, slopes = _gradients(lm, encoded, chosen[part], gates, sizes[part[-1]], told)
            return {"preferences": found, "gradients": slopes}

        made = keep(f"gradients of {len(part)} items from {chosen[part[0]]} on", of_part)
        d[part], gradients[part] = made["preferences"], made["gradients"]
    return d, gradients


def _gradients(
    lm: LanguageModel,
    encoded: EncodedChoices,
    rows: Codes,
    at: Floats | None,
    largest: int,
    progress: Callable[[int], None] | None,
) -> tuple[Floats, Floats]:
    """Preferences and gradients of items of which none makes a model read more than `largest` tokens."""
    values = np.ones(lm.head_map.n_heads) if at is None else at
    gate = torch.tensor(values, dtype=_dtype(lm))
    d, gradients = np.empty(len(rows)), np.empty((len(rows), len(gate)))

    def score(numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        plan = plan_readings(encoded, rows[list(numbers)], shared=False)
        gates = gate.repeat(len(numbers), 1).requires_grad_()
        values = _preference(plan, _alternatives(lm, plan, hooks, gates[plan.owners]))
        (gradient,) = torch.autograd.grad(values.sum(), gates)
        return values.detach(), gradient

    with torch.enable_grad(), _gated(lm, True) as hooks:
        for numbers, pair in lm.batches(bytes_backward(lm, largest, largest), largest).run(score, range(len(rows))):
            d[list(numbers)], gradients[list(numbers)] = (values.double().cpu().numpy() for values in pair)
            if progress is not None:
                progress(numbers[-1] + 1)
    return d, gradients


def _measured(
    lm: LanguageModel, encoded: EncodedChoices, parts: Sequence[Part], whole: bool
) -> tuple[list[Readings], list[Floats]]:
    """The plan of each part and the log-likelihoods of its alternatives, `(n_alternatives,)` each."""
    made = {rows.tobytes(): plan_readings(encoded, rows, whole=whole) for _, rows in parts}
    plans = [made[rows.tobytes()] for _, rows in parts]
    gates = None
    if any(mask is not None for mask, _ in parts):
        each = [torch.ones(lm.head_map.n_heads) if mask is None else lm.head_map.gates(mask) for mask, _ in parts]
        sizes = torch.tensor([len(plan.inputs) for plan in plans])
        gates = each[0] if len(parts) == 1 else torch.stack(each).repeat_interleave(sizes, dim=0)
    together = _joined(plans)
    with torch.inference_mode(), _gated(lm, gates is not None) as hooks:
        values = _alternatives(lm, together, hooks, gates).double().cpu().numpy()
    return plans, np.split(values, np.cumsum([len(plan.items) for plan in plans])[:-1])


def _joined(plans: Sequence[Readings]) -> Readings:
    """Several plans as one, their inputs and alternatives one after the other."""
    inputs = np.cumsum([0, *(len(plan.inputs) for plan in plans)])
    alternatives = np.cumsum([0, *(len(plan.items) for plan in plans)])
    moved = [
        plan.places + np.array([first, 0, 0, number])
        for plan, first, number in zip(plans, inputs[:-1], alternatives[:-1], strict=True)
    ]
    return Readings(
        inputs=tuple(tokens for plan in plans for tokens in plan.inputs),
        owners=np.concatenate([plan.owners for plan in plans]),
        places=np.concatenate(moved),
        items=np.concatenate([plan.items for plan in plans]),
        sides=np.concatenate([plan.sides for plan in plans]),
    )


def _alternatives(lm: LanguageModel, plan: Readings, hooks: HeadGates | None, gates: Tensor | None) -> Tensor:
    """Log-likelihoods of the scored tokens of every alternative, `(n_alternatives,)`.

    Args:
        hooks: on the model where there are gates.
        gates: `(n_heads,)` or `(n_inputs, n_heads)`.
    """
    places = plan.places[np.argsort(plan.places[:, 0], kind="stable")]
    bounds = np.searchsorted(places[:, 0], np.arange(len(plan.inputs) + 1))
    earliest = np.minimum.reduceat(places[:, 1], bounds[:-1])
    widths = list(map(len, plan.inputs))

    def score(rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The alternatives of the scored tokens of some inputs, and the tokens' log-likelihoods."""
        if hooks is not None and gates is not None:
            hooks.set(gates if gates.dim() == 1 else gates[list(rows)])
        inputs = torch.tensor([plan.inputs[row] for row in rows], device=lm.device)
        first = int(earliest[list(rows)].min())
        logits = last_logits(lm.model, inputs, inputs.shape[1] - first)
        scored = np.concatenate([places[bounds[row] : bounds[row + 1]] for row in rows])
        line = np.repeat(np.arange(len(rows)), np.diff(bounds)[list(rows)])
        # What several alternatives are predicted by is normalised once.
        distinct, inverse = np.unique(line * logits.shape[1] + scored[:, 1] - first, return_inverse=True)
        at, where, tokens, numbers = (
            torch.from_numpy(column.copy()).to(lm.device) for column in (distinct, inverse, scored[:, 2], scored[:, 3])
        )
        wide = logits.flatten(0, 1)[at]
        wide = wide.to(torch.promote_types(wide.dtype, torch.float32))
        return numbers, wide[where, tokens] - wide.logsumexp(-1)[where]

    total = torch.zeros(len(plan.items), dtype=_dtype(lm), device=lm.device)
    # By length, and within it by how much is scored: the logits of a batch begin at its earliest position.
    order = sorted(range(len(widths)), key=lambda row: (widths[row], earliest[row]))
    for width, rows in groupby(order, key=widths.__getitem__):
        group = list(rows)
        batches = lm.batches(12 * lm.vocabulary * (width - int(earliest[group].min())), width)
        # Where a graph is kept, smaller batches need no less memory: who goes backward takes fewer items.
        runs = [(group, score(group))] if torch.is_grad_enabled() else batches.run(score, group)
        for _, (numbers, values) in runs:
            total = total.index_add(0, numbers, values)
    return total


def _preference(plan: Readings, values: Tensor) -> Tensor:
    """d of every item from the log-likelihoods of its alternatives."""
    n_items = int(plan.items[-1]) + 1
    sides = plan.items * 2 + plan.sides
    starts = np.flatnonzero(np.diff(sides, prepend=-1))
    slots = np.arange(len(sides)) - np.repeat(starts, np.diff([*starts, len(sides)]))  # within the side
    table = values.new_full((2 * n_items, int(slots.max()) + 1), -torch.inf)
    at = (torch.from_numpy(sides).to(values.device), torch.from_numpy(slots).to(values.device))
    sums = table.index_put(at, values).logsumexp(-1).view(n_items, 2)
    return sums[:, 0] - sums[:, 1]


@contextmanager
def _gated(lm: LanguageModel, wanted: bool) -> Iterator[HeadGates | None]:
    if not wanted:
        yield None
        return
    with HeadGates(lm.model, lm.head_map) as hooks:
        yield hooks


def _dtype(lm: LanguageModel) -> torch.dtype:
    return torch.promote_types(lm.model.dtype, torch.float32)
