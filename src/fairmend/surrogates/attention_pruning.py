"""Attention Pruning: random subsets, surrogates fitted to them, annealing on the surrogates, finalists measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fairmend.costs import Cost, WeightedSum
from fairmend.evaluation import Figures
from fairmend.masks import Mask, Space
from fairmend.search.base import MakeCost, Steps, require_choice, require_count, require_number
from fairmend.search.designs import SpreadSampling
from fairmend.search.genetic import MakeFloor
from fairmend.surrogates.annealing import anneal, best_of
from fairmend.surrogates.families.base import LEAST_SAMPLES, Surrogate
from fairmend.surrogates.fitting import FittedPair
from fairmend.surrogates.learning import LearningSearcher
from fairmend.surrogates.objectives import FlooredSum, costs_along_front
from fairmend.surrogates.samples import Samples

Design = Literal["uniform", "spread"]
_BATCH = 64
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


class AttentionPruning(LearningSearcher):
    """Attention Pruning (surrogate simulated annealing over subsets of heads) as a searcher.

    It asks for the untouched mask and for random subsets, fits one network to their bias and one to their loss, anneals
    on the networks, and asks for the finalists: the masks that the chains ended with, the best of all first. The
    published algorithm has one chain and never measures its result. Layers, training, temperatures and the number of
    moves are our own, because they are not published. Of equally cheap masks the last one stays, as published.

    Args:
        space, figures, make_floor, surrogate, prior, known: see `LearningSearcher`.
        make_cost: what annealing minimises; None is the published weighted sum with `epsilon`, scaled over the samples.
            The incumbent has the least measured cost in either case.
        seed: of all random numbers.
        states: masks to measure in all: the untouched one, the subsets and the finalists.
        finalists: masks measured after annealing; 1 as published (but measured).
        epsilon: weight of the bias in the published cost.
        design: "uniform" subsets as published, or "spread" ones (see `SpreadSampling`).
        moves: of all chains together.
        chains: independent annealers.
        whole_front: whether chains also anneal with other weights of bias and loss, all on the same surrogates, for a
            search whose result is the front; they share the moves.
        log_loss: whether the logarithm of the loss is learned; False as published.

    Attributes:
        annealed: what annealing ended with, the best first (of every weight in turn); () while there are no
            surrogates.

    Raises:
        InputError: an option outside its range, or too few states for a fit.
    """

    name = "attention-pruning"

    def __init__(
        self,
        space: Space,
        figures: Figures,
        make_cost: MakeCost | None = None,
        make_floor: MakeFloor | None = None,
        *,
        seed: int,
        states: int,
        surrogate: str | Mapping[str, Any] | Surrogate = "network",
        prior: Mapping[str, npt.ArrayLike] | None = None,
        finalists: int = 1,
        epsilon: float = 0.5,
        design: Design = "uniform",
        moves: int = MOVES,
        chains: int = CHAINS,
        whole_front: bool = False,
        log_loss: bool = False,
        known: Sequence[Mask | Sequence[int]] = (),
    ) -> None:
        super().__init__(space, figures, make_cost, make_floor, surrogate, prior, bool(log_loss), known)
        self.seed = require_count("seed", seed, 0)
        self.n_finalists = require_count("finalists", finalists, 1)
        self.states = require_count("states", states, LEAST_SAMPLES + self.n_finalists)
        self.epsilon = require_number("epsilon", epsilon, 0, 1)
        self.design: Design = require_choice("design", design, ("uniform", "spread"))
        self.moves = require_count("moves", moves, 1)
        self.chains = require_count("chains", chains, 1)
        self.whole_front = bool(whole_front)
        self.annealed: tuple[Mask, ...] = ()

    def settings(self) -> dict[str, Any]:
        """The name, every option and the seed, JSON-ready: enough to build an equal searcher."""
        options = ("name", "seed", "states", "epsilon", "design", "moves", "chains", "whole_front", "log_loss")
        return {
            **{key: getattr(self, key) for key in options},
            "finalists": self.n_finalists,
            **self._common_settings(),
        }

    def _steps(self) -> Steps:
        (reference,) = yield (self.space.untouched(),)
        self._begin(reference)
        masks = self.known or self._subsets(self.states - self.n_finalists)
        for start in range(0, len(masks), _BATCH):
            batch = masks[start : start + _BATCH]
            self._learn(batch, (yield batch))
        pair = self._fit(self.seed)
        if pair is None:
            return
        if self._cost is None:
            cost = published_cost(Samples.of(self._told.items(), self.figures), self.figures, self.epsilon)
            self._adopt(cost if self._floor is None else FlooredSum(cost, self._floor))
        self.annealed = tuple(self._annealed(pair))
        found = tuple(mask for mask in self.annealed if not mask.is_untouched)
        if found:
            self._learn(found, (yield found))

    def _subsets(self, samples: int) -> tuple[Mask, ...]:
        """The random subsets after the untouched mask."""
        rng = np.random.default_rng(self.seed)
        if self.design == "spread":
            return SpreadSampling(self.space, seed=self.seed, samples=samples).masks()
        return tuple(self.space.sample(rng) for _ in range(samples - 1))

    def _annealed(self, pair: FittedPair) -> list[Mask]:
        """The finalists: the best mask of all chains, then what the other chains ended with."""
        assert self._cost is not None
        if not self.whole_front:
            return self._ends(pair, self._cost, np.random.default_rng(self.seed), self.moves, self.chains)
        costs = costs_along_front(self._cost)
        moves, chains = max(1, self.moves // len(costs)), -(-self.chains // len(costs))
        ends = [
            self._ends(pair, cost, np.random.default_rng([self.seed, number]), moves, chains)
            for number, cost in enumerate(costs)
        ]
        in_turn = (mask for mask in chain.from_iterable(zip_longest(*ends)) if mask is not None)
        return list(dict.fromkeys(in_turn))[: self.n_finalists]

    def _ends(self, pair: FittedPair, cost: Cost, rng: np.random.Generator, moves: int, chains: int) -> list[Mask]:
        return anneal_pair(pair, self.space, cost, rng=rng, count=self.n_finalists, moves=moves, chains=chains)


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
