"""Texts from outside, made safe for terminals, Markdown, pictures and spreadsheets."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fairmend.escaping import (
    Markdown,
    code,
    code_block,
    csv_cell,
    encoded,
    markdown,
    markdown_block,
    picture_text,
    visible,
)

ANY_TEXT = st.text(st.characters(), max_size=40) | st.text("<>[](){}!#*_`~|\\&:/.$@-+=1 ahtpw\n\x1b\u202e", max_size=25)
GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(source: str) -> str:
    """What a reader of rendered Markdown sees; AssertionError if it is anything but plain text."""
    html = GITHUB.render(source)
    found = re.fullmatch(r"<p>([^<>]*)</p>\n?|", html)
    assert found is not None, html
    text = found[1] or ""
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        text = text.replace(entity, character)
    return text


@pytest.mark.parametrize(
    ("hidden", "escape"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x07\x00\x7f", r"\x07\x00\x7f"),
        ("\r\n\t", r"\r\n\t"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("\u202egnp\u202c", r"\u202egnp\u202c"),
        ("\u2066\u2069\u200e\u200f\u061c", r"\u2066\u2069\u200e\u200f\u061c"),
        ("F\u200b\ufeff\u2060\xad", r"F\u200b\ufeff\u2060\xad"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\U000e0041", r"\U000e0041"),
        ("caf\udce9", r"caf\udce9"),
        ("a\u200db", r"a\u200db"),
    ],
)
def test_what_is_not_seen_or_moves_the_rest_is_shown_as_an_escape(hidden, escape):
    assert visible(hidden) == escape


@pytest.mark.parametrize(
    "text", ["é 中文 🙂", "می\u200cخواهم", "👩\u200d👧", "क्\u200dष", "a  b", "\\x1b", "[b]:key:[/b]"]
)
def test_words_in_any_script_stay_as_they_are(text):
    assert visible(text) == text


@given(ANY_TEXT)
def test_visible_text_is_one_printable_line_that_stays_as_it_is(text):
    line = visible(text)
    assert len(line.splitlines()) <= 1
    assert visible(line) == line
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line)
    line.encode()


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '<img src=x onerror="alert(1)">',
        "[click](javascript:alert(1))",
        "![pixel](https://evil.example/x.png)",
        "https://evil.example www.evil.example me@evil.example mailto:me@evil.example <https://evil.example>",
        "# heading",
        "- item",
        "1. item",
        "> quote",
        "[x]: https://evil.example",
        "***",
        "~~~",
        "```",
        "**bold** *it* __b__ _i_ ~~gone~~ `code` $math$",
        "a\n\n# b",
        "R&D &lt; &#60; \\* \\",
        "    indented",
    ],
)
def test_markdown_shows_a_hostile_text_as_it_is(hostile):
    assert shown(markdown_block(hostile)) == " ".join(hostile.split())


@given(ANY_TEXT)
def test_markdown_shows_any_text_as_it_is(text):
    assert shown(markdown_block(text)).strip() == visible(" ".join(text.split())).strip()


@given(ANY_TEXT, ANY_TEXT)
def test_a_cell_of_a_table_stays_one_cell(first, second):
    html = GITHUB.render(f"| a | b |\n| --- | --- |\n| {markdown(first)} | {code(second)} |")
    assert html.count("<td>") == 2
    assert set(re.findall(r"</?(\w+)", html)) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}


def test_addresses_are_no_links():
    # GitHub makes links of bare addresses, which this renderer does not.
    text = "https://a.example ftp://b.example www.c.example WWW.d.example e@f.example mailto:g@h.example xmpp:i@j.k"
    assert not re.search(r"(?i)(?<!\\)://|www\.|mailto:|xmpp:|\w@\w", markdown(text))


def test_what_is_markdown_already_is_not_escaped_again():
    assert markdown(Markdown("**x**")) == "**x**"
    assert markdown_block(markdown("*")) == "\\*"


@given(ANY_TEXT)
def test_a_block_of_code_is_not_left(text):
    html = GITHUB.render(str(code_block(text, "console")))
    assert html.startswith('<pre><code class="language-console">')
    assert html.endswith("</code></pre>\n")
    assert html.count("<pre>") == 1


def test_commands_are_copied_as_they_are():
    assert code_block("fairmend show 'a|b*'\n", "console") == "```console\nfairmend show 'a|b*'\n```"
    assert code_block("x\n````\ny").startswith("`````\n")


@pytest.mark.parametrize("text", ["=1+1", "+SUM(A1)", "-cmd|' /C calc'!A0", "@x", "\t=1", "\r=1", " =1", "-", "\n=1"])
def test_a_formula_becomes_a_text(text):
    assert csv_cell(text) in {f"'{text}", f"'{text[0]}'{text[1:]}"}  # some programs begin a cell at a tab or a newline


@pytest.mark.parametrize("value", [-0.5, 3, True, None, "-0.5", "+1e-3", "-12 ", "sex=F", "a-b", "", "50 %"])
def test_numbers_and_other_texts_stay(value):
    assert csv_cell(value) is value


def test_a_byte_of_a_file_name_that_is_no_utf_8_is_written_as_an_escape():
    assert encoded("d\udcffé") == b"d\\udcff\xc3\xa9"


def test_a_label_of_a_picture_is_short_and_no_math():
    assert picture_text("$x$") == r"\$x\$"
    assert picture_text("begin" + "x" * 500 + "end").startswith("beginx")
    assert picture_text("begin" + "x" * 500 + "end").endswith("xend")
    assert len(picture_text("x" * 500)) <= 60


@pytest.mark.parametrize(
    "text", ["x;=1+1", "x\t@SUM(1)", "x\n-1+1", "x; +1", "\uff1d1+1", "\xa0=1", "\ufeff=1", 'a;"=1']
)
def test_no_cell_is_a_formula_wherever_a_spreadsheet_splits(text: str):
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow([csv_cell(text), "1"])
    for separator in (",", ";", "\t"):
        for line in written.getvalue().splitlines():
            cells = [cell.lstrip(' "\xa0\ufeff') for cell in line.split(separator)]
            assert not [cell for cell in cells if cell[:1] in tuple("=+-@\uff1d\uff0b")]


def test_newlines_are_quoted_in_csv():
    text = io.StringIO()
    csv.writer(text).writerow([csv_cell("a\nb"), csv_cell("=c\nd")])
    assert next(csv.reader(io.StringIO(text.getvalue(), newline=""))) == ["a\nb", "'=c\nd"]
