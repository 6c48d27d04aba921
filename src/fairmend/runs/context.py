"""The measurements of one evaluator within a run's file."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from fairmend.errors import RunError
from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask, Space
from fairmend.runs import database
from fairmend.runs.collection import Collection, Key
from fairmend.runs.journal import Journal, Row, row_checksum


class Context(Collection):
    """A collection whose measurements are rows of a run's file, under a name such as "search" or "held-out".

    Made by `Store.context`. Whatever is put is committed within half a second of measuring, or at the next `put` or
    `flush` after that.
    """

    def __init__(
        self, store: Journal, number: int, name: str, space: Space, figures: Figures, fingerprint: Mapping[str, Any]
    ) -> None:
        super().__init__(space, figures)
        self.store = store
        self.number = number
        self.name = name
        self.fingerprint = fingerprint
        self._width = (space.n_units + 7) // 8
        self._dials = struct.Struct(f"<{len(space.dials)}d")
        self._parts = struct.Struct(f"<{len(figures.parts)}d")

    def put(self, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
        """Keep one measurement per mask.

        Raises:
            RunError: the commit failed. The measurements are kept in memory, and the next commit tries again.
        """
        known, store = self._known, self.store
        for mask, made in zip(masks, measurements, strict=True):
            key = (mask.bits, mask.dials)
            if key not in known:
                # In this order Ctrl-C between any two lines leaves the mask committed, or unknown and its id reused.
                store.pending.append(self._row(store.next_id, mask, made))
                known[key] = made
                store.next_id += 1
        if monotonic() >= store.commit_due:
            store.flush()

    def _row(self, number: int, mask: Mask, made: Measurement) -> Row:
        try:
            values = (
                number,
                self.number,
                mask.bits.to_bytes(self._width, "little"),
                self._dials.pack(*mask.dials),
                _plain(made.bias),
                _plain(made.utility),
                _plain(made.bias_se),
                _plain(made.utility_se),
                int(made.n),
                _plain(made.seconds),
                self._parts.pack(*made.parts),
            )
            return (*values, row_checksum(*values))
        except (OverflowError, struct.error) as error:
            raise RunError(
                f"{self.name!r} keeps {self.space.n_units} units, {len(self.space.dials)} dials and the parts "
                f"{self.figures.parts}; {mask!r} with {made!r} does not fit. An evaluator must measure masks of its "
                "own space and return the parts that its figures name"
            ) from error

    def flush(self) -> None:
        """Commit everything put so far."""
        self.store.flush()

    def _load(self) -> dict[Key, Measurement]:
        known: dict[Key, Measurement] = {}
        sizes = (self._width, self._dials.size, self._parts.size)
        for *values, crc in self.store.rows(self.number):
            number, _, mask, dials, bias, utility, bias_se, utility_se, n, seconds, parts = values
            try:
                right = row_checksum(*values) == crc and (len(mask), len(dials), len(parts)) == sizes
            except (TypeError, struct.error):
                right = False
            if right and not (bits := int.from_bytes(mask, "little")) >> self.space.n_units:
                known[bits, self._dials.unpack(dials)] = Measurement(
                    bias=_figure(bias),
                    utility=_figure(utility),
                    parts=self._parts.unpack(parts),
                    n=n,
                    bias_se=_figure(bias_se),
                    utility_se=_figure(utility_se),
                    seconds=_figure(seconds),
                )
            elif not self.store.salvaging:
                raise database.damaged(self.store.path, f"measurement {number!r} of {self.name!r} is not as written")
        return known


def _figure(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(value: float) -> float | None:
    """A plain number, also for one of numpy's; None for NaN, which SQLite does not know."""
    return None if math.isnan(value) else float(value)
