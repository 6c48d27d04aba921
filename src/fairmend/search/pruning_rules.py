"""Which units to drop, given what each of them does alone: FASP's rule and its five baselines. Pure functions.

FASP (Zayed et al., "Fairness-Aware Structured Pruning in Transformers", AAAI 2024): the units whose removal costs most
utility are critical and are kept; of the others, those whose removal lowers the bias most are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.search.base import require_choice, require_count, require_number
from fairmend.search.names import METHODS, Method, PruningTies

Floats = npt.NDArray[np.float64]

NEEDS: Mapping[Method, tuple[str, ...]] = MappingProxyType(
    {
        "fasp": ("loss", "bias"),
        "performance-only": ("loss",),
        "fairness-only": ("bias",),
        "magnitude": ("magnitude",),
        "gradient": ("gradient",),
        "random": (),
    }
)
"""The scores that each method reads: "loss" and "bias" of the network without each unit, lower is better; "magnitude"
and "gradient" of each unit."""


@dataclass(frozen=True, slots=True)
class PruningRule:
    """How units are chosen from their scores.

    Attributes:
        method: "fasp"; or drop the units without which the loss is lowest ("performance-only") or the bias is lowest
            ("fairness-only", nothing protected), those of the smallest "magnitude" or "gradient", or "random" ones.
        alpha: share of all units to drop, rounded down.
        gamma: share of all units that are critical, rounded down; "fasp" only.
        ties: "exact" drops exactly the share asked for, of equal units the first; "published" keeps ties as FASP's
            code does, which can overshoot badly: all units as good as the last one are dropped too.
        loss_weight: "fasp" only: how much a standard deviation of the loss counts against one of the bias in the
            ranking of the units that are not critical; 0 as published.
        seed: of "random".

    Raises:
        InputError: an option outside its range, or shares that leave too few units.
    """

    method: Method = "fasp"
    alpha: float = 0.1
    gamma: float = 0.3
    ties: PruningTies = "exact"
    loss_weight: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("method", self.method, METHODS)
        require_choice("ties", self.ties, get_args(PruningTies))
        require_number("alpha", self.alpha, 0.0, 1.0)
        require_number("gamma", self.gamma, 0.0, 1.0)
        require_number("loss_weight", self.loss_weight, 0.0)
        require_count("seed", self.seed, 0)
        if self.method == "fasp" and self.alpha + self.gamma > 1:
            raise InputError(
                f"alpha={self.alpha:g} of the units cannot be dropped while gamma={self.gamma:g} of them are critical: "
                "their sum must be at most 1"
            )

    def count(self, n_units: int) -> int:
        """How many of `n_units` units are to be dropped."""
        return int(n_units * self.alpha)

    def choose(
        self, scores: Mapping[str, npt.ArrayLike], n_units: int, frozen: frozenset[int] = frozenset()
    ) -> tuple[int, ...]:
        """The units to drop, ascending.

        Args:
            scores: the arrays that `NEEDS` names, each of shape (n_units,). A unit without which the network has no
                loss (NaN, infinite) is critical; one without a bias is never dropped for its bias.
            n_units: number of units.
            frozen: units that are never dropped.

        Raises:
            InputError: a missing score, one of another shape, or too few units to choose from.
        """
        found = {name: _scores(name, scores, n_units) for name in NEEDS[self.method]}
        k = self.count(n_units)
        allowed = np.ones(n_units, dtype=np.bool_)
        allowed[list(frozen)] = False
        if k == 0:
            return ()
        if self.method == "random":
            shuffled = np.random.default_rng(self.seed).permutation(np.flatnonzero(allowed))
            self._require(k, len(shuffled))
            return tuple(sorted(shuffled[:k].tolist()))
        if self.method == "fasp":
            allowed = self.uncritical(found["loss"], allowed)
            ranked = _weighted(found["bias"], found["loss"], self.loss_weight, allowed)
        else:
            ranked = found[NEEDS[self.method][0]]
        return self._lowest(ranked, allowed, k)

    def uncritical(self, loss: npt.ArrayLike, allowed: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
        """Whether each unit may be dropped: not one of the int(gamma * n) without which the loss is largest.

        Args:
            loss: shape (n_units,).
            allowed: units that are not frozen, shape (n_units,); all when not given. The others count in n only.
        """
        values = _numbers(loss)
        units = np.flatnonzero(np.ones(len(values)) if allowed is None else allowed)
        kept = max(0, len(units) - int(len(values) * self.gamma))
        spared = np.zeros(len(values), dtype=np.bool_)
        spared[units] = _among_lowest(values[units], kept, self.ties)
        return spared

    def _lowest(self, ranked: Floats, allowed: npt.NDArray[np.bool_], k: int) -> tuple[int, ...]:
        allowed = allowed & np.isfinite(ranked)
        units = np.flatnonzero(allowed)
        self._require(k, len(units))
        return tuple(units[_among_lowest(ranked[units], k, self.ties)].tolist())

    def _require(self, k: int, available: int) -> None:
        if k > available:
            raise InputError(
                f"{self.method} is to drop {k} units, but only {available} may be dropped (the others are critical, "
                "frozen, or break the network): lower alpha or gamma"
            )

    def at(self, **changes: Any) -> PruningRule:
        """The same rule with some settings changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `PruningRule(**it)` reads it back."""
        return asdict(self)


def _among_lowest(values: Floats, k: int, ties: PruningTies) -> npt.NDArray[np.bool_]:
    """Whether each value is among the k lowest: of equal ones the first k, or all that equal the k-th ("published")."""
    chosen = np.zeros(len(values), dtype=np.bool_)
    order = np.argsort(values, kind="stable")[:k]
    chosen[order] = True
    if ties == "published" and k > 0:
        chosen |= values <= values[order[-1]]
    return chosen


def _weighted(bias: Floats, loss: Floats, weight: float, allowed: npt.NDArray[np.bool_]) -> Floats:
    """The bias plus a share of the loss, both in standard deviations over the units in question."""
    if weight == 0 or not allowed.any():
        return bias
    finite = allowed & np.isfinite(bias) & np.isfinite(loss)
    spread = [float(values[finite].std()) if finite.any() else 0.0 for values in (bias, loss)]
    scaled = [
        values / size if size > 0 else np.zeros(len(values)) for values, size in zip((bias, loss), spread, strict=True)
    ]
    out: Floats = np.where(finite, scaled[0] + weight * scaled[1], math.inf)
    return out


def _scores(name: str, scores: Mapping[str, npt.ArrayLike], n_units: int) -> Floats:
    if name not in scores:
        raise InputError(f"the scores {name!r} of every unit are needed, got {', '.join(map(repr, scores)) or 'none'}")
    values = _numbers(scores[name])
    if values.shape != (n_units,):
        raise InputError(f"the scores {name!r} have shape {values.shape}, need one per unit: ({n_units},)")
    return values


def _numbers(values: npt.ArrayLike) -> Floats:
    """As float64, undefined ones infinite: what broke the network comes last in every ranking."""
    numbers = np.asarray(values, dtype=np.float64)
    out: Floats = np.where(np.isnan(numbers), math.inf, numbers)
    return out
