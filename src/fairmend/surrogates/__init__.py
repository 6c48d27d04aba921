"""Surrogates: models that predict the measurements of masks, behind the evaluators' protocol.

Fit a pair to measured masks (`Samples.of`, `fit_pair`), judge it (`cross_validate`), search on it (`anneal`, or any
searcher on a `SurrogateEvaluator`). `AttentionPruning` and `Active` do all of that as searchers, so that a runner
measures, stores and resumes them like any other.
"""

import lazy_loader

# As in the wings: the names stand in __init__.pyi, and are imported on their first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
