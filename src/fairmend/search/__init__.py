"""Searchers: they propose masks and learn from their measurements, whatever the masks belong to."""

from fairmend.search.annealing import Annealing, RandomWalk
from fairmend.search.base import Incumbent, MakeCost, Searcher
from fairmend.search.catalogue import SEARCH_NAMES, SearchName, make_searcher
from fairmend.search.front import Front, hypervolume
from fairmend.search.genetic import Genetic, MakeFloor
from fairmend.search.ranking import SingleInterventions
from fairmend.search.sampling import Exhaustive, UniformSampling

__all__ = [
    "SEARCH_NAMES",
    "Annealing",
    "Exhaustive",
    "Front",
    "Genetic",
    "Incumbent",
    "MakeCost",
    "MakeFloor",
    "RandomWalk",
    "SearchName",
    "Searcher",
    "SingleInterventions",
    "UniformSampling",
    "hypervolume",
    "make_searcher",
]
