"""Choices as tokens: boundaries, what is refused, and what a model must read."""

import numpy as np
import pytest
from choice_cases import Item, choices_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lm import tiny_lm, word_tokenizer
from tokenizers import normalizers, processors

from fairmend.errors import DataError
from fairmend.language.choices.encoding import EncodedChoices, encode_choices, plan_readings
from fairmend.language.models.models import wrap_model

LM = tiny_lm()
WITH_BOS = wrap_model(LM.model, word_tokenizer(bos_token="<s>", unk_token="<unk>"), name="with BOS", end_ids=[2])


def encoded(*items: Item) -> EncodedChoices:
    return encode_choices(LM, choices_of(items))


def test_a_sequence_is_what_the_tokenizer_adds_the_context_and_the_alternative() -> None:
    items: list[Item] = [("w5 w6", (" w7", " w8 w9"), (" w4",)), ("", ("w5 w6",), ("w5 w7",))]
    own = word_tokenizer(bos_token="<s>", unk_token="<unk>")
    own.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    added = encode_choices(wrap_model(LM.model, own, name="own BOS", end_ids=[2]), choices_of(items))
    assert added.sequences == (((1, 5, 6, 7), (1, 5, 6, 8, 9), (1, 5, 6, 4)), ((1, 5, 6), (1, 5, 7)))
    assert added.starts.tolist() == [3, 1]
    assert added.differences.tolist() == [3, 2]
    with_bos = encode_choices(WITH_BOS, choices_of(items))  # nothing but the BOS token can stand before a first word
    assert with_bos.sequences == (((5, 6, 7), (5, 6, 8, 9), (5, 6, 4)), ((1, 5, 6), (1, 5, 7)))
    assert with_bos.starts.tolist() == [2, 1]
    assert encoded(*items).sequences[1] == ((2, 5, 6), (2, 5, 7))  # nor but the end-of-text token here


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (("w5 w6", (" w7",), ("\tw7",)), r"' w7' and '\\tw7' are the same tokens to tiny llama-gqa"),
        (("w5", (" unheard",), (" unseen",)), "' unheard' and ' unseen' are the same tokens"),
        (("w5", ("x9",), (" w7",)), "'x9' merges with the end of its context 'w5'"),
        (("w5", (" w7",), (" ~",)), "' ~' has no tokens after its context 'w5'"),
        (("", ("~",), ("w7",)), "'~' has no tokens"),
        (("w5", (" w6" * 70,), (" w7",)), "has 71 tokens, tiny llama-gqa reads 64"),
    ],
)
def test_items_that_cannot_be_scored_are_refused_by_their_number(item: Item, words: str) -> None:
    lm = tiny_lm()
    lm.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    with pytest.raises(DataError, match=f"^made, item 2.*{words}"):
        encode_choices(lm, choices_of([("w5", (" w6",), (" w7",)), item]))


def test_without_any_token_to_begin_with_items_need_a_context() -> None:
    lm = wrap_model(LM.model, word_tokenizer(pad_token="<pad>", unk_token="<unk>"), name="bare", end_ids=[2])
    with pytest.raises(DataError, match="item 1 has no context"):
        encode_choices(lm, choices_of([("", ("w5",), ("w6",))]))


def test_equal_contexts_are_read_once_and_the_last_token_never() -> None:
    found = encoded(
        ("w5 w6", (" w7",), (" w8",)),
        ("w5 w6", (" w9",), (" w8",)),
        ("w5 w6", (" w7 w8",), (" w9",)),  # reads the context on the way
        ("", ("w7 w8 w4",), ("w7 w9",)),
    )
    assert found.n_tokens([0]) == 2
    assert found.n_tokens([0, 1]) == 2
    assert found.n_tokens([0, 1, 2]) == 3
    assert found.n_tokens([3]) == 3
    assert found.n_tokens() == 6
    assert len(plan_readings(found, shared=False).inputs) == 4


WORDS = st.lists(st.integers(4, 7), min_size=1, max_size=4).map(lambda numbers: "".join(f" w{n}" for n in numbers))
ITEMS = st.lists(
    st.tuples(
        st.sampled_from(["", "w5", "w5 w6", "w6 w5 w4"]),
        st.lists(WORDS, min_size=1, max_size=3, unique=True).map(tuple),
        st.lists(WORDS, min_size=1, max_size=3, unique=True).map(tuple),
    ).filter(lambda item: not set(item[1]) & set(item[2])),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(items=ITEMS, shared=st.booleans(), whole=st.booleans())
def test_a_plan_scores_every_token_that_counts_once_where_its_beginning_is_read(
    items: list[Item], shared: bool, whole: bool
) -> None:
    found = encoded(*items)
    plan = plan_readings(found, shared=shared, whole=whole)
    scored: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for at, position, token, alternative in plan.places.tolist():
        scored.setdefault(alternative, []).append((plan.inputs[at][: position + 1], token))
        assert shared or plan.owners[at] == plan.items[alternative]
    number = 0
    for row, sequences in enumerate(found.sequences):
        first = found.starts[row] if whole else found.differences[row]
        for sequence in sequences:
            assert plan.items[number] == row
            expected = [(sequence[:place], sequence[place]) for place in range(first, len(sequence))]
            assert scored.get(number, []) == expected
            number += 1
    assert number == len(plan.items)
    if shared:
        pairs = [(a, b) for a in plan.inputs for b in plan.inputs if a is not b]
        assert not any(b[: len(a)] == a for a, b in pairs)
    assert np.array_equal(np.unique(plan.places[:, 0]), np.arange(len(plan.inputs)))
