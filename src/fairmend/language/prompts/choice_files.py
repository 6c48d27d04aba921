"""A user's own choices: a CSV or JSON Lines file with the columns context, a, b and group."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from fairmend.errors import DataError
from fairmend.language.prompts.choices import ChoiceSet, Compared, choice_set
from fairmend.language.prompts.prompt_files import Layout, read_rows

CHOICES = Layout(
    "items",
    required=("context", "a", "b", "group"),
    optional=("pair", "weight"),
    texts=("context", "a", "b"),
    lists=("a", "b"),
    blank=("context", "pair"),
    others=True,
)


def read_choices(
    path: str | Path,
    *,
    axis: str | None = None,
    licence: str = "not stated",
    compared: Compared | None = None,
) -> ChoiceSet:
    """Read choices from a CSV file with a header, or from a JSON Lines file, in UTF-8 (or UTF-16 with its mark).

    Every row has `context`, `a`, `b` and `group`. A context that is empty stands before whole sentences. Several
    alternatives on a side are separated by " | " in CSV and are a list in JSON, where a text is always one. `pair`
    names the counterfactual pair that the row belongs to (empty: a row of its own) and `weight` is its weight in the
    mean of its group. Any other column that has a text in every row, such as `template`, can be split by.

    A continuation begins with its own space. What is missing is put there: white space at the end of a context is moved
    to its alternatives, and an alternative that begins with a letter or a digit directly after a context gets a space,
    except in the wide characters of Chinese, Japanese and Korean. To end a word that the context begins, begin the word
    in the alternatives instead. White space around whole sentences, and after any alternative, is taken off.

    Args:
        path: the file; `.csv` or `.tsv` (separated by commas, semicolons or tabs, whichever cuts the header), or
            `.jsonl` or `.ndjson`.
        axis: what the groups differ in; the file's name if not given.
        licence: licence of the texts, for the reports.
        compared: see `ChoiceSet`; when not given, whole sentences (no row has a context) are compared with zero, `a`
            being the stereotype, and groups with each other otherwise.

    Raises:
        DataError: the file cannot be read, lacks a column, has an unusable row (named by its line), a group of a
            single item, or a single group where groups are compared.
    """
    rows, name, stem = read_rows(path, CHOICES)
    contexts, sides = [], []
    for _, row in rows:
        context = row["context"].rstrip()
        space = row["context"][len(context) :] if context else ""
        contexts.append(context)
        sides.append([tuple(_continuation(text, context, space) for text in row[side]) for side in ("a", "b")])
    others = [column for column in rows[0][1] if column not in (*CHOICES.required, *CHOICES.optional)]
    kept = [column for column in others if all(row.get(column, "").strip() for _, row in rows)]
    has_weight = any("weight" in row for _, row in rows)
    choices = choice_set(
        contexts,
        [a for a, _ in sides],
        [b for _, b in sides],
        [row["group"].strip() for _, row in rows],
        axis=axis or stem,
        source=name,
        licence=licence,
        compared=compared or ("groups" if any(contexts) else "zero"),
        weights=[_weight(row.get("weight"), where) for where, row in rows] if has_weight else None,
        pairs=[row.get("pair", "").strip() for _, row in rows],
        columns={column: [row[column] for _, row in rows] for column in kept},
        places=[where for where, _ in rows],
    )
    return choices.without_small_groups(2, "refuse")


def read_knowledge(path: str | Path, *, axis: str | None = None, licence: str = "not stated") -> ChoiceSet:
    """Read what a model must keep knowing: a file of choices where `a` is the right answer. See `read_choices`."""
    return read_choices(path, axis=axis, licence=licence, compared="zero")


def _continuation(text: str, context: str, space: str) -> str:
    text = text.rstrip()
    if not context:
        return text.lstrip()
    if space:
        return space + text.lstrip() if text else ""
    parted = text[:1].isalnum() and unicodedata.east_asian_width(text[0]) not in "WF"
    return f" {text}" if parted else text


def _weight(text: str | None, where: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise DataError(f"{where}: weight must be a positive number in every row, got {text!r}") from None
