"""Element-wise activation functions, named and computed in double precision."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr

from fairmend.errors import ModelError

FloatArray = npt.NDArray[np.float64]


class Kind(NamedTuple):
    """What an activation computes, and what libraries call it: all that is known of it, wherever it is read or written.

    Attributes:
        compute: a float64 array and the parameter to a new float64 array of the same shape.
        torch: its module in torch.nn.
        onnx: its operator, which has the name of the module but for capitals; "" if it takes several.
        default: its parameter where none is given; None for an activation without.
        approximate: the value of the option of this name, in torch and ONNX.
    """

    compute: Callable[[FloatArray, float], FloatArray]
    torch: str
    onnx: str = ""
    default: float | None = None
    approximate: str = "none"


def _gelu_tanh(x: FloatArray, _: float) -> FloatArray:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _elu(x: FloatArray, alpha: float) -> FloatArray:
    # minimum: exp of a large positive input would overflow although its branch is not taken
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


KINDS: dict[str, Kind] = {
    "identity": Kind(lambda x, _: np.copy(x), "Identity"),
    "relu": Kind(lambda x, _: np.maximum(x, 0.0), "ReLU", "Relu"),
    "leaky_relu": Kind(lambda x, slope: np.where(x > 0, x, slope * x), "LeakyReLU", "LeakyRelu", 0.01),
    "gelu": Kind(lambda x, _: x * ndtr(x), "GELU", "Gelu"),
    "gelu_tanh": Kind(_gelu_tanh, "GELU", "Gelu", approximate="tanh"),
    "silu": Kind(lambda x, _: x * expit(x), "SiLU"),
    "tanh": Kind(lambda x, _: np.tanh(x), "Tanh", "Tanh"),
    "sigmoid": Kind(lambda x, _: np.asarray(expit(x)), "Sigmoid", "Sigmoid"),
    "elu": Kind(_elu, "ELU", "Elu", 1.0),
}
NAMES = tuple(KINDS)
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
        if self.name not in KINDS:
            raise ModelError(f"unknown activation {self.name!r}: supported are {', '.join(NAMES)}")
        if not math.isfinite(self.parameter):
            raise ModelError(f"the parameter of {self.name} must be finite, got {self.parameter!r}")

    def __str__(self) -> str:
        return self.name if self.kind.default is None else f"{self.name}({self.parameter!r})"

    @property
    def kind(self) -> Kind:
        """What is known of it, whatever its parameter."""
        return KINDS[self.name]

    @classmethod
    def parse(cls, text: str) -> Activation:
        """The activation that a text such as "tanh", "elu" or "leaky_relu(0.2)" names.

        Raises:
            ModelError: an unknown name, a parameter that is no number, or one where none belongs.
        """
        form = _FORM.fullmatch(text.strip()) if len(text) <= _LONGEST else None
        name = form[1].lower() if form else text[:_LONGEST]
        default = KINDS[name].default if name in KINDS else None
        given = form[2].strip() if form and form[2] is not None else None
        if given is None:
            return cls(name, 0.0 if default is None else default)
        try:
            parameter = float(given)
        except ValueError:
            raise ModelError(f"activation {text!r}: {given!r} is not a number") from None
        if name in KINDS and default is None:
            raise ModelError(f"activation {text!r}: {name} takes no parameter")
        return cls(name, parameter)

    @classmethod
    def of(cls, operator: str, options: Mapping[str, Any]) -> Activation | None:
        """The activation that an operator of torch or ONNX computes with these options; None for any other operator."""
        plain, approximate = operator.replace("_", "").lower(), options.get("approximate", "none")
        for name, kind in KINDS.items():
            if kind.torch.lower() == plain and kind.approximate == approximate and name != "identity":
                given = [options[key] for key in ("negative_slope", "alpha") if key in options]
                return cls(name, 0.0 if kind.default is None else float([*given, kind.default][0]))
        return None

    def torch_arguments(self) -> tuple[tuple[float, ...], dict[str, str]]:
        """What the module of torch.nn that computes it is made with, by position and by name."""
        given = () if self.kind.default is None else (self.parameter,)
        return given, {} if self.kind.approximate == "none" else {"approximate": self.kind.approximate}

    def __call__(self, values: npt.ArrayLike) -> FloatArray:
        """The activation of every element, in float64."""
        return self.kind.compute(np.asarray(values, dtype=np.float64), self.parameter)

    def bound(self, sizes: FloatArray) -> FloatArray:
        """The largest absolute value that it can give for inputs of at most these absolute values."""
        if self.name in ("tanh", "sigmoid"):
            return np.ones_like(sizes)
        return sizes * max(1.0, abs(self.parameter))


IDENTITY = Activation("identity")
