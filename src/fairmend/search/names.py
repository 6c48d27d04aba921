"""The names of searches and pruning rules. Nothing is imported here, so that options can be made of them."""

from __future__ import annotations

from typing import Literal, get_args

SearchName = Literal["annealing", "random-walk", "genetic", "exhaustive", "dice", "random"]
Method = Literal["fasp", "performance-only", "fairness-only", "magnitude", "gradient", "random"]
PruningTies = Literal["exact", "published"]
SEARCH_NAMES: tuple[SearchName, ...] = get_args(SearchName)
METHODS: tuple[Method, ...] = get_args(Method)
