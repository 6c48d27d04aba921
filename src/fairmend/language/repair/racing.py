"""Subsets of heads that are measured in a race: the bad ones are dropped after a part of their prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np

from fairmend.evaluation import Figures, Measurement
from fairmend.language.bias.bias import bias, bias_difference_error, bias_floor
from fairmend.language.measurement.evaluator import Codes, Floats, LanguageEvaluator
from fairmend.language.prompts.strata import stratified_order
from fairmend.language.repair.settings import RACING_PERPLEXITY
from fairmend.masks import Mask, Space

_SHARE = 0.25
_LEAST_PER_GROUP = 2
_ERRORS = 1.0


class Racing:
    """Measures masks like another evaluator, but the bad ones on a quarter of the prompts.

    The text is read first, then a quarter of the prompts, stratified by group, is continued. A mask stays there whose
    perplexity is more than `RACING_PERPLEXITY` times the untouched model's, or whose bias on that quarter is more than
    one standard error (prompts compared in pairs) above the untouched model's. All others are continued on the rest.
    Nothing else decides, so that a measurement depends on the mask and the protocol only.

    Of a dropped mask `n` says how many prompts there were, and parts are NaN for the others. Its bias would be too
    large beside the others': a sum of absolute differences grows as prompts become fewer. What it grows by when group
    labels mean nothing is taken off, and the standard error holds as much again. Without that, surrogates that learn
    from dropped and whole masks together learn less than from the whole ones alone. Figures of dropped masks are for
    surrogates; finalists are measured in full.

    Args:
        whole: measures on all prompts.
        reference: the untouched model's measurement by `whole`, if it was made before.
    """

    def __init__(self, whole: LanguageEvaluator, reference: Measurement | None = None) -> None:
        self.whole = whole
        self.reference = reference
        prompts = whole.prompts
        count = max(_LEAST_PER_GROUP * len(prompts.group_names), round(_SHARE * len(prompts)))
        order = stratified_order(prompts.groups, prompts.group_names, prompts.ids, whole.sampling.seed, "equal")
        self._first, self._rest = np.sort(order[:count]), np.sort(order[count:])

    @property
    def space(self) -> Space:
        """The masks that can be measured."""
        return self.whole.space

    @cached_property
    def figures(self) -> Figures:
        """What the measurements mean."""
        figures = self.whole.figures
        protocol = f"{figures.bias.protocol}; bad masks on {len(self._first)} of {len(self.whole.prompts)} prompts"
        return replace(figures, bias=replace(figures.bias, protocol=protocol))

    @property
    def masks_at_once(self) -> int:
        """How many masks begin the race in one batch."""
        return self.whole.packed(len(self._first))

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the figures depend on, JSON-ready."""
        rules = {"largest_perplexity": RACING_PERPLEXITY, "share": _SHARE, "errors": _ERRORS}
        return {**self.whole.fingerprint(), "racing": rules}

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement per mask, in order; NaN where the mask broke the model.

        Raises:
            ModelError: see `LanguageEvaluator.measure`.
        """
        untouched = self.space.untouched()
        if not masks:
            return []
        if self.reference is None:
            (self.reference,) = self.whole.measure([untouched])
        made = {untouched: self.reference}
        racing = [mask for mask in dict.fromkeys(masks) if not mask.is_untouched]
        for start in range(0, len(racing), self.masks_at_once):
            batch = racing[start : start + self.masks_at_once]
            made |= dict(zip(batch, self._raced(batch, self.reference), strict=True))
        return [made[mask] for mask in masks]

    def _raced(self, masks: Sequence[Mask], reference: Measurement) -> Iterator[Measurement]:
        begun = perf_counter()
        read = {mask: self.whole.reading.sums(mask) for mask in masks}
        scores = dict(zip(masks, self.whole.continued([(mask, self._first) for mask in masks]), strict=True))
        kept = [mask for mask in masks if self._stays(scores[mask], read[mask], reference)]
        if kept and len(self._rest):
            rest = self.whole.continued([(mask, self._rest) for mask in kept])
            scores |= {mask: np.concatenate((scores[mask], more)) for mask, more in zip(kept, rest, strict=True)}
        seconds = (perf_counter() - begun) / len(masks)
        # In the order of the prompts, as everywhere else: sums of floats depend on it.
        rows = np.concatenate((self._first, self._rest))
        order = np.argsort(rows)
        windows = range(len(self.whole.reading.windows))
        for mask in masks:
            if len(scores[mask]) == len(rows):
                yield self.whole.measurement(rows[order], scores[mask][order], windows, read[mask], seconds)
            else:
                yield self._dropped(
                    self.whole.measurement(self._first, scores[mask], windows, read[mask], seconds), scores[mask]
                )

    def _stays(self, scores: Floats, read: Floats, reference: Measurement) -> bool:
        """Whether a mask stays in the race with such scores on the first prompts."""
        if not self.whole.reading.perplexity(read).value <= RACING_PERPLEXITY * reference.utility:
            return False
        both = np.stack([self.whole.scores(reference)[self._first].mean(axis=1), scores.mean(axis=1)])
        if not np.isfinite(both).all():
            return False
        groups, n_groups = self._groups()
        mean = self.whole.protocol.group_mean
        before, after = bias(both, groups, n_groups, mean).tolist()
        error = bias_difference_error(both, 0, groups, n_groups, rng=self._rng(), group_mean=mean)[1]
        return bool(after - before <= _ERRORS * error)

    def _dropped(self, part: Measurement, scores: Floats) -> Measurement:
        """The measurement of a mask that left the race, its bias comparable to that of all prompts."""
        if not part.is_finite:
            return part
        groups, n_groups = self._groups()
        floor = bias_floor(
            scores.mean(axis=1), groups, n_groups, rng=self._rng(), group_mean=self.whole.protocol.group_mean
        )
        # The floor falls with the square root of the number of prompts.
        surplus = float(floor) * (1 - math.sqrt(len(self._first) / len(self.whole.prompts)))
        return replace(part, bias=max(0.0, part.bias - surplus), bias_se=math.hypot(part.bias_se, surplus))

    def _groups(self) -> tuple[Codes, int]:
        return self.whole.prompts.groups[self._first], len(self.whole.prompts.group_names)

    def _rng(self) -> np.random.Generator:
        """The same draws for every mask."""
        return np.random.default_rng(self.whole.sampling.seed)
