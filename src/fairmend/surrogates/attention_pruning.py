"""Attention Pruning: random subsets, surrogates fitted to them, annealing on the surrogates, finalists measured."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, Literal

import numpy as np

from fairmend.costs import Cost, WeightedSum
from fairmend.evaluation import Figures
from fairmend.masks import Mask, Space
from fairmend.search.base import MakeCost, Steps, require_count
from fairmend.search.designs import SpreadSampling
from fairmend.search.genetic import MakeFloor
from fairmend.settings import documented, setting
from fairmend.surrogates.annealing import anneal, best_of
from fairmend.surrogates.families.base import LEAST_SAMPLES
from fairmend.surrogates.fitting import FittedPair
from fairmend.surrogates.learning import LearningOptions, LearningSearcher
from fairmend.surrogates.objectives import FlooredSum, costs_along_front
from fairmend.surrogates.samples import Samples

Design = Literal["uniform", "spread"]
MOVES, CHAINS = 1_000_000, 16
"""Of annealing, unless told otherwise."""
_START_TEMPERATURE, _END_TEMPERATURE = 0.1, 0.0005


def published_cost(samples: Samples, figures: Figures, epsilon: float) -> WeightedSum:
    """Attention Pruning's cost: epsilon * bias + (1 - epsilon) * loss, both scaled to [0, 1] over the samples.

    Raises:
        InputError: a constant figure, or an epsilon outside [0, 1].
    """
    scales = [samples.scale(name) for name in ("bias", "loss")]
    ranges = [(scale.low, scale.high) for scale in scales]
    return WeightedSum(figures, epsilon, ranges[0], ranges[1])


@documented
@dataclass(frozen=True, kw_only=True)
class AttentionPruningOptions(LearningOptions):
    """Options of `AttentionPruning`; the states are the untouched mask, the subsets and the finalists.

    Chains that also anneal with other weights of bias and loss (`whole_front`) share the surrogates and the moves.
    """

    surrogate: Any = setting("network", "of either figure: a `Surrogate`, or its name or settings.")
    finalists: int = setting(1, "masks measured after annealing; 1 as published (but measured).", least=1)
    epsilon: float = setting(0.5, "weight of the bias in the published cost.", least=0, most=1)
    design: Design = setting(
        "uniform",
        '"uniform" subsets as published, or "spread" ones (see `SpreadSampling`).',
        choices=("uniform", "spread"),
    )
    moves: int = setting(MOVES, "of all chains together.", least=1)
    chains: int = setting(CHAINS, "independent annealers.", least=1)
    log_loss: bool = setting(False, "whether the logarithm of the loss is learned; False as published.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("states", self.states, LEAST_SAMPLES + self.finalists)


class AttentionPruning(LearningSearcher):
    """Attention Pruning (surrogate simulated annealing over subsets of heads) as a searcher.

    It asks for the untouched mask and for random subsets, fits one network to their bias and one to their loss, anneals
    on the networks, and asks for the finalists: the masks that the chains ended with, the best of all first. The
    published algorithm has one chain and never measures its result. Layers, training, temperatures and the number of
    moves are our own, because they are not published. Of equally cheap masks the last one stays, as published.

    Args:
        space, figures, make_floor: see `LearningSearcher`.
        make_cost: what annealing minimises; None is the published weighted sum with `epsilon`, scaled over the samples.
            The incumbent has the least measured cost in either case.
        options: of `AttentionPruningOptions`.

    Attributes:
        annealed: what annealing ended with, the best first (of every weight in turn); () while there are no
            surrogates.

    Raises:
        InputError: an option outside its range, or too few states for a fit.
    """

    name = "attention-pruning"
    accepts = AttentionPruningOptions
    options: AttentionPruningOptions

    def __init__(
        self,
        space: Space,
        figures: Figures,
        make_cost: MakeCost | None = None,
        make_floor: MakeFloor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, figures, make_cost, make_floor, **options)
        self.log_loss = self.options.log_loss
        self.annealed: tuple[Mask, ...] = ()

    def _steps(self) -> Steps:
        (reference,) = yield (self.space.untouched(),)
        self._begin(reference)
        masks = self.known or self._subsets(self.options.states - self.options.finalists)
        if masks:
            self._learn(masks, (yield masks))
        pair = self._fit(self.options.seed)
        if pair is None:
            return
        if self._cost is None:
            cost = published_cost(Samples.of(self._told.items(), self.figures), self.figures, self.options.epsilon)
            self._adopt(cost if self._floor is None else FlooredSum(cost, self._floor))
        self.annealed = tuple(self._annealed(pair))
        found = tuple(mask for mask in self.annealed if not mask.is_untouched)
        if found:
            self._learn(found, (yield found))

    def _subsets(self, samples: int) -> tuple[Mask, ...]:
        """The random subsets after the untouched mask."""
        seed = self.options.seed
        rng = np.random.default_rng(seed)
        if self.options.design == "spread":
            return SpreadSampling(self.space, seed=seed, samples=samples).masks()
        return tuple(self.space.sample(rng) for _ in range(samples - 1))

    def _annealed(self, pair: FittedPair) -> list[Mask]:
        """The finalists: the best mask of all chains, then what the other chains ended with."""
        assert self._cost is not None
        options = self.options
        costs = costs_along_front(self._cost) if options.whole_front else [self._cost]
        ends = [
            anneal_pair(
                pair,
                self.space,
                cost,
                rng=np.random.default_rng([options.seed, number] if options.whole_front else options.seed),
                count=options.finalists,
                moves=max(1, options.moves // len(costs)),
                chains=-(-options.chains // len(costs)),
            )
            for number, cost in enumerate(costs)
        ]
        in_turn = (mask for mask in chain.from_iterable(zip_longest(*ends)) if mask is not None)
        return list(dict.fromkeys(in_turn))[: options.finalists]


def anneal_pair(
    pair: FittedPair,
    space: Space,
    cost: Cost,
    *,
    rng: np.random.Generator,
    count: int = 1,
    moves: int = MOVES,
    chains: int = CHAINS,
) -> list[Mask]:
    """The masks that chains of annealing on fitted surrogates end with, the cheapest first.

    Args:
        pair: the surrogates.
        space: what may be dropped.
        cost: to minimise; of equally cheap masks the last one stays, as published.
        rng: for the chains.
        count: masks at most.
        moves: of all chains together.
        chains: independent annealers.
    """
    found = anneal(
        pair,
        space,
        cost,
        seed=rng,
        states=moves + 1,
        chains=chains,
        start_temperature=_START_TEMPERATURE,
        end_temperature=_END_TEMPERATURE,
        ties="last",
    )
    return best_of([(found.mask, found.cost), *found.chains], count)
