"""What is proven of a classifier before it scores anything: its tokenizer, its weights, its limit, its padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fairmend.errors import ModelError
from fairmend.language.backend.tokenizers import encode
from fairmend.language.models.text_limits import embedded

# "The people are kind and the dog is nice", because a classifier of one language may know no other's letters.
ORDINARY = (
    "the people are kind and the dog is nice",
    "люди добрые и собака хорошая",
    "οι άνθρωποι είναι καλοί και ο σκύλος είναι καλός",
    "الناس طيبون والكلب لطيف",
    "האנשים נחמדים והכלב נחמד",
    "लोग दयालु हैं और कुत्ता अच्छा है",
    "মানুষ দয়ালু এবং কুকুর ভালো",
    "人们很善良,狗也很好",
    "人々は親切で犬はいい子です",
    "사람들은 친절하고 개는 착하다",
    "ผู้คนใจดีและสุนัขน่ารัก",
)

_UNLIMITED = 1_000_000  # tokenizers that know no limit name an astronomic one
_TOLERANCE = 1e-3  # of logits in single precision: rounding is far below, a pad that is read far above


def check_tokenizer(name: str, tokenizer: Any, model: nn.Module) -> None:
    """Refuse a tokenizer without padding, one that knows no words, and one with tokens that the model does not have.

    Raises:
        ModelError: says which, and what to do.
    """
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer of {name} has no padding token, so that texts cannot be scored together: set "
            "tokenizer.pad_token = tokenizer.eos_token and model.config.pad_token_id = tokenizer.pad_token_id, and "
            "save both"
        )
    if not any(_knows(name, tokenizer, text) for text in ORDINARY):
        raise ModelError(
            f"the tokenizer of {name} gives only unknown tokens for ordinary text, so that all texts would score the "
            "same: it is empty or another model's. Save the tokenizer of the training beside the model, with "
            "save_pretrained"
        )
    rows = embedded(model)
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if beyond:
        raise ModelError(
            f"the tokenizer of {name} has {len(beyond)} tokens that the model does not have, the first is "
            f"{beyond[0][1]!r} with number {beyond[0][0]}, and the embedding has {rows} rows: save the tokenizer of "
            "the training beside the model"
        )


def check_weights(name: str, model: nn.Module) -> None:
    """Refuse weights that are no numbers.

    Raises:
        ModelError: names the first.
    """
    for key, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ModelError(
                f"{name} holds NaN or infinite numbers in {key}: it is damaged, or its training or conversion "
                "overflowed; fetch it again, or take another"
            )


def max_length(name: str, tokenizer: Any, model: nn.Module) -> int:
    """Tokens of the longest text that the model takes, special ones too: the tokenizer's limit or the model's.

    Raises:
        ModelError: neither says one, or it leaves no room for a text.
    """
    limits = []
    named = tokenizer.model_max_length
    if isinstance(named, int | float) and named < _UNLIMITED:
        limits.append(int(named))
    # Absent where positions are relative or computed; then the tokenizer has to know.
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - _positions_before_the_first(model, positions))
    if not limits:
        raise ModelError(
            f"neither the tokenizer of {name} nor its config.json says how many tokens it takes: set model_max_length "
            "in tokenizer_config.json to the length it was trained with"
        )
    if min(limits) <= tokenizer.num_special_tokens_to_add():
        raise ModelError(
            f"{name} takes {min(limits)} tokens (the least of model_max_length of its tokenizer and "
            "max_position_embeddings of its config.json): there is no room for a text; correct these files"
        )
    return min(limits)


def prove_padding(name: str, logits: Callable[[list[str]], torch.Tensor]) -> None:
    """Run a short text alone and beside a longer one: it must have the same logits, (n_texts, n_labels).

    Raises:
        ModelError: it has others, or the model does not run.
    """
    short, long = ORDINARY[0].split()[1], " ".join([ORDINARY[0]] * 2)
    alone, together = logits([short])[0], logits([long, short])[1]
    if not torch.allclose(alone, together, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ModelError(
            f"the scorer {name} scores a text otherwise when it is padded (logits {_shown(alone)} alone, "
            f"{_shown(together)} padded): pad_token_id of its config.json and the padding token of its tokenizer must "
            "be the same, and its attention mask must be heeded"
        )


def _knows(name: str, tokenizer: Any, text: str) -> bool:
    """Whether a text has a token, and one that is known."""
    ids = encode(name, tokenizer, [text], add_special_tokens=False, verbose=False)["input_ids"][0]
    try:
        unknown = tokenizer.unk_token_id
    except RecursionError as error:  # transformers looks a token that is not there up as the unknown one, for ever
        raise ModelError(
            f"the tokenizer of {name} does not have its own token for unknown words, {tokenizer.unk_token!r}: save the "
            "tokenizer of the training beside the model"
        ) from error
    return any(number != unknown for number in ids)


def _positions_before_the_first(model: nn.Module, positions: int) -> int:
    """RoBERTa and its kin number the positions of a text from behind that of padding, whose rows are never used."""
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == positions and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0


def _shown(logits: torch.Tensor) -> str:
    return "[" + ", ".join(f"{value:.3f}" for value in logits.tolist()[:4]) + "]"
