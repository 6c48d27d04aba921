"""Active search: propose masks by surrogates, measure them, fit the surrogates again, until nothing moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask, Space
from fairmend.search.base import MakeCost, Steps
from fairmend.search.designs import SpreadSampling
from fairmend.search.front import Front, hypervolume
from fairmend.search.genetic import MakeFloor
from fairmend.settings import documented, setting
from fairmend.surrogates.evaluator import SurrogateEvaluator
from fairmend.surrogates.fitting import FittedPair
from fairmend.surrogates.learning import LearningOptions, LearningSearcher
from fairmend.surrogates.objectives import costs_along_front, terms_of
from fairmend.surrogates.proposals import ProposalSettings, propose
from fairmend.threads import one_thread

_REACH, _LEAST_REACH = 1.4, 4


@documented
@dataclass(frozen=True, kw_only=True)
class ActiveOptions(LearningOptions):
    """Options of `Active`.

    By default a quarter of each batch comes from NSGA-II if the whole front is wanted, and none if a cost is: at 200
    masks of a simulated model that left .05 of regret, not .07 (measured while the loss was drawn too).
    """

    starts: Sequence[Mask | Sequence[int]] = setting(
        (),
        "masks to measure before the first fit, such as those that a ranking of the units suggests; at most half of "
        "`initial`, or, beside known masks, as many as there are states left for.",
    )
    initial: int | None = setting(
        None,
        "masks before the first fit, the untouched one included; by default a fifth of the states, but at least 16 and "
        "at most one per unit.",
        kind=int,
        least=1,
    )
    batch: int = setting(8, "masks per round.", least=1)
    small_share: float = setting(0.25, "of the first masks, see `SpreadSampling`.", least=0, most=1)
    patience: int = setting(
        8, "rounds without growth of the front after which the search ends; 0 never ends early.", least=0
    )
    growth: float = setting(0.01, "least growth of the front's dominated area that counts, as a share of it.", least=0)
    proposals: Any = setting(None, "how batches are put together: `ProposalSettings`, or a mapping of them.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.proposals, ProposalSettings):
            given = {"genetic_share": 0.25 if self.whole_front else 0.0} if self.proposals is None else self.proposals
            object.__setattr__(self, "proposals", ProposalSettings(**given))


class Active(LearningSearcher):
    """Active learning of the masks that matter: batches proposed by surrogates that are fitted again after each.

    The first masks are those given as `starts`, and others spread over the space (`SpreadSampling`). Every further
    batch comes from `propose`: annealing on draws from the surrogates, and NSGA-II on bold predictions. Masks much
    larger than any that was measured to keep the cost's utility floor are not proposed. No mask is asked twice. The
    search ends when the front that the surrogates see among the measured masks has not grown for some rounds, or with
    its states.

    Args:
        space, figures, make_cost, make_floor: see `LearningSearcher`.
        options: of `ActiveOptions`. The surrogate should know where it knows little: "pairwise" or "additive".

    Raises:
        InputError: an option outside its range, or starts outside the space.
    """

    name = "active"
    accepts = ActiveOptions
    options: ActiveOptions

    def __init__(
        self,
        space: Space,
        figures: Figures,
        make_cost: MakeCost,
        make_floor: MakeFloor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, figures, make_cost, make_floor, **options)
        states, initial = self.options.states, self.options.initial
        first = max(16, min(states // 5, space.n_units)) if initial is None else initial
        self.initial = min(first, states)
        masks = (space.mask(mask.units() if isinstance(mask, Mask) else mask) for mask in self.options.starts)
        distinct = tuple(dict.fromkeys(mask for mask in masks if not mask.is_untouched))
        room = max(0, states - 1 - len(self.known)) if self.known else self.initial // 2
        self.starts = distinct[:room]

    def settings(self) -> dict[str, Any]:
        """The name and every option with the seed, JSON-ready: enough to build an equal searcher."""
        return {
            **super().settings(),
            "initial": self.initial,
            "starts": [list(mask.units()) for mask in self.starts],
            "proposals": asdict(self.options.proposals),
        }

    def _steps(self) -> Steps:
        (reference,) = yield (self.space.untouched(),)
        self._begin(reference)
        assert self._cost is not None
        options = self.options
        costs = costs_along_front(self._cost) if options.whole_front else [self._cost]
        sown = (*self.known, *self.starts, *(() if self.known else self._spread()))
        first = tuple(mask for mask in dict.fromkeys(sown) if mask not in self._told)
        if first:
            self._learn(first, (yield first))
        areas: list[float] = []
        turn = 0
        while (left := options.states - len(self._told)) > 0:
            # A generator per round, so that a round depends on what was told and on its number only.
            rng = np.random.default_rng([options.seed, turn])
            pair = self._fit(int(rng.integers(2**31)))
            batch: tuple[Mask, ...] = ()
            if pair is not None:
                areas.append(self._area(pair, reference))
                if options.patience and _stands_still(areas, options.patience, options.growth):
                    return
                batch = tuple(
                    propose(
                        SurrogateEvaluator(pair, self._within_reach(), self.figures),
                        costs,
                        count=min(options.batch, left),
                        known=self._told,
                        rng=rng,
                        floor=self._floor,
                        settings=options.proposals,
                    )
                )
            # While nothing can be fitted, and where all masks within reach were measured.
            batch = batch or self._anything(min(options.batch, left), rng)
            if not batch:
                break
            self._learn(batch, (yield batch))
            turn += 1
        self._fit(options.seed)

    def _spread(self) -> tuple[Mask, ...]:
        """The other first masks, when none are known."""
        samples, share = self.initial - len(self.starts), self.options.small_share
        return SpreadSampling(self.space, seed=self.options.seed, samples=samples, small_share=share).masks()

    def _within_reach(self) -> Space:
        """The space, but for masks much larger than any that was measured to keep the cost's utility floor.

        While little is known, some large mask always looks harmless, because many harms are still unknown and their
        errors add up.
        """
        assert self._cost is not None
        limit = terms_of(self._cost).limit
        kept = [m.size for m, made in self._told.items() if made.is_finite and self.figures.loss(made) <= limit]
        reach = max(self.space.min_drop, _LEAST_REACH, math.ceil(_REACH * max(kept, default=0)))
        return replace(self.space, max_drop=min(reach, self.space.largest))

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
            corner = (corner[0], self._floor.most_loss + 1e-3 * span)
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
