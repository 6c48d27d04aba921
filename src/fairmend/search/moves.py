"""Steps between neighbouring masks: one unit added or removed, or one dial turned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from fairmend.masks import Dial, Mask, Space

Draw: TypeAlias = Callable[[], float]
_BLOCK = 4096


def uniforms(rng: np.random.Generator) -> Draw:
    """A function that returns the next uniform number of [0, 1): the numbers of `rng.random()`, drawn in blocks."""
    return _stream(lambda: rng.random(_BLOCK).tolist())


def normals(rng: np.random.Generator) -> Draw:
    """A function that returns the next standard normal number; drawn in blocks."""
    return _stream(lambda: rng.standard_normal(_BLOCK).tolist())


def _stream(block: Callable[[], list[float]]) -> Draw:
    def numbers() -> Iterator[float]:
        while True:
            yield from block()

    return numbers().__next__


def reflect(value: float, dial: Dial) -> float:
    """`value` folded back into the dial's limits, as a ball bounces between two walls.

    Reflection keeps a Gaussian step symmetric, as the Metropolis rule assumes; clipping would pile values up at the
    limits.
    """
    if dial.low <= value <= dial.high:
        return value
    width = dial.high - dial.low
    if width == 0:
        return dial.low
    offset = (value - dial.low) % (2 * width)
    folded = dial.low + min(offset, 2 * width - offset)
    return min(max(folded, dial.low), dial.high)


def turn_dial(mask: Mask, space: Space, index: int, normal: float) -> Mask:
    """The neighbour whose dial `index` is `normal` steps further, reflected at its limits."""
    dial = space.dials[index]
    dials = list(mask.dials)
    dials[index] = reflect(dials[index] + dial.step * normal, dial)
    return mask.turn(tuple(dials))


class Walker:
    """A position in the space that proposes its neighbours and moves to those accepted.

    A neighbour has one unit more or less (Hamming distance 1), uniform over the droppable units; at the largest
    admissible size only removals are proposed, at the smallest only additions. Where both limits are the same size
    one unit is added and another removed. With dials, a share of the proposals instead turns one dial, uniform over
    the dials, by a Gaussian step.

    Args:
        space: the masks to walk on.
        draw, normal: streams of uniform and of standard normal numbers.
        dial_share: probability of turning a dial; without effect in a space without dials that can turn.

    Attributes:
        mask: where the walker stands.
        can_move: whether the space has any neighbour to propose.
    """

    __slots__ = (
        "_dial_share",
        "_dials",
        "_draw",
        "_largest",
        "_n_units",
        "_normal",
        "_order",
        "_place",
        "_proposed",
        "_size",
        "_smallest",
        "_space",
        "_swapped",
        "_unit",
        "can_move",
        "mask",
    )

    def __init__(self, space: Space, draw: Draw, normal: Draw, dial_share: float) -> None:
        self._space, self._draw, self._normal = space, draw, normal
        self._n_units, self._smallest, self._largest = space.n_units, space.min_drop, space.largest
        self._dials = [index for index, dial in enumerate(space.dials) if dial.low < dial.high]
        can_flip = self._smallest < self._largest or 0 < self._largest < len(space.droppable)
        self._dial_share = (dial_share if can_flip else 1.0) if self._dials else 0.0
        self.can_move = can_flip or bool(self._dials)
        # The droppable units, the dropped ones first, and where each stands: a uniform choice among the dropped, the
        # kept or all of them is then one look-up, and a flip is one exchange.
        self._order: list[int] = []
        self._place: list[int] = []
        self.stand(space.untouched())

    def stand(self, mask: Mask) -> None:
        """Go to `mask`."""
        self.mask = self._proposed = mask
        self._unit = self._swapped = -1
        self._size = mask.size
        dropped = mask.units()
        self._order = [*dropped, *(unit for unit in self._space.droppable if not mask.bits >> unit & 1)]
        self._place = [-1] * self._n_units
        for place, unit in enumerate(self._order):
            self._place[unit] = place

    @property
    def is_below_limit(self) -> bool:
        """Whether fewer units are dropped than the space admits: true of the untouched mask if `min_drop` > 0."""
        return self._size < self._smallest

    def entry(self, size: int | None = None) -> Mask:
        """A uniform mask of `size` units, by default the least admissible number, dials as they are."""
        rest, bits = list(self._space.droppable), 0
        for _ in range(self._smallest if size is None else size):
            bits |= 1 << rest.pop(int(self._draw() * len(rest)))
        return Mask(bits, self._n_units, self.mask.dials)

    def anywhere(self) -> Mask:
        """A uniform mask of a size uniform within the limits, dials as they are."""
        return self.entry(self._smallest + int(self._draw() * (self._largest - self._smallest + 1)))

    def propose(self) -> Mask:
        """A neighbour of where the walker stands, from which it may `accept`."""
        draw, size, order, mask = self._draw, self._size, self._order, self.mask
        if self._dial_share and draw() < self._dial_share:
            self._unit = -1
            dial = self._dials[int(draw() * len(self._dials))]
            self._proposed = turn_dial(mask, self._space, dial, self._normal())
            return self._proposed
        if self._smallest < size < self._largest:
            unit = order[int(draw() * len(order))]
        elif self._smallest == self._largest:
            return self._propose_swap()
        elif size == self._largest:
            unit = order[int(draw() * size)]
        else:
            unit = order[size + int(draw() * (len(order) - size))]
        self._unit, self._swapped = unit, -1
        self._proposed = proposed = Mask(mask.bits ^ (1 << unit), self._n_units, mask.dials)
        return proposed

    def _propose_swap(self) -> Mask:
        size, order, mask = self._size, self._order, self.mask
        self._unit = order[int(self._draw() * size)]
        self._swapped = order[size + int(self._draw() * (len(order) - size))]
        self._proposed = Mask(mask.bits ^ (1 << self._unit) ^ (1 << self._swapped), self._n_units, mask.dials)
        return self._proposed

    def accept(self) -> None:
        """Move to the mask proposed last."""
        self.mask = self._proposed
        if self._unit >= 0:
            self._flip(self._unit)
            if self._swapped >= 0:
                self._flip(self._swapped)

    def _flip(self, unit: int) -> None:
        order, place = self._order, self._place
        here = place[unit]
        if here < self._size:
            self._size -= 1
            there = self._size
        else:
            there = self._size
            self._size += 1
        other = order[there]
        order[there], order[here] = unit, other
        place[unit], place[other] = there, here
