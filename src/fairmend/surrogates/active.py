"""Active search: propose masks by surrogates, measure them, fit the surrogates again, until nothing moves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.costs import Cost
from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask, Space
from fairmend.search.base import MakeCost, Steps, require_count, require_number
from fairmend.search.designs import SpreadSampling
from fairmend.search.front import Front, hypervolume
from fairmend.search.genetic import MakeFloor
from fairmend.surrogates.evaluator import SurrogateEvaluator
from fairmend.surrogates.families.base import Surrogate, one_thread
from fairmend.surrogates.fitting import FittedPair
from fairmend.surrogates.learning import LearningSearcher
from fairmend.surrogates.objectives import costs_along_front, terms_of
from fairmend.surrogates.proposals import ProposalSettings, propose

_REACH, _LEAST_REACH = 1.4, 4


class Active(LearningSearcher):
    """Active learning of the masks that matter: batches proposed by surrogates that are fitted again after each.

    The first masks are those given as `starts`, and others spread over the space (`SpreadSampling`). Every further
    batch comes from `propose`: annealing on draws from the surrogates, and NSGA-II on bold predictions. Masks much
    larger than any that was measured to keep the cost's utility floor are not proposed. No mask is asked twice. The
    search ends when the front that the surrogates see among the measured masks has not grown for some rounds, or with
    its states.

    Args:
        space, figures, make_cost, make_floor, surrogate, prior, known: see `LearningSearcher`. The surrogate should
            know where it knows little: "pairwise" (the default) or "additive".
        seed: of all random numbers.
        states: masks to measure in all, the untouched one included.
        starts: masks to measure before the first fit, such as those that a ranking of the units suggests; at most half
            of `initial`, or, beside known masks, as many as there are states left for.
        initial: masks before the first fit, the untouched one included; by default a fifth of the states, but at
            least 16 and at most one per unit.
        batch: masks per round.
        small_share: of the first masks, see `SpreadSampling`.
        whole_front: whether annealing also looks for other weights of bias and loss than the cost's own, for a search
            whose result is the front; a cost without weights is used as it is.
        patience: rounds without growth of the front after which the search ends; 0 never ends early.
        growth: least growth of the front's dominated area that counts, as a share of it.
        proposals: how batches are put together; by default a quarter of each batch comes from NSGA-II if the whole
            front is wanted, and none if a cost is: at 200 masks of a simulated model that left .05 of regret, not .07
            (measured while the loss was drawn too).

    Raises:
        InputError: an option outside its range, or starts outside the space.
    """

    name = "active"

    def __init__(
        self,
        space: Space,
        figures: Figures,
        make_cost: MakeCost,
        make_floor: MakeFloor | None = None,
        *,
        seed: int,
        states: int,
        surrogate: str | Mapping[str, Any] | Surrogate = "pairwise",
        prior: Mapping[str, npt.ArrayLike] | None = None,
        starts: Sequence[Mask | Sequence[int]] = (),
        initial: int | None = None,
        batch: int = 8,
        small_share: float = 0.25,
        whole_front: bool = False,
        patience: int = 8,
        growth: float = 0.01,
        proposals: ProposalSettings | Mapping[str, Any] | None = None,
        known: Sequence[Mask | Sequence[int]] = (),
    ) -> None:
        super().__init__(space, figures, make_cost, make_floor, surrogate, prior, known=known)
        self.seed = require_count("seed", seed, 0)
        self.states = require_count("states", states, 1)
        first = max(16, min(self.states // 5, space.n_units)) if initial is None else initial
        self.initial = min(require_count("initial", first, 1), self.states)
        masks = (space.mask(mask.units() if isinstance(mask, Mask) else mask) for mask in starts)
        distinct = tuple(dict.fromkeys(mask for mask in masks if not mask.is_untouched))
        room = max(0, self.states - 1 - len(self.known)) if self.known else self.initial // 2
        self.starts = distinct[:room]
        self.batch = require_count("batch", batch, 1)
        self.small_share = require_number("small_share", small_share, 0, 1)
        self.whole_front = bool(whole_front)
        self.patience = require_count("patience", patience, 0)
        self.growth = require_number("growth", growth, 0)
        if proposals is None:
            proposals = ProposalSettings(genetic_share=0.25 if self.whole_front else 0.0)
        self.proposals = ProposalSettings(**proposals) if isinstance(proposals, Mapping) else proposals

    def settings(self) -> dict[str, Any]:
        """The name, every option and the seed, JSON-ready: enough to build an equal searcher."""
        options = (
            "name",
            "seed",
            "states",
            "initial",
            "batch",
            "small_share",
            "whole_front",
            "patience",
            "growth",
        )
        return {
            **{key: getattr(self, key) for key in options},
            **self._common_settings(),
            "starts": [list(mask.units()) for mask in self.starts],
            "proposals": asdict(self.proposals),
        }

    def _steps(self) -> Steps:
        (reference,) = yield (self.space.untouched(),)
        self._begin(reference)
        costs = self._costs()
        sown = (*self.known, *self.starts, *(() if self.known else self._spread()))
        first = tuple(mask for mask in dict.fromkeys(sown) if mask not in self._told)
        for start in range(0, len(first), self.batch):
            masks = first[start : start + self.batch]
            self._learn(masks, (yield masks))
        areas: list[float] = []
        turn = 0
        while (left := self.states - len(self._told)) > 0:
            # A generator per round, so that a round depends on what was told and on its number only.
            rng = np.random.default_rng([self.seed, turn])
            pair = self._fit(int(rng.integers(2**31)))
            batch: tuple[Mask, ...] = ()
            if pair is not None:
                areas.append(self._area(pair, reference))
                if self.patience and _stands_still(areas, self.patience, self.growth):
                    return
                batch = tuple(
                    propose(
                        pair,
                        self._within_reach(),
                        self.figures,
                        costs,
                        count=min(self.batch, left),
                        known=self._told,
                        rng=rng,
                        floor=self._floor,
                        settings=self.proposals,
                    )
                )
            # While nothing can be fitted, and where all masks within reach were measured.
            batch = batch or self._anything(min(self.batch, left), rng)
            if not batch:
                break
            self._learn(batch, (yield batch))
            turn += 1
        self._fit(self.seed)

    def _spread(self) -> tuple[Mask, ...]:
        """The other first masks, when none are known."""
        samples = self.initial - len(self.starts)
        return SpreadSampling(self.space, seed=self.seed, samples=samples, small_share=self.small_share).masks()

    def _costs(self) -> list[Cost]:
        assert self._cost is not None
        return costs_along_front(self._cost) if self.whole_front else [self._cost]

    def _within_reach(self) -> Space:
        """The space, but for masks much larger than any that was measured to keep the cost's utility floor.

        While little is known, some large mask always looks harmless, because many harms are still unknown and their
        errors add up.
        """
        assert self._cost is not None
        limit = terms_of(self._cost).limit
        kept = [m.size for m, made in self._told.items() if made.is_finite and self.figures.loss(made) <= limit]
        reach = max(self.space.min_drop, _LEAST_REACH, math.ceil(_REACH * max(kept, default=0)))
        space = self.space
        return Space(space.sites, space.min_drop, min(reach, space.largest), space.frozen, space.dials)

    def _anything(self, count: int, rng: np.random.Generator) -> tuple[Mask, ...]:
        """Random masks that were not asked yet."""
        masks = (self.space.sample(rng) for _ in range(50 * count))
        return tuple(dict.fromkeys(mask for mask in masks if mask not in self._told))[:count]

    def _area(self, pair: FittedPair, reference: Measurement) -> float:
        """What the front of the measured masks dominates, by the surrogates' figures, in units of the reference's.

        Measured figures would not do: with noise their front grows for ever.
        """
        masks = [mask for mask, made in self._told.items() if made.is_finite]
        with one_thread():
            predicted = SurrogateEvaluator(pair, self.space, self.figures).measure(masks)
        loss = self.figures.loss(reference)
        span = abs(loss) or 1.0
        corner = (max(reference.bias, 1e-12), loss + 0.5 * span)
        if self._floor is not None:
            limit = self._floor.limit if self._floor.better == "lower" else -self._floor.limit
            corner = (corner[0], limit + 1e-3 * span)
        front: Front[None] = Front()
        for made in predicted:
            front.offer(None, max(made.bias, 0.0), self.figures.loss(made))
        return hypervolume(front.points(), corner) / (corner[0] * span)


def _stands_still(areas: list[float], patience: int, growth: float) -> bool:
    """Whether the last `patience` areas are no larger than the best before them, but for a share `growth`."""
    if len(areas) <= patience:
        return False
    before = max(areas[:-patience])
    return max(areas[-patience:]) <= before + growth * max(before, 0.0) and math.isfinite(before)
