"""fairmend repairs trained networks that treat groups of people unequally, by switching off a few of their parts."""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true; importing typing would take longer than the rest

if TYPE_CHECKING:
    from typing import Any

    from fairmend.errors import ArtifactError, DataError, FairmendError, InputError, ModelError, RunError
    from fairmend.evaluation import Evaluator, Measurement
    from fairmend.masks import Mask, Space

__version__ = "0.2.0"

_HOMES = {
    "ArtifactError": "errors",
    "DataError": "errors",
    "Evaluator": "evaluation",
    "FairmendError": "errors",
    "InputError": "errors",
    "Mask": "masks",
    "Measurement": "evaluation",
    "ModelError": "errors",
    "RunError": "errors",
    "Space": "masks",
}

# What both wings share. The wings are fairmend.tabular and fairmend.language.
__all__ = [
    "ArtifactError",
    "DataError",
    "Evaluator",
    "FairmendError",
    "InputError",
    "Mask",
    "Measurement",
    "ModelError",
    "RunError",
    "Space",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import fairmend` is immediate."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
