"""Simulated annealing on surrogates: many chains, no Python per move, the path of `fairmend.search.Annealing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairmend.costs import Cost
from fairmend.errors import InputError
from fairmend.masks import Mask, Space
from fairmend.search.annealing import ChainOptions, CoolingOptions, split_evenly
from fairmend.search.base import require_count
from fairmend.search.schedules import SCHEDULES
from fairmend.settings import documented
from fairmend.surrogates.families.forms import Form
from fairmend.surrogates.fitting import FittedPair
from fairmend.surrogates.kernels import EXPONENTIAL, Cooling, CostNumbers, cost_of, form_arrays, run_chain
from fairmend.surrogates.objectives import terms_of


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


@documented
@dataclass(frozen=True, kw_only=True)
class AnnealOptions(ChainOptions, CoolingOptions):
    """Options of `anneal`: those of `fairmend.search.Annealing` that compiled chains know."""


def anneal(pair: FittedPair, space: Space, cost: Cost, *, seed: int | np.random.Generator, **given: Any) -> Annealed:
    """Anneal on the surrogates' means as `fairmend.search.Annealing` does, some hundred times faster.

    With the same seed and options it proposes the same masks as `Annealing` that is told a `SurrogateEvaluator`'s
    measurements, as long as no decision falls within the rounding of the sums, which are formed in another order.
    (With weights whose sums are exact in float64 there is no such rounding.) Dials stay at 0.

    Args:
        pair: the surrogates.
        space: what may be dropped.
        cost: a `PenalisedBias`, `WeightedSum` or `FlooredSum`.
        seed: of all random numbers; each chain has its own.
        given: of `AnnealOptions`.

    Raises:
        InputError: an option outside its range, or a cost of another kind.
    """
    options = AnnealOptions(**given)
    start, end = options.start_temperature, options.end_temperature
    if not isinstance(start, float):
        raise InputError(f"compiled annealing measures no start_temperature: give a positive number, not {start!r}")
    code = SCHEDULES.index(options.schedule)
    forms, numbers = forms_and_cost(pair, cost)
    if len(forms[0].linear) != space.n_units:
        raise InputError(f"surrogates of {len(forms[0].linear)} units cannot be searched over {space.n_units} units")
    f, g = (form_arrays(form) for form in forms)
    droppable = np.array(space.droppable, dtype=np.int64)
    rng = np.random.default_rng(require_count("seed", seed, 0)) if not isinstance(seed, np.random.Generator) else seed
    untouched = space.untouched()
    nothing = np.zeros((1, space.n_units))
    start_cost = cost_of(numbers, float(forms[0].values(nothing)[0]), float(forms[1].values(nothing)[0]))

    found = [(start_cost, -1, -1, untouched)]
    for index, (chain_rng, steps) in enumerate(
        zip(rng.spawn(options.chains), split_evenly(options.states - 1, options.chains), strict=True)
    ):
        ratio = options.rate if code == EXPONENTIAL else (end / start) ** (1 / max(1, steps - 1))
        cooling = Cooling(code, start, ratio, end)
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
            options.ties == "last",
            start_cost,
        )
        if step >= 0:
            units = np.flatnonzero(dropped).tolist()
            found.append((value, step, index, space.mask(units)))
    best = min(found, key=lambda one: (one[0], one[1:3] if options.ties == "first" else (-one[1], -one[2])))
    by_mask: dict[Mask, float] = {}
    for value, _, _, mask in sorted(found[1:], key=lambda one: one[:3]):
        by_mask.setdefault(mask, value)
    return Annealed(best[3], best[0], tuple(by_mask.items()), options.states - 1)


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


def best_of(found: Sequence[tuple[Mask, float]], count: int) -> list[Mask]:
    """The `count` cheapest different masks."""
    ordered = sorted(found, key=lambda one: one[1])
    return list(dict.fromkeys(mask for mask, _ in ordered))[:count]
