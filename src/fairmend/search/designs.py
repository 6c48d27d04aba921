"""Which masks to measure for learning what units do: sizes spread, units balanced; and which samples to measure on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairmend.masks import Mask, Space
from fairmend.search.base import require_count, require_number
from fairmend.search.sampling import BatchSearcher, SamplingOptions
from fairmend.settings import documented, setting

_TRIES = 20
_SMALL = 0.1


@documented
@dataclass(frozen=True, kw_only=True)
class SpreadOptions(SamplingOptions):
    """Options of `SpreadSampling`."""

    small_share: float = setting(
        0.25,
        "share of the masks whose sizes lie, spread geometrically, between the least admissible one and a tenth of the "
        "units.",
        least=0,
        most=1,
    )


class SpreadSampling(BatchSearcher):
    """Random masks for learning: sizes spread evenly over the limits, a share of small masks, all units equally often.

    Uniform random masks (Attention Pruning's, see `UniformSampling`) leave chance to decide how often a unit is
    dropped and how large the masks are. Here a part of the masks is small, because there the figures are those that a
    repair can have and interactions are few; the sizes of the rest are spread evenly; units are dealt like cards, so
    that after any number of masks no unit was dropped much more often than another. No mask comes twice while the
    space has others. The order is random: a search that ends early has a spread of sizes too. Dials stay at 0.
    """

    name = "spread"
    accepts = SpreadOptions
    options: SpreadOptions

    def masks(self) -> tuple[Mask, ...]:
        """All masks after the untouched one, in order."""
        return tuple(self._masks())

    def _masks(self) -> Iterator[Mask]:
        rng = np.random.default_rng(self.options.seed)
        dealer = Dealer(self.space, rng)
        for size in spread_sizes(self.space, self.options.samples - 1, self.options.small_share, rng):
            yield dealer.deal(size)


class Dealer:
    """Deals masks from a shuffled deck of units: every unit is dealt once before any is dealt again.

    Args:
        space: whose droppable units are dealt.
        rng: for shuffling.
    """

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng
        self._deck: list[int] = []
        self._dealt = {space.untouched()}
        self._least = _least(space)

    def deal(self, size: int) -> Mask:
        """A mask of `size` units that was not dealt before; where tries find none, one of the nearest size with one."""
        mask = self._hand(size)
        for near in sorted(range(self._least, self._space.largest + 1), key=lambda other: abs(other - size)):
            for _ in range(_TRIES):
                if mask not in self._dealt:
                    self._dealt.add(mask)
                    return mask
                mask = self._hand(near)
        return mask

    def _hand(self, size: int) -> Mask:
        bits, waiting = 0, []
        while bits.bit_count() < size:
            if not self._deck:
                self._deck = self._rng.permutation(np.asarray(self._space.droppable)).tolist()
            unit = self._deck.pop()
            if bits >> unit & 1:
                waiting.append(unit)  # dealt twice in one hand, as the deck ran out: it goes to the next hand
            else:
                bits |= 1 << unit
        self._deck += waiting
        return Mask(bits, self._space.n_units, (0.0,) * len(self._space.dials))


def spread_sizes(space: Space, count: int, small_share: float, rng: np.random.Generator) -> list[int]:
    """`count` mask sizes in random order: a share of small ones, the others spread evenly over the limits."""
    least = _least(space)
    small = min(space.largest, max(least, round(_SMALL * space.n_units)))
    n_small = round(small_share * count) if least else 0
    few = np.geomspace(least, small, n_small) if n_small else np.zeros(0)
    sizes = np.concatenate((few, np.linspace(least, space.largest, count - n_small)))
    shuffled: list[int] = rng.permutation(sizes.round().astype(np.int64)).tolist()
    return shuffled


def _least(space: Space) -> int:
    """The least number of units of a mask that drops any."""
    return min(max(1, space.min_drop), space.largest)


def drawn_fraction(mask: Mask, n: int, fraction: float, seed: int) -> npt.NDArray[np.int64]:
    """Which of `n` samples a mask is measured on: a random fraction that is its own, as Attention Pruning does.

    The draw belongs to the mask and the seed, so that a measurement stays a function of the mask and the protocol
    whatever was measured before. The untouched mask draws like any other.

    Args:
        mask: whose samples to draw.
        n: how many samples there are, such as prompts.
        fraction: eta in the paper, in (0, 1]; at least one sample is drawn.
        seed: of the protocol.

    Returns:
        Ascending numbers of the drawn samples.
    """
    share = require_number("fraction", fraction, 0, 1, positive=True)
    most = require_count("n", n, 1)
    key = hashlib.sha256(mask.packed() + repr(mask.dials).encode()).digest()
    rng = np.random.default_rng([require_count("seed", seed, 0), int.from_bytes(key[:16], "little")])
    return np.sort(rng.choice(most, size=max(1, round(share * most)), replace=False))
