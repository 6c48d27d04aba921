"""Searches without a direction: uniform random masks, and every mask there is."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from fairmend.errors import InputError
from fairmend.masks import Mask, Space
from fairmend.search.base import Incumbent, MakeCost, SteppedSearcher, Steps, cost_from, require_count

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
