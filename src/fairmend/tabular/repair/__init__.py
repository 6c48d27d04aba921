"""Repairing a tabular network: settings, choice, judging, saving."""
