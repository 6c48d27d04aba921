"""Measurements kept by mask: in memory here, and as rows of a run's file in `fairmend.runs.store`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TypeAlias

from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask, Space

Key: TypeAlias = tuple[int, tuple[float, ...]]
"""What identifies a mask of one space: its bit set and its dials. A tuple hashes and compares in C, a `Mask` not."""


class Collection:
    """Measurements of one evaluator, one per mask, in the order in which they were made.

    The first measurement of a mask stays: a later one is ignored. About half a kilobyte of memory per measurement.
    """

    def __init__(self, space: Space, figures: Figures) -> None:
        self.space = space
        self.figures = figures

    def get(self, mask: Mask) -> Measurement | None:
        """The measurement of `mask`, or None when it was not measured yet."""
        return self._known.get((mask.bits, mask.dials))

    def __getitem__(self, mask: Mask) -> Measurement:
        return self._known[mask.bits, mask.dials]

    def put(self, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
        """Keep one measurement per mask."""
        for mask, measurement in zip(masks, measurements, strict=True):
            self._known.setdefault((mask.bits, mask.dials), measurement)

    def flush(self) -> None:
        """Make everything put so far permanent; nothing to do for a collection in memory."""

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[Mask, Measurement]]:
        """(mask, measurement) pairs in the order in which they were made."""
        n_units = self.space.n_units
        for (bits, dials), measurement in self._known.items():
            yield Mask(bits, n_units, dials), measurement

    @cached_property
    def _known(self) -> dict[Key, Measurement]:
        # Read on first use: opening a large run to look at its header costs nothing.
        return self._load()

    def _load(self) -> dict[Key, Measurement]:
        return {}
