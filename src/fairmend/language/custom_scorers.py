"""A user's own toxicity scorer: a function named by module, checked on every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairmend.errors import InputError
from fairmend.language.custom_functions import as_numbers, called, load_function, source_digest
from fairmend.language.toxicity import Floats, ScorerKind, score_visible

_ROUNDING = 1e-6  # what a sum of probabilities in single precision may be off by


class CustomScorer:
    """A function that takes a list of texts and gives one score in [0, 1] for each.

    Args:
        function: called with every visible text of a call at once; batching is its own affair.
        name: what the figures are labelled with; error messages name it.
    """

    kind: ScorerKind = "custom"
    scores_continuation_only = False

    def __init__(self, function: Callable[[list[str]], Any], name: str) -> None:
        self.name = name
        self._function = function

    def score(self, texts: Sequence[str]) -> Floats:
        """Toxicity of every text, shape (n_texts,), 0 for blank texts. Scores outside [0, 1] by rounding are clipped.

        Raises:
            InputError: the function fails, or gives anything but one number in [0, 1] per text.
        """
        return score_visible(texts, self._checked)

    def fingerprint(self) -> dict[str, Any]:
        """The function's name and the SHA-256 of the file that defines it, null when it has none."""
        return {"kind": self.kind, "name": self.name, "source_sha256": source_digest(self._function)}

    def _checked(self, texts: list[str]) -> Floats:
        who, expected = f"the scorer {self.name}", f"it must give {len(texts)} numbers in [0, 1], one per text"
        scores = as_numbers(called(self._function, who, list(texts)), who, expected)
        if scores.shape != (len(texts),):
            raise InputError(f"{who} gave an array of shape {scores.shape}: {expected}")
        wrong = np.flatnonzero(~((scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)))
        if wrong.size:
            text = texts[wrong[0]]
            raise InputError(
                f"{who} gave {scores[wrong[0]]} for {text[:60]!r} and {wrong.size} of {len(texts)} "
                f"texts have no score in [0, 1]: {expected}"
            )
        bounded: Floats = scores.clip(0.0, 1.0)
        return bounded


def load_custom(spec: str) -> CustomScorer:
    """The scorer that "python:MODULE:FUNCTION" names, see `load_function`.

    Raises:
        InputError: there is no such function.
    """
    return CustomScorer(load_function(spec, "scorer", ("texts",)), spec)
