"""A run's measurements as a table for other programs: Parquet or CSV."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fairmend.errors import InputError
from fairmend.escaping import csv_cell
from fairmend.files import write_atomically
from fairmend.runs.collection import Collection
from fairmend.runs.store import Store

SUFFIXES = (".parquet", ".csv")


def measurement_frame(collection: Collection, *, parts: bool = False) -> pd.DataFrame:
    """A row per mask, in the order of measuring.

    Columns: `dropped` (lists of unit numbers), a column per dial, `bias`, `utility`, their standard errors `bias_se`
    and `utility_se`, `n` samples and `seconds`. What bias and utility are is in `collection.figures`.

    Args:
        collection: what was measured.
        parts: whether to add a column per raw part, such as a confusion count.
    """
    masks, made = [mask for mask, _ in collection], [measurement for _, measurement in collection]
    columns: dict[str, object] = {"dropped": [list(mask.units()) for mask in masks]}
    for index, dial in enumerate(collection.space.dials):
        columns[dial.name] = np.array([mask.dials[index] for mask in masks], dtype=np.float64)
    for name in ("bias", "utility", "bias_se", "utility_se", "n", "seconds"):
        kind = np.int64 if name == "n" else np.float64
        columns[name] = np.array([getattr(measurement, name) for measurement in made], dtype=kind)
    frame = pd.DataFrame(columns)
    if not parts:
        return frame
    names = _distinct(collection.figures.parts)
    raw = np.array([measurement.parts for measurement in made], dtype=np.float64).reshape(len(made), len(names))
    return pd.concat([frame, pd.DataFrame(raw, columns=names)], axis=1)


def export(store: Store, context: str, path: Path, *, parts: bool = False, overwrite: bool = False) -> int:
    """Write the measurements of one context and return how many there are.

    Args:
        store: the run.
        context: such as "search"; `store.contexts()` has the names.
        path: a .parquet or .csv file; in CSV, dropped units are separated by spaces.
        parts: see `measurement_frame`.
        overwrite: write over a file that exists.

    Raises:
        InputError: another suffix, or the file exists.
        RunError: no such context, or the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot write {path.name}: name a file that ends in {' or '.join(SUFFIXES)}")
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path} exists: name a new file, or say that it may be written over (--force)")
    frame = measurement_frame(store.context(context), parts=parts)
    if path.suffix.lower() == ".csv":
        frame["dropped"] = [" ".join(map(str, units)) for units in frame["dropped"]]
        write_atomically(path, frame.rename(columns=csv_cell).to_csv(index=False).encode())
    else:
        buffer = io.BytesIO()
        frame.to_parquet(buffer, engine="pyarrow", index=False)
        write_atomically(path, buffer.getvalue())
    return len(frame)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that repeat: all continuations of one prompt have one name."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct
