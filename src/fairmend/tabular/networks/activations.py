"""Element-wise activation functions, named and computed in double precision."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairmend.errors import ModelError

FloatArray = npt.NDArray[np.float64]

_DEFAULTS: dict[str, float | None] = {
    "identity": None,
    "relu": None,
    "leaky_relu": 0.01,
    "gelu": None,
    "gelu_tanh": None,
    "silu": None,
    "tanh": None,
    "sigmoid": None,
    "elu": 1.0,
}
NAMES = tuple(_DEFAULTS)
_LONGEST = 60  # characters of the text of one activation
_FORM = re.compile(r"([a-z_]+) *(?:\(([^()]+)\))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation by name, with the slope of `leaky_relu` or the alpha of `elu`; 0.0 where there is no parameter.

    `gelu` is the exact form with erf, `gelu_tanh` its tanh approximation. `str` and `parse` are inverses:
    "relu", "leaky_relu(0.2)".

    Raises:
        ModelError: an unknown name, or a parameter that is not finite.
    """

    name: str
    parameter: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in _DEFAULTS:
            raise ModelError(f"unknown activation {self.name!r}: supported are {', '.join(NAMES)}")
        if not math.isfinite(self.parameter):
            raise ModelError(f"the parameter of {self.name} must be finite, got {self.parameter!r}")

    def __str__(self) -> str:
        return self.name if _DEFAULTS[self.name] is None else f"{self.name}({self.parameter!r})"

    @classmethod
    def parse(cls, text: str) -> Activation:
        """The activation that a text such as "tanh", "elu" or "leaky_relu(0.2)" names.

        Raises:
            ModelError: an unknown name, a parameter that is no number, or one where none belongs.
        """
        form = _FORM.fullmatch(text.strip()) if len(text) <= _LONGEST else None
        name = form[1].lower() if form else text[:_LONGEST]
        default = _DEFAULTS.get(name)
        given = form[2].strip() if form and form[2] is not None else None
        if given is None:
            return cls(name, 0.0 if default is None else default)
        try:
            parameter = float(given)
        except ValueError:
            raise ModelError(f"activation {text!r}: {given!r} is not a number") from None
        if name in _DEFAULTS and default is None:
            raise ModelError(f"activation {text!r}: {name} takes no parameter")
        return cls(name, parameter)

    def __call__(self, values: npt.ArrayLike) -> FloatArray:
        """The activation of every element, in float64."""
        return function(self)(np.asarray(values, dtype=np.float64))

    def bound(self, sizes: FloatArray) -> FloatArray:
        """The largest absolute value that it can give for inputs of at most these absolute values."""
        if self.name in ("tanh", "sigmoid"):
            return np.ones_like(sizes)
        return sizes * max(1.0, abs(self.parameter))


IDENTITY = Activation("identity")


def function(activation: Activation) -> Callable[[FloatArray], FloatArray]:
    """The activation as a function of a float64 array that returns a new float64 array of the same shape."""
    parameter = activation.parameter
    functions: dict[str, Callable[[FloatArray], FloatArray]] = {
        "identity": np.copy,
        "relu": lambda x: np.maximum(x, 0.0),
        "leaky_relu": lambda x: np.where(x > 0, x, parameter * x),
        "gelu": _gelu,
        "gelu_tanh": lambda x: 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))),
        "silu": lambda x: x * _sigmoid(x),
        "tanh": np.tanh,
        "sigmoid": _sigmoid,
        # minimum: exp of a large positive input would overflow although its branch is not taken
        "elu": lambda x: np.where(x > 0, x, parameter * np.expm1(np.minimum(x, 0.0))),
    }
    return functions[activation.name]


def _gelu(x: FloatArray) -> FloatArray:
    from scipy.special import ndtr

    return np.asarray(x * ndtr(x), dtype=np.float64)


def _sigmoid(x: FloatArray) -> FloatArray:
    from scipy.special import expit

    return np.asarray(expit(x), dtype=np.float64)
