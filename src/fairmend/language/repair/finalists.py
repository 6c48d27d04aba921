"""The choice among measured sets of heads: the least biased within the floor, or the cheapest of those as good.

The least biased of several measured sets is so partly by luck. So the choice is made by the one-standard-error rule
(Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3): of all sets whose bias is
within one standard error of the least, prompts compared in pairs, the one with the lowest perplexity is taken. The
empty set is one of them, so that no head is dropped for a gain within its own standard error.

Reading a text takes a fraction of the time of continuing all prompts. So the text is read first: of the sets along one
ranking, from small to large, only the largest ones that keep the floor are continued with.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairmend.costs import UtilityFloor
from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.language.bias.bias import bias_difference_error
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.masks import Mask, Space
from fairmend.runs.progress import Meter, Progress
from fairmend.search import PruningRule

Measured = tuple[Mask, Measurement]

_KEPT = 2  # sets per ranking


@dataclass(frozen=True, slots=True)
class Finalist:
    """A set of heads that was measured on the search half, and the first rule that led to it, if a rule did."""

    mask: Mask
    rule: PruningRule | None
    measurement: Measurement


def sets_of(rules: Sequence[PruningRule], scores: Mapping[str, npt.ArrayLike], space: Space) -> dict[Mask, PruningRule]:
    """The distinct sets that rules make of scores, with the first rule that made each; empty sets are left out.

    Raises:
        InputError: a single rule that cannot find as many units as it should. Of several, such rules are left out.
    """
    sets: dict[Mask, PruningRule] = {}
    for rule in rules:
        try:
            mask = space.mask(rule.choose(scores, space.n_units, space.frozen))
        except InputError:
            if len(rules) == 1:
                raise
            continue
        if mask.size:
            sets.setdefault(mask, rule)
    return sets


def most_measured(rules: Sequence[PruningRule]) -> int:
    """How many sets of these rules are continued with at most, see `within_floor`."""
    return min(len(rules), _KEPT * len({rule.at(alpha=0.0) for rule in rules}))


def within_floor(
    evaluator: LanguageEvaluator,
    sets: Mapping[Mask, PruningRule],
    floor: UtilityFloor,
    progress: Progress | None = None,
    at_least: int = 0,
) -> dict[Mask, PruningRule]:
    """The sets worth continuing prompts with: of every ranking the largest ones before the first beyond the floor.

    Args:
        evaluator: whose text is read; what was read is not read again.
        sets: from `sets_of`.
        floor: the largest perplexity.
        progress: where to show how far the reading is.
        at_least: sets wanted; if the largest ones are fewer, smaller ones join them, spread over their perplexities.
    """
    kept: list[Mask] = []
    smaller: dict[Mask, float] = {}
    along: dict[PruningRule, list[Mask]] = {}
    for mask, rule in sets.items():
        along.setdefault(rule.at(alpha=0.0), []).append(mask)
    begun, done = time.perf_counter(), 0
    meter = Meter(progress, "perplexity of candidate sets", len(sets), 0, None)
    try:
        for masks in along.values():
            admitted: dict[Mask, float] = {}
            for mask in sorted(masks, key=lambda mask: mask.size):
                read = evaluator.reading.perplexity(evaluator.reading.sums(mask)).value
                if not floor.admits(Measurement(0.0, read)):
                    break
                admitted[mask] = read
                meter.show(done + len(admitted), time.perf_counter() - begun, None)
            kept += list(admitted)[-_KEPT:]
            smaller |= dict(list(admitted.items())[:-_KEPT])
            done += len(masks)  # those beyond the floor need no reading
            meter.show(done, time.perf_counter() - begun, None)
    finally:
        meter.close()
    between = sorted(smaller, key=smaller.__getitem__)
    places = np.linspace(0, len(between) - 1, max(0, min(at_least - len(kept), len(between))))
    kept += [between[place] for place in places.round().astype(int).tolist()]
    return {mask: sets[mask] for mask in kept}


def choose(
    evaluator: LanguageEvaluator, reference: Measurement, finalists: Sequence[Finalist], floor: UtilityFloor
) -> Finalist | None:
    """The finalist to take, or None when the floor admits none that is less biased than the untouched model, or the
    untouched model is as good as any.

    Args:
        evaluator: whose prompts were measured on.
        reference: the untouched model's measurement.
        finalists: what was measured.
        floor: the largest perplexity.
    """
    better = [
        finalist
        for finalist in finalists
        if floor.admits(finalist.measurement) and finalist.measurement.bias < reference.bias
    ]
    if not better:
        return None
    untouched = Finalist(evaluator.space.untouched(), None, reference)
    candidates = [untouched, *better]
    best = min(better, key=lambda finalist: finalist.measurement.bias)
    errors = bias_difference_error(
        np.stack([evaluator.scores(candidate.measurement).mean(axis=1) for candidate in candidates]),
        candidates.index(best),
        evaluator.design,
        rng=np.random.default_rng(evaluator.sampling.seed),
    )
    near = [
        candidate
        for candidate, error in zip(candidates, errors.tolist(), strict=True)
        if candidate.measurement.bias - best.measurement.bias <= error
    ]
    chosen = min(near, key=lambda candidate: candidate.measurement.utility)
    return None if chosen is untouched else chosen
