"""Measurements kept by mask: in memory here, and as rows of a run's file in `fairmend.runs.store`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask, Space

Key: TypeAlias = tuple[int, tuple[float, ...]]
"""What identifies a mask of one space: its bit set and its dials. A tuple hashes and compares in C, a `Mask` not."""


@dataclass(frozen=True, slots=True, eq=False)
class MeasurementArrays:
    """All measurements of a collection as columns, in the order in which they were made.

    Attributes:
        dropped: bool, (n_masks, n_units); True where the unit is dropped.
        dials: float64, (n_masks, n_dials).
        bias, utility, bias_se, utility_se, seconds: float64, (n_masks,); NaN where there is no figure.
        n: int64, (n_masks,).
        parts: float64, (n_masks, n_parts).
    """

    dropped: npt.NDArray[np.bool_]
    dials: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    utility: npt.NDArray[np.float64]
    bias_se: npt.NDArray[np.float64]
    utility_se: npt.NDArray[np.float64]
    n: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    parts: npt.NDArray[np.float64]


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

    def arrays(self) -> MeasurementArrays:
        """Everything as columns."""
        made, width = list(self._known.values()), (self.space.n_units + 7) // 8
        return self._columns(
            packed=b"".join([bits.to_bytes(width, "little") for bits, _ in self._known]),
            dials=[dials for _, dials in self._known],
            parts=[measurement.parts for measurement in made],
            bias=[measurement.bias for measurement in made],
            utility=[measurement.utility for measurement in made],
            bias_se=[measurement.bias_se for measurement in made],
            utility_se=[measurement.utility_se for measurement in made],
            n=[measurement.n for measurement in made],
            seconds=[measurement.seconds for measurement in made],
        )

    def _columns(
        self, packed: bytes, dials: npt.ArrayLike, parts: npt.ArrayLike, n: npt.ArrayLike, **figures: npt.ArrayLike
    ) -> MeasurementArrays:
        """Columns of the masks' bits, one after the other, and of all else as sequences; None is no figure."""
        number, n_units = np.array(n, dtype=np.int64), self.space.n_units
        bits = np.frombuffer(packed, dtype=np.uint8).reshape(len(number), (n_units + 7) // 8)
        return MeasurementArrays(
            dropped=np.unpackbits(bits, axis=1, count=n_units, bitorder="little").view(np.bool_),
            dials=np.array(dials, dtype=np.float64).reshape(len(number), len(self.space.dials)),
            parts=np.array(parts, dtype=np.float64).reshape(len(number), len(self.figures.parts)),
            n=number,
            **{name: np.array(values, dtype=np.float64) for name, values in figures.items()},
        )

    @cached_property
    def _known(self) -> dict[Key, Measurement]:
        # Read on first use: opening a large run to look at its header costs nothing.
        return self._load()

    def _load(self) -> dict[Key, Measurement]:
        return {}
