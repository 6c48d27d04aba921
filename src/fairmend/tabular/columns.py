"""Turning columns of a table into columns of numbers: one-hot, standardised, min-max, yes or no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairmend.errors import DataError

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
Columns = dict[str, FloatArray]
"""Feature name to values of shape (n,), in the order in which the network takes them."""


def matrix(columns: Mapping[str, FloatArray]) -> npt.NDArray[np.float32]:
    """Stack feature columns into a contiguous float32 matrix of shape (n, n_features)."""
    return np.ascontiguousarray(np.stack(list(columns.values()), axis=1), dtype=np.float32)


def numbers(frame: pd.DataFrame, column: str) -> FloatArray:
    """Return a column as finite float64 values.

    Raises:
        DataError: text, missing or infinite values, named with their count.
    """
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~np.isfinite(values)
    if bad.any():
        example = frame[column].iloc[int(np.flatnonzero(bad)[0])]
        raise DataError(
            f"column {column!r} has {int(bad.sum()):,} values that are not finite numbers (first: {example!r}): "
            "remove or fill them in"
        )
    return values


def text(frame: pd.DataFrame, column: str) -> pd.Series[str]:
    """Return a column as stripped text, whole numbers without a decimal point.

    Raises:
        DataError: missing values, named with their count.
    """
    series = frame[column]
    missing = int(series.isna().sum())
    if missing:
        raise DataError(f"column {column!r} has {missing:,} missing values: remove the rows or name the level")
    if pd.api.types.is_float_dtype(series) and bool((series % 1 == 0).all()):
        series = series.astype(np.int64)
    return series.astype(str).str.strip()


def one_hot(frame: pd.DataFrame, column: str, levels: Sequence[str], drop_first: bool = True) -> Columns:
    """Return one 0/1 column per level, named `column=level`, without the first level unless told.

    A value outside `levels` becomes all zeros; `known` refuses it first where the levels are fixed.
    """
    values = text(frame, column).to_numpy(dtype=object)
    return {f"{column}={level}": (values == level).astype(np.float64) for level in levels[1 if drop_first else 0 :]}


def known(frame: pd.DataFrame, column: str, levels: Sequence[str]) -> None:
    """Check that a column holds only the given levels.

    Raises:
        DataError: other values, named.
    """
    others = sorted(set(text(frame, column)) - set(levels))
    if others:
        raise DataError(f"column {column!r} has the values {_some(others)}, allowed are {_some(levels, 30)}")


def yes_no(frame: pd.DataFrame, column: str, yes: str = "yes", no: str = "no") -> FloatArray:
    """Return 1.0 for `yes` and 0.0 for `no`.

    Raises:
        DataError: any other value.
    """
    known(frame, column, (no, yes))
    return np.asarray(text(frame, column) == yes, dtype=np.float64)


def standardised(values: FloatArray, train: IndexArray) -> FloatArray:
    """Shift and scale to mean 0 and standard deviation 1 on the train rows; a constant column becomes 0 there."""
    mean, spread = float(values[train].mean()), float(values[train].std())
    scaled: FloatArray = (values - mean) / (spread if spread > 0 else 1.0)
    return scaled


def min_max(values: FloatArray) -> FloatArray:
    """Scale to [0, 1] over all rows, as the published encodings do; a constant column becomes 0."""
    low, high = float(values.min()), float(values.max())
    scaled: FloatArray = (values - low) / (high - low if high > low else 1.0)
    return scaled


def _some(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
