"""A person's columns as features, labels and groups, with every unusable value refused by name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError
from fairmend.tabular.data.columns import FloatArray, IndexArray, in_float32, indicator, numbers, standardised
from fairmend.tabular.data.kinds import in_words, kind_of, not_numbers, require_levels
from fairmend.tabular.data.sheets import Sheet

MAX_LEVELS = 200  # levels of a text feature; more are names, dates or free text
MAX_CLASSES = 50
MAX_NUMERIC_GROUPS = 10
MAX_GROUPS = 256

_YES = ("1", "true", "yes", "y", "t", "positive", "pos")
_NO = ("0", "false", "no", "n", "f", "negative", "neg", "-1")


def encode_standard(sheet: Sheet, names: Sequence[str], train: IndexArray) -> tuple[list[str], Iterator[FloatArray]]:
    """One-hot encode text, standardise numbers on the train rows, turn booleans into 0 and 1.

    Returns the names of the feature columns and the columns, made one after the other.

    Raises:
        DataError: missing or infinite values, dates, numbers that a few entries turned into text, or a text column
            with very many levels. Some only when the columns are made.
    """
    kept: dict[str, list[str]] = {}  # the levels of columns that are one-hot encoded
    for name in names:
        kind = kind_of(sheet.frame[name])
        if kind in ("text", "category", "mixed", "bytes", "intervals"):
            found = sheet.levels(name)
            require_levels(sheet.frame[name], name)
            levels = sorted(found.names[code] for code in np.unique(found.codes[train]))
            if len(levels) > MAX_LEVELS:
                raise DataError(
                    f"text column {name!r} has {len(levels):,} levels in the train split, at most {MAX_LEVELS} are "
                    "encoded: leave it out if it is a name or free text; if it is a number, look for odd values in it"
                )
            kept[name] = levels[1:]
        elif kind not in ("boolean", "number"):
            raise not_numbers(sheet.frame[name], name)

    def columns() -> Iterator[FloatArray]:
        for name in names:
            if name in kept:
                yield from (indicator(sheet.levels(name), level) for level in kept[name])
                continue
            values = numbers(sheet.frame, name)
            if kind_of(sheet.frame[name]) == "number":
                in_float32(values, name)  # a sentinel such as 1e300 would fit once standardised, and hide the rest
                values = standardised(values, train)
            yield values

    made = [new for name in names for new in ([f"{name}={level}" for level in kept[name]] if name in kept else [name])]
    if not made:
        raise DataError(f"the columns {list(names)} are all constant: there is nothing to predict from")
    return made, columns()


def label_codes(
    sheet: Sheet, label: str, positive: str | float | None
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Return class codes of shape (n,) and the classes as text; with two classes, code 1 is the positive one.

    Raises:
        DataError: missing values, a constant or continuous label, a positive value that does not occur, or two text
            labels of which neither plainly means yes.
    """
    found = sheet.levels(label)
    if len(found.names) < 2:
        raise DataError(f"label {label!r} is constant ({found.names[0]!r} in every row): there is nothing to predict")
    if positive is None and len(found.names) > MAX_CLASSES:
        raise DataError(
            f"label {label!r} has {len(found.names):,} different values, at most {MAX_CLASSES} classes are supported: "
            "bin it, or name the positive value (positive=...)"
        )
    classes = ordered_classes(found.names, f"label {label!r}", positive)
    if positive is not None:
        return (found.codes == found.names.index(classes[1])).astype(np.int64), classes
    return _places(found.names, classes)[found.codes], classes


def ordered_classes(levels: Sequence[str], what: str, positive: str | float | None) -> tuple[str, ...]:
    """The classes in the order of their codes; of two, the positive one last. The one rule, wherever it is asked.

    With `positive` given, it against all others. Otherwise two classes are told apart by words that plainly mean yes
    and no, or as numbers, of which the larger is positive; more than two stay in ascending order.

    Args:
        levels: the labels as text.
        what: what to call them in messages, such as "label 'hired'".
        positive: the positive one.

    Raises:
        DataError: a positive value that does not occur, or two labels of which neither plainly means yes.
    """
    levels = in_order(set(levels))
    if positive is not None:
        wanted = label_text(positive)
        if wanted not in levels:
            close = difflib.get_close_matches(wanted, levels, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(f"positive value {wanted!r} does not occur in {what}: it has {levels[:10]}{hint}")
        others = [level for level in levels if level != wanted]
        return (others[0] if len(others) == 1 else f"not {wanted}", wanted)
    return tuple(_negative_first(levels, what) if len(levels) == 2 else levels)


def group_codes(sheet: Sheet, sensitive: Sequence[str]) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Return group codes of shape (n,) and group names, the crossed values that occur, in order.

    Raises:
        DataError: missing values, a constant column, a number with many values, or very many groups.
    """
    crossed, names = np.zeros(len(sheet), dtype=np.int64), [""]
    for column in sensitive:
        found = sheet.levels(column)
        levels = in_order(set(found.names))
        if len(levels) < 2:
            raise DataError(f"sensitive column {column!r} is constant ({levels[0]!r}): there are no groups to compare")
        if len(levels) > MAX_NUMERIC_GROUPS:
            _refuse_numbers(sheet, column, len(levels))
        both = crossed * len(levels) + _places(found.names, levels)[found.codes]
        occurring = np.flatnonzero(np.bincount(both, minlength=len(names) * len(levels)))
        if len(occurring) > MAX_GROUPS:
            raise DataError(
                f"{' x '.join(sensitive)} make {len(occurring):,} groups, at most {MAX_GROUPS}: merge some levels"
            )
        codes = np.zeros(len(names) * len(levels), dtype=np.int64)
        codes[occurring] = np.arange(len(occurring))
        crossed = codes[both]
        names = [
            f"{names[code // len(levels)]} & {column}={levels[code % len(levels)]}".removeprefix(" & ")
            for code in occurring
        ]
    return crossed, tuple(names)


def _refuse_numbers(sheet: Sheet, column: str, n_levels: int) -> None:
    if kind_of(sheet.frame[column]) == "number":
        raise DataError(
            f"sensitive column {column!r} is a number with {n_levels:,} different values: bin it into a few "
            f"ranges first (at most {MAX_NUMERIC_GROUPS}), for example with pandas.cut"
        )
    found = in_words(sheet.frame[column], column)
    if found is not None:
        raise DataError(f"{found}. As a sensitive column, bin it into a few ranges")


def _places(names: Sequence[str], levels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Where each of `names` stands in `levels`."""
    at = {level: place for place, level in enumerate(levels)}
    return np.array([at[name] for name in names], dtype=np.int64)


def in_order(levels: Iterable[str]) -> list[str]:
    """Sort levels, as numbers if all of them are numbers."""
    values = {level: _as_number(level) for level in levels}
    if any(math.isnan(value) for value in values.values()):
        return sorted(levels)
    return sorted(levels, key=lambda level: (values[level], level))  # "1" and "01" are two levels


def _as_number(level: str) -> float:
    try:
        return float(level)
    except ValueError:
        return math.nan


def _negative_first(levels: list[str], what: str) -> list[str]:
    first, second = levels
    if {first.lower(), second.lower()} <= {*_YES, *_NO}:
        if second.lower() in _YES and first.lower() in _NO:
            return [first, second]
        if first.lower() in _YES and second.lower() in _NO:
            return [second, first]
    if _as_number(first) < _as_number(second):  # not if one is no number, or both are the same
        return [first, second]
    raise DataError(f"{what} has the values {first!r} and {second!r}: say which one is positive (positive=...)")


def label_text(value: str | float) -> str:
    """A label as the text that `Levels` has for it: whole numbers without a decimal point."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()
