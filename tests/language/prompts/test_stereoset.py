"""StereoSet: the published sizes, and the three alternatives of every item."""

import json

import pytest

from fairmend.language.prompts.stereoset import stereoset


@pytest.mark.parametrize(
    ("task", "counts"),
    [
        ("intrasentence", {"gender": 255, "profession": 810, "race": 962, "religion": 79}),
        ("intersentence", {"gender": 242, "profession": 827, "race": 976, "religion": 78}),
    ],
)
def test_every_item_of_a_task_has_its_labelled_alternatives(published, task, counts):
    data = json.loads(published("StereoSet/data/dev.json"))["data"][task]
    items = stereoset(task)
    assert items.counts == counts
    for number, item in enumerate(data):
        said = {each["gold_label"]: each["sentence"] for each in item["sentences"]}
        context = items.texts[number]
        whole = [
            context + items.a[number][0],
            context + items.b[number][0],
            context + items.columns["unrelated"][number],
        ]
        before = "" if task == "intrasentence" else f"{item['context']} "
        assert whole == [before + said[label] for label in ("stereotype", "anti-stereotype", "unrelated")]
        assert items.columns["target"][number] == item["target"]


def test_both_tasks_together_are_told_apart_by_a_column(published):
    both = stereoset()
    assert both.columns["task"].count("intrasentence") == 2106
    assert len(both) == 4229
    assert {
        text == "" for text, task in zip(both.texts, both.columns["task"], strict=True) if task == "intrasentence"
    } == {True}
