"""The model card of a repaired model: what was done, on what, what it changed, and what that does not show.

It formats what it is given and computes nothing, so that its figures are those of the saved result. Its texts are
plain ones, which Markdown shows as they are; what is `fairmend.escaping.Markdown` is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fairmend.escaping import Markdown, code, code_block, markdown, markdown_block
from fairmend.report.tables import table_line


@dataclass(frozen=True, slots=True)
class CardFigure:
    """One figure before and after.

    Attributes:
        name: in words.
        before, after, change: values; NaN where undefined.
        low, high: interval of the change; NaN where undefined.
        better: which direction is better.
    """

    name: str
    before: float
    after: float
    change: float
    low: float
    high: float
    better: Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class CardGroup:
    """Size and rates of one group, before and after; `judged` names the class taken as positive."""

    name: str
    judged: str
    n: int
    positives: int
    true_positive_rates: tuple[float, float]
    false_positive_rates: tuple[float, float]


@dataclass(frozen=True, slots=True)
class CardSplit:
    """The figures on one part of the data.

    Attributes:
        name: of the part.
        role: whether the search saw it, in words.
        n: rows.
        figures: the objective first, then the utilities.
        floor: what a model without any group difference would show on the repaired predictions, by chance.
        p_values: of "no group difference", before and after.
        groups: sizes and rates.
    """

    name: str
    role: str
    n: int
    figures: tuple[CardFigure, ...]
    floor: float
    p_values: tuple[float, float]
    groups: tuple[CardGroup, ...]


@dataclass(frozen=True)
class Card:
    """Everything a model card says.

    Attributes:
        title: the heading.
        summary: sentences on what was changed and what came of it on held-out data.
        done: how the repair was made, a list of sentences.
        data: what the data are, with source and licence.
        splits: figures of every part, the held-out one first.
        level: of the intervals.
        limits: what the figures do not show.
        notes: warnings about the model and the data.
        loading: (how, language, code) of every way to load the model.
        files: name and meaning of every file beside the card.
        settings: names and values.
        command: how to make it again; "" if unknown.
    """

    title: str
    summary: tuple[str, ...]
    done: tuple[str, ...]
    data: tuple[str, ...]
    splits: tuple[CardSplit, ...]
    level: float
    limits: tuple[str, ...]
    loading: tuple[tuple[str, str, str], ...]
    files: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    command: str = ""


def render_card(card: Card) -> str:
    """Return the card as Markdown, ending in a newline."""
    blocks = [f"# {markdown(card.title)}", *map(markdown_block, card.summary)]
    blocks += ["## What was done", bullets(card.done), "## Data", bullets(card.data)]
    if card.notes:
        blocks += ["Notes:", bullets(card.notes)]
    for split in card.splits:
        blocks += _split(split, card.level)
    blocks += ["## What this does not show", bullets(card.limits), "## How to load it"]
    for how, language, text in card.loading:
        blocks += [f"{markdown_block(how)}:", code_block(text, language)]
    blocks += ["## Files", _table(("file", "content"), [(code(name), text) for name, text in card.files.items()])]
    if card.settings:
        blocks += ["## Settings", _table(("setting", "value"), list(card.settings.items()))]
    if card.command:
        blocks += ["## How it was made", code_block(card.command, "console")]
    return "\n\n".join(blocks) + "\n"


def _split(split: CardSplit, level: float) -> list[str]:
    figures = [
        (
            f"{figure.name} ({figure.better} is better)",
            number(figure.before),
            number(figure.after),
            signed(figure.change),
            interval(figure.low, figure.high),
        )
        for figure in split.figures
    ]
    before, after = split.p_values
    chance = (
        f"A model without any group difference would show {number(split.floor)} on as many people by chance. "
        f"Permutation test of no group difference: {p_value(before)} before, {p_value(after)} after."
    )
    rates = [
        (
            group.name,
            group.judged,
            f"{group.n:,}",
            f"{group.positives:,}",
            " → ".join(map(number, group.true_positive_rates)),
            " → ".join(map(number, group.false_positive_rates)),
        )
        for group in split.groups
    ]
    return [
        f"## Figures on the {markdown(split.name)} split",
        f"{split.n:,} rows; {markdown(split.role)}.",
        _table(("figure", "before", "after", "change", f"{level:.0%} interval of the change"), figures),
        chance,
        _table(("group", "positive class", "people", "positives", "true positive rate", "false positive rate"), rates),
    ]


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


def bullets(items: Iterable[str]) -> Markdown:
    """A list."""
    return Markdown("\n".join(f"* {markdown_block(item)}" for item in items))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(map(table_line, [header, ["---"] * len(header), *rows]))
