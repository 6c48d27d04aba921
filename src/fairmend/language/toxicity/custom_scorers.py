"""A user's own toxicity scorer: a function named by module, checked on every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fairmend.language.toxicity.custom_functions import called, load_function, source_digest
from fairmend.language.toxicity.scorer import Floats, ScorerKind, checked_scores, score_visible


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
        who = f"the scorer {self.name}"
        return checked_scores(called(self._function, who, list(texts)), texts, who)


def load_custom(spec: str) -> CustomScorer:
    """The scorer that "python:MODULE:FUNCTION" names, see `load_function`.

    Raises:
        InputError: there is no such function.
    """
    return CustomScorer(load_function(spec, "scorer", ("texts",)), spec)
