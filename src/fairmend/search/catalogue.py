"""Searchers by the names that the command line and saved settings use."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fairmend.errors import InputError
from fairmend.evaluation import Figures
from fairmend.masks import Space
from fairmend.search.annealing import Annealing, RandomWalk
from fairmend.search.base import MakeCost, Searcher, require_choice
from fairmend.search.genetic import Genetic, MakeFloor
from fairmend.search.sampling import Exhaustive, SingleInterventions, UniformSampling
from fairmend.settings import SEARCH_NAMES

_CLASSES: dict[str, Callable[..., Searcher]] = {
    "annealing": Annealing,
    "random-walk": RandomWalk,
    "genetic": Genetic,
    "exhaustive": Exhaustive,
    "dice": SingleInterventions,
    "random": UniformSampling,
}


def make_searcher(
    name: str,
    space: Space,
    *,
    make_cost: MakeCost,
    figures: Figures,
    make_floor: MakeFloor | None = None,
    seed: int = 0,
    states: int = 3000,
    **options: Any,
) -> Searcher:
    """Build the searcher called `name`. `make_searcher(space=..., **searcher.settings(), ...)` builds an equal one.

    Args:
        name: one of `SEARCH_NAMES`.
        space: what may be dropped.
        make_cost: for all but the genetic search, which takes none.
        figures, make_floor: for the genetic search.
        seed, states: not for "exhaustive" and "dice", where nothing is random and the space says how many states
            there are.
        options: further options of that searcher's constructor.

    Raises:
        InputError: an unknown name, an option that this searcher does not have, or one outside its range.
    """
    searcher = _CLASSES[require_choice("search", name, SEARCH_NAMES)]
    allowed = {
        key
        for key, parameter in inspect.signature(searcher).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    common = {"seed": seed, "states": states, "samples": states}
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise InputError(
            f"the {name} search has no option {', '.join(map(repr, unknown))}; its options are "
            f"{', '.join(sorted(allowed))}"
        )
    given = {key: value for key, value in common.items() if key in allowed} | options
    if searcher is Genetic:
        return Genetic(space, figures, make_floor, **given)
    return searcher(space, make_cost, **given)
