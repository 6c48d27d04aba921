"""Every searcher of the package, ready to be built over a known landscape."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
from known_landscapes import FIGURES, floor, penalised

import fairmend.search
import fairmend.surrogates
from fairmend.masks import Mask, Space
from fairmend.search import Candidates, Searcher, SpreadSampling, make_searcher
from fairmend.search.names import SEARCH_NAMES
from fairmend.surrogates import Active, AttentionPruning, ProposalSettings, Ridge

SEARCHES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in SEARCH_NAMES} | {
    "annealing, 3 chains, 2 restarts": ("annealing", {"chains": 3, "restarts": 2}),
    "annealing from the best": ("annealing", {"restarts": 3, "restart_from": "best", "ties": "last"}),
    "annealing from anywhere": ("annealing", {"initial": "random", "schedule": "logarithmic", "restarts": 2}),
    "annealing as published": (
        "annealing",
        {"start_temperature": "ben-ameur", "schedule": "logarithmic", "initial_moves": 20},
    ),
    "annealing, exponential": ("annealing", {"schedule": "exponential", "rate": 0.97, "chains": 2}),
    "random walk, 4 chains": ("random-walk", {"chains": 4, "initial": "random"}),
    "genetic, small population": ("genetic", {"population": 8, "flips": 3.0}),
    "random, small batches": ("random", {"batch": 7}),
}


def build(search: str, space: Space, seed: int, states: int) -> Searcher:
    """A searcher of the catalogue, of `SEARCHES`."""
    name, options = SEARCHES[search]
    return make_searcher(
        name, space, make_cost=penalised, figures=FIGURES, make_floor=floor, seed=seed, states=states, **options
    )


def finalists(space: Space) -> Candidates:
    """A searcher that measures given masks."""
    return Candidates(space, [space.mask([4, 5]), space.mask([7])])


def some(space: Space) -> list[Mask]:
    """A few masks of a space."""
    rng = np.random.default_rng(3)
    return [space.sample(rng) for _ in range(3)]


# Searches that learn surrogates, and the design that they begin with, by their number of states.
QUICK = ProposalSettings(moves=400, genetic_states=60, genetic_share=0.3)
LEARNED: dict[str, Callable[[Space, int], Any]] = {
    "spread": lambda space, states: SpreadSampling(space, penalised, seed=7, samples=states),
    "active": lambda space, states: Active(
        space, FIGURES, penalised, floor, seed=7, states=states, batch=9, patience=0, proposals=QUICK
    ),
    "active, whole front": lambda space, states: Active(
        space, FIGURES, penalised, seed=7, states=states, surrogate="additive", whole_front=True, proposals=QUICK
    ),
    "active, with starts": lambda space, states: Active(
        space, FIGURES, penalised, seed=7, states=states, starts=some(space), patience=0, proposals=QUICK
    ),
    "attention-pruning": lambda space, states: AttentionPruning(
        space, FIGURES, penalised, seed=7, states=states, surrogate=Ridge(), finalists=3, moves=600, chains=4
    ),
    "attention-pruning, own cost": lambda space, states: AttentionPruning(
        space, FIGURES, None, floor, seed=7, states=states, surrogate="additive", moves=600, design="spread"
    ),
}


def searcher_classes() -> set[type]:
    """All searchers that the package has, wherever they are."""
    modules = (
        importlib.import_module(module.name)
        for package in (fairmend.search, fairmend.surrogates)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    )
    kinds = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    return {
        kind
        for kind in kinds
        if all(hasattr(kind, name) for name in ("ask", "tell", "settings"))
        and not (inspect.isabstract(kind) or getattr(kind, "_is_protocol", False))
    }
