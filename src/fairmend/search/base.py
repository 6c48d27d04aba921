"""What a searcher is, and what all searchers share.

A searcher knows masks and measurements only: no model, clock, file or process. Its random numbers come from its own
seed, and whatever cools or counts does so on the number of told states. Hence the same measurements always lead to
the same masks, and a run is resumed by telling a fresh searcher what was measured before.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from fairmend.costs import Cost
from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.masks import Mask, Space
from fairmend.settings import check, settings_of

MakeCost: TypeAlias = Callable[[Measurement], Cost]
"""Builds the cost from the measurement of the untouched model, which penalties and floors are relative to."""

Ties = Literal["first", "last"]
Steps: TypeAlias = Generator[Sequence[Mask], Sequence[Measurement], None]
"""A search written as one sequential procedure: it yields masks and is sent their measurements."""


@runtime_checkable
class Searcher(Protocol):
    """Proposes masks and learns from their measurements, turn by turn. The first mask is the untouched one."""

    def ask(self) -> Sequence[Mask]:
        """The next masks to measure; empty when the search has finished. Each ask needs a tell before the next."""

    def tell(self, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
        """Learn the measurements of exactly the masks asked last, in their order."""

    def settings(self) -> Mapping[str, Any]:
        """The name, every option and the seed, JSON-ready: enough to build an equal searcher."""


class Incumbent:
    """The best of everything offered.

    Args:
        ties: which of several equally cheap masks stays: the "first" seen, or the "last" (Attention Pruning's `<=`).

    Attributes:
        mask, measurement: None until the first offer.
        cost: the cost of `mask`; infinite until the first offer.
    """

    __slots__ = ("cost", "mask", "measurement", "ties")

    def __init__(self, ties: Ties = "first") -> None:
        self.ties = require_choice("ties", ties, ("first", "last"))
        self.mask: Mask | None = None
        self.measurement: Measurement | None = None
        self.cost = math.inf

    def offer(self, mask: Mask, measurement: Measurement, cost: float) -> bool:
        """Take the mask if it is the best so far, and say whether it was taken. A NaN cost counts as infinite."""
        if cost < self.cost or self.mask is None or (cost == self.cost and self.ties == "last"):
            self.mask, self.measurement = mask, measurement
            self.cost = math.inf if math.isnan(cost) else cost
            return True
        return False


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a searcher: a `fairmend.settings.setting` each.

    Raises:
        InputError: an option outside its range.
    """

    def __post_init__(self) -> None:
        check(self)
        for name, known in settings_of(type(self)).items():
            value = getattr(self, name)
            if known.kind in (bool, int, float) and value is not None:  # such as one of NumPy's
                object.__setattr__(self, name, known.kind(value))


class SteppedSearcher(ABC):
    """Turn-taking around a search that is written as one sequential procedure.

    A subclass implements `_steps`: a generator that yields masks and is sent their measurements. This class hands
    them over through `ask` and `tell`, and refuses calls out of turn.

    Args:
        space: what may be dropped.
        options: of the dataclass `accepts`.
    """

    name: str
    waits = ""
    """Why it asks for one mask at a time; "" where several of an ask can be measured at once."""
    accepts: ClassVar[type[Options]]
    options: Any

    def __init__(self, space: Space, **options: Any) -> None:
        self.space = space
        self.options = self.accepts(**options)
        self._procedure: Steps | None = None
        self._next: Sequence[Mask] = ()
        self._waiting = False

    @abstractmethod
    def _steps(self) -> Steps:
        """The search from its first mask, the untouched one, to its end."""

    def settings(self) -> dict[str, Any]:
        """The name and every option with the seed, JSON-ready: enough to build an equal searcher."""
        return {"name": self.name, **asdict(self.options)}

    def ask(self) -> Sequence[Mask]:
        """The next masks to measure; empty when the search has finished.

        Raises:
            InputError: the masks of the previous ask were not told yet.
        """
        if self._waiting:
            raise InputError(
                f"ask was called twice: {len(self._next)} masks wait for their measurements; call tell with them first"
            )
        if self._procedure is None:
            self._procedure = self._steps()
            self._next = next(self._procedure)
        self._waiting = bool(self._next)
        return self._next

    def tell(self, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
        """Learn the measurements of exactly the masks asked last, in their order.

        Raises:
            InputError: nothing was asked, or the masks are others than those asked, or their number differs from
                that of the measurements.
        """
        if not self._waiting or self._procedure is None:
            raise InputError("tell was called with nothing asked: call ask first and tell what it returned")
        if masks is not self._next and list(masks) != list(self._next):
            raise InputError(
                f"tell was given {len(masks)} masks that are not the {len(self._next)} asked last: "
                "tell exactly the masks that ask returned, in their order"
            )
        if len(measurements) != len(masks):
            raise InputError(f"tell was given {len(measurements)} measurements for {len(masks)} masks: one each needed")
        self._waiting = False
        try:
            self._next = self._procedure.send(measurements)
        except StopIteration:
            self._next = ()


def cost_from(make_cost: MakeCost, reference: Measurement) -> Cost:
    """The cost relative to the untouched model's measurement, which must be finite (see `require_finite`)."""
    return make_cost(require_finite(reference))


def require_finite(reference: Measurement) -> Measurement:
    """The untouched model's measurement itself.

    Raises:
        InputError: it is not finite, so that no mask could be compared with it.
    """
    if not reference.is_finite:
        raise InputError(
            f"the untouched model measures bias {reference.bias!r} and utility {reference.utility!r}; both must be "
            "finite: check that every group has the samples that its rates need"
        )
    return reference


def require_count(name: str, value: int, least: int) -> int:
    """`value` as an int.

    Raises:
        InputError: not a whole number, or below `least`.
    """
    try:
        count = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}") from None
    if count < least:
        raise InputError(f"{name} must be at least {least}, got {value!r}")
    return count


def require_choice(name: str, value: Any, allowed: Sequence[str]) -> Any:
    """`value` itself.

    Raises:
        InputError: it is not one of `allowed`.
    """
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def require_number(name: str, value: float, least: float, most: float = math.inf, *, positive: bool = False) -> float:
    """`value` as a finite float.

    Raises:
        InputError: not a finite number within [least, most], or 0 where only positive numbers are allowed.
    """
    allowed = "a positive number" if positive else f"a number within [{least:g}, {most:g}]"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be {allowed}, got {value!r}") from None
    if not (math.isfinite(number) and least <= number <= most) or (positive and number <= 0):
        raise InputError(f"{name} must be {allowed}, got {value!r}")
    return number
