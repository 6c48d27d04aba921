"""Attention heads: find them, gate them, fold them into the weights, slice them off."""
