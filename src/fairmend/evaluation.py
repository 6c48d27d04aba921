"""What a measurement is, and who makes it.

An evaluator turns masks into measurements. Tabular, language and surrogate evaluators share one protocol, so that
searchers, stores and runners know none of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fairmend.masks import Mask, Space

Direction = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Figure:
    """What one number of a measurement means: its name, which direction is better, and how it was obtained."""

    name: str
    better: Direction
    protocol: str


@dataclass(frozen=True)
class Figures:
    """What all measurements of one evaluator mean.

    Attributes:
        bias: the unfairness, always "lower": a ratio objective is measured as 1 - ratio.
        utility: how well the job is done; F1 is better higher, perplexity lower.
        parts: names of the raw parts (confusion counts, subgroup means) in the order of `Measurement.parts`.
    """

    bias: Figure
    utility: Figure
    parts: tuple[str, ...] = ()

    def loss(self, measurement: Measurement) -> float:
        """The utility as something to minimise."""
        return measurement.utility if self.utility.better == "lower" else -measurement.utility


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """The figures of one mask, raw: nothing is pre-mixed, scaled or penalised.

    Two are equal if everything but the time taken is, NaN equal to NaN.

    Attributes:
        bias, utility: see `Figures`. NaN when the mask broke the model (such a mask is never chosen).
        bias_se, utility_se: standard errors, NaN when the evaluator gives none.
        n: number of samples (rows, prompts) behind the figures.
        seconds: time it took to measure.
        parts: raw parts, named by `Figures.parts`.
    """

    bias: float
    utility: float
    parts: tuple[float, ...] = ()
    n: int = 0
    bias_se: float = math.nan
    utility_se: float = math.nan
    seconds: float = 0.0

    @property
    def is_finite(self) -> bool:
        """Whether both figures are numbers."""
        return math.isfinite(self.bias) and math.isfinite(self.utility)

    def __eq__(self, other: object) -> bool:
        return self._figures() == other._figures() if isinstance(other, Measurement) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._figures())

    def _figures(self) -> tuple[Any, ...]:
        raw = (self.bias, self.utility, *self.parts, self.n, self.bias_se, self.utility_se)
        return tuple(None if math.isnan(value) else value for value in raw)


@runtime_checkable
class Evaluator(Protocol):
    """Measures masks of one space under one fixed protocol.

    A measurement depends on the mask and the fingerprint only: not on the order, the batch or earlier calls.
    """

    @property
    def space(self) -> Space:
        """The space whose masks can be measured."""

    @property
    def figures(self) -> Figures:
        """What the measurements mean."""

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement per mask, in order. The model is left bit for bit as it was, also after an exception."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the figures depend on, JSON-ready: weights, data, split, dtype, settings, seeds, versions."""


def digest(payload: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON-ready mapping, independent of key order: the identity of a run's figures."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def array_digest(*arrays: npt.ArrayLike) -> str:
    """SHA-256 over the dtype, shape and bytes of arrays."""
    sha = hashlib.sha256()
    for array in arrays:
        block = np.ascontiguousarray(array)
        sha.update(f"{block.dtype.str}{block.shape}".encode())
        sha.update(block.reshape(-1).view(np.uint8).data)  # not tobytes: a large table would lie there twice
    return sha.hexdigest()
