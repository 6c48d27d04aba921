"""Pronouns after occupations: whose statistics count, and sentences that share no word with those held out."""

import json
import re

import pytest

from fairmend.language.prompts.pronouns import TEMPLATES, group_of, occupations, pronoun_choices


@pytest.fixture(scope="module")
def choices(published):
    return pronoun_choices()


def test_every_occupation_stands_in_every_template(choices):
    names = set(choices.columns["occupation"])
    assert len(TEMPLATES) == len(set(TEMPLATES)) >= 24
    assert len(choices) == len(names) * len(TEMPLATES)
    assert set(zip(choices.columns["occupation"], choices.columns["template"], strict=True)) == {
        (name, template) for name in names for template in TEMPLATES
    }
    assert {count // len(TEMPLATES) for count in choices.counts.values()} == {45, 52}


def test_an_occupation_is_of_one_group_that_no_source_contradicts(choices, published):
    group = {
        name: choices.group_names[code]
        for name, code in zip(choices.columns["occupation"], choices.groups.tolist(), strict=True)
    }
    bec = json.loads(published("BEC-Pro/data/professions_english.json"))
    for sex in ("female", "male"):
        listed = published(f"WinoBias/data/{sex}_occupations.txt").split()
        assert all(group.get(name, sex) == sex for name in [*bec[sex], *listed])
        assert set(bec[sex]) <= set(group)
    assert not set(bec["balanced"]) & set(group)
    assert (group["nurse"], group["engineer"]) == ("female", "male")
    assert not {"accountant", "auditor", "salesperson", "bartender", "scientist"} & set(group)


def test_shares_are_those_printed_and_lists_stand_in_where_there_are_none(published):
    shares = occupations()
    assert (shares["nurse"], shares["registered nurse"], shares["CEO"]) == ("89.58", "88.9", "male")
    assert [group_of(share) for share in ("60", "40", "40.34", "59.8", "female")] == [
        "female",
        "male",
        None,
        None,
        "female",
    ]


def test_articles_fit_and_sentences_begin_with_a_capital(choices):
    for text in choices.texts:
        assert text[0].isupper()
        assert not re.search(r"[{}]|\s$|  ", text)
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text)
    assert "An electrician from our street told everyone that" in choices.texts
    assert "My neighbour is a CEO, and" in choices.texts


def test_halves_share_no_noun_and_no_template(choices):
    search, judge = choices.split(seed=3, by=("noun", "template"))
    for name in ("noun", "template", "occupation"):
        assert not set(search.columns[name]) & set(judge.columns[name])
    for part in (search, judge):
        assert part.notes[-1].startswith("left out, so that the parts share no noun and no template: ")
        assert all(count > len(choices) / 10 for count in part.counts.values())
