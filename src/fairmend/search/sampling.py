"""Searches without a direction: uniform random masks, every mask there is, every unit alone, and given masks."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairmend.errors import InputError
from fairmend.masks import Mask, Space
from fairmend.search.base import Incumbent, MakeCost, Options, SteppedSearcher, Steps, cost_from, require_finite
from fairmend.settings import documented, setting


@documented
@dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """Options of searches whose masks do not depend on what was told."""

    batch: int = setting(256, "masks per ask.", least=1)


class BatchSearcher(SteppedSearcher):
    """A search whose masks do not depend on what was told; measured in batches.

    Args:
        space: what may be dropped.
        make_cost: builds the cost of the incumbent from the untouched mask's measurement; None keeps no incumbent.
        options: of the dataclass `accepts`.
    """

    accepts = BatchOptions
    options: BatchOptions

    def __init__(self, space: Space, make_cost: MakeCost | None = None, **options: Any) -> None:
        super().__init__(space, **options)
        self.make_cost = make_cost
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
        while batch := tuple(itertools.islice(masks, self.options.batch)):
            measurements = yield batch
            if cost is not None:
                for mask, measurement in zip(batch, measurements, strict=True):
                    self.incumbent.offer(mask, measurement, cost(measurement))


@documented
@dataclass(frozen=True, kw_only=True)
class SamplingOptions(BatchOptions):
    """Options of searches over random masks."""

    seed: int = setting(0, "of all random numbers.", least=0)
    samples: int = setting(3000, "masks to measure in all, the untouched one included.", least=1)


class UniformSampling(BatchSearcher):
    """Uniform random masks: a uniform size within the limits, then a uniform subset of that size; repeats possible.

    Dials are uniform within their limits. Attention Pruning collects the data of its surrogates this way.
    """

    name = "random"
    accepts = SamplingOptions
    options: SamplingOptions

    def _masks(self) -> Iterator[Mask]:
        rng = np.random.default_rng(self.options.seed)
        for _ in range(self.options.samples - 1):
            mask = self.space.sample(rng)
            dials = tuple(float(rng.uniform(dial.low, dial.high)) for dial in self.space.dials)
            yield mask.turn(dials)


@documented
@dataclass(frozen=True, kw_only=True)
class ExhaustiveOptions(BatchOptions):
    """Options of `Exhaustive`; nothing is random."""

    limit: int = setting(1_000_000, "most masks it agrees to measure.", least=1)


class Exhaustive(BatchSearcher):
    """Every admissible mask: the untouched one, then by size, then in the order of the dropped units.

    Dials stay at 0: they have no end of settings.

    Raises:
        InputError: the space admits more masks than `limit`.
    """

    name = "exhaustive"
    accepts = ExhaustiveOptions
    options: ExhaustiveOptions

    def __init__(self, space: Space, make_cost: MakeCost | None = None, **options: Any) -> None:
        super().__init__(space, make_cost, **options)
        masks, limit = space.n_masks(), self.options.limit
        if masks > limit:
            shown = f"{masks:,}" if masks < 10**15 else f"about 10^{math.log10(masks):.0f}"
            raise InputError(
                f"exhaustive search would measure {shown} masks, more than the limit of {limit:,}: "
                "lower max_drop, freeze units, raise the limit, or use another search"
            )

    def _masks(self) -> Iterator[Mask]:
        still = (0.0,) * len(self.space.dials)
        for size in range(max(1, self.space.min_drop), self.space.largest + 1):
            for units in itertools.combinations(self.space.droppable, size):
                yield Mask(sum(1 << unit for unit in units), self.space.n_units, still)


class SingleInterventions(BatchSearcher):
    """Every droppable unit alone: the repair of DICE (Monjezi et al., ICSE 2023) as a baseline. Nothing is random.

    The best single intervention that keeps the utility is the incumbent: the cost carries the utility floor. How a
    unit is intervened on, switched off or clamped, is the evaluator's matter; dials stay at 0.

    Raises:
        InputError: the size limits do not admit a single unit.
    """

    name = "dice"
    accepts = BatchOptions

    def __init__(self, space: Space, make_cost: MakeCost | None = None, **options: Any) -> None:
        super().__init__(space, make_cost, **options)
        if not space.min_drop <= 1 <= space.largest:
            raise InputError(
                f"single interventions drop exactly one unit, but the space admits {space.min_drop} to "
                f"{space.largest}: set min_drop to 0 or 1 and max_drop to at least 1"
            )

    def _masks(self) -> Iterator[Mask]:
        untouched = self.space.untouched()
        return (untouched.flip(unit) for unit in self.space.droppable)


class Candidates(SteppedSearcher):
    """The untouched mask, then the given masks, each once: to measure finalists. Nothing is random.

    Args:
        space: what may be dropped.
        masks: the finalists.
        options: of `BatchOptions`.

    Raises:
        InputError: a mask outside the space.
    """

    name = "candidates"
    accepts = BatchOptions
    options: BatchOptions

    def __init__(self, space: Space, masks: Sequence[Mask], **options: Any) -> None:
        super().__init__(space, **options)
        self.masks = tuple(dict.fromkeys(space.mask(mask.units(), mask.dials) for mask in masks))

    def _steps(self) -> Steps:
        (reference,) = yield (self.space.untouched(),)
        require_finite(reference)
        masks = iter(self.masks)
        while batch := tuple(itertools.islice(masks, self.options.batch)):
            yield batch

    def settings(self) -> dict[str, Any]:
        """The name, the masks and how many are asked at once, JSON-ready."""
        return {**super().settings(), "masks": [[list(mask.units()), list(mask.dials)] for mask in self.masks]}
