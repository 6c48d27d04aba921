"""Runs: the one loop between searchers and evaluators, and the store that loses nothing."""
