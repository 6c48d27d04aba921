"""Prompts and the groups that they name."""
