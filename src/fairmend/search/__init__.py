"""Searchers: they propose masks and are told measurements. They know no model, clock, file or process."""
