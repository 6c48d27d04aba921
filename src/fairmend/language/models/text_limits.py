"""Where a text stops: how many tokens a model reads at once, which tokens end a text, and which it knows at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fairmend.errors import ModelError
from fairmend.language.backend.forward import embedding
from fairmend.language.backend.versions import required

_CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "max_target_positions",
    "model_max_length",
    "context_length",
)

_WITHOUT_LIMIT = frozenset({"bloom", "mpt", "mamba", "mamba2", "falcon_mamba", "recurrent_gemma", "rwkv", "xlstm"})
"""Architectures (`model_type`) without a largest position (ALiBi, recurrent); their configuration need not name one."""

_WITHOUT_LIMIT_CONTEXT = 2048  # tokens read at once by those, so that perplexities have a window


def context_of(config: Any, name: str) -> int:
    """The largest number of tokens that a model was made for.

    Raises:
        ModelError: its configuration does not say.
    """
    text = config.get_text_config(decoder=True)
    found = {key: value for key in _CONTEXT_NAMES if (value := getattr(text, key, None)) is not None}
    for value in found.values():  # names differ, values seldom; what is no size (-1, a word) is passed by
        if isinstance(value, int) and value > 0:
            return value
    if required(text, "model_type") in _WITHOUT_LIMIT:
        return _WITHOUT_LIMIT_CONTEXT
    seen = ", ".join(f"{key}={value!r}" for key, value in found.items()) or "none of them is there"
    raise ModelError(
        f"{name} does not say how many tokens it reads at once: looked for {', '.join(_CONTEXT_NAMES)} in its "
        f"configuration ({type(text).__name__}), {seen}. Name one of them in config.json, or give context=... to "
        "load_model or wrap_model in Python"
    )


def end_ids_of(model: Any, tokenizer: Any, name: str) -> tuple[int, ...]:
    """The tokens that end a text, from what is used to generate, else the configuration, else the tokenizer.

    Tokens that the model has no embedding for are passed by, because it never writes them: small models often keep
    the number of a larger vocabulary in their configuration, and have the right one in their tokenizer.

    Raises:
        ModelError: none of them names one that the model can write, or what they name is no token id.
    """
    n_embedded, beyond = len(embedding(model)), set()
    holders = {
        "generation_config": required(model, "generation_config"),  # None where transformers cannot generate
        "config": model.config.get_text_config(decoder=True),
        "config of the whole": model.config,
        "tokenizer": tokenizer,
    }
    for holder, owner in holders.items():
        found = getattr(owner, "eos_token_id", None)  # in neither of them is the error below
        ids = tuple(found) if isinstance(found, list | tuple) else () if found is None else (found,)
        if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids):
            raise ModelError(f"{name}: the {holder} has eos_token_id={found!r}, which is no token id: correct it")
        known = tuple(sorted({token for token in ids if token < n_embedded}))
        if known:
            return known
        beyond |= set(ids)
    seen = f"; {sorted(beyond)} is beyond its {n_embedded:,} tokens" if beyond else ""
    raise ModelError(
        f"{name} names no token that ends a text, so that its texts would never end: looked for eos_token_id in its "
        f"generation_config.json, its config.json and its tokenizer{seen}. Name it there, or give end_ids=... "
        "to load_model or wrap_model in Python; end_ids=() says that texts run to their full length"
    )


def check_tokens(ids: Iterable[int], model: Any, tokenizer: Any, where: str) -> None:
    """Refuse tokens that the model has no embedding for; `where` they stand, such as "the prompt 'Hello'".

    Raises:
        ModelError: names the token and both sizes.
    """
    n_embedded = len(embedding(model))
    unknown = next((token for token in ids if not 0 <= token < n_embedded), None)
    if unknown is None:
        return
    spelled = tokenizer.convert_ids_to_tokens(unknown) if 0 <= unknown < len(tokenizer) else None
    raise ModelError(
        f"{where} has the token {unknown} ({spelled!r}), but the model's embedding has {n_embedded:,} tokens and its "
        f"tokenizer {len(tokenizer):,}: give the tokenizer that the model was trained with, or, where tokens were "
        "added to it, the model that learned them (resize_token_embeddings makes room, but only training gives meaning)"
    )


def filler_of(model: Any, tokenizer: Any) -> int:
    """The tokenizer's padding token, or the first of all where that one was added without an embedding."""
    padding = tokenizer.pad_token_id
    return padding if padding is not None and padding < len(embedding(model)) else 0
