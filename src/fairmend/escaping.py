"""Texts from outside (names of groups, models and files, prompts, continuations) made safe for where they are shown.

A terminal, a Markdown file, a picture and a spreadsheet each read commands into texts: escape sequences, HTML, math,
formulas. One function for each says what such a text looks like there; whoever writes there calls it.
"""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), soft hyphen, zero-width and directional marks, line and paragraph separators,
# language tags, and the halves of surrogate pairs, which stand for bytes of file names that are not UTF-8. Two marks
# that join or part letters are needed to write Persian, Hindi and composed emoji: they stay between such characters.
_HIDDEN = re.compile(
    "(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
    "|[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
_MARKDOWN = re.compile(
    r"[\\*`|~$]"  # emphasis, code, cells, strikethrough, math; backslash, so that none of ours is undone
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis, but not within a word
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # HTML
    r"|\](?=[(\[])|(?<=\])[(\[]"  # links and images
    r"|:(?=//)|(?<=[Ww]{3})\.|(?i:(?<=mailto):|(?<=xmpp):)|@"  # what is taken for an address
)
_FORMULA = re.compile('((?:^|[;\t\r\n])"?)([ \xa0\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20])')
_ENTITIES = {"<": "&lt;", "&": "&amp;", "@": "&#64;"}
_BLOCK = re.compile(r"[#+=>\[-]|\d+(?=[.)])")  # it would begin a heading, list, rule, quotation or definition
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")
_LONGEST_LABEL, LONGEST_TITLE = 60, 100  # characters in a picture


class Markdown(str):
    """Text that is Markdown already, and holds nothing from outside but what `markdown` or `code` returned."""

    __slots__ = ()


def visible(text: str) -> str:
    """The text with every character that is not seen, or moves others, as an escape such as ``\\x1b`` or ``\\u202e``.

    Newlines and tabs are among them: a name is on one line. What is visible already stays as it is.
    """
    return _HIDDEN.sub(lambda found: _escape(found[0]), text)


def markdown(text: str) -> Markdown:
    """The text as Markdown that shows it as it is: on one line, no HTML, no link, no emphasis; `Markdown` as it is."""
    if isinstance(text, Markdown):
        return text
    line = visible(" ".join(text.split()))
    return Markdown(_MARKDOWN.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), line))


def markdown_block(text: str) -> Markdown:
    """Like `markdown`, for a text that begins a paragraph or an item: it is no heading, list or quotation."""
    if isinstance(text, Markdown):
        return text
    line = markdown(text)
    found = _BLOCK.match(line)
    if found is None:
        return line
    end = found.end()
    return Markdown(f"\\{line}" if not found[0].isdigit() else f"{line[:end]}\\{line[end:]}")


def code(text: str) -> Markdown:
    """The text as a code span of a table's cell. Backticks become apostrophes: nothing escapes them there."""
    line = visible(" ".join(text.split())).replace("`", "'").replace("|", "\\|")
    return Markdown(f"`{line}`")


def code_block(text: str, language: str = "") -> Markdown:
    """The text as a block of code, lines kept, in a fence that the text does not close."""
    lines = "\n".join(map(visible, text.strip().split("\n")))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", lines)), default=0))
    return Markdown(f"{fence}{language}\n{lines}\n{fence}")


def picture_text(text: str, longest: int = _LONGEST_LABEL) -> str:
    """The text as a label of a picture: short, no math, and not hidden from the legend by its first letter."""
    shown = short(visible(text), longest).replace("$", "\\$")
    return f" {shown}" if shown.startswith("_") else shown


def short(text: str, longest: int) -> str:
    """The text with its middle left out if it has more characters than that."""
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


def csv_cell(value: object) -> object:
    """A cell of a CSV file: what a spreadsheet would take for a formula gets an apostrophe before it; numbers stay.

    Spreadsheets of many countries split at semicolons, some at tabs, and begin a cell wherever they do.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value.strip()):
        return value
    if value.lstrip(" ")[:1] in tuple("\t\r\n"):
        value = f"'{value}"
    return _FORMULA.sub(r"\1'\2", value)


def encoded(text: str) -> bytes:
    """The text as UTF-8; a byte of a file name that is not UTF-8 becomes an escape, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
