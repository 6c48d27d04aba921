"""Simulated annealing and the random walk over dropped units (NeuFair, Attention Pruning)."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from fairmend.errors import InputError
from fairmend.masks import Mask, Space
from fairmend.search.base import (
    Incumbent,
    MakeCost,
    Options,
    SteppedSearcher,
    Steps,
    Ties,
    cost_from,
    require_number,
)
from fairmend.search.moves import Walker, normals, uniforms
from fairmend.search.schedules import SCHEDULES, Schedule, cooling, initial_temperature
from fairmend.settings import documented, setting

Chain: TypeAlias = Generator[Mask, float, None]
"""One annealer: yields a mask, is sent its cost."""

_START_TEMPERATURE = 0.01


@documented
@dataclass(frozen=True, kw_only=True)
class ChainOptions(Options):
    """Options of everything that walks in chains."""

    states: int = setting(
        3000, "masks to measure in all, the untouched one included, split evenly among chains and restarts.", least=1
    )
    chains: int = setting(1, "annealers in lockstep: every ask holds one mask of each.", least=1)
    ties: Ties = setting("first", "which of equally cheap masks is the incumbent.", choices=("first", "last"))


@documented
@dataclass(frozen=True, kw_only=True)
class CoolingOptions(Options):
    """How an annealer cools down."""

    schedule: Schedule = setting(
        "geometric",
        '"geometric" from the start to the end temperature over the states of a restart; "logarithmic", start / ln(2 + '
        'i); "exponential", start * rate^i but not below the end temperature.',
        choices=SCHEDULES,
    )
    start_temperature: float | str | None = setting(
        None,
        'in units of the cost; None is 0.01; "ben-ameur" measures it: a random walk collects `initial_moves` uphill '
        "moves, of which a share `acceptance` would be accepted. The walk counts as states, and stops at half of its "
        "chain's states at the latest (without any uphill move, 0.01 stands in).",
    )
    end_temperature: float = setting(
        0.0003, "in units of the cost; at most the start temperature, unless that is measured.", above=0
    )
    rate: float = setting(0.999, "factor per state of the exponential schedule.", above=0, most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        start, end = self.start_temperature, self.end_temperature
        if start == "ben-ameur":
            return
        if isinstance(start, str):
            raise InputError(f"start_temperature must be a positive number, 'ben-ameur' or None, got {start!r}")
        default = max(_START_TEMPERATURE, end)
        start = default if start is None else require_number("start_temperature", start, 0, positive=True)
        if self.schedule != "logarithmic" and start < end:
            raise InputError(
                f"start_temperature {start:g} is below end_temperature {end:g}: annealing cools down; "
                "lower end_temperature or raise start_temperature"
            )
        object.__setattr__(self, "start_temperature", start)


@documented
@dataclass(frozen=True, kw_only=True)
class WalkOptions(ChainOptions):
    """Options of `RandomWalk`. Each chain has its own random numbers, so that no chain depends on another."""

    seed: int = setting(0, "of all random numbers.", least=0)
    restarts: int = setting(1, "how often each chain anneals anew.", least=1)
    restart_from: Literal["untouched", "best"] = setting(
        "untouched",
        '"untouched" (or a new random mask, see `initial`), or the "best" mask of the chain so far.',
        choices=("untouched", "best"),
    )
    initial: Literal["untouched", "random"] = setting(
        "untouched",
        '"untouched", or "random": a uniform mask of uniform size, accepted whatever it costs.',
        choices=("untouched", "random"),
    )
    dial_share: float = setting(0.15, "share of the moves that turn a dial, if the space has any.", least=0, most=1)


@documented
@dataclass(frozen=True, kw_only=True)
class AnnealingOptions(WalkOptions, CoolingOptions):
    """Options of `Annealing`."""

    acceptance: float = setting(0.75, "see `start_temperature`; as in the published runs.", least=0.01, most=0.99)
    initial_moves: int = setting(25_000, "see `start_temperature`; as in the published runs.", least=1)
    accept: Literal["metropolis", "always"] = setting(
        "metropolis", '"always" for a random walk.', choices=("metropolis", "always")
    )


class Annealing(SteppedSearcher):
    """Simulated annealing (Dasu et al., NeuFair, ISSTA 2024, Algorithm 2; Attention Pruning's search on surrogates).

    A better or equally good neighbour is accepted, a worse one with probability exp(-increase / T). `Walker` says what
    a neighbour is. The best mask told stands in `incumbent`; the untouched one is asked first and so is a candidate.
    A chain on an untouched network below `min_drop` first jumps to a uniform mask of that size, whatever it costs.

    Args:
        space: what may be dropped.
        make_cost: builds the cost to minimise from the untouched mask's measurement.
        options: of `AnnealingOptions`.
    """

    name = "annealing"
    accepts: ClassVar[type[WalkOptions]] = AnnealingOptions
    options: AnnealingOptions

    def __init__(self, space: Space, make_cost: MakeCost, **options: Any) -> None:
        super().__init__(space, **options)
        self.make_cost = make_cost
        self.incumbent = Incumbent(self.options.ties)
        if self.options.chains == 1:
            self.waits = "every state follows from the figures of the one before, so that no two are measured at once"

    def _steps(self) -> Steps:
        (untouched,) = first = (self.space.untouched(),)
        (reference,) = yield first
        cost = cost_from(self.make_cost, reference)
        start = cost(reference)
        offer, isnan = self.incumbent.offer, math.isnan
        offer(untouched, reference, start)

        chains, masks = [], []
        options = self.options
        seeds = np.random.default_rng(options.seed).spawn(options.chains)
        for rng, states in zip(seeds, split_evenly(options.states - 1, options.chains), strict=True):
            chain = self._chain(rng, states, start)
            mask = next(chain, None)
            if mask is not None:
                chains.append(chain)
                masks.append(mask)
        while chains:
            measurements = yield tuple(masks)
            ended = []
            for index, chain in enumerate(chains):
                value = cost(measurements[index])
                if isnan(value):
                    value = math.inf
                offer(masks[index], measurements[index], value)
                try:
                    masks[index] = chain.send(value)
                except StopIteration:
                    ended.append(index)
            for index in reversed(ended):
                del chains[index], masks[index]

    def _chain(self, rng: np.random.Generator, states: int, untouched_cost: float) -> Chain:
        """One annealer over `states` masks, all restarts included."""
        draw, options = uniforms(rng), self.options
        walker = Walker(self.space, draw, normals(rng.spawn(1)[0]), options.dial_share)
        exp, always, begin_anywhere = math.exp, options.accept == "always", options.initial == "random"
        start_mask, start_cost = self.space.untouched(), untouched_cost
        best_mask, best_cost = start_mask, untouched_cost

        hot = options.start_temperature
        if not isinstance(hot, float):
            hot, walked = yield from self._measure_start(walker, states // 2, untouched_cost)
            states -= walked
        for steps in split_evenly(states, options.restarts):
            temperature = cooling(options.schedule, hot, min(hot, options.end_temperature), steps, options.rate)
            walker.stand(start_mask)
            current, step = start_cost, 0
            if steps and (begin_anywhere or walker.is_below_limit):
                mask = walker.anywhere() if begin_anywhere else walker.entry()
                walker.stand(mask)
                current = yield mask
                step = 1
                if current < best_cost:
                    best_mask, best_cost = mask, current
            if not walker.can_move:
                return
            while step < steps:
                mask = walker.propose()
                value = yield mask
                # An infinite current cost is left at once: every value is at most infinite.
                if value <= current or always or draw() < exp((current - value) / temperature(step)):
                    walker.accept()
                    current = value
                    if value < best_cost:
                        best_mask, best_cost = mask, value
                step += 1
            if options.restart_from == "best":
                start_mask, start_cost, begin_anywhere = best_mask, best_cost, False

    def _measure_start(self, walker: Walker, limit: int, cost: float) -> Generator[Mask, float, tuple[float, int]]:
        """(Ben-Ameur's initial temperature, states spent) from the uphill moves of a random walk of `limit` states."""
        before: list[float] = []
        after: list[float] = []
        walked = 0
        if walker.is_below_limit and limit:
            mask = walker.entry()
            walker.stand(mask)
            cost = yield mask
            walked = 1
        while walked < limit and len(before) < self.options.initial_moves and walker.can_move:
            mask = walker.propose()
            value = yield mask
            walked += 1
            walker.accept()
            if cost < value < math.inf:
                before.append(cost)
                after.append(value)
            cost = value
        measured = initial_temperature(before, after, self.options.acceptance) if before else _START_TEMPERATURE
        return measured, walked


class RandomWalk(Annealing):
    """The random walk (NeuFair, ISSTA 2024): every neighbour is accepted, and the best mask told is kept.

    Args:
        space, make_cost: see `Annealing`.
        options: of `WalkOptions`; nothing cools, so there is no temperature.
    """

    name = "random-walk"
    accepts = WalkOptions

    def __init__(self, space: Space, make_cost: MakeCost, **options: Any) -> None:
        super().__init__(space, make_cost, **options)
        self.walk, self.options = self.options, AnnealingOptions(**options, accept="always")

    def settings(self) -> dict[str, Any]:
        """The name, every option and the seed, JSON-ready: enough to build an equal searcher."""
        return {"name": self.name, **asdict(self.walk)}


def split_evenly(total: int, parts: int) -> list[int]:
    """`total` as `parts` whole numbers that differ by at most 1, the larger ones first."""
    share, rest = divmod(total, parts)
    return [share + (index < rest) for index in range(parts)]
