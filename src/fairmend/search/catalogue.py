"""Searchers by the names that the command line and saved settings use."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fairmend.errors import InputError
from fairmend.evaluation import Figures
from fairmend.masks import Space
from fairmend.search.annealing import Annealing, RandomWalk
from fairmend.search.base import MakeCost, Searcher, require_choice
from fairmend.search.genetic import Genetic, MakeFloor
from fairmend.search.names import SEARCH_NAMES
from fairmend.search.sampling import Exhaustive, SingleInterventions, UniformSampling

_CLASSES: dict[str, type[Any]] = {
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
    **options: Any,
) -> Searcher:
    """Build the searcher called `name`. `make_searcher(space=..., **searcher.settings(), ...)` builds an equal one.

    Args:
        name: one of `SEARCH_NAMES`.
        space: what may be dropped.
        make_cost: for all but the genetic search, which takes none.
        figures, make_floor: for the genetic search.
        options: of that searcher. `seed` (by default 0) and `states` (3,000, also called `samples`) are left out for
            "exhaustive" and "dice", where nothing is random and the space says how many states there are.

    Raises:
        InputError: an unknown name, an option that this searcher does not have, or one outside its range.
    """
    searcher = _CLASSES[require_choice("search", name, SEARCH_NAMES)]
    allowed = {option.name for option in fields(searcher.accepts)}
    seed, states = options.pop("seed", 0), options.pop("states", 3000)
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise InputError(
            f"the {name} search has no option {', '.join(map(repr, unknown))}; its options are "
            f"{', '.join(sorted(allowed))}"
        )
    common = {"seed": seed, "states": states, "samples": states}
    given = {key: value for key, value in common.items() if key in allowed} | options
    made: Searcher = (
        searcher(space, figures, make_floor, **given) if searcher is Genetic else searcher(space, make_cost, **given)
    )
    return made
