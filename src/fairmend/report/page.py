"""A report for people: one self-contained HTML file, from what a folder of results holds.

A wing makes a `Page` of its saved records: texts, tables and pictures as plain data. Jinja2 writes it, because it
escapes whatever it is given unless told otherwise, and knows no way around that here: no template marks a text as safe.
The file asks the network for nothing and says so to the browser (its content security policy allows only the style and
script that are in it, by their digests), and everything but sorting and copying works without the script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fairmend
from fairmend.escaping import encoded, short, visible
from fairmend.files import write_atomically
from fairmend.report.plots import Picture
from fairmend.report.tables import Column, Shown, Table, is_undefined

REPORT = "report.html"
_WEB = Path(__file__).parent / "web"
_LONGEST = {"cell": 160, "text": 1500, "heading": 120}  # characters; what is longer unfolds
_LONGEST_WORD = 24  # that a column is kept wide enough for


@dataclass(frozen=True)
class Code:
    """A command or a text of a file, as it is."""

    text: str
    label: str = "command"


@dataclass(frozen=True)
class Stored:
    """A picture that another library drew, as an SVG file; shown as an image, in which nothing runs."""

    svg: bytes
    label: str

    @property
    def address(self) -> str:
        """The whole picture as an address of the page's own."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


@dataclass(frozen=True)
class Panel:
    """What picking a point of the front shows.

    Attributes:
        number: of the point.
        title: which point.
        facts: its figures by name.
        command: what saves it; "" if nothing does.
    """

    number: int
    title: str
    facts: Mapping[str, str]
    command: str = ""


@dataclass(frozen=True)
class Choice:
    """A front to pick a point of: the picture and the panels that it opens."""

    picture: Picture
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Notes:
    """A list of sentences."""

    items: tuple[str, ...]


Part = str | Table | Shown | Picture | Stored | Code | Choice | Notes


@dataclass(frozen=True)
class Chapter:
    """Texts, tables and pictures below a heading."""

    heading: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Fact:
    """A main figure: its name, what it is, and how sure that is."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What one folder says.

    Attributes:
        title: what was looked at.
        kind: what was done, such as "Repair of a tabular network".
        headline: the verdict in a few words.
        tone: "good", "unsure" or "bad": of the headline.
        verdict: the verdict in sentences.
        warnings: what makes all of it doubtful.
        facts: the main figures.
        chapters: everything else.
    """

    title: str
    kind: str
    headline: str
    tone: str
    verdict: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    chapters: tuple[Chapter, ...] = field(default_factory=tuple)


def pairs(title: str, first: str, second: str, entries: Mapping[str, str]) -> Table:
    """A table of names and values."""
    rows = tuple({"name": name, "value": value} for name, value in entries.items())
    return Table(title, (Column("name", first), Column("value", second)), rows)


def made_chapter(result: Mapping[str, Any], entries: Mapping[str, str]) -> Chapter:
    """How a result was made: command, settings, and what identifies everything that went in.

    Args:
        result: a saved record with a session and versions, as far as it has them.
        entries: settings and digests by name.
    """
    session = result.get("session") or {}
    command = str(session.get("command") or "")
    facts = {name: str(session[name]) for name in ("finished", "platform") if session.get(name)}
    versions = {f"version of {name}": str(said) for name, said in (result.get("versions") or {}).items()}
    table = pairs("Settings, versions and digests", "what", "value", {**facts, **entries, **versions})
    return Chapter("How it was made", (*([Code(command)] if command else []), table))


def render(pages: Sequence[Page]) -> bytes:
    """The pages as one HTML document."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"seen": _seen, "lines": _lines, "kind": lambda part: type(part).__name__.lower()}
    environment.tests["long"] = lambda text, place: len(text) > _LONGEST[place]
    environment.tests["broken"] = lambda text: max(map(len, text.split()), default=0) > _LONGEST_WORD
    environment.globals |= {
        "short": short,
        "longest": _LONGEST,
        "cells": _cells,
        "csv": _csv,
    }
    style, script = ((_WEB / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    text = environment.get_template("page.html").render(
        pages=pages, style=_Own(style), script=_Own(script), policy=policy, version=fairmend.__version__
    )
    return encoded(text)


def write_report(path: Path, pages: Sequence[Page]) -> Path:
    """Write the pages as one HTML file, whole or not at all; return its path.

    Raises:
        RunError: it cannot be written.
    """
    write_atomically(path, render(pages))
    return path


class _Own(str):
    """A text of this package, which is HTML already."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _seen(text: object) -> str:
    """A text on one line, without what is not seen or moves other letters."""
    return visible(" ".join(str(text).split()))


def _lines(text: object) -> str:
    """A text with its lines."""
    return "\n".join(map(visible, str(text).strip().split("\n")))


def _cells(table: Table | Shown) -> list[list[tuple[str, str]]]:
    """Every cell as people see it, with what it sorts by."""
    if isinstance(table, Shown):
        return [[(text, "") for text in row] for row in table.rows]
    rows = []
    for row, texts in zip(table.rows, table.texts(), strict=True):
        values = [row[column.key] for column in table.columns]
        rows.append([(text, _sorted_by(value)) for text, value in zip(texts, values, strict=True)])
    return rows


def _sorted_by(value: object) -> str:
    return repr(float(value)) if isinstance(value, int | float) and not is_undefined(value) else ""


def _csv(table: Table | Shown) -> str:
    """The table as the address of a CSV file, without formulas."""
    content = table.csv()
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(content).decode()}"
