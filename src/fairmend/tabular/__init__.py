"""Tabular networks: find and drop hidden neurons so that groups are treated more equally."""
