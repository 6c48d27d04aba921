"""Simulated annealing on surrogates: many chains, no Python per move, the path of `fairmend.search.Annealing`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairmend.costs import Cost
from fairmend.errors import InputError
from fairmend.masks import Mask, Space
from fairmend.search.annealing import split_evenly
from fairmend.search.base import Ties, require_choice, require_count, require_number
from fairmend.search.schedules import Schedule
from fairmend.surrogates.families.forms import Form
from fairmend.surrogates.fitting import FittedPair
from fairmend.surrogates.kernels import (
    EXPONENTIAL,
    GEOMETRIC,
    LOGARITHMIC,
    Cooling,
    CostNumbers,
    form_arrays,
    run_chain,
)
from fairmend.surrogates.objectives import terms_of

_CODES = {"geometric": GEOMETRIC, "logarithmic": LOGARITHMIC, "exponential": EXPONENTIAL}


@dataclass(frozen=True, slots=True)
class Annealed:
    """What annealing on surrogates found.

    Attributes:
        mask, cost: the best mask of all chains and its predicted cost; the untouched mask takes part.
        chains: (mask, cost) of the best mask that each chain proposed, cheapest first, equal masks once.
        moves: proposals of all chains together.
    """

    mask: Mask
    cost: float
    chains: tuple[tuple[Mask, float], ...]
    moves: int


def anneal(
    pair: FittedPair,
    space: Space,
    cost: Cost,
    *,
    seed: int | np.random.Generator,
    states: int,
    chains: int = 1,
    schedule: Schedule = "geometric",
    start_temperature: float = 0.01,
    end_temperature: float = 0.0003,
    rate: float = 0.999,
    ties: Ties = "first",
) -> Annealed:
    """Anneal on the surrogates' means as `fairmend.search.Annealing` does, some hundred times faster.

    With the same seed and options it proposes the same masks as `Annealing` that is told a `SurrogateEvaluator`'s
    measurements, as long as no decision falls within the rounding of the sums, which are formed in another order.
    (With weights whose sums are exact in float64 there is no such rounding.) Dials stay at 0.

    Args:
        pair: the surrogates.
        space: what may be dropped.
        cost: a `PenalisedBias`, `WeightedSum` or `FlooredSum`.
        seed: of all random numbers; each chain has its own.
        states: masks in all, the untouched one included, split evenly among the chains.
        chains: independent annealers.
        schedule, start_temperature, end_temperature, rate, ties: see `Annealing`.

    Raises:
        InputError: an option outside its range, or a cost of another kind.
    """
    n_states, n_chains = require_count("states", states, 1), require_count("chains", chains, 1)
    require_choice("ties", ties, ("first", "last"))
    code = _CODES[require_choice("schedule", schedule, tuple(_CODES))]
    start = require_number("start_temperature", start_temperature, 0, positive=True)
    end = require_number("end_temperature", end_temperature, 0, positive=True)
    if code != LOGARITHMIC and start < end:
        raise InputError(f"start_temperature {start:g} is below end_temperature {end:g}: annealing cools down")
    forms, numbers = forms_and_cost(pair, cost)
    if len(forms[0].linear) != space.n_units:
        raise InputError(f"surrogates of {len(forms[0].linear)} units cannot be searched over {space.n_units} units")
    f, g = (form_arrays(form) for form in forms)
    droppable = np.array(space.droppable, dtype=np.int64)
    rng = np.random.default_rng(require_count("seed", seed, 0)) if not isinstance(seed, np.random.Generator) else seed
    untouched = space.untouched()
    nothing = np.zeros((1, space.n_units))
    start_cost = _cost_at(numbers, float(forms[0].values(nothing)[0]), float(forms[1].values(nothing)[0]))

    found = [(start_cost, -1, -1, untouched)]
    for index, (chain_rng, steps) in enumerate(
        zip(rng.spawn(n_chains), split_evenly(n_states - 1, n_chains), strict=True)
    ):
        ratio = rate if code == EXPONENTIAL else (end / start) ** (1 / max(1, steps - 1))
        cooling = Cooling(code, start, ratio, end, False)
        dropped, value, step = run_chain(
            chain_rng,
            f,
            g,
            numbers,
            cooling,
            droppable,
            space.min_drop,
            space.largest,
            steps,
            ties == "last",
            start_cost,
        )
        if step >= 0:
            units = np.flatnonzero(dropped).tolist()
            found.append((value, step, index, space.mask(units)))
    best = min(found, key=lambda one: (one[0], one[1:3] if ties == "first" else (-one[1], -one[2])))
    by_mask: dict[Mask, float] = {}
    for value, _, _, mask in sorted(found[1:], key=lambda one: one[:3]):
        by_mask.setdefault(mask, value)
    return Annealed(best[3], best[0], tuple(by_mask.items()), n_states - 1)


def forms_and_cost(pair: FittedPair, cost: Cost) -> tuple[tuple[Form, Form], CostNumbers]:
    """The forms of scaled bias and of the loss (or its logarithm), and the cost as numbers over them.

    Raises:
        InputError: a cost of another kind.
    """
    terms, scale = terms_of(cost), pair.bias_scale
    written = pair.loss.form().scaled(pair.loss_scale.width, pair.loss_scale.start)
    numbers = CostNumbers(
        terms.bias_weight * scale.width,
        terms.loss_weight,
        terms.constant + terms.bias_weight * scale.start,
        pair.loss_scale.log,
        terms.limit,
        terms.penalty,
    )
    return (pair.bias.form(), written), numbers


def _cost_at(numbers: CostNumbers, first: float, second: float) -> float:
    loss = float(np.exp(second)) if numbers.log else second
    value = numbers.a * first + numbers.b * loss + numbers.c + (numbers.p if loss > numbers.limit else 0.0)
    return value if math.isfinite(value) else math.inf


def best_of(found: Sequence[tuple[Mask, float]], count: int) -> list[Mask]:
    """The `count` cheapest different masks."""
    ordered = sorted(found, key=lambda one: one[1])
    return list(dict.fromkeys(mask for mask, _ in ordered))[:count]
