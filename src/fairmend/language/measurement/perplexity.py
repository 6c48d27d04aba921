"""Perplexity of a language model on a text, under two protocols whose figures must not be mixed.

Both slide a window over the tokens and score, in each window, the tokens that no earlier window scored; the first
token of a window has nothing before it and is never scored.

* "standard": windows of the model's context; the exponential of the mean over tokens. Where the stride would leave
  tokens out (stride >= window), it is shortened to window - 1, so that every token but the very first counts once.
* "fasp": as in the code released with FASP (Zayed et al., AAAI 2024): windows of a quarter of the model's positions;
  the exponential of the unweighted mean of the windows' means. With a window shorter than the stride, tokens between
  windows are not scored: GPT-2 (256 of 512) scores half of the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.errors import InputError, ModelError
from fairmend.language.backend.batching import BatchSize, Done
from fairmend.language.backend.forward import last_logits, why_not_finite
from fairmend.language.models.models import LanguageModel
from fairmend.language.protocols import STRIDE, Kind

Losses = npt.NDArray[np.float64]

_POSITIONS_AT_ONCE = 128  # the softmax over the vocabulary is taken for so many positions at a time


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start` to `stop` are read, those from `first` on are scored."""

    start: int
    stop: int
    first: int

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of tokens read and scored."""
        return self.stop - self.start, self.stop - self.first


@dataclass(frozen=True)
class PerplexityProtocol:
    """How a perplexity is taken; built by `perplexity_protocol`.

    Attributes:
        kind: "standard" or "fasp".
        window: tokens per window.
        stride: tokens between the starts of two windows.
    """

    kind: Kind
    window: int
    stride: int

    def __post_init__(self) -> None:
        if self.kind not in ("standard", "fasp"):
            raise InputError(f"perplexity protocol must be 'standard' or 'fasp', got {self.kind!r}")
        if self.window < 2 or self.stride < 1:
            raise InputError(f"a window of {self.window} and a stride of {self.stride} score nothing: need 2 and 1")
        if self.kind == "standard" and self.stride >= self.window:
            object.__setattr__(self, "stride", self.window - 1)

    @property
    def name(self) -> str:
        """What stands beside every figure of this protocol."""
        return f"{self.kind} (window {self.window}, stride {self.stride})"

    def windows(self, n_tokens: int) -> tuple[Window, ...]:
        """The windows over a text of `n_tokens` tokens.

        Raises:
            InputError: fewer than two tokens.
        """
        if n_tokens < 2:
            raise InputError(f"perplexity needs a text of 2 tokens or more, got {n_tokens}")
        windows = []
        scored = 0
        for start in range(0, n_tokens, self.stride):
            stop = min(start + self.window, n_tokens)
            first = max(start + 1, scored)
            if first < stop:
                windows.append(Window(start, stop, first))
            scored = stop
            if stop == n_tokens:
                break
        return tuple(windows)


@dataclass(frozen=True, eq=False)
class Perplexity:
    """A perplexity and what it was made of.

    Attributes:
        value: NaN or infinite when the logits were, as a mask can make them.
        standard_error: by the delta method over windows, taken as independent; NaN with a single window.
        n_tokens: number of tokens scored.
        protocol: name of the protocol with its window and stride.
        log_likelihoods: of every scored token, one array per window, so that changes can be judged in pairs.
    """

    value: float
    standard_error: float
    n_tokens: int
    protocol: str
    log_likelihoods: tuple[Losses, ...]

    @property
    def is_finite(self) -> bool:
        """Whether the model gave every token a probability."""
        return math.isfinite(self.value)


@dataclass(frozen=True, slots=True)
class PerplexityRatio:
    """Perplexity after a change divided by that before, with its standard error from the same windows."""

    value: float
    standard_error: float


def perplexity_protocol(
    lm: LanguageModel, kind: Kind = "standard", window: int | None = None, stride: int = STRIDE
) -> PerplexityProtocol:
    """The protocol for a model: its context as the window, or a quarter of it for "fasp", unless told otherwise.

    Raises:
        InputError: an unknown protocol, or a window that is longer than the model's context.
    """
    if window is None:
        window = lm.context // 4 if kind == "fasp" else lm.context
    if window > lm.context:
        raise InputError(f"a window of {window} tokens is longer than the context of {lm.name}, {lm.context}")
    return PerplexityProtocol(kind, window, stride)


def perplexity(
    lm: LanguageModel,
    tokens: Tensor,
    protocol: Kind = "standard",
    window: int | None = None,
    stride: int = STRIDE,
) -> Perplexity:
    """Measure the perplexity of a model; masks that are on it are in force.

    Args:
        lm: the model.
        tokens: token ids of the text, `(n_tokens,)`, from `texts.encode_text`.
        protocol, window, stride: see `perplexity_protocol`.

    Raises:
        InputError: a protocol or a text that cannot work.
        ModelError: out of memory.
    """
    chosen = perplexity_protocol(lm, protocol, window, stride)
    return summarise(chosen, token_log_likelihoods(lm, tokens, chosen.windows(len(tokens))))


def token_log_likelihoods(
    lm: LanguageModel,
    tokens: Tensor,
    windows: Sequence[Window],
    progress: Done | None = None,
    batches: BatchSize | None = None,
) -> tuple[Losses, ...]:
    """Log-likelihood of the scored tokens of each window, one array per window.

    `progress` is told of windows; `batches` cuts them into batches, the model's own when not given.

    Raises:
        ModelError: a token without an embedding, or out of memory.
    """
    lm.check_tokens([int(tokens.max())], "the text")
    found: dict[int, Losses] = {}
    by_shape = sorted(range(len(windows)), key=lambda number: (windows[number].shape, number))
    for (width, n_scored), group in groupby(by_shape, key=lambda number: windows[number].shape):
        of_shape = batches or lm.batches(8 * lm.vocabulary * n_scored + 4096 * width)

        def score(numbers: Sequence[int], n_scored: int = n_scored) -> Losses:
            rows = torch.stack([tokens[windows[number].start : windows[number].stop] for number in numbers])
            return _score(lm, rows.to(lm.device), n_scored)

        for numbers, values in of_shape.run(score, list(group)):
            found |= dict(zip(numbers, values, strict=True))
            if progress is not None:
                progress(len(found), len(windows))
    return tuple(found[number] for number in range(len(windows)))


def summarise(protocol: PerplexityProtocol, log_likelihoods: Sequence[Losses]) -> Perplexity:
    """The perplexity that the tokens' log-likelihoods, one array per window, amount to."""
    loss, error = _mean_of(protocol.kind, [-values for values in log_likelihoods])
    with np.errstate(over="ignore"):
        value = float(np.exp(loss))
    n_tokens = sum(len(values) for values in log_likelihoods)
    return Perplexity(value, value * error, n_tokens, protocol.name, tuple(log_likelihoods))


def perplexity_ratio(before: Perplexity, after: Perplexity) -> PerplexityRatio:
    """How a change moved the perplexity, judged window by window on the same tokens.

    Raises:
        InputError: two perplexities of different protocols or texts.
    """
    if before.protocol != after.protocol or [len(v) for v in before.log_likelihoods] != [
        len(v) for v in after.log_likelihoods
    ]:
        raise InputError(
            f"perplexities of different protocols or texts cannot be compared: {before.protocol}, {before.n_tokens} "
            f"tokens, and {after.protocol}, {after.n_tokens} tokens"
        )
    kind: Kind = "fasp" if before.protocol.startswith("fasp") else "standard"
    pairs = zip(before.log_likelihoods, after.log_likelihoods, strict=True)
    with np.errstate(over="ignore", invalid="ignore"):
        loss, error = _mean_of(kind, [old - new for old, new in pairs])
        value = float(np.exp(loss))
    return PerplexityRatio(value, value * error)


def check_finite(result: Perplexity, lm: LanguageModel) -> Perplexity:
    """Return the perplexity of an unmasked model, or refuse one that is not a number.

    Raises:
        ModelError: the model's logits are not finite.
    """
    if not result.is_finite:
        raise ModelError(
            f"{lm.name} has perplexity {result.value} without any mask: its logits are not finite; "
            f"{why_not_finite(lm.model)}"
        )
    return result


def mean_loss(kind: Kind, sums: Losses, counts: Losses) -> tuple[Losses, Losses]:
    """Mean loss and its standard error over windows, taken as independent; NaN with a single window.

    Args:
        kind: FASP's protocol takes the mean of the windows' means, the standard one that of the tokens.
        sums: summed loss of each window, (..., n_windows).
        counts: scored tokens of each window, (n_windows,).

    Returns:
        Both of shape (...,).
    """
    if kind == "fasp":
        sums, counts = sums / counts, np.ones_like(counts)
    n, total = len(counts), counts.sum()
    with np.errstate(invalid="ignore"):
        mean = np.asarray(sums.sum(axis=-1) / total, dtype=np.float64)
        if n < 2:
            return mean, np.full_like(mean, math.nan)
        # The mean is a ratio of two sums over windows, hence the delta method.
        squares = ((sums - mean[..., None] * counts) ** 2).sum(axis=-1)
        return mean, np.asarray(np.sqrt(n / (n - 1) * squares) / total, dtype=np.float64)


def _mean_of(kind: Kind, losses: Sequence[Losses]) -> tuple[float, float]:
    """The same of the losses of every token, one array per window."""
    sums = np.array([values.sum() for values in losses])
    mean, error = mean_loss(kind, sums, np.array([len(values) for values in losses], dtype=np.float64))
    return float(mean), float(error)


def _score(lm: LanguageModel, rows: Tensor, n_scored: int) -> Losses:
    """Log-likelihoods `(n_rows, n_scored)` of the last tokens of each row."""
    with torch.inference_mode():
        logits = last_logits(lm.model, rows, n_scored + 1)[:, :-1]
        parts = [
            _log_softmax(logits[:, span], rows[:, -n_scored:][:, span]) for span in _spans(n_scored, _POSITIONS_AT_ONCE)
        ]
    return torch.cat(parts, dim=1).double().cpu().numpy()


def _log_softmax(logits: Tensor, tokens: Tensor) -> Tensor:
    wide = logits.float()
    return wide.gather(-1, tokens[..., None])[..., 0] - wide.logsumexp(-1)


def _spans(length: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, length, step))
