"""Runs: the one loop between searchers and evaluators, and the store that loses nothing."""

from fairmend.runs.budgets import Budget
from fairmend.runs.collection import Collection
from fairmend.runs.progress import Progress
from fairmend.runs.runner import Runner, RunSummary
from fairmend.runs.store import Store
from fairmend.runs.workers import InProcess

__all__ = ["Budget", "Collection", "InProcess", "Progress", "RunSummary", "Runner", "Store"]
