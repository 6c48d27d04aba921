"""Searchers: they propose masks and learn from their measurements, whatever the masks belong to."""

import lazy_loader

# As in the wings: the names stand in __init__.pyi, and are imported on their first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
