"""Searches without a direction: uniform random masks, every mask there is, every unit alone, and given masks."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fairmend.errors import InputError
from fairmend.masks import Mask, Space
from fairmend.search.base import Incumbent, MakeCost, SteppedSearcher, Steps, cost_from, require_count, require_finite

_BATCH = 256


class BatchSearcher(SteppedSearcher):
    """A search whose masks do not depend on what was told; measured in batches.

    Args:
        space: what may be dropped.
        make_cost: builds the cost of the incumbent from the untouched mask's measurement; None keeps no incumbent.
        batch: masks per ask.
    """

    def __init__(self, space: Space, make_cost: MakeCost | None, batch: int) -> None:
        super().__init__(space)
        self.make_cost = make_cost
        self.batch = require_count("batch", batch, 1)
        self.incumbent = Incumbent()

    @abstractmethod
    def _masks(self) -> Iterator[Mask]:
        """All masks after the untouched one, in order."""

    def _steps(self) -> Steps:
        untouched = self.space.untouched()
        (reference,) = yield (untouched,)
        cost = None if self.make_cost is None else cost_from(self.make_cost, reference)
        if cost is not None:
            self.incumbent.offer(untouched, reference, cost(reference))
        masks = self._masks()
        while batch := tuple(itertools.islice(masks, self.batch)):
            measurements = yield batch
            if cost is not None:
                for mask, measurement in zip(batch, measurements, strict=True):
                    self.incumbent.offer(mask, measurement, cost(measurement))


class UniformSampling(BatchSearcher):
    """Uniform random masks: a uniform size within the limits, then a uniform subset of that size; repeats possible.

    Dials are uniform within their limits. Attention Pruning collects the data of its surrogates this way.

    Args:
        space, make_cost, batch: see `BatchSearcher`.
        seed: of all random numbers.
        samples: masks to measure in all, the untouched one included.

    Raises:
        InputError: an option outside its range.
    """

    name = "random"

    def __init__(
        self, space: Space, make_cost: MakeCost | None = None, *, seed: int, samples: int, batch: int = _BATCH
    ) -> None:
        super().__init__(space, make_cost, batch)
        self.seed = require_count("seed", seed, 0)
        self.samples = require_count("samples", samples, 1)

    def _masks(self) -> Iterator[Mask]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.samples - 1):
            mask = self.space.sample(rng)
            dials = tuple(float(rng.uniform(dial.low, dial.high)) for dial in self.space.dials)
            yield mask.turn(dials)

    def settings(self) -> dict[str, Any]:
        """The name, every option and the seed, JSON-ready: enough to build an equal searcher."""
        return {"name": self.name, "seed": self.seed, "samples": self.samples, "batch": self.batch}


class Exhaustive(BatchSearcher):
    """Every admissible mask: the untouched one, then by size, then in the order of the dropped units.

    Dials stay at 0: they have no end of settings.

    Args:
        space, make_cost, batch: see `BatchSearcher`.
        limit: most masks it agrees to measure.

    Raises:
        InputError: the space admits more masks than `limit`.
    """

    name = "exhaustive"

    def __init__(
        self, space: Space, make_cost: MakeCost | None = None, *, limit: int = 1_000_000, batch: int = _BATCH
    ) -> None:
        super().__init__(space, make_cost, batch)
        self.limit = require_count("limit", limit, 1)
        count = space.n_masks()
        if count > self.limit:
            shown = f"{count:,}" if count < 10**15 else f"about 10^{math.log10(count):.0f}"
            raise InputError(
                f"exhaustive search would measure {shown} masks, more than the limit of {self.limit:,}: "
                "lower max_drop, freeze units, raise the limit, or use another search"
            )

    def _masks(self) -> Iterator[Mask]:
        still = (0.0,) * len(self.space.dials)
        for size in range(max(1, self.space.min_drop), self.space.largest + 1):
            for units in itertools.combinations(self.space.droppable, size):
                yield Mask(sum(1 << unit for unit in units), self.space.n_units, still)

    def settings(self) -> dict[str, Any]:
        """The name and every option, JSON-ready: enough to build an equal searcher. Nothing is random."""
        return {"name": self.name, "limit": self.limit, "batch": self.batch}


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

    def __init__(self, space: Space, make_cost: MakeCost | None, *, batch: int = _BATCH) -> None:
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

    def __init__(self, space: Space, masks: Sequence[Mask], *, batch: int = _BATCH) -> None:
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
