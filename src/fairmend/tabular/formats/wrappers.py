"""What people hold instead of a network: wrappers that are taken off, and those whose network can only be named."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from torch import nn

_SEARCHED = "best_estimator_"  # of every search over settings
_INSIDE = ("module_", "model_", "estimator_", "estimator", "module", "model", "network", "net")
_SEVERAL = ("calibrated_classifiers_", "estimators_")  # a network per fold, member or label
_ROOTS = {_SEARCHED: "search", "module_": "net"}  # what their documentation calls the whole


def unwrapped(value: Any) -> Any:
    """The model inside scikit-learn's FrozenEstimator and torch's wrappers; anything else as it is."""
    from sklearn.frozen import FrozenEstimator

    value = plain_module(value)
    while isinstance(value, FrozenEstimator):
        value = plain_module(value.estimator)
    return value


def plain_module(value: Any) -> Any:
    """The module that torch.compile, data parallelism or averaging wraps; anything else as it is."""
    # torch is not imported for this: it is loaded if there is a module
    torch, compiler = sys.modules.get("torch"), sys.modules.get("torch._dynamo.eval_frame")
    if torch is None:
        return value
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
    while True:
        if compiler is not None and isinstance(value, compiler.OptimizedModule):
            value = value._orig_mod
        elif isinstance(value, wrappers):
            value = value.module
        else:
            return value


def way_inside(value: Any) -> str:
    """How to get at the network inside a value that is none, to be added to an error; "" where no way is known.

    Wrappers are told by what they have, so that their packages are not needed.
    """
    from sklearn.pipeline import Pipeline

    path, before = "", ""
    while not (is_torch(value := unwrapped(value)) or is_sklearn(value)) and path.count(".") < 9:
        if isinstance(value, Pipeline):
            path = path or "pipeline"
            before = f", with X through {path}[:-1].transform"
            path, value = f"{path}[-1]", value.steps[-1][1]
            continue
        part = _part(value)
        unfitted = _before_fit(value)
        if part is None or (unfitted and part not in (_SEARCHED, "module_")):
            return unfitted or _without_way(value, path)
        path = f"{path or _ROOTS.get(part, 'model')}.{part}"
        if part in _SEVERAL:
            path += "[k].estimator" if part == _SEVERAL[0] else "[k]"
            return f": it holds several networks; repair each, {path}, before they are put together"
        value = vars(value)[part]
    return f": give {path}{before}" if path else ""


def is_torch(value: Any) -> TypeGuard[nn.Module]:
    """Whether a value is a torch module; torch is not imported for this, as it must be loaded if there is one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def is_sklearn(value: Any) -> bool:
    """Whether a value is scikit-learn's multi-layer perceptron, fitted or not."""
    from sklearn.neural_network import MLPClassifier

    return isinstance(value, MLPClassifier)


def _part(value: Any, depth: int = 4) -> str | None:
    """The attribute in which a wrapper keeps what it wraps, once it is fitted."""
    from sklearn.pipeline import Pipeline

    own = vars(value) if hasattr(value, "__dict__") else {}  # no property of a foreign class is run
    for name in (_SEARCHED, *_SEVERAL, *_INSIDE):
        if own.get(name) is None:
            continue
        inner = own[name]
        if name in _SEVERAL:
            inner = next(iter(inner), None)
        inner = unwrapped(inner)
        known = name == _SEARCHED or isinstance(inner, Pipeline)
        if known or is_torch(inner) or is_sklearn(inner) or (depth and _part(inner, depth - 1) is not None):
            return name
    return None


def _before_fit(value: Any) -> str:
    """What to say of a wrapper that keeps its network apart from what it was made of, once it is fitted."""
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

    if isinstance(value, (GridSearchCV, RandomizedSearchCV)):
        return ": fit it first, with refit=True, and give search.best_estimator_"
    return ": fit it first, and give net.module_" if "skorch" in _packages(value) else ""


def _without_way(value: Any, path: str) -> str:
    """What to do about a value, found at a path in what was given, in which there is no network."""
    from sklearn.neural_network import MLPRegressor

    if isinstance(value, MLPRegressor):
        return ", which predicts numbers: supported are classifiers"
    if _packages(value) & {"keras", "tensorflow", "tf_keras"}:
        return ": export it, model.export('net.onnx', format='onnx'), and give the file"
    return f": {path} is a {type(value).__name__}, which has no neurons to drop" if path else ""


def _packages(value: Any) -> set[str]:
    return {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
