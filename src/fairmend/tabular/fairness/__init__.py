"""Fairness metrics from confusion counts, their intervals and verdicts."""
