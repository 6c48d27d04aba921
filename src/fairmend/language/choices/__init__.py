"""Choices: how likely a model finds the alternatives of items, and which it prefers."""
