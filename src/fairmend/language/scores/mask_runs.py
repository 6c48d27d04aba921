"""Run many masks over the same sequences: several masks in one batch, and no layer twice that no mask has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.errors import InputError
from fairmend.language.models.models import LanguageModel
from fairmend.language.scores.layer_resume import layer_resume
from fairmend.runs.parts import Arrays, Keep, keep_nothing

T = TypeVar("T")
Floats = npt.NDArray[np.float64]


def single_heads(n_heads: int) -> Tensor:
    """Gates `(n_heads, n_heads)` that switch off one head each."""
    return 1 - torch.eye(n_heads)


def checked_gates(lm: LanguageModel, gates: npt.ArrayLike | Tensor | None) -> Tensor:
    """Gates of several masks as a tensor `(n_masks, n_heads)`; every head alone when none are given.

    Raises:
        InputError: another shape.
    """
    n_heads = lm.head_map.n_heads
    if gates is None:
        return single_heads(n_heads)
    values = torch.as_tensor(gates, dtype=torch.float32).detach().cpu()
    if values.dim() != 2 or values.shape[1] != n_heads or not len(values):
        raise InputError(f"gates of shape {tuple(values.shape)}: need (n_masks, {n_heads}) with one mask or more")
    return values


class MaskRuns:
    """Runs masks chunk of sequences by chunk: first none, then all masks, those that begin in one layer together.

    Args:
        lm: the model.
        masks: gates `(n_masks, n_heads)`.
        resume: save the layers before the first one that a mask changes, where the architecture allows it.

    Attributes:
        n_masks: number of masks.
        method: "layer resume" or "masking"; both are exact.
        note: why whole runs are made; empty if they are not.
    """

    def __init__(self, lm: LanguageModel, masks: Tensor, resume: bool = True) -> None:
        self._lm = lm
        self._masks = masks
        self.n_masks = len(masks)
        self._resume, reason = layer_resume(lm) if resume else (None, "as asked for")
        self.method, self.note = ("layer resume", "") if self._resume else ("masking", f"whole runs: {reason}")
        if self._resume is None:
            self._firsts = torch.zeros(len(masks), dtype=torch.int64)
        else:
            self._firsts = self._resume.first_layers(masks)

    def sequences_at_once(self, fit: int) -> int:
        """How many sequences a chunk should have when `fit` rows are run at once, so that the masks of a layer fit."""
        return max(1, fit // min(len(self._masks), max(site.n_heads for site in self._lm.head_map.sites)))

    def unmasked(self, run: Callable[[], T]) -> T:
        """Begin a chunk: call `run`, which runs the chunk's sequences once without any mask, in one batch."""
        return run() if self._resume is None else self._resume.capture(run)

    def masked(
        self, run: Callable[[Tensor, int], Floats], n_sequences: int, fit: int, keep: Keep = keep_nothing
    ) -> Iterator[tuple[list[int], Floats]]:
        """Run the masks on the chunk.

        Args:
            run: is given gates and a number `times`; runs the chunk's sequences, each of them `times` times in a row,
                in one batch, with one row of gates per row of the batch.
            n_sequences: number of sequences in the chunk.
            fit: rows at once.
            keep: keeps what `run` returns.

        Yields:
            numbers of masks, and what `run` returned for them.
        """

        def attempt(part: Sequence[int]) -> Arrays:
            gates = self._masks[list(part)].repeat(n_sequences, 1)
            first = int(self._firsts[part[0]])
            with nullcontext() if self._resume is None else self._resume.resumed(first, len(part)):
                return {"found": run(gates, len(part))}

        def kept(part: Sequence[int]) -> Floats:
            return keep(f"{len(part)} masks from {part[0]} on", partial(attempt, part))["found"]

        batches = self._lm.batches()
        batches.rows = max(1, fit // n_sequences)
        for first in sorted(set(self._firsts.tolist())):
            for part, found in batches.run(kept, (self._firsts == first).nonzero()[:, 0].tolist()):
                yield list(part), found
