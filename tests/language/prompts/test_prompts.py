"""Prompt sets: groups, nested stratified samples and splits that share nothing."""

import json
import pickle
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairmend.errors import DataError, InputError
from fairmend.language.prompts.prompts import PromptSet, prompt_set


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


def crossed(words: dict[str, int], templates: int) -> PromptSet:
    """Every word of every group in every template."""
    names = [(f"{group}{k}", group) for group, size in words.items() for k in range(size)]
    rows = [(word, f"t{t}", group) for word, group in names for t in range(templates)]
    return prompt_set(
        [f"{word} {template}" for word, template, _ in rows],
        [group for *_, group in rows],
        axis="made",
        source="test",
        licence="CC0",
        columns={"word": [word for word, *_ in rows], "template": [template for _, template, _ in rows]},
    )


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(4, 9), min_size=1),
    st.integers(4, 9),
    st.integers(2, 3),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_parts_of_a_split_by_two_columns_share_neither_and_are_whole_crossings(words, templates, n_parts, seed):
    prompts = crossed(words, templates)
    parts = prompts.split([1] * n_parts, seed=seed, by=("word", "template"))
    for one, other in combinations(parts, 2):
        for name in ("word", "template"):
            assert not set(one.columns[name]) & set(other.columns[name])
    for part in parts:
        inside = set(part.columns["word"]), set(part.columns["template"])
        assert len(part) == len(inside[0]) * len(inside[1])
        assert abs(len(inside[1]) - templates / n_parts) < 1
        for group, size in words.items():
            assert abs(sum(word[0] == group for word in inside[0]) - size / n_parts) < 1
    for name in ("word", "template"):
        assert {value for part in parts for value in part.columns[name]} == set(prompts.columns[name])


def test_what_a_split_by_two_columns_leaves_out_is_noted():
    search, judge = crossed({"a": 4, "b": 4}, 4).split(seed=0, by=("word", "template"))
    assert (len(search), len(judge)) == (8, 8)
    assert (
        search.notes == judge.notes == ("left out, so that the parts share no word and no template: 16 of 32 prompts",)
    )


def test_a_split_by_one_column_in_a_tuple_is_the_split_by_that_column():
    prompts = crossed({"a": 6, "b": 4}, 8)
    for one, other in zip(prompts.split(seed=1, by="word"), prompts.split(seed=1, by=("word",)), strict=True):
        assert one.fingerprint() == other.fingerprint()
        assert one.notes == other.notes == ()


def test_equal_texts_are_not_divided_by_two_columns():
    texts = [f"same {k % 4}" for k in range(16)]
    columns = {"word": [f"w{k % 8}" for k in range(16)], "template": [f"t{k // 2}" for k in range(16)]}
    prompts = prompt_set(texts, ["a"] * 16, axis="made", source="test", licence="CC0", columns=columns)
    search, judge = prompts.split(seed=0, by=("word", "template"))
    assert not set(search.texts) & set(judge.texts)


def test_two_columns_that_cannot_be_split_are_named():
    with pytest.raises(DataError, match="too few values of 'word' and values of 'template' to split"):
        crossed({"a": 9, "b": 9}, 1).split(seed=0, by=("word", "template"))
    with pytest.raises(InputError, match="cannot split by 'noun': these prompts have word, template"):
        crossed({"a": 9, "b": 9}, 4).split(seed=0, by=("word", "noun"))
