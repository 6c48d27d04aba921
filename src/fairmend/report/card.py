"""The model card of a repaired model: what was done, on what, what it changed, and what that does not show.

It formats what it is given and computes nothing, so that its figures are those of the saved result. Its texts are
plain ones, which Markdown shows as they are; what is `fairmend.escaping.Markdown` is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fairmend.escaping import Markdown, code, code_block, markdown, markdown_block
from fairmend.report.tables import Column, Table


@dataclass(frozen=True)
class Section:
    """Figures below a heading of the second level: texts and tables in order."""

    heading: str
    parts: tuple[str | Table, ...]


@dataclass(frozen=True)
class Card:
    """Everything a model card says.

    Attributes:
        title: the heading.
        summary: sentences on what was changed and what came of it on held-out data.
        done: how the repair was made, a list of sentences.
        data: what the data are, with source and licence.
        sections: the figures, those of held-out data first.
        limits: what the figures do not show.
        loading: (how, language, code) of every way to load the model.
        files: name and meaning of every file beside the card.
        settings: names and values.
        notes: warnings about the model and the data.
        command: how to make it again; "" if unknown.
        header: what stands above the heading for model hubs to read, as it is.
    """

    title: str
    summary: tuple[str, ...]
    done: tuple[str, ...]
    data: tuple[str, ...]
    sections: tuple[Section, ...]
    limits: tuple[str, ...]
    loading: tuple[tuple[str, str, str], ...]
    files: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    command: str = ""
    header: str = ""


def render_card(card: Card) -> str:
    """Return the card as Markdown, ending in a newline."""
    blocks = [card.header, f"# {markdown(card.title)}", *map(markdown_block, card.summary)]
    blocks += ["## What was done", _bullets(card.done), "## Data", _bullets(card.data)]
    if card.notes:
        blocks += ["Notes:", _bullets(card.notes)]
    for section in card.sections:
        blocks += [f"## {markdown(section.heading)}", *map(_part, section.parts)]
    blocks += ["## What this does not show", _bullets(card.limits), "## How to load it"]
    for how, language, text in card.loading:
        blocks += [f"{markdown_block(how)}:", code_block(text, language)]
    if card.files:
        blocks += ["## Files", _pairs("file", "content", {code(name): text for name, text in card.files.items()})]
    if card.settings:
        blocks += ["## Settings", _pairs("setting", "value", card.settings)]
    if card.command:
        blocks += ["## How it was made", code_block(card.command, "console")]
    return "\n\n".join(filter(None, blocks)) + "\n"


def number(value: float) -> str:
    """A figure with three decimals, or words where it is undefined."""
    return "not defined" if math.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """A change with its sign and three decimals."""
    return "not defined" if math.isnan(value) else f"{value:+.3f}"


def interval(low: float, high: float) -> str:
    """An interval of changes."""
    return "not defined" if math.isnan(low) or math.isnan(high) else f"[{low:+.3f}, {high:+.3f}]"


def p_value(value: float) -> str:
    """A p-value, small ones as a bound."""
    if math.isnan(value):
        return "p not defined"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _part(part: str | Table) -> str:
    return part.markdown().rstrip() if isinstance(part, Table) else markdown_block(part)


def _pairs(first: str, second: str, entries: Mapping[str, str]) -> str:
    rows = tuple({first: name, second: value} for name, value in entries.items())
    return _part(Table("", (Column(first, first), Column(second, second)), rows))


def _bullets(items: Iterable[str]) -> Markdown:
    return Markdown("\n".join(f"* {markdown_block(item)}" for item in items))
