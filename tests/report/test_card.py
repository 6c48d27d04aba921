"""The model card: everything given is said, as valid Markdown, and nothing is computed."""

import math
import re
from dataclasses import replace

import pytest

from fairmend.escaping import Markdown
from fairmend.report.card import Card, CardFigure, CardGroup, CardSplit, interval, number, p_value, render_card, signed


@pytest.fixture
def card() -> Card:
    return Card(
        title="Repaired network for people",
        summary=("Three neurons were switched off.", "On held-out rows it is fairer."),
        done=("Search: annealing.", "Dropped in hidden 1: 4, 7."),
        data=("people: 100 rows.", "Licence of the data: CC BY 4.0."),
        splits=(
            CardSplit(
                name="test",
                role="held out",
                n=1234,
                figures=(
                    CardFigure("Equalized-odds difference", 0.1234, 0.0412, -0.0822, -0.1201, -0.0307, "lower"),
                    CardFigure("F1", 0.8, 0.79, -0.01, math.nan, math.nan, "higher"),
                ),
                floor=0.0301,
                p_values=(0.0002, 0.21),
                groups=(CardGroup("sex=F | any", "yes", 600, 20, (0.5, 0.55), (0.1, math.nan)),),
            ),
        ),
        level=0.95,
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
    assert "| Equalized-odds difference (lower is better) | 0.123 | 0.041 | -0.082 | [-0.120, -0.031] |" in text
    assert "| F1 (higher is better) | 0.800 | 0.790 | -0.010 | not defined |" in text
    assert "would show 0.030" in text
    assert "p < 0.001 before, p = 0.210 after" in text
    assert "0.500 → 0.550" in text
    assert "0.100 → not defined" in text
    assert "95% interval" in text
    assert "```python\nimport torch\n```" in text
    assert text.endswith("```\n")


def test_text_from_outside_cannot_break_the_layout(card: Card) -> None:
    hostile = replace(card, title="x\n# y", notes=("a\n\n## Figures | b",), files={"a|b": "c\nd"})
    text = render_card(hostile)
    assert "\n# y" not in text
    assert "\n## Figures |" not in text
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 6, 7)


def test_names_are_no_markup(card: Card) -> None:
    name = "<script>x</script> [a](http://evil.example) `b` *c* \x1b[31m\u202e"
    (split,) = card.splits
    group = replace(split.groups[0], name=name, judged=name)
    split = replace(split, name=name, role=name, groups=(group,))
    told = {"title": name, "summary": (name,), "done": (name,), "data": (name,), "limits": (name,), "notes": (name,)}
    text = render_card(
        replace(card, **told, splits=(split,), files={"mask.json": name}, settings={name: name}, command=name)
    )

    outside, _, command = text.partition("## How it was made")
    shown = [line for line in outside.splitlines() if "script" in line]
    assert len(shown) == 11
    for hostile in ("<script", "](http", "p://", " `b`", " *c*", "\x1b", "\u202e"):
        assert hostile not in "".join(shown)
    assert command == "\n\n```console\n<script>x</script> [a](http://evil.example) `b` *c* \\x1b[31m\\u202e\n```\n"


def test_text_that_is_markdown_stays(card: Card) -> None:
    text = render_card(replace(card, summary=(Markdown("**The network is unchanged**"),)))
    assert "\n**The network is unchanged**\n" in text


def test_what_is_empty_is_left_out(card: Card) -> None:
    text = render_card(replace(card, notes=(), settings={}, command="", splits=()))
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
