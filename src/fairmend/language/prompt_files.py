"""A user's own prompts: a CSV or JSON Lines file with the columns prompt, group and, if wanted, template."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairmend.errors import DataError
from fairmend.language.prompts import PromptSet, Small, prompt_set

REQUIRED = ("prompt", "group")
OPTIONAL = ("template",)
SUFFIXES = (".csv", ".jsonl", ".ndjson")


def read_prompts(
    path: str | Path,
    *,
    axis: str | None = None,
    licence: str = "not stated",
    min_group: int = 10,
    small: Small = "refuse",
) -> PromptSet:
    """Read prompts from a CSV file with a header, or from a JSON Lines file, in UTF-8.

    Args:
        path: the file; `.csv`, or `.jsonl` or `.ndjson`. Every row has a `prompt` and a `group`; with a `template`
            in every row, prompts can be split by it. Other columns are ignored.
        axis: what the groups differ in; the file's name if not given.
        licence: licence of the prompts, for the reports.
        min_group: groups with fewer prompts are refused, or left out.
        small: "refuse" or "drop".

    Raises:
        DataError: the file cannot be read, lacks a column, has an empty or malformed row (named by its line), only
            one group, or groups that are too small.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"{file} must end in {', '.join(SUFFIXES)}: the ending says how prompts are read")
    content = _content(file)
    reader = _csv_rows if file.suffix.lower() == ".csv" else _json_rows
    rows = list(reader(content, file.name))
    if not rows:
        raise DataError(f"{file} has no prompts: give it rows of {', '.join(REQUIRED)}")
    has_template = all("template" in row for row in rows)
    prompts = prompt_set(
        [row["prompt"] for row in rows],
        [row["group"].strip() for row in rows],
        axis=axis or file.stem,
        source=file.name,
        licence=licence,
        columns={"template": [row["template"] for row in rows]} if has_template else None,
    )
    return prompts.without_small_groups(min_group, small)


def _content(file: Path) -> str:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}, line {line}: not UTF-8 ({error.reason}): save the file as UTF-8") from error


def _csv_rows(content: str, name: str) -> Iterator[dict[str, str]]:
    # newline="" so that line breaks inside quoted prompts survive as they are.
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for fields in reader:
            if not fields:
                continue
            if header is None:
                header = [field.strip() for field in fields]
                _check_columns(header, name)
                continue
            where = f"{name}, line {reader.line_num}"
            if len(fields) != len(header):
                raise DataError(
                    f"{where}: {len(fields)} fields, the header has {len(header)}; put prompts with commas in quotes"
                )
            yield _row(dict(zip(header, fields, strict=True)), where)
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: malformed CSV: {error}") from error


def _json_rows(content: str, name: str) -> Iterator[dict[str, str]]:
    # Split at "\n" only: JSON texts may hold other line separators of Unicode.
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            payload = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: malformed JSON: {error}; each line holds one object") from error
        if not isinstance(payload, dict):
            raise DataError(f"{where}: expected an object with {', '.join(REQUIRED)}, got {type(payload).__name__}")
        _check_columns(list(payload), where)
        yield _row(payload, where)


def _check_columns(found: Sequence[str], where: str) -> None:
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        close = [f"{match!r} is not {name!r}" for name in missing for match in _close(name, found)]
        hint = f" ({'; '.join(close)})" if close else ""
        raise DataError(f"{where}: no column {' and '.join(missing)}; found {', '.join(found) or 'none'}{hint}")
    twice = sorted({name for name in (*REQUIRED, *OPTIONAL) if found.count(name) > 1})
    if twice:
        raise DataError(f"{where}: column {', '.join(twice)} occurs twice: keep one")


def _close(name: str, found: Sequence[str]) -> list[str]:
    lowered = {column.lower(): column for column in found}
    return [lowered[match] for match in difflib.get_close_matches(name, lowered, n=1)]


def _row(values: Mapping[str, Any], where: str) -> dict[str, str]:
    row = {name: values[name] for name in (*REQUIRED, *OPTIONAL) if name in values}
    for name, value in row.items():
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{where}: {name} must be a text with words, got {value!r}")
    return row
