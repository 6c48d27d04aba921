"""Searchers: they propose masks and learn from their measurements, whatever the masks belong to."""

from fairmend.search.annealing import Annealing, RandomWalk
from fairmend.search.base import Incumbent, MakeCost, Searcher
from fairmend.search.catalogue import make_searcher
from fairmend.search.designs import SpreadSampling, drawn_fraction
from fairmend.search.front import Front, along_front, hypervolume
from fairmend.search.genetic import Genetic, MakeFloor
from fairmend.search.pruning_rules import PruningRule
from fairmend.search.sampling import Candidates, Exhaustive, SingleInterventions, UniformSampling
from fairmend.settings import METHODS, SEARCH_NAMES, Method, SearchName

__all__ = [
    "METHODS",
    "SEARCH_NAMES",
    "Annealing",
    "Candidates",
    "Exhaustive",
    "Front",
    "Genetic",
    "Incumbent",
    "MakeCost",
    "MakeFloor",
    "Method",
    "PruningRule",
    "RandomWalk",
    "SearchName",
    "Searcher",
    "SingleInterventions",
    "SpreadSampling",
    "UniformSampling",
    "along_front",
    "drawn_fraction",
    "hypervolume",
    "make_searcher",
]
