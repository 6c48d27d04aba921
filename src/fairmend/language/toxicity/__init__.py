"""Scorers of toxicity and their catalogue."""
