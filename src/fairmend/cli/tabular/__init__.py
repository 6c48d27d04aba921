"""Commands for tabular networks."""
