"""The language wing: attention heads of a causal language model, measured, ranked and switched off."""

import lazy_loader

# A public name is imported on its first use, so that the package itself is imported in no time. The names stand in
# __init__.pyi, except functions that share their module's name: the module would hide them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
