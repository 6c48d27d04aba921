"""A person's table in one form: a pandas frame with text for column names, whatever library and names it came with."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable
from functools import cached_property
from typing import Any

import narwhals.stable.v1 as nw
import pandas as pd

from fairmend.errors import DataError
from fairmend.tabular.data.columns import Levels, levels

FEATURES = "features"
"""Key in a frame's `attrs`: the columns that are features, where the file itself says so (.npz)."""

# Names that libraries give to columns without one: row numbers, in all but name.
_NAMELESS = re.compile(r"Unnamed: \d+(_level_\d+)?|__index_level_\d+__")
_SHOWN = 20
_NO_FEATURE = "no feature unless you name it in features"


class Sheet:
    """A table whose columns have text for names, each turned into levels at most once.

    Named levels of a pandas index become columns, but no features; so do columns without a name.

    Args:
        table: a pandas frame, or an eager frame of any library that narwhals knows (polars, pyarrow, modin, cuDF ...).
        what: what to call it in messages.

    Attributes:
        frame: the columns, rows numbered from 0.
        features: names of the columns that are features unless told otherwise.
        notes: what was left out, and why.

    Raises:
        DataError: something else, or names that are not different from each other as text.
    """

    def __init__(self, table: Any, what: str = "the table") -> None:
        frame = as_frame(table, what)
        if not len(frame):
            raise DataError(f"{what} has no rows")
        given: list[Hashable] = list(frame.columns)
        refuse_duplicates(given, what)
        names = [as_text(name) for name in given]
        refuse_duplicates(names, f"{what}, its names as text,")
        self._names: dict[Hashable, str] = dict(zip(given, names, strict=True))
        self.frame = frame.copy(deep=False)
        self.frame.attrs = {}  # pandas copies them with every column
        self.frame.columns = pd.Index(names, dtype=object)
        self.frame.index = pd.RangeIndex(len(frame))
        notes = self._take_index(frame.index, what)
        said = frame.attrs.get(FEATURES)
        if said is None:
            nameless = [name for name in names if _NAMELESS.fullmatch(name)]
            self.features = [name for name in names if not _NAMELESS.fullmatch(name)]
            notes += [f"column {name!r} has no name of its own and is {_NO_FEATURE}" for name in nameless[:_SHOWN]]
        else:
            self.features = [as_text(name) for name in said]
        self.notes = tuple(notes)

    def _take_index(self, index: pd.Index, what: str) -> list[str]:
        """Make columns of the named levels of the index, and return what is to be said about it."""
        notes = []
        for at, given in enumerate(index.names):
            values = index.get_level_values(at)
            if given is None:
                if not pd.api.types.is_integer_dtype(values):  # row numbers, whatever became of the rows
                    notes.append(f"the index of {what} ({values[0]!r} ...) has no name and was left out")
                continue
            name, column = as_text(given), pd.Series(values).reset_index(drop=True)
            if name not in self.frame.columns:
                self.frame[name] = column
                self._names.setdefault(given, name)
                notes.append(f"index level {name!r} is a column, but {_NO_FEATURE}")
            elif not self.frame[name].astype(object).equals(column.astype(object)):
                raise DataError(
                    f"{what} has a column and an index level named {name!r} with different values: rename one of them"
                )
        return notes

    def column(self, name: Hashable) -> str:
        """The name, as text, of a column that a person names as the table did or as text.

        Raises:
            DataError: no such column; names close ones.
        """
        if isinstance(name, Hashable):
            if name in self._names:
                return self._names[name]
            if as_text(name) in self.frame.columns:
                return as_text(name)
        names = [str(each) for each in self.frame.columns]
        close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
        shown = ", ".join(f'"{each}"' if "," in each else each for each in close or names[:_SHOWN])
        hint = f"did you mean {shown}?" if close else f"the table has {shown}"
        raise DataError(f"there is no column {name!r}: {hint}")

    def columns(self, names: Any) -> list[str]:
        """Likewise for one name or several."""
        if isinstance(names, str) or (isinstance(names, Hashable) and names in self._names):
            return [self.column(names)]
        if not isinstance(names, Iterable):
            return [self.column(names)]
        return [self.column(name) for name in names]

    def levels(self, name: str) -> Levels:
        """See `columns.levels`."""
        if name not in self._levels:
            self._levels[name] = levels(self.frame, name)
        return self._levels[name]

    @cached_property
    def _levels(self) -> dict[str, Levels]:
        return {}

    def __len__(self) -> int:
        return len(self.frame)


def as_frame(table: Any, what: str) -> pd.DataFrame:
    """A pandas frame as it is, an eager frame of another library as a pandas frame.

    Raises:
        DataError: a lazy frame, or no frame at all.
    """
    if isinstance(table, pd.DataFrame):
        return table
    frame = nw.from_native(table, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        raise DataError(f"{what} is a {_type(table)}, which is lazy: collect it first (.collect() or .compute())")
    if not isinstance(frame, nw.DataFrame):
        raise DataError(
            f"{what} is a {_type(table)}: pass a pandas, polars or pyarrow table, or another that narwhals knows"
        )
    return frame.to_pandas()


def as_series(values: Any) -> Any:
    """A column of another library as a pandas series; anything else as it is."""
    column = nw.from_native(values, series_only=True, pass_through=True)
    return column.to_pandas() if isinstance(column, nw.Series) else values


def is_frame(values: Any) -> bool:
    """Whether this is a frame of any library, lazy or not."""
    return isinstance(values, pd.DataFrame) or isinstance(
        nw.from_native(values, pass_through=True), (nw.DataFrame, nw.LazyFrame)
    )


def as_text(name: Any) -> str:
    """A column's name as text; of a tuple, as MultiIndex columns have them, the parts that are not empty."""
    if isinstance(name, tuple):
        return "_".join(str(part) for part in name if str(part) != "")
    return str(name)


def refuse_duplicates(names: Iterable[Any], where: str) -> None:
    """Check that column names are different from each other.

    Raises:
        DataError: names the columns that occur twice.
    """
    seen: set[Any] = set()
    twice = sorted({str(name) for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    if twice:
        raise DataError(f"{where} has the columns {twice} more than once: give each its own name")


def _type(value: Any) -> str:
    return f"{type(value).__module__.split('.')[0]}.{type(value).__name__}"
