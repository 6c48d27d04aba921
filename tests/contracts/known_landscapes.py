"""Landscapes whose figures are known, the spaces over them, and a search run to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from fairmend.costs import Cost, PenalisedBias, UtilityFloor
from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.masks import Dial, Mask, Site, Space
from fairmend.records import plain
from fairmend.search import Searcher

FIGURES = Figures(Figure("bias", "lower", "landscape"), Figure("score", "higher", "landscape"))


class Landscape:
    """An evaluator whose figures are known: single and pairwise effects of dropped units, and a bowl per dial."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        pairs = list(combinations(range(space.n_units), 2))
        self.space, self.figures, self.seed = space, FIGURES, seed
        self.single = rng.normal(-0.01, 0.03, space.n_units)
        self.damage = rng.uniform(0, 0.006, space.n_units)
        self.pairs = {pairs[i]: float(rng.normal(0, 0.03)) for i in rng.choice(len(pairs), space.n_units)}

    def figures_of(self, mask: Mask) -> Measurement:
        units = set(mask.units())
        bias = 0.2 + sum(self.single[unit] for unit in units)
        bias += sum(effect for (a, b), effect in self.pairs.items() if a in units and b in units)
        bias += sum(0.05 * (value - 0.3) ** 2 for value in mask.dials)
        score = 0.8 - sum(self.damage[unit] for unit in units) - 0.01 * sum(abs(value) for value in mask.dials)
        return Measurement(abs(float(bias)), float(score), n=100)

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        return [self.figures_of(mask) for mask in masks]

    def fingerprint(self) -> Mapping[str, Any]:
        return {"landscape": self.seed, "space": plain(self.space)}


def floor(reference: Measurement) -> UtilityFloor:
    return UtilityFloor.relative(FIGURES, reference, 0.98)


def penalised(reference: Measurement) -> Cost:
    return PenalisedBias(floor(reference), reference.bias)


DIALS = (Dial("threshold", -1.0, 1.0, 0.2), Dial("scale", 0.0, 0.5, 0.1))
SITES = (Site("first", 6), Site("second", 4))
SPACES = {
    "plain": Space(SITES, max_drop=5),
    "dials": Space(SITES, max_drop=5, dials=DIALS),
    "frozen": Space(SITES, max_drop=5, frozen=frozenset({0, 3, 9})),
    "at least 2": Space(SITES, min_drop=2, max_drop=5),
    "all of it": Space(SITES, min_drop=2, max_drop=4, frozen=frozenset({1, 8}), dials=DIALS[:1]),
    "exactly 3": Space(SITES, min_drop=3, max_drop=3),
    "dials only": Space(SITES, max_drop=0, dials=DIALS[:1]),
}
Turn = tuple[tuple[Mask, ...], list[Measurement]]


def run(searcher: Searcher, measure: Callable[[Sequence[Mask]], list[Measurement]]) -> list[Turn]:
    """All turns of a search to its end."""
    turns: list[Turn] = []
    while masks := tuple(searcher.ask()):
        measurements = measure(masks)
        searcher.tell(masks, measurements)
        turns.append((masks, measurements))
        assert len(turns) < 10_000, "the search does not finish"
    return turns


def masks_of(turns: list[Turn]) -> list[Mask]:
    return [mask for masks, _ in turns for mask in masks]
