"""Searches that measure units one at a time, and the sets that such measurements lead to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask, Space
from fairmend.search.base import MakeCost, SteppedSearcher, Steps, require_count, require_finite
from fairmend.search.pruning_rules import NEEDS, PruningRule
from fairmend.search.sampling import BatchSearcher


class SingleInterventions(BatchSearcher):
    """Every droppable unit alone: the repair of DICE (Monjezi et al., ICSE 2023) as a baseline.

    The best single intervention that keeps the utility is the incumbent: the cost carries the utility floor. How a
    unit is intervened on, switched off or clamped, is the evaluator's matter; dials stay at 0.

    Args:
        space: what may be dropped; its size limits must admit one unit.
        make_cost: builds the cost from the untouched mask's measurement.
        batch: masks per ask.

    Raises:
        InputError: the size limits do not admit a single unit.
    """

    name = "dice"

    def __init__(self, space: Space, make_cost: MakeCost | None, *, batch: int = 256) -> None:
        super().__init__(space, make_cost, batch)
        if not space.min_drop <= 1 <= space.largest:
            raise InputError(
                f"single interventions drop exactly one unit, but the space admits {space.min_drop} to "
                f"{space.largest}: set min_drop to 0 or 1 and max_drop to at least 1"
            )

    def _masks(self) -> Iterator[Mask]:
        untouched = self.space.untouched()
        return (untouched.flip(unit) for unit in self.space.droppable)

    def settings(self) -> dict[str, Any]:
        """The name and every option, JSON-ready: enough to build an equal searcher. Nothing is random."""
        return {"name": self.name, "batch": self.batch}


class Ranking(SteppedSearcher):
    """Measures every unit alone, then the one set that a rule makes of the results: FASP and its baselines.

    It asks for the untouched mask, for every droppable unit alone (if the rule needs scores that were not given), and
    for the chosen set (if there is anything to drop). Dials stay at 0.

    Args:
        space: what may be dropped.
        figures: what the measurements mean (the direction of the utility).
        rule: how the set is chosen.
        scores: scores that are known already, by name, each of shape (n_units,); see `pruning_rules.NEEDS`.
        batch: masks per ask.

    Attributes:
        scores: given and measured ones, NaN for units that may not be dropped; complete once the set was asked.
        chosen: the set, None until then; the untouched mask when too many units broke the network alone for the rule
            to find as many as it should.

    Raises:
        InputError: scores that the rule needs and that cannot be measured, or size limits that do not admit a single
            unit or the set.
    """

    def __init__(
        self,
        space: Space,
        figures: Figures,
        rule: PruningRule | None = None,
        *,
        scores: Mapping[str, npt.ArrayLike] | None = None,
        batch: int = 256,
    ) -> None:
        super().__init__(space)
        self.figures = figures
        self.rule = rule or PruningRule()
        self.batch = require_count("batch", batch, 1)
        self.scores = {name: np.asarray(values, dtype=np.float64) for name, values in (scores or {}).items()}
        self.chosen: Mask | None = None
        self._given = {name: [None if math.isnan(v) else v for v in vs.tolist()] for name, vs in self.scores.items()}
        missing = [name for name in NEEDS[self.rule.method] if name not in self.scores]
        unknown = [name for name in missing if name not in ("loss", "bias")]
        if unknown:
            raise InputError(
                f"{self.rule.method} ranks by the {unknown[0]} of every unit, which no measurement of a mask gives: "
                f"pass scores={{{unknown[0]!r}: ...}}"
            )
        self._measures = bool(missing)
        self._require_room()

    def _require_room(self) -> None:
        space, k = self.space, self.rule.count(self.space.n_units)
        if self._measures and not space.min_drop <= 1 <= space.largest:
            raise InputError(
                f"{self.rule.method} measures every unit alone, but the space admits {space.min_drop} to "
                f"{space.largest} units: set min_drop to 0 or 1 and max_drop to at least 1"
            )
        if k and not space.min_drop <= k <= space.largest:
            raise InputError(
                f"alpha={self.rule.alpha:g} of {space.n_units} units are {k}, but the space admits {space.min_drop} to "
                f"{space.largest}: change alpha or the size limits"
            )

    def _steps(self) -> Steps:
        untouched = self.space.untouched()
        (reference,) = yield (untouched,)
        require_finite(reference)
        if self._measures:
            units = self.space.droppable
            made: list[Measurement] = []
            for start in range(0, len(units), self.batch):
                made += yield tuple(untouched.flip(unit) for unit in units[start : start + self.batch])
            columns = {
                "loss": [self.figures.loss(measurement) for measurement in made],
                "bias": [measurement.bias for measurement in made],
            }
            for name, values in columns.items():
                if name not in self._given:
                    self.scores[name] = np.full(self.space.n_units, math.nan)
                    self.scores[name][list(units)] = values
        try:
            chosen = self.rule.choose(self.scores, self.space.n_units, self.space.frozen)
        except InputError:
            chosen = ()
        self.chosen = self.space.mask(chosen)
        if chosen:
            yield (self.chosen,)

    def settings(self) -> dict[str, Any]:
        """The name, the rule and the given scores, JSON-ready: enough to build an equal searcher."""
        return {"name": self.rule.method, "rule": self.rule.to_json(), "scores": self._given, "batch": self.batch}


class Candidates(SteppedSearcher):
    """The untouched mask, then the given masks, each once: to measure finalists.

    Args:
        space: what may be dropped.
        masks: the finalists.
        batch: masks per ask.

    Raises:
        InputError: a mask outside the space.
    """

    name = "candidates"

    def __init__(self, space: Space, masks: Sequence[Mask], *, batch: int = 256) -> None:
        super().__init__(space)
        self.masks = tuple(dict.fromkeys(space.mask(mask.units(), mask.dials) for mask in masks))
        self.batch = require_count("batch", batch, 1)

    def _steps(self) -> Steps:
        (reference,) = yield (self.space.untouched(),)
        require_finite(reference)
        for start in range(0, len(self.masks), self.batch):
            yield self.masks[start : start + self.batch]

    def settings(self) -> dict[str, Any]:
        """The name and the masks, JSON-ready: enough to build an equal searcher. Nothing is random."""
        masks = [[list(mask.units()), list(mask.dials)] for mask in self.masks]
        return {"name": self.name, "masks": masks, "batch": self.batch}
