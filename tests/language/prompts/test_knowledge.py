"""Knowledge of gender: what is right comes first, in balanced halves that share no word."""

import pytest

from fairmend.errors import InputError
from fairmend.language.prompts.knowledge import FEMALE, MALE, knowledge_items


def test_the_right_pronoun_comes_first():
    items = knowledge_items()
    right = dict(zip(items.texts, items.a, strict=True))
    assert right["My mother stopped because"] == (" she",)
    assert right["As soon as the king came back,"] == (" he",)
    for a, b, code in zip(items.a, items.b, items.groups.tolist(), strict=True):
        assert (a, b) == (((" she",), (" he",)) if items.group_names[code] == "female" else ((" he",), (" she",)))
    assert items.compared == "zero"


def test_both_groups_have_as_many_words_and_share_none():
    assert len(set(FEMALE)) == len(set(MALE)) == 102
    assert not set(FEMALE) & set(MALE)
    assert knowledge_items().counts == {"female": 2448, "male": 2448}


def test_halves_share_no_word_and_no_template_and_stay_balanced():
    for seed in range(5):
        halves = knowledge_items().split(seed=seed, by=("word", "template"))
        for name in ("word", "template"):
            assert not set(halves[0].columns[name]) & set(halves[1].columns[name])
        assert [half.counts for half in halves] == [{"female": 612, "male": 612}] * 2


def test_an_unknown_set_is_refused():
    with pytest.raises(InputError, match="unknown knowledge 'age': there is gender"):
        knowledge_items("age")
