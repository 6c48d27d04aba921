"""Choices in groups: what is refused, what is compared, and pairs that stay together."""

from collections import Counter

import pytest

from fairmend.errors import DataError, InputError
from fairmend.language.prompts.choices import ChoiceSet, choice_set


def made(n: int = 12, **options: object) -> ChoiceSet:
    given: dict[str, object] = {"axis": "made", "source": "test", "licence": "CC0"} | options
    groups = given.pop("groups", ["f", "m"] * (n // 2))
    return choice_set(
        [f"Number {k} said that" for k in range(n)], [(" he",)] * n, [(" she", " they")] * n, groups, **given
    )  # type: ignore[arg-type]


def test_items_are_taken_with_all_they_have():
    choices = made(weights=range(1, 13), pairs=["p", "p", *[""] * 10], columns={"word": [str(k) for k in range(12)]})
    taken = choices.take([3, 0])
    assert taken.texts == ("Number 3 said that", "Number 0 said that")
    assert (taken.weights.tolist(), taken.pairs.tolist()) == ([4, 1], [2, 0])
    assert (taken.columns["word"], taken.group_names) == (("3", "0"), ("f", "m"))
    assert taken.ids.tolist() == [choices.ids[3], choices.ids[0]]


def test_pairs_are_never_divided():
    choices = made(40, pairs=[f"pair {k // 2}" for k in range(40)], columns={"word": [f"w{k // 4}" for k in range(40)]})
    for by in (None, "word"):
        for part in choices.split(seed=0, by=by):
            assert set(Counter(part.pairs.tolist()).values()) == {2}


def test_one_group_can_be_compared_with_zero_but_not_with_others():
    assert made(4, groups=["f"] * 4, compared="zero").without_small_groups(2).counts == {"f": 4}
    with pytest.raises(DataError, match=r"compares groups, but made has 1 with at least 2 items: f \(4\)"):
        made(4, groups=["f"] * 4).without_small_groups(2)


def test_small_groups_are_counted_in_items():
    with pytest.raises(DataError, match=r"fewer than 2 items: m \(1\); add items"):
        made(4, groups=["f", "f", "f", "m"]).without_small_groups(2, "refuse")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"groups": ["f", " ", "m", "m"]}, "test, item 2: the group is empty"),
        ({"weights": [1, 1, -1, 1]}, r"test, item 3: weight -1\.0 must be a positive number"),
        ({"places": ["a", "b", "c", "d"], "weights": [1, 1, 1, 0]}, r"^d: weight 0\.0 must be"),
        ({"columns": {"word": ["x", "y", "\ud800", "z"]}}, "no valid Unicode"),
    ],
)
def test_items_that_cannot_be_used_are_refused_with_their_place(changed, message):
    with pytest.raises(DataError, match=message):
        made(4, **changed)


def test_alternatives_must_have_words_and_differ():
    about = {"axis": "made", "source": "test", "licence": "CC0"}
    with pytest.raises(DataError, match="item 1: alternative a is empty"):
        choice_set(["x"], [()], [(" b",)], ["g"], **about)
    with pytest.raises(DataError, match="item 1: ' b' stands on both sides"):
        choice_set(["x"], [(" a", " b")], [(" b",)], ["g"], **about)
    with pytest.raises(DataError, match="test has no items"):
        choice_set([], [], [], [], **about)


def test_columns_must_be_as_long_as_the_items():
    with pytest.raises(InputError, match=r"4 contexts need as many of everything, got .*'pairs': 3"):
        made(4, pairs=["", "", ""])
    with pytest.raises(InputError, match="compared must be one of groups, zero, got 'none'"):
        made(4, compared="none")
