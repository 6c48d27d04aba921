"""Perplexity of one fixed text under masks: what the utility of a repair is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.evaluation import array_digest
from fairmend.language.heads.gates import masked
from fairmend.language.measurement.drift import drift_of
from fairmend.language.measurement.perplexity import Perplexity, perplexity_protocol, summarise, token_log_likelihoods
from fairmend.language.measurement.texts import Text, encode_text
from fairmend.language.models.models import LanguageModel
from fairmend.language.protocols import ReadingSettings
from fairmend.masks import Mask

Floats = npt.NDArray[np.float64]

LONGEST_WINDOW = 512  # of the standard protocol: as wide as the stride, so that no token is read twice


class Reading:
    """A text as a model reads it, window by window.

    Args:
        lm: the model.
        text: what is read.
        settings: how.

    Raises:
        InputError: a protocol that cannot work.
        DataError: the text is shorter than the tokens asked for.
    """

    def __init__(self, lm: LanguageModel, text: Text, settings: ReadingSettings | None = None) -> None:
        settings = settings or ReadingSettings()
        window = settings.window
        if window is None and settings.kind == "standard":
            window = min(LONGEST_WINDOW, lm.context)
        self.lm = lm
        self.text = text
        self.settings = settings
        self.protocol = perplexity_protocol(lm, settings.kind, window, settings.stride)
        self.tokens = encode_text(lm, text, settings.tokens)
        self.windows = self.protocol.windows(len(self.tokens))
        self._sums: dict[Mask, Floats] = {}
        self._drifts: dict[Mask, Floats] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Reading, (self.lm, self.text, self.settings)

    def sums(self, mask: Mask, numbers: Sequence[int] | None = None) -> Floats:
        """Log-likelihood of the scored tokens of windows under `mask`, (n_numbers,). The whole is read once per mask.

        Args:
            mask: of the model's heads.
            numbers: of the windows; all of them, in order, by default.
        """
        is_whole = numbers is None or len(numbers) == len(self.windows)
        if is_whole and mask in self._sums:
            return self._sums[mask]
        windows = self.windows if numbers is None else [self.windows[number] for number in numbers]
        with masked(self.lm.model, mask, self.lm.head_map):
            found = token_log_likelihoods(self.lm, self.tokens, windows)
        sums = np.array([values.sum() for values in found])
        if is_whole:
            self._sums[mask] = sums
        return sums

    def drifts(self, mask: Mask) -> Floats:
        """How far the next tokens drift from the original under `mask`, summed in each window, (n_windows,)."""
        if mask not in self._drifts:
            self._drifts[mask] = drift_of(self.lm, self.tokens, self.windows, mask)
        return self._drifts[mask]

    def perplexity(self, sums: Sequence[float] | Floats, numbers: Sequence[int] | None = None) -> Perplexity:
        """The perplexity that the sums of windows amount to, every token with its window's mean.

        Args:
            sums: log-likelihood of each window.
            numbers: of the windows; all of them, in order, by default.
        """
        windows = self.windows if numbers is None else [self.windows[number] for number in numbers]
        sizes = [window.stop - window.first for window in windows]
        return summarise(self.protocol, [np.full(size, total / size) for size, total in zip(sizes, sums, strict=True)])

    def fingerprint(self) -> dict[str, Any]:
        """What the perplexity depends on beside the model, JSON-ready."""
        return {
            "text": self.text.fingerprint(),
            "tokens_sha256": array_digest(self.tokens.numpy()),
            "n_tokens": len(self.tokens),
            "protocol": self.protocol.name,
        }
