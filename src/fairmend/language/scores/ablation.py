"""Exact perplexity without each head: every head switched off alone, on the same text.

The naive way runs the whole model once per head. Here a window of the text goes through the unmasked model once; for
the heads of layer l the model then resumes from layer l (see `layer_resume`), with several heads as rows of one batch,
each row with its own gates. On average half of the layers are saved, nothing is approximated. Where an architecture
cannot be resumed, whole runs are made, and the result says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.language.backend.batching import Done
from fairmend.language.heads.gates import HeadGates
from fairmend.language.measurement.perplexity import PerplexityProtocol, Window, mean_loss, token_log_likelihoods
from fairmend.language.models.models import LanguageModel
from fairmend.language.scores.layer_resume import AllAtOnce
from fairmend.language.scores.mask_runs import MaskRuns, checked_gates
from fairmend.language.scores.reliability import Reliability, split_reliability
from fairmend.language.scores.validity import Validity
from fairmend.runs.parts import Arrays, Keep, keep_nothing, within

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MaskLosses:
    """The loss of a model on a text, without any mask and with each of several, window by window.

    Attributes:
        before: summed loss of each window without a mask, nats, `(n_windows,)`.
        without: the same with each mask, `(n_masks, n_windows)`. NaN where a mask broke the model.
        counts: scored tokens of each window, `(n_windows,)`.
        protocol: how windows make a perplexity.
        method: "layer resume" or "masking", both exact, or "first-order".
        note: what a reader should know about the method; empty when there is nothing.
    """

    before: Floats
    without: Floats
    counts: Floats
    protocol: PerplexityProtocol
    method: str
    note: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """How the loss with each mask was found."""
        return (self.method,) * len(self.without)

    @property
    def validity(self) -> Validity | None:
        """How far an estimate of these losses orders masks as measuring does, if both were done."""
        return None

    @property
    def perplexity_before(self) -> float:
        """Perplexity without a mask."""
        with np.errstate(over="ignore"):
            return float(np.exp(mean_loss(self.protocol.kind, self.before, self.counts)[0]))

    @property
    def perplexity(self) -> Floats:
        """Perplexity with each mask, `(n_masks,)`."""
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(self._losses[0]), dtype=np.float64)

    @property
    def standard_error(self) -> Floats:
        """Standard error of each perplexity as a figure of its own, by the delta method over windows, `(n_masks,)`."""
        return np.asarray(self.perplexity * self._losses[1], dtype=np.float64)

    @property
    def effect(self) -> Floats:
        """What each mask adds to the mean loss, nats per token, `(n_masks,)`."""
        return self._effects[0]

    @property
    def effect_error(self) -> Floats:
        """Standard error of each effect, from the same windows with and without the mask, `(n_masks,)`."""
        return self._effects[1]

    @property
    def _losses(self) -> tuple[Floats, Floats]:
        return mean_loss(self.protocol.kind, self.without, self.counts)

    @property
    def _effects(self) -> tuple[Floats, Floats]:
        return mean_loss(self.protocol.kind, self.without - self.before, self.counts)

    def reliability(self, rng: np.random.Generator) -> Reliability:
        """How far the ranking of the masks would repeat on another text of this length."""

        def effects(windows: npt.NDArray[np.int64]) -> Floats:
            changes = (self.without - self.before)[:, windows]
            return mean_loss(self.protocol.kind, changes, self.counts[windows])[0]

        return split_reliability(effects, np.zeros(len(self.counts)), rng=rng, unit="windows")


def masked_losses(
    lm: LanguageModel,
    tokens: Tensor,
    protocol: PerplexityProtocol,
    gates: npt.ArrayLike | Tensor | None = None,
    *,
    resume: bool = True,
    progress: Done | None = None,
    keep: Keep = keep_nothing,
) -> MaskLosses:
    """Measure the loss on a text with each of several masks, exactly.

    Args:
        lm: the model; masks that are already on it stay in force.
        tokens: token ids of the text, `(n_tokens,)`, from `texts.encode_text`.
        protocol: windows and mean, from `perplexity_protocol`.
        gates: `(n_masks, n_heads)`; every head alone when not given.
        resume: save the layers before the first one that a mask changes, where the architecture allows it.
        progress: told how many masks times windows are done.
        keep: keeps the losses of every batch.

    Raises:
        InputError: gates of another shape, or a text without two tokens.
        ModelError: out of memory.
    """
    masks = checked_gates(lm, gates)
    windows = protocol.windows(len(tokens))
    before, without = np.empty(len(windows)), np.empty((len(masks), len(windows)))
    runs = MaskRuns(lm, masks, resume)
    chunks: dict[str, tuple[list[int], int]] = {}
    for (width, n_scored), numbers in _by_shape(windows):
        fit = lm.batches(8 * lm.vocabulary * n_scored + 4096 * width, width).rows
        together = runs.sequences_at_once(fit)
        for start in range(0, len(numbers), together):
            chunk = numbers[start : start + together]
            chunks[f"{len(chunk)} windows from {chunk[0]} on"] = chunk, fit
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, without.size)

    def whole(name: str) -> None:
        told(len(masks) * len(chunks[name][0]))

    if keep.workers.is_here:
        losses = _Losses(lm, tokens, protocol, runs)
        made = {}
        for name, (chunk, fit) in chunks.items():
            make = partial(losses.of, chunk, fit, within(keep, name), told)
            made[name] = keep(name, dict) if keep.has(name) else make()
    else:
        work = partial(_losses_of, lm, tokens.cpu().numpy(), protocol, masks.numpy(), resume)
        made = keep.all(work, chunks, whole)
    for name, (chunk, _) in chunks.items():
        before[chunk], without[:, chunk] = made[name]["before"], made[name]["without"]
    counts = np.array([window.shape[1] for window in windows], dtype=np.float64)
    return MaskLosses(before, without, counts, protocol, runs.method, runs.note)


@dataclass(frozen=True)
class _Losses:
    """Finds losses chunk of windows by chunk."""

    lm: LanguageModel
    tokens: Tensor
    protocol: PerplexityProtocol
    runs: MaskRuns

    def of(self, chunk: Sequence[int], fit: int, keep: Keep, told: Callable[[int], None]) -> Arrays:
        """Without a mask `(n_windows,)`, and with each `(n_masks, n_windows)`, of the windows of a chunk."""
        windows, n_masks = self.protocol.windows(len(self.tokens)), self.runs.n_masks
        without = np.empty((n_masks, len(chunk)))

        def losses(times: int) -> Floats:
            """Losses `(times, n_windows)` of the chunk's windows, each run `times` times."""
            rows = [windows[number] for number in chunk for _ in range(times)]
            found = token_log_likelihoods(self.lm, self.tokens, rows, batches=AllAtOnce())
            return -np.array([values.sum() for values in found]).reshape(-1, times).T

        with HeadGates(self.lm.model, self.lm.head_map) as hooks:

            def masked(gates: Tensor, times: int) -> Floats:
                hooks.set(gates)
                return losses(times)

            before = self.runs.unmasked(partial(losses, 1))[0]
            for part, found in self.runs.masked(masked, len(chunk), fit, keep):
                without[part] = found
                told(found.size)
        return {"before": before, "without": without}


def _losses_of(
    lm: LanguageModel,
    tokens: npt.NDArray[np.int64],
    protocol: PerplexityProtocol,
    masks: npt.NDArray[np.float32],
    resume: bool,
    chunk: Sequence[int],
    fit: int,
) -> Arrays:
    """The losses of a chunk of windows, for a worker."""
    losses = _Losses(lm, torch.from_numpy(tokens), protocol, MaskRuns(lm, torch.from_numpy(masks), resume))
    return losses.of(chunk, fit, keep_nothing, lambda count: None)


def _by_shape(windows: Sequence[Window]) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Numbers of the windows of each shape: they are run together."""
    order = sorted(range(len(windows)), key=lambda number: (windows[number].shape, number))
    for shape, group in groupby(order, key=lambda number: windows[number].shape):
        yield shape, list(group)
