"""Surrogates: models that predict the measurements of masks, behind the evaluators' protocol."""
