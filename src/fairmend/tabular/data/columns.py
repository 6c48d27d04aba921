"""Turning columns of a table into columns of numbers: one-hot, standardised, min-max, yes or no."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairmend.errors import DataError
from fairmend.tabular.data.kinds import float_values, kind_of, not_numbers

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
Columns = dict[str, FloatArray]
"""Feature name to values of shape (n,), in the order in which the network takes them."""

_BLOCK = 1 << 13  # rows written at a time: the block of all columns stays in the cache
_WHOLE = 2.0**63
_LONGEST = 60  # characters of a value that a message shows


class Levels(NamedTuple):
    """A column as levels.

    Attributes:
        codes: (n,) into `names`.
        names: every level once, as text, in the order of its first row.
    """

    codes: IndexArray
    names: list[str]


def filled(names: Sequence[str], columns: Iterable[FloatArray], n_rows: int) -> npt.NDArray[np.float32]:
    """Feature columns as a contiguous float32 matrix of shape (n_rows, n_features).

    Columns that are made one after the other never lie in memory together.

    Raises:
        DataError: values that are too large for float32, named with column and count.
    """
    X = np.empty((n_rows, len(names)), dtype=np.float32)
    for place, (name, values) in enumerate(zip(names, columns, strict=True)):
        single = in_float32(values, name)
        for start in range(0, n_rows, _BLOCK):
            X[start : start + _BLOCK, place] = single[start : start + _BLOCK]
    return X


def in_float32(values: npt.NDArray[np.floating], name: str) -> npt.NDArray[np.float32]:
    """Values of shape (n,) in float32, in which networks compute.

    Raises:
        DataError: values that float32 does not hold, with their count.
    """
    with np.errstate(over="ignore"):
        single = np.asarray(values, dtype=np.float32)
    bad = ~np.isfinite(single)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"column {name!r} has {int(bad.sum()):,} values that are too large for float32, in which networks compute "
            f"(first: {float(values[row])!r} in data row {row + 1:,}; the largest is 3.4e38): is it a sentinel for "
            "missing values? Remove those rows or put in a value"
        )
    return single


def numbers(frame: pd.DataFrame, column: str) -> FloatArray:
    """Return a column as finite float64 values: numbers of any kind, yes or no as 1 and 0, numbers written as text.

    Raises:
        DataError: text, dates, missing or infinite values, named with their count and place.
    """
    series = frame[column]
    values = float_values(series)
    if values is None:
        raise not_numbers(series, column)
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"column {column!r} has {int(bad.sum()):,} values that are not finite numbers (first: "
            f"{repr(_plainly(series.iloc[row]))[:_LONGEST]} in data row {row + 1:,}): remove those rows or fill them in"
        )
    return values


def levels(frame: pd.DataFrame, column: str) -> Levels:
    """Return a column as levels: stripped text, whole numbers without a decimal point.

    Raises:
        DataError: missing values, named with their count, or objects that are no levels.
    """
    series = frame[column]
    missing = int(series.isna().sum())
    if missing:
        raise DataError(f"column {column!r} has {missing:,} missing values: remove the rows or name the level")
    # Of objects an array, because pandas before 3 makes an index of a column's levels, which holds no endless numbers.
    objects = series.dtype == object
    try:
        codes, found = pd.factorize(series.to_numpy() if objects else series)
    except TypeError:
        raise DataError(
            f"column {column!r} holds objects such as {series.iloc[0]!r} ({type(series.iloc[0]).__name__}): it needs "
            "text or numbers"
        ) from None
    texts = _texts(pd.Series(found, dtype=object if objects else None), column)
    # 1 and "1", or "F" and " F", are one level.
    places = {name: place for place, name in enumerate(dict.fromkeys(texts))}
    if len(places) < len(texts):
        codes = np.array([places[name] for name in texts], dtype=np.int64)[codes]
    return Levels(codes.astype(np.int64, copy=False), list(places))


def text(frame: pd.DataFrame, column: str) -> pd.Series[str]:
    """Return a column as the text of its `levels`.

    Raises:
        DataError: as `levels`.
    """
    found = levels(frame, column)
    return pd.Series(np.array(found.names, dtype=object)[found.codes], index=frame.index, name=column)


def indicator(found: Levels, name: str) -> FloatArray:
    """1.0 where a column has the level, 0.0 elsewhere, shape (n,)."""
    place = found.names.index(name) if name in found.names else -1
    values: FloatArray = (found.codes == place).astype(np.float64)
    return values


def known(found: Levels, column: str, names: Sequence[str]) -> Levels:
    """The levels of a column, after a check that it holds only the given ones.

    Raises:
        DataError: other values, named.
    """
    others = sorted(set(found.names) - set(names))
    if others:
        raise DataError(f"column {column!r} has the values {_some(others)}, allowed are {_some(names, 30)}")
    return found


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


def _texts(found: pd.Series[Any], column: str) -> list[str]:
    """The text of every level."""
    if isinstance(found.dtype, pd.CategoricalDtype):
        found = found.astype(found.cat.categories.dtype)
    with suppress(OverflowError):  # pandas before 3 asks whether endless whole numbers are floats: they stay objects
        found = found.infer_objects()
    if kind_of(found) == "bytes":
        try:
            return [value.decode("utf-8").strip() for value in found]
        except UnicodeDecodeError:
            raise DataError(f"column {column!r} holds bytes that are no UTF-8 text: decode it first") from None
    if kind_of(found) == "number" and not pd.api.types.is_integer_dtype(found):
        values = float_values(found)
        assert values is not None
        if bool(((np.abs(values) < _WHOLE) & (np.trunc(values) == values)).all()):
            return [str(int(value)) for value in values]
    return [str(name).strip() for name in found.astype(str)]


def _plainly(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _some(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
