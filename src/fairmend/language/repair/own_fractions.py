"""Subsets of heads that are measured on random fractions of their own, as Attention Pruning does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.language.measurement.answers import masks_at_once
from fairmend.language.measurement.evaluator import Codes, LanguageEvaluator
from fairmend.masks import Mask, Space
from fairmend.search import drawn_fraction
from fairmend.search.base import require_count, require_number

_LEAST_PER_GROUP = 2
_LEAST_WINDOWS = 2


class OwnFractions:
    """Measures every mask on a random fraction of the prompts and of the text that is its own.

    The draw follows from mask and seed. Prompts are drawn within their groups, at least two of each, because a bias
    needs every group; the paper does not say how its fractions are drawn. The untouched mask draws its prompts like
    any other, so that its bias compares with theirs, but reads the whole text: the utility floor is relative to it.

    Which prompts and windows a mask drew adds to its noise, which measuring all masks on the same ones would not. The
    standard errors of bias and perplexity contain it.

    Args:
        whole: measures on all prompts and the whole text. Parts of a measurement are NaN for what was not drawn.
        eta: the fraction, in (0, 1].
        seed: of the draws.
        space: masks that may be measured; those of `whole` by default.

    Raises:
        InputError: a fraction or a seed outside its range.
    """

    def __init__(self, whole: LanguageEvaluator, *, eta: float, seed: int, space: Space | None = None) -> None:
        self.whole = whole
        self.eta = require_number("eta", eta, 0, 1, positive=True)
        self.seed = require_count("seed", seed, 0)
        self._space = whole.space if space is None else space
        groups = whole.prompts.groups
        self._members = [np.flatnonzero(groups == code) for code in range(len(whole.prompts.group_names))]

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(OwnFractions, eta=self.eta, seed=self.seed, space=self._space), (self.whole,)

    @property
    def space(self) -> Space:
        """The masks that can be measured."""
        return self._space

    @cached_property
    def figures(self) -> Figures:
        """What the measurements mean."""
        whole = self.whole.figures
        return replace(whole, bias=self._on_part(whole.bias), utility=self._on_part(whole.utility))

    @property
    def masks_at_once(self) -> int:
        """How many masks are continued in one batch."""
        return masks_at_once(self.whole.lm, len(self.rows(self.space.untouched())))

    def rows(self, mask: Mask) -> Codes:
        """Numbers of the prompts that a mask is measured on, ascending."""
        drawn = [
            members[self._drawn(mask, len(members), _LEAST_PER_GROUP, code)]
            for code, members in enumerate(self._members)
        ]
        return np.sort(np.concatenate(drawn))

    def windows(self, mask: Mask) -> Codes:
        """Numbers of the windows of the text that a mask is read on, ascending."""
        n = len(self.whole.reading.windows)
        if mask.is_untouched:
            return np.arange(n)
        return self._drawn(mask, n, _LEAST_WINDOWS, len(self._members))

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement per mask, in order; NaN where the mask broke the model.

        Raises:
            ModelError: see `LanguageEvaluator.measure`.
        """
        made: list[Measurement] = []
        for start in range(0, len(masks), self.masks_at_once):
            part = masks[start : start + self.masks_at_once]
            made += self.whole.measure_parts([(mask, self.rows(mask), self.windows(mask).tolist()) for mask in part])
        return made

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the figures depend on, JSON-ready."""
        return {**self.whole.fingerprint(), "own_fractions": {"eta": self.eta, "seed": self.seed}}

    def _drawn(self, mask: Mask, n: int, least: int, stream: int) -> Codes:
        """Numbers below `n`; groups of prompts and the text have streams of their own."""
        seed = int(np.random.SeedSequence([self.seed, stream]).generate_state(1)[0])
        return drawn_fraction(mask, n, max(self.eta, min(1.0, least / n)), seed)

    def _on_part(self, figure: Figure) -> Figure:
        return replace(figure, protocol=f"{figure.protocol}; each mask on {self.eta:.0%} of its own")
