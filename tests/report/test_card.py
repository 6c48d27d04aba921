"""The model card: everything given is said, as valid Markdown, and nothing is computed."""

import math
import re
from dataclasses import replace

import pytest

from fairmend.escaping import Markdown
from fairmend.report.card import Card, Section, interval, number, p_value, render_card, signed
from fairmend.report.tables import Column, Table


def table(name: str) -> Table:
    columns = (
        Column("figure", "figure"),
        Column("before", "before", number),
        Column("change", "change", signed, undefined="not defined"),
    )
    return Table("", columns, ({"figure": name, "before": 0.1234, "change": math.nan},))


@pytest.fixture
def card() -> Card:
    return Card(
        title="Repaired network for people",
        summary=("Three neurons were switched off.", "On held-out rows it is fairer."),
        done=("Search: annealing.", "Dropped in hidden 1: 4, 7."),
        data=("people: 100 rows.", "Licence of the data: CC BY 4.0."),
        sections=(Section("Figures on the test split", ("1,234 rows; held out.", table("F1 (higher is better)"))),),
        limits=("It shows nothing about others.",),
        loading=(("With PyTorch", "python", "import torch\n"),),
        files={"mask.json": "the mask"},
        settings={"seed": "0"},
        notes=("group F is tiny",),
        command="fairmend tabular repair --out DIR",
    )


def test_every_given_fact_is_in_the_card(card: Card) -> None:
    text = render_card(card)
    for fact in (*card.summary, *card.done, *card.data, *card.limits, *card.notes, card.command):
        assert fact in text
    assert text.startswith("# Repaired network for people\n")
    assert "1,234 rows; held out." in text
    assert "\n## Figures on the test split\n" in text
    assert "| F1 (higher is better) | 0.123 | not defined |" in text
    assert "```python\nimport torch\n```" in text
    assert text.endswith("```\n")


def test_text_from_outside_cannot_break_the_layout(card: Card) -> None:
    hostile = replace(card, title="x\n# y", notes=("a\n\n## Figures | b",), files={"a|b": "c\nd"})
    text = render_card(hostile)
    assert "\n# y" not in text
    assert "\n## Figures |" not in text
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4)


def test_names_are_no_markup(card: Card) -> None:
    name = "<script>x</script> [a](http://evil.example) `b` *c* \x1b[31m\u202e"
    sections = (Section(name, (name, table(name), replace(table("F1"), title=name, notes=(name,)))),)
    told = {"title": name, "summary": (name,), "done": (name,), "data": (name,), "limits": (name,), "notes": (name,)}
    text = render_card(
        replace(card, **told, sections=sections, files={"mask.json": name}, settings={name: name}, command=name)
    )

    outside, _, command = text.partition("## How it was made")
    shown = [line for line in outside.splitlines() if "script" in line]
    assert len(shown) == 13
    for hostile in ("<script", "](http", "p://", " `b`", " *c*", "\x1b", "\u202e"):
        assert hostile not in "".join(shown)
    assert command == "\n\n```console\n<script>x</script> [a](http://evil.example) `b` *c* \\x1b[31m\\u202e\n```\n"


def test_text_that_is_markdown_stays(card: Card) -> None:
    text = render_card(replace(card, summary=(Markdown("**The network is unchanged**"),)))
    assert "\n**The network is unchanged**\n" in text


def test_what_is_empty_is_left_out(card: Card) -> None:
    text = render_card(replace(card, notes=(), settings={}, command="", sections=()))
    for heading in ("Notes:", "## Settings", "## How it was made", "## Figures"):
        assert heading not in text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(0.12345), "0.123"),
        (number(math.nan), "not defined"),
        (signed(0.01), "+0.010"),
        (signed(math.nan), "not defined"),
        (interval(-0.5, 0.25), "[-0.500, +0.250]"),
        (interval(math.nan, 0.1), "not defined"),
        (p_value(0.0004), "p < 0.001"),
        (p_value(0.034), "p = 0.034"),
        (p_value(math.nan), "p not defined"),
    ],
)
def test_figures_are_written_with_three_decimals_or_words(written: str, expected: str) -> None:
    assert written == expected
