"""Repairing a language model: the subject, the settings, the ranking, the search, the finalists."""
