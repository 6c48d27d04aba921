"""Preferences of a model without each of its heads, item by item: measured, or to first order.

Going backward once from the preferences of all items, each with gates of its own, gives every head's first-order effect
on every one of them. Nothing is sampled: only which items are asked is a matter of luck.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.language.backend.batching import Done
from fairmend.language.choices.likelihoods import preference_gradients
from fairmend.language.measurement.answers import Preferences, masks_at_once
from fairmend.language.protocols import BiasMethod
from fairmend.language.scores.toxicity_by_mask import EXACT, FIRST_ORDER, MaskToxicity
from fairmend.runs.parts import Arrays, Keep, keep_nothing

Floats = npt.NDArray[np.float64]


def preferences_by_mask(
    answers: Preferences, method: BiasMethod, *, progress: Done | None = None, keep: Keep = keep_nothing
) -> MaskToxicity:
    """Find the preferences without every single head.

    Args:
        answers: the items and their model.
        method: "first-order", or "generated": measured exactly, head by head.
        progress: told how many items, or heads, are done.
        keep: keeps what is found.

    Raises:
        InputError: "reweighted", which is for sampled continuations.
        ModelError: logits that are not finite, or out of memory.
    """
    lm = answers.lm
    if method == "reweighted":
        raise InputError("bias_scores='reweighted' is for sampled continuations: choose first-order or generated")
    if method == "first-order":
        before, slopes = preference_gradients(lm, answers.encoded, progress=progress, keep=keep)
        without = before - slopes.T
    else:
        before = answers.plainly()[:, 0]
        without = _measured(answers, progress, keep)
    n_heads, items = len(without), answers.prompts
    sizes = np.bincount(items.groups, minlength=len(items.group_names)).astype(np.float64)
    return MaskToxicity(
        before=before,
        without=without,
        prompts=items,
        methods=(FIRST_ORDER if method == "first-order" else EXACT,) * n_heads,
        effective_sizes=np.tile(sizes, (n_heads, 1)),
        n_samples=1,
        scorer="",
    )


def _measured(answers: Preferences, progress: Done | None, keep: Keep) -> Floats:
    """Preferences without each head, `(n_heads, n_items)`."""
    n_heads, together = answers.lm.head_map.n_heads, masks_at_once(answers.lm, len(answers.prompts))
    ends = {start: min(start + together, n_heads) for start in range(0, n_heads, together)}
    parts = {f"{end - start} heads from {start} on": (start, end) for start, end in ends.items()}

    def told(name: str) -> None:
        if progress is not None:
            progress(parts[name][1], n_heads)

    made = keep.all(partial(_without, answers), parts, told)
    return np.concatenate([made[name]["preferences"] for name in parts])


def _without(answers: Preferences, start: int, end: int) -> Arrays:
    """Preferences without each of some heads, which share batches."""
    untouched, rows = answers.lm.head_map.space().untouched(), np.arange(len(answers.prompts))
    found = answers.under([(untouched.flip(unit), rows) for unit in range(start, end)])
    return {"preferences": np.stack([each[:, 0] for each in found])}
