"""Prompt sets: groups, nested stratified samples, splits that share nothing, and a user's own files."""

import json
import pickle
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairmend.errors import DataError, InputError
from fairmend.language.holistic_bias import HolisticBias
from fairmend.language.holistic_bias_files import read_holistic_bias
from fairmend.language.prompt_files import read_prompts
from fairmend.language.prompts import PromptSet, holistic_bias_prompts, prompt_set


@pytest.fixture(scope="session")
def corpus(shared_data: Path) -> HolisticBias:
    return read_holistic_bias(shared_data / "holistic_bias" / "v1.1")


def made(sizes: dict[str, int], templates: int = 4) -> PromptSet:
    rows = [(f"{group} {k}", group, f"t{k % templates}") for group, size in sizes.items() for k in range(size)]
    texts, groups, template = zip(*rows, strict=True)
    return prompt_set(texts, groups, axis="made", source="test", licence="CC0", columns={"template": template})


sizes = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 12), min_size=1, max_size=5)


# --- the set


def test_a_set_knows_its_groups_and_counts():
    prompts = prompt_set(["x", "y", "z"], ["b", "a", "b"], axis="made", source="test", licence="CC0")
    assert prompts.group_names == ("a", "b")
    assert prompts.groups.tolist() == [1, 0, 1]
    assert prompts.counts == {"a": 1, "b": 2}
    assert len(prompts) == 3


def test_ids_follow_from_the_text_not_from_its_place_or_company():
    first = prompt_set(["x", "y", "z"], ["b", "a", "b"], axis="made", source="test", licence="CC0")
    second = prompt_set(["z", "w", "x"], ["a", "a", "b"], axis="other", source="test", licence="CC0")
    assert first.ids[0] == second.ids[2]
    assert first.ids[2] == second.ids[0]
    assert first.take([2, 0]).ids.tolist() == [first.ids[2], first.ids[0]]


def test_ids_are_the_same_on_every_machine():
    prompts = prompt_set(["I'm Deaf."], ["a"], axis="made", source="test", licence="CC0")
    assert prompts.ids.tolist() == [7358603881478537850]


def test_repeated_texts_have_ids_of_their_own_and_are_noted():
    prompts = prompt_set(["x", "x", "y"], ["a", "b", "a"], axis="made", source="test", licence="CC0")
    assert len(set(prompts.ids.tolist())) == 3
    assert prompts.notes == ("1 of 3 prompts repeat the text of another",)


def test_a_set_cannot_be_changed():
    prompts = made({"a": 2, "b": 2})
    with pytest.raises(ValueError, match="read-only"):
        prompts.groups[0] = 1
    with pytest.raises(AttributeError):
        prompts.axis = "other"  # type: ignore[misc]


def test_a_set_travels_to_another_process():
    prompts = made({"a": 2, "b": 2})
    assert pickle.loads(pickle.dumps(prompts)).fingerprint() == prompts.fingerprint()


def test_the_fingerprint_is_json_and_tells_texts_groups_and_order_apart():
    prompts = made({"a": 3, "b": 3})
    swapped = prompt_set(prompts.texts, ["b"] * 3 + ["a"] * 3, axis="made", source="test", licence="CC0")
    prints = [
        json.dumps(p.fingerprint()) for p in (prompts, swapped, prompts.take([1, 0, 2, 3, 4, 5]), prompts.take([0, 5]))
    ]
    assert len(set(prints)) == 4
    assert made({"a": 3, "b": 3}).fingerprint() == prompts.fingerprint()


@pytest.mark.parametrize(
    ("texts", "groups", "message"),
    [
        ([], [], "no prompts"),
        (["x", " "], ["a", "b"], "prompt 2: prompt and group need words"),
        (["x", "y"], ["a", ""], "prompt 2: prompt and group need words"),
        (["x", "\ud800"], ["a", "b"], "no valid Unicode"),
        (["x", "y"], ["a", "\udfff"], "no valid Unicode"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(texts, groups, message):
    with pytest.raises(DataError, match=message):
        prompt_set(texts, groups, axis="made", source="test", licence="CC0")


def test_uneven_columns_are_refused():
    with pytest.raises(InputError, match="2 prompts need as many groups, got 1"):
        prompt_set(["x", "y"], ["a"], axis="made", source="test", licence="CC0")
    with pytest.raises(InputError, match=r"template \(1,\)"):
        prompt_set(["x", "y"], ["a", "b"], axis="made", source="test", licence="CC0", columns={"template": ["t"]})


# --- small groups


def test_small_groups_are_left_out_and_named():
    kept = made({"a": 9, "b": 8, "c": 2, "d": 1}).without_small_groups(5)
    assert kept.counts == {"a": 9, "b": 8}
    assert kept.notes == ("left out, with fewer than 5 prompts: d (1), c (2)",)


def test_small_groups_are_refused_on_request():
    with pytest.raises(DataError, match=r"fewer than 5 prompts: c \(2\)"):
        made({"a": 9, "b": 8, "c": 2}).without_small_groups(5, small="refuse")


def test_fewer_than_two_groups_are_refused():
    with pytest.raises(DataError, match=r"made has 1 with at least 5 prompts: b \(2\), a \(9\)"):
        made({"a": 9, "b": 2}).without_small_groups(5)


def test_another_word_than_drop_or_refuse_is_refused():
    with pytest.raises(InputError, match="small must be"):
        made({"a": 9, "b": 2}).without_small_groups(1, small="ignore")  # type: ignore[arg-type]


# --- samples


@given(sizes, st.data(), st.integers(0, 5), st.sampled_from(["equal", "proportional"]))
@settings(max_examples=60, deadline=None)
def test_samples_are_nested_without_replacement_and_repeatable(sizes, data, seed, allocation):
    prompts = made(sizes)
    n = data.draw(st.integers(1, len(prompts)))
    try:
        sample = prompts.sample(n, seed, allocation)
    except InputError:
        assert n < len(prompts)
        return
    assert len(set(sample.ids.tolist())) == n
    assert set(sample.texts) <= set(prompts.texts)
    assert prompts.sample(len(prompts), seed, allocation).texts[:n] == sample.texts
    assert prompts.sample(n, seed, allocation).fingerprint() == sample.fingerprint()


@given(sizes, st.data(), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_equal_allocation_gives_every_group_the_same_as_far_as_it_has(sizes, data, seed):
    prompts = made(sizes)
    n = data.draw(st.integers(len(sizes), len(prompts)))
    counts = prompts.sample(n, seed).counts
    most = max(counts.values())
    assert all(count >= most - 1 or count == sizes[name] for name, count in counts.items())


@given(sizes, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_proportional_allocation_keeps_the_shares_within_one_prompt(sizes, seed):
    prompts = made(sizes)
    order = prompts.sample(len(prompts), seed, "proportional")
    for n in range(1, len(prompts) + 1):
        counts = Counter(order.group_names[code] for code in order.groups[:n])
        assert all(abs(counts[name] - n * size / len(prompts)) <= len(sizes) for name, size in sizes.items())


def test_a_groups_order_stays_when_another_group_goes():
    with_c = made({"a": 9, "b": 8, "c": 5}).sample(22, seed=3)
    without_c = made({"a": 9, "b": 8}).sample(17, seed=3)
    assert [text for text in with_c.texts if text[0] != "c"] == list(without_c.texts)


def test_another_seed_draws_another_sample():
    prompts = made({"a": 40, "b": 40})
    assert set(prompts.sample(10, 0).texts) != set(prompts.sample(10, 1).texts)


def test_every_prompt_is_drawn_equally_often():
    prompts = made({"a": 10, "b": 4})
    drawn = Counter(text for seed in range(1500) for text in prompts.sample(6, seed).texts)
    expected = {text: 1500 * 3 / (10 if text[0] == "a" else 4) for text in prompts.texts}
    assert all(abs(drawn[text] - expected[text]) < 5 * np.sqrt(expected[text]) for text in prompts.texts)


@pytest.mark.parametrize("n", [0, 1, 18])
def test_a_sample_too_small_for_its_groups_or_too_large_is_refused(n):
    with pytest.raises(InputError, match=r"cannot sample .* 2 to 17 .* b \(8\), a \(9\)"):
        made({"a": 9, "b": 8}).sample(n, seed=0)


def test_a_proportional_sample_that_would_lose_a_group_is_refused():
    with pytest.raises(InputError, match="proportional allocation"):
        made({"a": 99, "b": 1}).sample(5, seed=0, allocation="proportional")


def test_bad_options_of_a_sample_are_refused():
    with pytest.raises(InputError, match="allocation must be"):
        made({"a": 9, "b": 8}).sample(4, 0, "fair")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="seed must be 0 or more, got -1"):
        made({"a": 9, "b": 8}).sample(4, -1)


# --- splits


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(3, 12), min_size=1),
    st.lists(st.floats(0.4, 1.0), min_size=2, max_size=3),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_a_split_is_a_partition_in_the_asked_shares_of_every_group(sizes, parts, seed):
    prompts = made(sizes)
    try:
        split = prompts.split(parts, seed=seed)
    except DataError:
        assert min(sizes.values()) * min(parts) / sum(parts) < 1.5
        return
    assert sorted(text for part in split for text in part.texts) == sorted(prompts.texts)
    for part, share in zip(split, parts, strict=True):
        for name, size in sizes.items():
            assert abs(part.counts[name] - size * share / sum(parts)) <= 1


def test_equal_texts_are_never_divided():
    texts = [f"same {k // 3}" for k in range(60)]
    prompts = prompt_set(texts, ["a", "b", "b"] * 20, axis="made", source="test", licence="CC0")
    search, judge = prompts.split(seed=0)
    assert not set(search.texts) & set(judge.texts)
    assert len(search) + len(judge) == 60


def test_a_split_by_template_shares_no_template_and_keeps_every_group():
    split = made({"a": 40, "b": 80, "c": 12}, templates=10).split((2, 1, 1), seed=0, by="template")
    for one, other in combinations(split, 2):
        assert not set(one.columns["template"]) & set(other.columns["template"])
    assert all(set(part.counts) == {"a", "b", "c"} for part in split)
    assert sum(len(part) for part in split) == 132


def test_a_split_by_template_keeps_equal_texts_together_too():
    prompts = prompt_set(
        ["x", "y", "x", "z", "v", "w"],
        ["a", "b", "b", "a", "a", "b"],
        axis="made",
        source="test",
        licence="CC0",
        columns={"template": ["1", "1", "2", "2", "3", "3"]},
    )
    parts = {frozenset(part.columns["template"]) for part in prompts.split(seed=0, by="template")}
    assert parts == {frozenset("12"), frozenset("3")}


def test_a_split_depends_on_its_seed_alone():
    prompts = made({"a": 40, "b": 80}, templates=10)
    for by in (None, "template"):
        first, again, other = (prompts.split(seed=seed, by=by)[0].texts for seed in (0, 0, 1))
        assert first == again
        assert first != other


def test_a_group_that_cannot_be_divided_is_named():
    with pytest.raises(DataError, match=r"part \d of 2 would have no prompt of b \(1\): too few prompts"):
        made({"a": 9, "b": 1}).split(seed=0)
    with pytest.raises(DataError, match="too few values of 'template'"):
        made({"a": 9, "b": 9}, templates=1).split(seed=0, by="template")


@pytest.mark.parametrize("parts", [(1,), (), (1, 0), (1, -1), (1, float("nan")), 2])
def test_sizes_of_parts_must_be_positive(parts):
    with pytest.raises(InputError, match="parts must be two or more positive sizes"):
        made({"a": 9, "b": 9}).split(parts, seed=0)


def test_a_split_by_an_unknown_column_is_refused():
    with pytest.raises(InputError, match="cannot split by 'noun': these prompts have template"):
        made({"a": 9, "b": 9}).split(seed=0, by="noun")


# --- HolisticBias


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


# --- a user's own prompts


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_file_is_read_with_quotes_line_breaks_and_a_byte_order_mark(tmp_path):
    content = '\ufeffgroup,prompt,extra\r\nold,"Well, he said ""no""\nand left",1\r\n\r\nyoung, She ,2\r\n'
    prompts = read_prompts(write(tmp_path / "age.csv", content), min_group=1)
    assert prompts.texts == ('Well, he said "no"\nand left', " She ")
    assert prompts.group_names == ("old", "young")
    assert (prompts.axis, prompts.source, prompts.licence) == ("age", "age.csv", "not stated")


def test_a_json_lines_file_is_read_with_its_templates(tmp_path):
    rows = [{"prompt": f"{group} {k}\u2028", "group": group, "template": f"t{k}"} for group in "ab" for k in range(4)]
    content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    prompts = read_prompts(write(tmp_path / "own.jsonl", content), axis="x", licence="MIT", min_group=4)
    assert prompts.counts == {"a": 4, "b": 4}
    assert prompts.texts[0] == "a 0\u2028"
    search, judge = prompts.split(seed=0, by="template")
    assert not set(search.columns["template"]) & set(judge.columns["template"])


def test_repeated_prompts_of_a_file_are_noted(tmp_path):
    content = "prompt,group\nHe,a\nHe,b\nShe,b\n"
    assert read_prompts(write(tmp_path / "own.csv", content), min_group=1).notes == (
        "1 of 3 prompts repeat the text of another",
    )


def test_tiny_groups_of_a_file_are_refused_or_dropped(tmp_path):
    rows = "".join(f"p{k},{group}\n" for group, size in {"a": 12, "b": 11, "c": 3}.items() for k in range(size))
    file = write(tmp_path / "own.csv", "prompt,group\n" + rows)
    with pytest.raises(DataError, match=r"fewer than 10 prompts: c \(3\)"):
        read_prompts(file)
    assert read_prompts(file, small="drop").counts == {"a": 12, "b": 11}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "prompt,group\n", r"must end in \.csv, \.jsonl, \.ndjson"),
        ("p.csv", "", "has no prompts"),
        ("p.csv", "prompt,group\n", "has no prompts"),
        ("p.csv", "Prompt,grp\nHe,a\n", "no column prompt and group; found Prompt, grp .*'Prompt' is not 'prompt'"),
        ("p.csv", "prompt,group,prompt\nHe,a,b\n", "column prompt occurs twice"),
        ("p.csv", "prompt,group\nHe,a\nHe, she,a\n", "line 3: 3 fields, the header has 2"),
        ("p.csv", "prompt,group\nHe,a\n ,b\n", "line 3: prompt must be a text with words, got ' '"),
        ("p.csv", "prompt,group\nHe,\n", "line 2: group must be a text with words"),
        ("p.csv", 'prompt,group\n"He,a\n', "malformed CSV"),
        ("p.csv", "prompt,group\nHe,a\nShe,a\n", r"has 1 with at least 1 prompts: a \(2\)"),
        ("p.csv", b"prompt,group\nHe,a\nf\xfcr,b\n", "line 3: not UTF-8"),
        ("p.jsonl", '{"prompt": "He", "group": "a"}\n{"prompt":\n', "line 2: malformed JSON"),
        ("p.jsonl", "[" * 100_000, "line 1: malformed JSON"),
        ("p.jsonl", '{"prompt": "He", "group": "a"}\n["x"]\n', "line 2: expected an object .* got list"),
        ("p.jsonl", '{"prompt": "He"}\n', "line 1: no column group; found prompt"),
        ("p.jsonl", '{"prompt": 3, "group": "a"}\n', "line 1: prompt must be a text with words, got 3"),
        ("p.jsonl", '{"prompt": "\\ud800", "group": "a"}\n', "no valid Unicode"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_prompts(write(tmp_path / name, content), min_group=1)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_prompts(tmp_path / "none.csv")
