"""Simulated annealing and the random walk over dropped units (NeuFair, Attention Pruning)."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, Literal, TypeAlias

import numpy as np

from fairmend.errors import InputError
from fairmend.masks import Mask, Space
from fairmend.search.base import (
    Incumbent,
    MakeCost,
    SteppedSearcher,
    Steps,
    Ties,
    cost_from,
    require_choice,
    require_count,
    require_number,
)
from fairmend.search.moves import Walker, normals, uniforms
from fairmend.search.schedules import SCHEDULES, Schedule, cooling, initial_temperature

Chain: TypeAlias = Generator[Mask, float, None]
"""One annealer: yields a mask, is sent its cost."""

_START_TEMPERATURE = 0.01
_WALK_OPTIONS = ("seed", "states", "chains", "restarts", "restart_from", "initial", "dial_share")
_OPTIONS = (
    *_WALK_OPTIONS,
    "schedule",
    "start_temperature",
    "end_temperature",
    "rate",
    "acceptance",
    "initial_moves",
    "accept",
)


class Annealing(SteppedSearcher):
    """Simulated annealing (Dasu et al., NeuFair, ISSTA 2024, Algorithm 2; Attention Pruning's search on surrogates).

    A better or equally good neighbour is accepted, a worse one with probability exp(-increase / T). `Walker` says what
    a neighbour is. The best mask told stands in `incumbent`; the untouched one is asked first and so is a candidate.
    A chain on an untouched network below `min_drop` first jumps to a uniform mask of that size, whatever it costs.

    Args:
        space: what may be dropped.
        make_cost: builds the cost to minimise from the untouched mask's measurement.
        seed: of all random numbers. Each chain has its own, so that no chain depends on another.
        states: masks to measure in all, the untouched one included, split evenly among chains and restarts.
        schedule: "geometric" from the start to the end temperature over the states of a restart; "logarithmic",
            start / ln(2 + i); "exponential", start * rate^i but not below the end temperature.
        start_temperature: in units of the cost; None is 0.01; "ben-ameur" measures it: a random walk collects
            `initial_moves` uphill moves, of which a share `acceptance` would be accepted. The walk counts as states,
            and stops at half of its chain's states at the latest (without any uphill move, 0.01 stands in).
        end_temperature: in units of the cost; at most the start temperature, unless that is measured.
        rate: factor per state of the exponential schedule.
        acceptance, initial_moves: see `start_temperature`; the published runs had 0.75 and 25,000.
        chains: annealers in lockstep: every ask holds one mask of each.
        restarts: how often each chain anneals anew.
        restart_from: "untouched" (or a new random mask, see `initial`), or the "best" mask of the chain so far.
        initial: "untouched", or "random": a uniform mask of uniform size, accepted whatever it costs.
        dial_share: share of the moves that turn a dial, if the space has any.
        accept: "metropolis", or "always" for a random walk.
        ties: whether the "first" or the "last" of equally cheap masks is the incumbent.

    Raises:
        InputError: an option outside its range.
    """

    name = "annealing"

    def __init__(
        self,
        space: Space,
        make_cost: MakeCost,
        *,
        seed: int,
        states: int,
        schedule: Schedule = "geometric",
        start_temperature: float | Literal["ben-ameur"] | None = None,
        end_temperature: float = 0.0003,
        rate: float = 0.999,
        acceptance: float = 0.75,
        initial_moves: int = 25_000,
        chains: int = 1,
        restarts: int = 1,
        restart_from: Literal["untouched", "best"] = "untouched",
        initial: Literal["untouched", "random"] = "untouched",
        dial_share: float = 0.15,
        accept: Literal["metropolis", "always"] = "metropolis",
        ties: Ties = "first",
    ) -> None:
        super().__init__(space)
        self.make_cost = make_cost
        self.seed = require_count("seed", seed, 0)
        self.states = require_count("states", states, 1)
        self.schedule: Schedule = require_choice("schedule", schedule, SCHEDULES)
        self.end_temperature = require_number("end_temperature", end_temperature, 0, positive=True)
        self.start_temperature = self._start_temperature(start_temperature)
        self.rate = require_number("rate", rate, 0, 1, positive=True)
        self.acceptance = require_number("acceptance", acceptance, 0.01, 0.99)
        self.initial_moves = require_count("initial_moves", initial_moves, 1)
        self.chains = require_count("chains", chains, 1)
        self.restarts = require_count("restarts", restarts, 1)
        self.restart_from = require_choice("restart_from", restart_from, ("untouched", "best"))
        self.initial = require_choice("initial", initial, ("untouched", "random"))
        self.dial_share = require_number("dial_share", dial_share, 0, 1)
        self.accept = require_choice("accept", accept, ("metropolis", "always"))
        self.incumbent = Incumbent(ties)

    def _start_temperature(self, given: float | str | None) -> float | str:
        if given == "ben-ameur":
            return "ben-ameur"
        if isinstance(given, str):
            raise InputError(f"start_temperature must be a positive number, 'ben-ameur' or None, got {given!r}")
        default = max(_START_TEMPERATURE, self.end_temperature)
        start = default if given is None else require_number("start_temperature", given, 0, positive=True)
        if self.schedule != "logarithmic" and start < self.end_temperature:
            raise InputError(
                f"start_temperature {start:g} is below end_temperature {self.end_temperature:g}: annealing cools down; "
                "lower end_temperature or raise start_temperature"
            )
        return start

    def settings(self) -> dict[str, Any]:
        """The name, every option and the seed, JSON-ready: enough to build an equal searcher."""
        return {"name": self.name, **{key: getattr(self, key) for key in _OPTIONS}, "ties": self.incumbent.ties}

    def _steps(self) -> Steps:
        (untouched,) = first = (self.space.untouched(),)
        (reference,) = yield first
        cost = cost_from(self.make_cost, reference)
        start = cost(reference)
        offer, isnan = self.incumbent.offer, math.isnan
        offer(untouched, reference, start)

        chains, masks = [], []
        seeds = np.random.default_rng(self.seed).spawn(self.chains)
        for rng, states in zip(seeds, split_evenly(self.states - 1, self.chains), strict=True):
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
        draw = uniforms(rng)
        walker = Walker(self.space, draw, normals(rng.spawn(1)[0]), self.dial_share)
        exp, always, begin_anywhere = math.exp, self.accept == "always", self.initial == "random"
        start_mask, start_cost = self.space.untouched(), untouched_cost
        best_mask, best_cost = start_mask, untouched_cost

        hot = self.start_temperature
        if isinstance(hot, str):
            hot, walked = yield from self._measure_start(walker, states // 2, untouched_cost)
            states -= walked
        for steps in split_evenly(states, self.restarts):
            temperature = cooling(self.schedule, hot, min(hot, self.end_temperature), steps, self.rate)
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
            if self.restart_from == "best":
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
        while walked < limit and len(before) < self.initial_moves and walker.can_move:
            mask = walker.propose()
            value = yield mask
            walked += 1
            walker.accept()
            if cost < value < math.inf:
                before.append(cost)
                after.append(value)
            cost = value
        measured = initial_temperature(before, after, self.acceptance) if before else _START_TEMPERATURE
        return measured, walked


class RandomWalk(Annealing):
    """The random walk (NeuFair, ISSTA 2024): every neighbour is accepted, and the best mask told is kept.

    Args: as for `Annealing`; nothing cools, so there is no temperature.
    """

    name = "random-walk"

    def __init__(
        self,
        space: Space,
        make_cost: MakeCost,
        *,
        seed: int,
        states: int,
        chains: int = 1,
        restarts: int = 1,
        restart_from: Literal["untouched", "best"] = "untouched",
        initial: Literal["untouched", "random"] = "untouched",
        dial_share: float = 0.15,
        ties: Ties = "first",
    ) -> None:
        super().__init__(
            space,
            make_cost,
            seed=seed,
            states=states,
            chains=chains,
            restarts=restarts,
            restart_from=restart_from,
            initial=initial,
            dial_share=dial_share,
            accept="always",
            ties=ties,
        )

    def settings(self) -> dict[str, Any]:
        """The name, every option and the seed, JSON-ready: enough to build an equal searcher."""
        return {"name": self.name, **{key: getattr(self, key) for key in _WALK_OPTIONS}, "ties": self.incumbent.ties}


def split_evenly(total: int, parts: int) -> list[int]:
    """`total` as `parts` whole numbers that differ by at most 1, the larger ones first."""
    share, rest = divmod(total, parts)
    return [share + (index < rest) for index in range(parts)]
