"""Which units a network has, and which of them are dropped.

A *unit* is a droppable part (a hidden neuron, an attention head); a *site* is the layer that holds a row of units.
Units are numbered from 0, site by site. A mask says which units are switched off: dropped means off, everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError


@dataclass(frozen=True, slots=True)
class Site:
    """A layer that holds a row of `units` droppable units."""

    name: str
    units: int


@dataclass(frozen=True, slots=True)
class Dial:
    """A real-valued coordinate beside the dropped units that the model can absorb, such as a shift of its output bias.

    0.0 leaves the model as it is. Searchers keep the value within [`low`, `high`] and move it by Gaussian steps
    of standard deviation `step`.
    """

    name: str
    low: float
    high: float
    step: float


@dataclass(frozen=True, slots=True)
class Mask:
    """An immutable set of dropped units, with the settings of the space's dials.

    Attributes:
        bits: the dropped units as a bit set: unit `i` is dropped when bit `i` is 1. An int, because flipping,
            comparing and counting are then single fast operations, whatever the number of units.
        n_units: number of units of the space.
        dials: one value per dial of the space; () when it has none.
    """

    bits: int
    n_units: int
    dials: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Number of dropped units."""
        return self.bits.bit_count()

    @property
    def is_untouched(self) -> bool:
        """Whether nothing is dropped and every dial stands at 0: the model as it was."""
        return self.bits == 0 and not any(self.dials)

    def units(self) -> tuple[int, ...]:
        """The dropped units, ascending."""
        return tuple(self._iterate())

    def _iterate(self) -> Iterator[int]:
        rest = self.bits
        while rest:
            lowest = rest & -rest
            yield lowest.bit_length() - 1
            rest ^= lowest

    def dropped(self) -> npt.NDArray[np.bool_]:
        """Boolean array of shape (n_units,): True where the unit is dropped."""
        packed = np.frombuffer(self.packed(), dtype=np.uint8)
        return np.unpackbits(packed, count=self.n_units, bitorder="little").astype(np.bool_)

    def packed(self) -> bytes:
        """The bit set as little-endian bytes, ceil(n_units / 8) long: what a store keeps."""
        return self.bits.to_bytes((self.n_units + 7) // 8, "little")

    def flip(self, unit: int) -> Mask:
        """The neighbour in which `unit` is dropped if it was not, and restored if it was."""
        return Mask(self.bits ^ (1 << unit), self.n_units, self.dials)

    def turn(self, dials: tuple[float, ...]) -> Mask:
        """The same dropped units with other dial settings."""
        return Mask(self.bits, self.n_units, dials)


@dataclass(frozen=True)
class Space:
    """Everything that may be dropped, and how much of it.

    Args:
        sites: the layers, in order.
        min_drop, max_drop: size limits of a mask; `max_drop=None` means all units that are not frozen.
        frozen: units that are never dropped.
        dials: real-valued coordinates searched together with the units.

    Raises:
        InputError: limits that leave no mask, or a frozen unit that does not exist.
    """

    sites: tuple[Site, ...]
    min_drop: int = 0
    max_drop: int | None = None
    frozen: frozenset[int] = frozenset()
    dials: tuple[Dial, ...] = ()
    largest: int = field(init=False, repr=False)  # max_drop with None resolved

    def __post_init__(self) -> None:
        if not self.sites or any(site.units < 1 for site in self.sites):
            raise InputError(f"a space needs at least one site with at least one unit, got {self.sites!r}")
        outside = sorted(unit for unit in self.frozen if not 0 <= unit < self.n_units)
        if outside:
            raise InputError(f"frozen units {outside} do not exist: units are numbered 0 to {self.n_units - 1}")
        droppable = self.n_units - len(self.frozen)
        largest = droppable if self.max_drop is None else self.max_drop
        object.__setattr__(self, "largest", largest)
        if not 0 <= self.min_drop <= largest <= droppable:
            raise InputError(
                f"size limits leave no mask: min_drop={self.min_drop}, max_drop={self.max_drop} with "
                f"{droppable} droppable units; need 0 <= min_drop <= max_drop <= {droppable}"
            )
        for dial in self.dials:
            if not (dial.low <= 0.0 <= dial.high and dial.step > 0):
                raise InputError(f"dial {dial.name!r} needs low <= 0 <= high and step > 0, got {dial!r}")

    @cached_property
    def n_units(self) -> int:
        """Number of units over all sites."""
        return sum(site.units for site in self.sites)

    @cached_property
    def droppable(self) -> tuple[int, ...]:
        """Units that may be dropped, ascending."""
        return tuple(unit for unit in range(self.n_units) if unit not in self.frozen)

    def untouched(self) -> Mask:
        """The mask that changes nothing: a candidate of every search, whatever `min_drop` says."""
        return Mask(0, self.n_units, (0.0,) * len(self.dials))

    def mask(self, units: Iterable[int], dials: Sequence[float] | None = None) -> Mask:
        """The mask that drops `units`.

        Raises:
            InputError: a unit that does not exist, is frozen, or more or fewer units than the limits allow.
        """
        bits = 0
        for unit in units:
            if not 0 <= unit < self.n_units:
                raise InputError(f"unit {unit} does not exist: units are numbered 0 to {self.n_units - 1}")
            bits |= 1 << int(unit)
        settings = (0.0,) * len(self.dials) if dials is None else tuple(float(value) for value in dials)
        mask = Mask(bits, self.n_units, settings)
        if not (mask.is_untouched or self.admits(mask)):
            raise InputError(
                f"mask of {mask.size} units {mask.units()} with dials {settings} is outside the space: it allows "
                f"{self.min_drop} to {self.largest} units, frozen {sorted(self.frozen)}, dials {self.dials}"
            )
        return mask

    def admits(self, mask: Mask) -> bool:
        """Whether size, frozen units and dials are within the limits."""
        return (
            mask.n_units == self.n_units
            and self.min_drop <= mask.bits.bit_count() <= self.largest
            and not mask.bits & self._frozen_bits
            and len(mask.dials) == len(self.dials)
            and (
                not self.dials or all(d.low <= value <= d.high for d, value in zip(self.dials, mask.dials, strict=True))
            )
        )

    @cached_property
    def _frozen_bits(self) -> int:
        return sum(1 << unit for unit in self.frozen)

    def n_masks(self) -> int:
        """How many dropped sets the limits admit (dials not counted)."""
        droppable, total = len(self.droppable), 0
        count = math.comb(droppable, self.min_drop)
        for size in range(self.min_drop, self.largest + 1):
            total += count
            count = count * (droppable - size) // (size + 1)
        return total

    def sample(self, rng: np.random.Generator, size: int | None = None) -> Mask:
        """A uniform subset of `size` droppable units; by default the size is uniform within the limits. Dials at 0."""
        if size is None:
            size = int(rng.integers(self.min_drop, self.largest + 1))
        units = rng.choice(np.asarray(self.droppable), size=size, replace=False)
        return self.mask(units.tolist())

    def locate(self, unit: int) -> tuple[int, int]:
        """(site index, position within the site) of a unit."""
        for index, site in enumerate(self.sites):
            if unit < site.units:
                return index, unit
            unit -= site.units
        raise InputError(f"unit {unit + self.n_units} does not exist: units are numbered 0 to {self.n_units - 1}")

    def by_site(self, mask: Mask) -> dict[str, list[int]]:
        """Dropped positions within each site, sites in order: the readable form of a mask."""
        positions: dict[str, list[int]] = {site.name: [] for site in self.sites}
        for unit in mask.units():
            index, position = self.locate(unit)
            positions[self.sites[index].name].append(position)
        return positions
