"""Prompts of an axis of HolisticBias: which buckets are kept, and that no part shares anything with another."""

from pathlib import Path

import pytest

from fairmend.errors import DataError, InputError
from fairmend.language.prompts.holistic_bias import HolisticBias, read_holistic_bias
from fairmend.language.prompts.prompts import holistic_bias_prompts


@pytest.fixture(scope="session")
def corpus(shared_data: Path) -> HolisticBias:
    return read_holistic_bias(shared_data / "holistic_bias" / "v1.1")


def test_the_tiny_leftover_bucket_is_left_out_by_default_and_said(corpus):
    valid = holistic_bias_prompts(corpus, "gender_and_sex", part="valid")
    assert len(valid) == 10_168 - 25
    assert valid.notes == ("left out, with fewer than 30 prompts: (none) (25)",)
    assert valid.licence == "CC BY-SA 4.0"


@pytest.mark.parametrize(("axis", "tiny"), [("gender_and_sex", 25), ("race_ethnicity", 13), ("sexual_orientation", 5)])
def test_the_published_protocol_keeps_every_bucket(corpus, axis, tiny):
    valid = holistic_bias_prompts(corpus, axis, part="valid", min_group=1)
    assert valid.counts["(none)"] == tiny
    assert valid.notes == ()


def test_default_minimums_drop_the_same_buckets_from_every_part(corpus):
    for axis in ("race_ethnicity", "sexual_orientation", "nationality"):
        kept = {holistic_bias_prompts(corpus, axis, part=part).group_names for part in ("all", "valid", "test")}
        assert len(kept) == 1


def test_the_parts_are_the_axis_and_share_no_id(corpus):
    whole, valid, test = (
        holistic_bias_prompts(corpus, "religion", part=part, min_group=1) for part in ("all", "valid", "test")
    )
    assert sorted([*valid.ids.tolist(), *test.ids.tolist()]) == sorted(whole.ids.tolist())
    assert len(set(whole.texts)) < len(whole)


def test_columns_say_what_each_sentence_is_made_of(corpus):
    prompts = holistic_bias_prompts(corpus, "ability")
    number = prompts.texts.index("I love being a Deaf woman.")
    row = {name: column[number] for name, column in prompts.columns.items()}
    assert row == {
        "template": "I love being {noun_phrase}.",
        "bucket": "auditory",
        "descriptor": "Deaf",
        "noun": "woman",
    }
    assert prompts.group_names[prompts.groups[number]] == "auditory"


def test_religion_has_one_named_bucket_and_many_descriptors(corpus):
    assert any("one named bucket" in note for note in holistic_bias_prompts(corpus, "religion").notes)
    by_descriptor = holistic_bias_prompts(corpus, "religion", group_by="descriptor")
    # The data file lists 49 descriptors; a Buddhist, a Catholic ... are fixed phrases of 17 sentences each.
    assert len(by_descriptor.group_names) == 49
    # 32 nouns x 26 templates, and the descriptor alone in the 17 templates that need no noun.
    assert set(by_descriptor.counts.values()) == {849}


def test_an_axis_with_a_single_bucket_points_to_descriptors(corpus):
    with pytest.raises(DataError, match="group HolisticBias by descriptor"):
        holistic_bias_prompts(corpus, "political_ideologies")


def test_templates_that_were_searched_are_never_judged(corpus):
    search, judge = holistic_bias_prompts(corpus, "race_ethnicity", part="valid").split(seed=0, by="template")
    assert not set(search.columns["template"]) & set(judge.columns["template"])
    assert search.group_names == judge.group_names
    assert 0.4 < len(search) / (len(search) + len(judge)) < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis": "sex"}, "did you mean 'gender_and_sex'"),
        ({"group_by": "noun"}, "group_by must be one of 'bucket', 'descriptor', got 'noun'"),
        ({"part": "train"}, "part must be one of 'all', 'valid', 'test', got 'train'"),
    ],
)
def test_unknown_options_are_refused(corpus, options, message):
    with pytest.raises(InputError, match=message):
        holistic_bias_prompts(corpus, **{"axis": "age", **options})
