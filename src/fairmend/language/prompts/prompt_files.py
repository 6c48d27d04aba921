"""A user's own prompts: a CSV or JSON Lines file with the columns prompt, group and, if wanted, template.

The rows are read here for files of choices too.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairmend.errors import DataError
from fairmend.files import decode, read_bytes
from fairmend.language.prompts.prompts import PromptSet, Small, prompt_set

SEPARATOR = " | "
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")

_SEPARATED = (".csv", ".tsv")
_DELIMITERS = ",;\t"
_SPELLED = "commas, semicolons, tabs or line breaks"
_LARGEST = 1 << 28  # bytes; a file of prompts has thousands of lines, and fits in memory
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Layout:
    """Columns of a file and what their cells may hold. A cell is a text with words if nothing else is said.

    Attributes:
        each: what a row is, in the plural.
        required, optional: names of the columns; others are ignored unless `others` are kept.
        texts: columns that take no whole number of JSON.
        lists: columns that take a list of texts in JSON; in CSV, texts separated by " | ".
        blank: columns whose cells may be empty.
        others: whether further columns are kept, as far as their cells are texts or whole numbers.
    """

    each: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    others: bool = False


Row = dict[str, Any]
PROMPTS = Layout("prompts", ("prompt", "group"), ("template",), texts=("prompt",))


def read_prompts(
    path: str | Path,
    *,
    axis: str | None = None,
    licence: str = "not stated",
    min_group: int = 10,
    small: Small = "refuse",
) -> PromptSet:
    """Read prompts from a CSV file with a header, or from a JSON Lines file, in UTF-8 (or UTF-16 with its mark).

    Args:
        path: the file; `.csv` or `.tsv` (separated by commas, semicolons or tabs, whichever cuts the header), or
            `.jsonl` or `.ndjson`. Every row has a `prompt` and a `group`, which in JSON may be a whole number; with a
            `template` in every row, prompts can be split by it. Other columns are ignored.
        axis: what the groups differ in; the file's name if not given.
        licence: licence of the prompts, for the reports.
        min_group: groups with fewer prompts are refused, or left out.
        small: "refuse" or "drop".

    Raises:
        DataError: the file cannot be read, lacks a column, has an empty or malformed row (named by its line), only
            one group, or groups that are too small.
    """
    rows, name, stem = read_rows(path, PROMPTS)
    has_template = all("template" in row for _, row in rows)
    prompts = prompt_set(
        [row["prompt"] for _, row in rows],
        [row["group"].strip() for _, row in rows],
        axis=axis or stem,
        source=name,
        licence=licence,
        columns={"template": [row["template"] for _, row in rows]} if has_template else None,
    )
    return prompts.without_small_groups(min_group, small)


def read_rows(path: str | Path, layout: Layout) -> tuple[list[tuple[str, Row]], str, str]:
    """The rows of a file, each with its place (the file's name and its line), and the file's name and stem.

    Raises:
        DataError: see `read_prompts`.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"{file} must end in {', '.join(SUFFIXES)}: the ending says how {layout.each} are read")
    raw = read_bytes(file, _LARGEST)
    if len(raw) > _LARGEST:
        raise DataError(f"{file} is larger than {_LARGEST:,} bytes: take a sample of its {layout.each}")
    # Names that are no Unicode cannot be written into a result.
    name, stem = (part.encode(errors="replace").decode() for part in (file.name, file.stem))
    reader = _separated_rows if file.suffix.lower() in _SEPARATED else _json_rows
    with _long_fields():
        rows = list(reader(decode(raw, file), name, layout))
    if not rows:
        raise DataError(f"{file} has no {layout.each}: give it rows of {', '.join(layout.required)}")
    return rows, name, stem


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the module csv take fields of any length: its limit of 131,072 characters would hide an open quote."""
    before = csv.field_size_limit(_LARGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _separated_rows(content: str, name: str, layout: Layout) -> Iterator[tuple[str, Row]]:
    """Rows of CSV. Rows of empty cells, which spreadsheets write, are left out."""
    reader = _reader(content, _delimiter(content))
    header: list[str] | None = None
    try:
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if header is None:
                header = [field.strip() for field in fields]
                _check_columns(header, name, layout)
                continue
            where = f"{name}, line {reader.line_num}"
            if len(fields) != len(header):
                raise DataError(
                    f"{where}: {len(fields)} fields, the header has {len(header)}; put {layout.each} with {_SPELLED} "
                    "in quotes"
                )
            cells: Row = dict(zip(header, fields, strict=True))
            cells |= {column: cells[column].split(SEPARATOR) for column in layout.lists}
            yield where, _row(cells, where, layout)
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: malformed CSV: {error}") from error


def _reader(content: str, delimiter: str) -> Any:
    # newline="" so that line breaks inside quoted prompts survive as they are.
    return csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)


def _delimiter(content: str) -> str:
    """The one that cuts the header in most fields, as for tables."""

    def fields_of(mark: str) -> int:
        with suppress(csv.Error):  # a quote that ends before another delimiter
            return next((len(fields) for fields in _reader(content, mark) if any(map(str.strip, fields))), 0)
        return 0

    return max(_DELIMITERS, key=fields_of)


class _WholeNumber(str):
    """A whole number of JSON, as it is written: CSV has nothing else."""


class _Object(list[tuple[str, Any]]):
    """A JSON object with all its members, those of the same name too."""


def _json_rows(content: str, name: str, layout: Layout) -> Iterator[tuple[str, Row]]:
    # Split at "\n" only: JSON texts may hold other line separators of Unicode.
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            payload = json.loads(line, parse_int=_WholeNumber, object_pairs_hook=_Object)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: malformed JSON: {error}; each line holds one object") from error
        if not isinstance(payload, _Object):
            raise DataError(f"{where}: expected an object with {', '.join(layout.required)}, got {_shown(payload)}")
        _check_columns([key for key, _ in payload], where, layout)
        cells = dict(payload)
        single = {column: [cells[column]] for column in layout.lists if not isinstance(cells[column], list)}
        yield where, _row(cells | single, where, layout)


def _check_columns(found: Sequence[str], where: str, layout: Layout) -> None:
    missing = [name for name in layout.required if name not in found]
    if missing:
        lowered = {column.lower(): column for column in found}
        matches = [(name, match) for name in missing for match in difflib.get_close_matches(name, lowered, n=1)]
        close = [f"{lowered[match]!r} is not {name!r}" for name, match in matches]
        hint = f" ({'; '.join(close)})" if close else ""
        shown = ", ".join(map(_printable, found[:12])) + (f" and {len(found) - 12} more" if found[12:] else "")
        raise DataError(f"{where}: no column {' and '.join(missing)}; found {shown or 'none'}{hint}")
    named = set(found) - {""} if layout.others else {*layout.required, *layout.optional}
    twice = sorted(name for name in named if found.count(name) > 1)
    if twice:
        raise DataError(f"{where}: column {', '.join(map(_printable, twice))} occurs twice: keep one")


def _row(cells: Row, where: str, layout: Layout) -> Row:
    row: Row = {}
    for name, cell in cells.items():
        known = name in layout.required or name in layout.optional
        if not known and not (layout.others and name.strip() and isinstance(cell, str)):
            continue
        values = cell if name in layout.lists else [cell]
        blank = not known or name in layout.blank
        for value in values or [""]:
            is_text = isinstance(value, str) and not (name in layout.texts and isinstance(value, _WholeNumber))
            if not is_text or not (blank or value.strip()):
                raise DataError(f"{where}: {name} must be a text{'' if blank else ' with words'}, got {_shown(value)}")
        row[name] = [str(value) for value in values] if name in layout.lists else str(cell)
    return row


def _printable(name: str) -> str:
    """The beginning of a column's name: JSON may spell halves of characters, which no terminal can print."""
    return name[:_SHOWN].encode(errors="backslashreplace").decode()


def _shown(value: Any) -> str:
    """A value of JSON as its file has it, cut where it is long."""
    if isinstance(value, _Object | list):
        return "object" if isinstance(value, _Object) else "list"
    text = str(value) if isinstance(value, _WholeNumber) else repr(value)
    if value is None or isinstance(value, bool):
        text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
