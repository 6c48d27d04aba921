"""Tables as data: one set of rows for the screen, for CSV and for Markdown.

Markdown and CSV are escaped here: cells, headings and notes are plain texts.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairmend.errors import InputError
from fairmend.escaping import csv_cell, encoded, markdown, markdown_block
from fairmend.statistics import Mean

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: of its values in the rows, and so in CSV and JSON files.
        heading: for people.
        write: how a value is written for people.
        interval: whether people see the interval from KEY_low to KEY_high behind the value.
        undefined: what people see where there is no value.
    """

    key: str
    heading: str
    write: Callable[[Any], str] = field(default=str, repr=False)
    interval: bool = False
    undefined: str = "-"

    @property
    def keys(self) -> tuple[str, ...]:
        """What a row needs."""
        return (self.key, f"{self.key}_low", f"{self.key}_high") if self.interval else (self.key,)

    def text(self, row: Mapping[str, Cell]) -> str:
        """The value of a row for people."""
        value: Any
        value, *limits = (row[key] for key in self.keys)
        if is_undefined(value):
            return self.undefined
        is_known = self.interval and not any(map(is_undefined, limits))
        return self.write(value) + (f" [{', '.join(map('{:.3f}'.format, limits))}]" if is_known else "")


@dataclass(frozen=True)
class Shown:
    """A table as people see it, in texts: title, headings, rows and notes."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def csv(self) -> bytes:
        """The texts as CSV, headings in the first line; no text is a spreadsheet's formula."""
        return _csv(self.headings, self.rows)


@dataclass(frozen=True)
class Table:
    """Rows of raw values with the columns that write them.

    Args:
        title: of the table.
        columns: for people; CSV files hold every key of the rows.
        rows: one mapping per row, all with the same keys; NaN and None are undefined.
        notes: what a reader must know, one sentence each.

    Raises:
        InputError: a row that lacks a column.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Cell], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            lacking = [key for column in self.columns for key in column.keys if key not in row]
            if lacking:
                raise InputError(f"a row of the table {self.title!r} lacks {lacking}: it has {list(row)}")

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings for people."""
        return tuple(column.heading for column in self.columns)

    def texts(self) -> list[tuple[str, ...]]:
        """The rows for people."""
        return [tuple(column.text(row) for column in self.columns) for row in self.rows]

    def shown(self) -> Shown:
        """The whole table as texts."""
        return Shown(self.title, self.headings, tuple(self.texts()), self.notes)

    def csv(self) -> bytes:
        """The raw values as CSV, keys in the first line, undefined values empty; no text is a spreadsheet's formula."""
        if not self.rows:
            return b""
        keys = list(self.rows[0])
        return _csv(keys, (["" if is_undefined(row[key]) else row[key] for key in keys] for row in self.rows))

    def markdown(self) -> str:
        """A Markdown table with its title, if it has one, above it and the notes below it."""
        lines = [table_line(self.headings), table_line(["---"] * len(self.columns)), *map(table_line, self.texts())]
        notes = (f"* {markdown_block(note)}" for note in self.notes)
        title = [f"**{markdown(self.title)}**", ""] if self.title else []
        return "\n".join([*title, *lines, "", *notes]).rstrip() + "\n"


def is_undefined(value: object) -> bool:
    """Whether there is no value: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def spread(name: str, mean: Mean) -> dict[str, Cell]:
    """A mean as three raw values: NAME, NAME_half_width of its t-interval, NAME_n."""
    return {name: mean.mean, f"{name}_half_width": mean.half_width, f"{name}_n": mean.n}


def fixed(digits: int) -> Callable[[Any], str]:
    """Writes numbers with that many decimals."""
    return lambda value: f"{value:,.{digits}f}"


def table_line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(map(markdown, cells)) + " |"


def _csv(keys: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, keys))
    writer.writerows(map(csv_cell, row) for row in rows)
    return encoded(text.getvalue())
