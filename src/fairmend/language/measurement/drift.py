"""Drift: how far a mask moves a language model from what it was, on neutral text that needs no labels.

The mean over tokens of the Kullback-Leibler divergence of the masked model's next-token distribution from the original
one's, KL(original || masked), in nats: 0 where nothing moved, never negative. Windows are those of a perplexity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.errors import DataError
from fairmend.language.backend.batching import Done
from fairmend.language.backend.forward import last_logits
from fairmend.language.generation.likelihoods import bytes_backward
from fairmend.language.heads.gates import HeadGates
from fairmend.language.measurement.perplexity import Window, mean_loss
from fairmend.language.models.models import LanguageModel
from fairmend.masks import Mask
from fairmend.runs.parts import Arrays, KeepOne, keep_nothing

Floats = npt.NDArray[np.float64]

_WINDOW = 32
_WINDOWS_PER_PART = 64
_POSITIONS_AT_ONCE = 128  # the softmax over the vocabulary is taken for so many positions at a time


@dataclass(frozen=True, slots=True)
class Drift:
    """A mean drift.

    Attributes:
        value: nats per token; NaN when the masked model's logits were.
        standard_error: over windows, taken as independent; NaN with a single window.
        n_tokens: number of tokens whose distributions were compared.
    """

    value: float
    standard_error: float
    n_tokens: int


def drift_of(
    lm: LanguageModel, tokens: Tensor, windows: Sequence[Window], mask: Mask, progress: Done | None = None
) -> Floats:
    """The divergence that a mask causes, summed over the scored tokens of each window, (n_windows,).

    Each batch is read twice, without and with the mask, so that both see the same rows.

    Args:
        lm: the model; masks that are already on it belong to the original.
        tokens: token ids of the text, `(n_tokens,)`, from `texts.encode_text`.
        windows: of the text, from `PerplexityProtocol.windows`.
        mask: what is judged.
        progress: told how many windows are read.

    Raises:
        ModelError: a mask of another model, a token without an embedding, or out of memory.
    """
    lm.check_tokens([int(tokens.max())], "the text")
    gates, found = lm.head_map.gates(mask), np.empty(len(windows))
    done = 0
    with HeadGates(lm.model, lm.head_map) as hooks:
        for n_scored, width, of_shape in _by_shape(windows):
            batches = lm.batches(16 * lm.vocabulary * n_scored + 4096 * width)
            divergences = _reader(lm, tokens, windows, hooks, gates, n_scored)
            for numbers, sums in batches.run(_measured(divergences), of_shape):
                found[list(numbers)] = sums
                done += len(numbers)
                if progress is not None:
                    progress(done, len(windows))
    return found


def mean_drift(windows: Sequence[Window], sums: Floats) -> Drift:
    """The drift per token, from the sums of windows, (n_windows,)."""
    counts = np.array([window.stop - window.first for window in windows], dtype=np.float64)
    mean, error = mean_loss("standard", sums, counts)
    return Drift(float(mean), float(error), int(counts.sum()))


def drift_curvature(
    lm: LanguageModel, tokens: Tensor, seed: int = 0, *, progress: Done | None = None, keep: KeepOne = keep_nothing
) -> Floats:
    """Second derivatives of the drift per token with respect to all gates, where they are 1, (n_heads, n_heads).

    Args:
        lm, tokens, seed, progress, keep: see `drift_roots`.

    Raises:
        DataError, ModelError: see `drift_roots`.
    """
    roots = drift_roots(lm, tokens, seed, progress=progress, keep=keep)
    curvature: Floats = roots.T @ roots
    return curvature


def drift_roots(
    lm: LanguageModel, tokens: Tensor, seed: int = 0, *, progress: Done | None = None, keep: KeepOne = keep_nothing
) -> Floats:
    """Rows of which the products' sum is the curvature of the drift per token, (n_windows, n_heads).

    The curvature is the Fisher information of the gates (Kullback, Information Theory and Statistics, 1959, section
    2.6): the mean of outer products of gradients of the log-likelihood of tokens that the model itself draws. Those of
    different tokens are uncorrelated, so that the gradient of a whole window's sum serves.

    Args:
        lm, tokens: see `drift_of`; cut into windows of 32 tokens, a shorter rest is left out.
        seed: of the drawn tokens.
        progress: told how many windows are read.
        keep: keeps the gradients, some windows at a time.

    Raises:
        DataError: less than one window.
        ModelError: see `drift_of`.
    """
    lm.check_tokens([int(tokens.max())], "the text")
    windows = tokens[: len(tokens) // _WINDOW * _WINDOW].view(-1, _WINDOW)
    if not len(windows):
        raise DataError(f"{len(tokens)} tokens of text: the curvature of the drift takes {_WINDOW} at least, give more")
    drawn = np.random.default_rng([seed, 32]).random(windows.shape)
    found = np.empty((len(windows), lm.head_map.n_heads))

    def gradients(rows: Sequence[int]) -> Floats:
        gates = torch.ones(len(rows), lm.head_map.n_heads, requires_grad=True)
        hooks.set(gates)
        words = last_logits(lm.model, windows[list(rows)].to(lm.device), _WINDOW).float().log_softmax(-1)
        below = words.detach().exp().cumsum(-1)
        level = torch.from_numpy(drawn[list(rows)]).to(below)[..., None] * below[..., -1:]
        (gradient,) = torch.autograd.grad(words.gather(-1, torch.searchsorted(below, level)).sum(), gates)
        made: Floats = gradient.double().numpy()
        return made

    batches = lm.batches(bytes_backward(lm, _WINDOW, _WINDOW), 4 * _WINDOW)  # many logits, several times over
    with HeadGates(lm.model, lm.head_map) as hooks, torch.enable_grad():
        for start in range(0, len(windows), _WINDOWS_PER_PART):
            part = range(start, min(start + _WINDOWS_PER_PART, len(windows)))

            def of_part(part: range = part) -> Arrays:
                for rows, made in batches.run(gradients, part):
                    found[list(rows)] = made
                    if progress is not None:
                        progress(rows[-1] + 1, len(windows))
                return {"gradients": found[part.start : part.stop]}

            found[part.start : part.stop] = keep(f"curvature from window {start} on", of_part)["gradients"]
    roots: Floats = found / math.sqrt(windows.numel())
    return roots


def _by_shape(windows: Sequence[Window]) -> Iterator[tuple[int, int, list[int]]]:
    """Tokens scored and read, and the numbers of the windows of that shape."""
    numbers = sorted(range(len(windows)), key=lambda number: (windows[number].shape, number))
    for (width, n_scored), group in groupby(numbers, key=lambda number: windows[number].shape):
        yield n_scored, width, list(group)


def _reader(
    lm: LanguageModel, tokens: Tensor, windows: Sequence[Window], hooks: HeadGates, gates: Tensor, n_scored: int
) -> Callable[[Sequence[int]], Tensor]:
    """What gives the divergences of some windows of one shape, (n_numbers, n_scored)."""

    def read(numbers: Sequence[int]) -> Tensor:
        rows = torch.stack([tokens[windows[number].start : windows[number].stop] for number in numbers]).to(lm.device)
        hooks.reset()
        with torch.no_grad():
            original = last_logits(lm.model, rows, n_scored + 1)[:, :-1]
        hooks.set(gates)
        changed = last_logits(lm.model, rows, n_scored + 1)[:, :-1]
        spans = (slice(start, start + _POSITIONS_AT_ONCE) for start in range(0, n_scored, _POSITIONS_AT_ONCE))
        return torch.cat([_divergence(original[:, span], changed[:, span]) for span in spans], dim=1)

    return read


def _measured(divergences: Callable[[Sequence[int]], Tensor]) -> Callable[[Sequence[int]], Floats]:
    def measure(numbers: Sequence[int]) -> Floats:
        with torch.inference_mode():
            found: Floats = divergences(numbers).double().sum(dim=1).cpu().numpy()
        return found

    return measure


def _divergence(original: Tensor, changed: Tensor) -> Tensor:
    """KL(original || changed) at every position, from logits (rows, positions, vocabulary)."""
    before, after = original.float().log_softmax(-1), changed.float().log_softmax(-1)
    lost = (before - after).masked_fill(before == -torch.inf, 0.0)  # a token that never came adds nothing
    return (before.exp() * lost).sum(-1).clamp_min(0)  # rounding alone is below 0
