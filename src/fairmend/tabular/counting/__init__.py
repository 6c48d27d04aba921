"""Confusion counts of many masks: kernels and the evaluator over them."""
