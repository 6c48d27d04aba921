"""A person's columns as features, labels and groups, with every unusable value refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairmend.errors import DataError
from fairmend.tabular.columns import Columns, IndexArray, numbers, one_hot, standardised, text

MAX_LEVELS = 200  # levels of a text feature; more are names, dates or free text
MAX_CLASSES = 50
MAX_NUMERIC_GROUPS = 10
MAX_GROUPS = 50

_YES = ("1", "true", "yes", "y", "t", "positive", "pos")
_NO = ("0", "false", "no", "n", "f", "negative", "neg", "-1")


def encode_standard(frame: pd.DataFrame, names: Sequence[str], train: IndexArray) -> Columns:
    """One-hot encode text, standardise numbers on the train rows, turn booleans into 0 and 1.

    Raises:
        DataError: missing or infinite values, dates, or a text column with very many levels.
    """
    columns: Columns = {}
    for name in names:
        series = frame[name]
        if pd.api.types.is_datetime64_any_dtype(series) or pd.api.types.is_timedelta64_dtype(series):
            raise DataError(f"column {name!r} holds dates: turn them into numbers, or leave the column out")
        if pd.api.types.is_bool_dtype(series):
            columns[name] = numbers(frame, name)
        elif pd.api.types.is_numeric_dtype(series):
            columns[name] = standardised(numbers(frame, name), train)
        else:
            levels = sorted(set(text(frame, name).iloc[train]))
            if len(levels) > MAX_LEVELS:
                raise DataError(
                    f"text column {name!r} has {len(levels):,} levels in the train split, at most {MAX_LEVELS} are "
                    "encoded: leave it out if it is a name or free text; if it is a number, look for odd values in it"
                )
            columns |= one_hot(frame, name, levels)
    if not columns:
        raise DataError(f"the columns {list(names)} are all constant: there is nothing to predict from")
    return columns


def encode_as_is(frame: pd.DataFrame, names: Sequence[str]) -> Columns:
    """Take every column as the number it is.

    Raises:
        DataError: a column that holds text, or missing or infinite values.
    """
    for name in names:
        if not (pd.api.types.is_numeric_dtype(frame[name]) or pd.api.types.is_bool_dtype(frame[name])):
            raise DataError(
                f"column {name!r} holds text such as {str(frame[name].iloc[0])!r}, but without encoding every feature "
                "must be a number: leave it out of the features (a sensitive column can be dropped), or encode it"
            )
    return {name: numbers(frame, name) for name in names}


def label_codes(
    frame: pd.DataFrame, label: str, positive: str | float | None
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Return class codes of shape (n,) and the classes as text; with two classes, code 1 is the positive one.

    Raises:
        DataError: missing values, a constant or continuous label, a positive value that does not occur, or two text
            labels of which neither plainly means yes.
    """
    values = text(frame, label).to_numpy(dtype=object)
    levels = _in_order(set(values))
    if len(levels) < 2:
        raise DataError(f"label {label!r} is constant ({levels[0]!r} in every row): there is nothing to predict")
    if positive is not None:
        wanted = _as_text(positive)
        if wanted not in levels:
            close = difflib.get_close_matches(wanted, levels, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(f"positive value {wanted!r} does not occur in label {label!r}: it has {levels[:10]}{hint}")
        others = [level for level in levels if level != wanted]
        classes = (others[0] if len(others) == 1 else f"not {wanted}", wanted)
        return (values == wanted).astype(np.int64), classes
    if len(levels) > MAX_CLASSES:
        raise DataError(
            f"label {label!r} has {len(levels):,} different values, at most {MAX_CLASSES} classes are supported: "
            "bin it, or name the positive value"
        )
    if len(levels) == 2:
        levels = _negative_first(levels, label)
    codes = {level: code for code, level in enumerate(levels)}
    return np.array([codes[value] for value in values], dtype=np.int64), tuple(levels)


def group_codes(frame: pd.DataFrame, sensitive: Sequence[str]) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Return group codes of shape (n,) and group names, the crossed values that occur, in order.

    Raises:
        DataError: missing values, a constant column, a number with many values, or very many groups.
    """
    parts = []
    for column in sensitive:
        values = text(frame, column)
        levels = set(values)
        if len(levels) < 2:
            raise DataError(
                f"sensitive column {column!r} is constant ({min(levels)!r}): there are no groups to compare"
            )
        if pd.api.types.is_numeric_dtype(frame[column]) and len(levels) > MAX_NUMERIC_GROUPS:
            raise DataError(
                f"sensitive column {column!r} is a number with {len(levels):,} different values: bin it into a few "
                f"ranges first (at most {MAX_NUMERIC_GROUPS}), for example with pandas.cut"
            )
        order = {level: code for code, level in enumerate(_in_order(levels))}
        parts.append((column, values.to_numpy(dtype=object), order))
    keys = list(zip(*([order[value] for value in values] for _, values, order in parts), strict=True))
    found = sorted(set(keys))
    if len(found) > MAX_GROUPS:
        raise DataError(f"{' x '.join(sensitive)} make {len(found):,} groups, at most {MAX_GROUPS}: merge some levels")
    levels_by_part = [list(order) for _, _, order in parts]
    names = tuple(
        " & ".join(
            f"{column}={levels[code]}" for column, levels, code in zip(sensitive, levels_by_part, key, strict=True)
        )
        for key in found
    )
    codes = {key: code for code, key in enumerate(found)}
    return np.array([codes[key] for key in keys], dtype=np.int64), names


def _in_order(levels: set[str]) -> list[str]:
    """Sort levels, as numbers if all of them are numbers."""
    try:
        return sorted(levels, key=float)
    except ValueError:
        return sorted(levels)


def _negative_first(levels: list[str], label: str) -> list[str]:
    first, second = levels
    if {first.lower(), second.lower()} <= {*_YES, *_NO}:
        if second.lower() in _YES and first.lower() in _NO:
            return [first, second]
        if first.lower() in _YES and second.lower() in _NO:
            return [second, first]
    try:
        return sorted(levels, key=float)
    except ValueError:
        raise DataError(
            f"label {label!r} has the values {first!r} and {second!r}: say which one is positive (positive=...)"
        ) from None


def _as_text(value: str | float) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
