"""What a column of a table holds: numbers, text, dates; and which entries keep a column of numbers from being one."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairmend.errors import DataError

# fmt: off
Kind = Literal[
    "number", "boolean", "text", "bytes", "category", "mixed",
    "dates", "durations", "periods", "intervals", "times of day", "complex numbers",
]
# fmt: on
_INFERRED: dict[str, Kind] = {
    **dict.fromkeys(("string", "empty"), "text"),
    **dict.fromkeys(("integer", "floating", "mixed-integer-float", "decimal"), "number"),
    **dict.fromkeys(("datetime64", "datetime", "date"), "dates"),
    **dict.fromkeys(("timedelta64", "timedelta"), "durations"),
    "categorical": "category",
    "boolean": "boolean",
    "bytes": "bytes",
    "complex": "complex numbers",
    "time": "times of day",
    "period": "periods",
    "interval": "intervals",
}

_SHOWN = 5
_NUMBER = r"[+-]?\d[\d.,' \u00a0\u202f]*"
_COMMA = re.compile(r"[+-]?\d+,\d+")
_GROUPED = re.compile(r"[+-]?\d{1,3}([,' \u00a0\u202f]\d{3})+(\.\d+)?|[+-]?\d{1,3}(\.\d{3})+,\d+")
_MONEY = r"[$€£¥₹₩₽]|(?:US|A|C)\$|USD|EUR|GBP|CHF|JPY|INR|kr"
_DATE = (
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})( .*)?|"
    r"\d{1,2}[- ]?[A-Za-z]{3,9}\.?[- ]\d{2,4}"
)
# What numbers are written as where they are not plain, and what to do about it.
_FORMS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    (
        "decimal commas",
        _COMMA,
        "write them with a point (pandas.read_csv(..., decimal=',') does)",
    ),
    (
        "thousands separators",
        _GROUPED,
        "write 1234 for 1,234 (pandas.read_csv(..., thousands=',') does; if the comma is a decimal one, decimal=',')",
    ),
    ("percent signs", re.compile(rf"{_NUMBER}%"), "write the number alone, as the network was trained"),
    (
        "currency signs",
        re.compile(rf"[+-]?({_MONEY})\s*{_NUMBER}|{_NUMBER}\s*({_MONEY})"),
        "write the number alone",
    ),
    ("dates", re.compile(_DATE), "turn them into numbers, such as days since a day or an age, or leave the column out"),
    (
        "yes or no as words",
        re.compile(r"true|false|yes|no|t|f|y|n", re.IGNORECASE),
        "write 1 and 0, as the network was trained",
    ),
    ("units", re.compile(rf"{_NUMBER}[A-Za-zµ°²³/]{{1,6}}"), "write the number alone, as the network was trained"),
)
# What one-hot encoding may take as levels: words for yes and no, and numbers with units if there are few.
_LEVELS, _UNITS, _FEW = "yes or no as words", "units", 20


def kind_of(series: pd.Series[Any]) -> Kind:
    """What a column holds, whatever its dtype; missing values are left aside."""
    return _INFERRED.get(pd.api.types.infer_dtype(series, skipna=True), "mixed")


def float_values(series: pd.Series[Any]) -> npt.NDArray[np.float64] | None:
    """A column as float64, shape (n,), missing values as NaN; None if it does not hold numbers only.

    Numbers are numbers of any dtype, Decimals, yes and no, categories that are numbers, and numbers written as text.
    """
    kind = kind_of(series)
    if kind == "category":
        by_code = float_values(pd.Series(series.cat.categories))
        codes = series.cat.codes.to_numpy()
        return None if by_code is None else np.append(by_code, np.nan)[codes]  # code -1, missing, is the last
    if kind in ("number", "boolean"):
        if series.dtype == object or isinstance(series.dtype, pd.ArrowDtype):
            series = series.astype(object).where(series.notna(), np.nan)
        try:
            values: npt.NDArray[np.float64] = series.to_numpy(dtype=np.float64, na_value=np.nan)
        except OverflowError:  # whole numbers of more than 308 digits, which only Python holds
            values = np.array([_as_float(value) for value in series], dtype=np.float64)
        return values
    if kind in ("text", "mixed"):
        codes, found = _factors(series)
        by_code = _parsed(found)
        return None if np.isnan(by_code).any() else np.append(by_code, np.nan)[codes]
    return None


def not_numbers(series: pd.Series[Any], column: str) -> DataError:
    """The refusal of a column that does not hold numbers: says what it holds, and which entries are to blame."""
    found = in_words(series, column)
    if found is not None:
        return DataError(found)
    example = series[series.notna()].iloc[0]
    return DataError(
        f"column {column!r} holds text such as {str(example)!r}, but without encoding every feature must be a number: "
        "leave it out of the features (features=...; a sensitive column can be dropped by drop_sensitive=True), or "
        'encode it (encode="standard"), if the network was trained on that'
    )


def require_levels(series: pd.Series[Any], column: str) -> None:
    """Check that a column of text or other objects is one of levels, which can be one-hot encoded.

    Raises:
        DataError: numbers that a few entries or a way of writing turned into text, dates, or objects.
    """
    if kind_of(series) in ("category", "intervals", "bytes"):
        return  # a person has said that these are levels, or nothing else can be meant
    if float_values(series) is not None:
        raise DataError(
            f"column {column!r} holds numbers written as text, such as {str(series.iloc[0])!r}: turn it into numbers "
            "(frame[name].astype(float)), or into a category if they are codes (.astype('category'))"
        )
    found = in_words(series, column)
    if found is None or f"with {_LEVELS}" in found or (f"with {_UNITS}" in found and series.nunique() <= _FEW):
        return
    raise DataError(found)


def in_words(series: pd.Series[Any], column: str) -> str | None:
    """What a column holds that is neither numbers nor plain text; None if it is plain text."""
    kind = kind_of(series)
    if kind == "category":
        return in_words(series.astype(series.cat.categories.dtype), column)
    if kind not in ("text", "mixed"):
        return f"column {column!r} holds {kind}: turn them into numbers, or leave the column out of the features"
    codes, found = _factors(series)
    counts = np.bincount(codes[codes >= 0], minlength=len(found))
    parsed = _parsed(found)
    spoilt = np.isnan(parsed)
    n_numbers = int(counts[~spoilt].sum())
    if not spoilt.any():
        return None
    odd = next((value for value in found if not _is_plain(value)), None)
    if odd is not None:
        return f"column {column!r} holds objects such as {odd!r}: turn them into numbers, or leave the column out"
    texts = [str(value).strip() for value in found]
    hint = ""
    for name, pattern, remedy in _FORMS:
        fits = np.array([bool(pattern.fullmatch(value)) for value in texts]) & spoilt
        if name == "decimal commas" and all(_GROUPED.fullmatch(texts[place]) for place in np.flatnonzero(fits)):
            continue  # 1,234 alone does not say whether the comma is a decimal one
        written = int(counts[fits].sum())
        if 2 * written >= counts[spoilt].sum() and 2 * (n_numbers + written) > counts.sum():
            others = spoilt & ~fits
            if 2 * written < counts.sum():
                hint = "" if name == _UNITS else f" Some look like {name}: {remedy}."
                break
            more = f"; {_entries(texts, codes, counts, others)}" if others.any() else ""
            example = texts[int(np.flatnonzero(fits)[0])]
            if name == "dates":
                return f"column {column!r} holds dates as text: {written:,} such as {example!r}{more}: {remedy}"
            return (
                f"column {column!r} holds text: {written:,} values with {name}, such as {example!r}{more}: {remedy}, "
                "or leave it out of the features"
            )
    if 2 * n_numbers > counts.sum():
        return (
            f"column {column!r} holds text among {n_numbers:,} numbers: {_entries(texts, codes, counts, spoilt)}."
            f"{hint} Correct or fill in what is no number, or remove its rows; or leave it out of the features; or, if "
            "these are levels and not numbers, make it a category (in a text file, write them as words: n3 for 3)"
        )
    return None


def _entries(texts: list[str], codes: npt.NDArray[np.intp], counts: npt.NDArray[np.int64], which: Any) -> str:
    """The entries that are no numbers, with their count and first rows."""
    places = np.flatnonzero(which)
    shown = []
    for place in places[:_SHOWN]:
        rows = np.flatnonzero(codes == place)[:3] + 1
        more = ", ..." if counts[place] > len(rows) else ""
        shown.append(f"{texts[place]!r} in data row {', '.join(f'{row:,}' for row in rows)}{more}")
    rest = f"; and {len(places) - _SHOWN:,} other values" if len(places) > _SHOWN else ""
    n = int(counts[places].sum())
    return f"{n:,} {'entry that is no number' if n == 1 else 'entries that are no numbers'} ({'; '.join(shown)}{rest})"


def _parsed(found: Any) -> npt.NDArray[np.float64]:
    """Numbers, or numbers written as text, as float64; NaN for everything else."""
    of_text = [_is_plain(value) and not isinstance(value, (bool, np.bool_)) for value in found]
    texts = [str(value).strip() if plain else "" for value, plain in zip(found, of_text, strict=True)]
    return np.array(pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce"), dtype=np.float64)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, Decimal, np.generic)) and not isinstance(value, _Shown)


def _factors(series: pd.Series[Any]) -> tuple[npt.NDArray[np.intp], Any]:
    """Codes of shape (n,), -1 for missing values, and the different values; what has no hash is known by its looks."""
    try:
        return pd.factorize(series)
    except TypeError:
        shown = [None if missing else _Shown(repr(v)) for v, missing in zip(series, series.isna(), strict=True)]
        return pd.factorize(np.array(shown, dtype=object))


class _Shown(str):
    """Stands for an object that has no hash, such as a list."""

    def __repr__(self) -> str:
        return str(self)
