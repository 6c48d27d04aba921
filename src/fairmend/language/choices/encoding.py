"""The tokens of choices, and which sequences a model must read to score them.

A sequence is what the tokenizer puts before a text by itself, such as Llama's BOS token, the context, and an
alternative. Where nothing would stand before an alternative, the BOS token does, or the end-of-text token for want of
one. So does lm-evaluation-harness, and so figures are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product, takewhile

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError
from fairmend.language.backend.tokenizers import encode
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.choices import ChoiceSet

Codes = npt.NDArray[np.int64]
Tokens = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EncodedChoices:
    """Choices as one model's tokens.

    Attributes:
        choices: the items.
        sequences: of each item one per alternative, those of `a` before those of `b`.
        starts: where the alternatives of each item begin, `(n_items,)`; at least 1.
    """

    choices: ChoiceSet
    sequences: tuple[tuple[Tokens, ...], ...]
    starts: Codes

    def __len__(self) -> int:
        """Number of items."""
        return len(self.sequences)

    @cached_property
    def differences(self) -> Codes:
        """Where the sequences of each item begin to differ, `(n_items,)`; what stands before is common to all."""
        return np.array([_common(alternatives) for alternatives in self.sequences], dtype=np.int64)

    @cached_property
    def lengths(self) -> tuple[Codes, ...]:
        """How many tokens each alternative of each item has, `(n_alternatives,)` per item."""
        return tuple(
            np.array([len(sequence) - start for sequence in alternatives])
            for alternatives, start in zip(self.sequences, self.starts.tolist(), strict=True)
        )

    def n_tokens(self, rows: npt.ArrayLike | None = None) -> int:
        """How many tokens a model reads to measure the preferences of some items once; of all when not given."""
        return sum(map(len, plan_readings(self, rows).inputs))


@dataclass(frozen=True, eq=False)
class Readings:
    """What a model reads to score some items, and where each scored token is predicted.

    Attributes:
        inputs: token sequences; with sharing, none is the beginning of another.
        owners: number among `rows` of the item that each input belongs to, `(n_inputs,)`; of one of them when shared.
        places: of each scored token its input, the position that predicts it, the token and the number of its
            alternative, `(n_scored, 4)`.
        items: number among `rows` of the item of each alternative, `(n_alternatives,)`.
        sides: 0 where an alternative is of `a`, 1 where of `b`, `(n_alternatives,)`.
    """

    inputs: tuple[Tokens, ...]
    owners: Codes
    places: Codes
    items: Codes
    sides: Codes


def encode_choices(lm: LanguageModel, choices: ChoiceSet) -> EncodedChoices:
    """Tokenise the contexts of choices, each with each of its alternatives.

    Args:
        lm: the model whose tokenizer and context are used.
        choices: the items.

    Raises:
        DataError: an alternative, named by its item's number, that adds no token to its context or changes the
            context's last one, that has the same tokens as one of the other side, or that is too long for the model.
        ModelError: the tokenizer fails, has neither a BOS nor an end-of-text token for items without a context, or
            gives a token without an embedding.
    """
    texts = [
        [context, *(context + text for text in (*first, *second))]
        for context, first, second in zip(choices.texts, choices.a, choices.b, strict=True)
    ]
    distinct = list(dict.fromkeys(text for row in texts for text in row if text))
    encoded = encode(lm.name, lm.tokenizer, distinct, add_special_tokens=False, verbose=False)["input_ids"]
    tokens: dict[str, Tokens] = {"": (), **dict(zip(distinct, map(tuple, encoded), strict=True))}
    begin, alone = _beginnings(lm, distinct[0])
    lm.check_tokens({*alone, *chain.from_iterable(tokens.values())}, choices.source)
    sequences, starts = [], []
    for number, (context, *wholes) in enumerate(texts):
        where = choices.places[number]
        head = tokens[context]
        first = begin if head else alone
        if not head and not first:
            raise DataError(
                f"{where} has no context, and the tokenizer of {lm.name} no BOS or end-of-text token to begin with: "
                "give every item a context"
            )
        found = [tokens[whole] for whole in wholes]
        for whole, row in zip(wholes, found, strict=True):
            _check_boundary(where, context, whole[len(context) :], head, row)
            if len(first) + len(row) > lm.context:
                raise DataError(
                    f"{where}: {whole[:60]!r} has {len(first) + len(row)} tokens, {lm.name} reads {lm.context}: "
                    "shorten the item or leave it out"
                )
        sides = (range(len(choices.a[number])), range(len(choices.a[number]), len(found)))
        for one, other in product(*sides):
            if found[one] == found[other]:
                raise DataError(
                    f"{where}: {wholes[one][len(context) :]!r} and {wholes[other][len(context) :]!r} are the same "
                    f"tokens to {lm.name}: a and b must differ for its tokenizer too"
                )
        sequences.append(tuple(first + row for row in found))
        starts.append(len(first) + len(head))
    return EncodedChoices(choices, tuple(sequences), np.array(starts, dtype=np.int64))


def plan_readings(
    encoded: EncodedChoices, rows: npt.ArrayLike | None = None, *, shared: bool = True, whole: bool = False
) -> Readings:
    """What a model must read to score the alternatives of some items.

    A token's probability depends on the tokens before it alone. So one input serves for all sequences that it begins
    like: an item's context for its single-token alternatives, and for those of other items with the same context. And
    what an item's sequences have in common, before they differ, adds the same to the log-likelihood of each and cancels
    in the preference: it is not scored.

    Args:
        encoded: the items.
        rows: numbers of the items; all when not given.
        shared: whether items share inputs; otherwise each item has its own, for gates per item.
        whole: score every token of the alternatives, not only from where they differ on.
    """
    chosen = range(len(encoded)) if rows is None else np.asarray(rows, dtype=np.int64).tolist()
    alternatives = [
        (item, side, sequence, int(encoded.starts[row] if whole else encoded.differences[row]))
        for item, row in enumerate(chosen)
        for side, sequence in zip(_sides(encoded, row), encoded.sequences[row], strict=True)
    ]
    # The last token predicts nothing that is scored. A sequence that ends before the others differ from it scores
    # nothing, and reads nothing.
    wanted = {
        (0 if shared else item, sequence[:-1]) for item, _, sequence, first in alternatives if first < len(sequence)
    }
    serving: dict[tuple[int, Tokens], int] = {}
    kept: list[tuple[int, Tokens]] = []
    for owner, tokens in sorted(wanted, reverse=True):  # after an input directly come those that it begins with
        if not kept or kept[-1][0] != owner or kept[-1][1][: len(tokens)] != tokens:
            kept.append((owner, tokens))
        serving[owner, tokens] = len(kept) - 1
    owners = np.zeros(len(kept), dtype=np.int64)
    places: list[tuple[int, int, int, int]] = []
    for number, (item, _, sequence, first) in enumerate(alternatives):
        if first < len(sequence):
            at = serving[0 if shared else item, sequence[:-1]]
            owners[at] = item
            places.extend((at, position - 1, sequence[position], number) for position in range(first, len(sequence)))
    return Readings(
        inputs=tuple(tokens for _, tokens in kept),
        owners=owners,
        places=np.array(places, dtype=np.int64).reshape(-1, 4),
        items=np.array([item for item, *_ in alternatives], dtype=np.int64),
        sides=np.array([side for _, side, *_ in alternatives], dtype=np.int64),
    )


def _sides(encoded: EncodedChoices, row: int) -> list[int]:
    return [0] * len(encoded.choices.a[row]) + [1] * len(encoded.choices.b[row])


def _beginnings(lm: LanguageModel, text: str) -> tuple[Tokens, Tokens]:
    """The tokens that the tokenizer puts before a text, and those before an alternative without context."""
    whole = encode(lm.name, lm.tokenizer, [text], return_special_tokens_mask=True, verbose=False)
    added = takewhile(lambda pair: pair[1], zip(whole["input_ids"][0], whole["special_tokens_mask"][0], strict=True))
    begin = tuple(token for token, _ in added)
    spare = (lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id)
    return begin, begin or tuple(token for token in spare if token is not None)[:1]


def _check_boundary(where: str, context: str, alternative: str, head: Tokens, row: Tokens) -> None:
    if row[: len(head)] != head:
        raise DataError(
            f"{where}: the alternative {alternative!r} merges with the end of its context {context[-40:]!r} into other "
            "tokens, so that it has no probability of its own: end the context with a whole word and begin the "
            "alternative with the space"
        )
    if len(row) == len(head):
        raise DataError(
            f"{where}: the alternative {alternative!r} has no tokens after its context {context[-40:]!r}: use words "
            "that the tokenizer knows"
        )


def _common(sequences: Sequence[Tokens]) -> int:
    """How many tokens all sequences begin with."""
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*sequences, strict=False)))
