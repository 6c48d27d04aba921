"""Choices of the tiny models' words, and what plain transformers says of them, sequence by sequence."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from fairmend.language.choices.encoding import EncodedChoices
from fairmend.language.prompts.choices import ChoiceSet, choice_set

Item = tuple[str, tuple[str, ...], tuple[str, ...]]

MIXED: list[Item] = [
    ("w5 w6 w7", (" w8",), (" w9",)),
    ("w5 w6 w7", (" w10",), (" w9",)),
    ("w5 w6", (" w7", " w11"), (" w12", " w13 w14")),
    ("w20 w21 w22 w23", (" w24 w25",), (" w24 w26 w27",)),
    ("w30", (" w31 w32 w33", " w31"), (" w34",)),
    ("", ("w40 w41 w42 w43 w44",), ("w40 w41 w52 w43 w44",)),
    ("", ("w40 w41 w42",), ("w60 w41 w42 w61",)),
    ("w5 w6 w7 w8 w9", (" w8",), (" w9",)),
]


def choices_of(items: Sequence[Item]) -> ChoiceSet:
    """The items, of two groups in turn."""
    contexts, a, b = zip(*items, strict=True)
    groups = ["x" if number % 2 else "y" for number in range(len(items))]
    return choice_set(contexts, a, b, groups, axis="any", source="made", licence="none")


@torch.no_grad()
def by_hand(model: torch.nn.Module, encoded: EncodedChoices, row: int) -> npt.NDArray[np.float64]:
    """Log-likelihood of an item's alternatives, each read alone and whole, in float64 from the logits on."""
    found = []
    for sequence in encoded.sequences[row]:
        logits = model(input_ids=torch.tensor([sequence])).logits[0].double()
        tokens = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(sequence[1:])[:, None])[:, 0]
        found.append(float(tokens[encoded.starts[row] - 1 :].sum()))
    return np.array(found)


def preference_by_hand(model: torch.nn.Module, encoded: EncodedChoices, row: int) -> float:
    """log of the summed probabilities of `a` less that of `b`."""
    values, n_a = by_hand(model, encoded, row), len(encoded.choices.a[row])
    return float(np.logaddexp.reduce(values[:n_a]) - np.logaddexp.reduce(values[n_a:]))
