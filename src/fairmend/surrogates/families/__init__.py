"""Families of surrogates: ridge regressions and networks."""
