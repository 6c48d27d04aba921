"""What a tokenizer makes of texts, and in words, so that two of them can be told apart; and whether it knows any."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fairmend.errors import InputError, ModelError
from fairmend.language.backend.versions import required

_OWN_FORMATS = ("tokenizer.json", "vocab.json", "vocab.txt")


def encode(name: str, tokenizer: Any, texts: Sequence[str], **options: Any) -> Any:
    """What the tokenizer makes of texts.

    Raises:
        ModelError: it fails, such as on a word that it does not know and has no token for.
    """
    try:
        return tokenizer(list(texts), **options)
    except MemoryError:
        raise
    except Exception as error:  # compiled tokenizers raise bare ones
        others = f" or one of {len(texts) - 1} more texts" if len(texts) > 1 else ""
        raise ModelError(
            f"the tokenizer of {name} fails on {texts[0][:60]!r}{others} "
            f"({type(error).__name__}: {error}): its files are damaged, or lack a token for unknown words"
        ) from error


def decode(name: str, tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    """The texts of rows of tokens, without special ones.

    Raises:
        ModelError: it fails, such as on a token that only the model has.
    """
    try:
        texts = tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    except MemoryError:
        raise
    except Exception as error:  # compiled tokenizers raise bare ones
        highest = max((token for row in rows for token in row), default=0)
        raise ModelError(
            f"the tokenizer of {name} cannot spell what the model wrote ({type(error).__name__}: {error}; it has "
            f"{len(tokenizer):,} tokens, the highest written is {highest}): give the tokenizer that the model was "
            "trained with"
        ) from error
    return [str(text) for text in texts]


def check_vocabulary(name: str, tokenizer: Any) -> None:
    """Refuse a tokenizer without words: what transformers makes up where the file with them is missing.

    Raises:
        ModelError: it has special tokens only.
    """
    added = {str(token) for token in required(tokenizer, "added_tokens_decoder").values()}
    words = set(tokenizer.get_vocab()) - set(required(tokenizer, "all_special_tokens")) - added
    if len(words) < 2:  # one is the mark of a word's beginning
        raise ModelError(
            f"the tokenizer of {name} is empty: it has no words, only special tokens, so that all texts would be the "
            f"same. Is its vocabulary missing ({', '.join(_OWN_FORMATS)} or tokenizer.model)? Save the tokenizer of "
            "the training beside the model"
        )


def check_readers(folder: Path, where: object) -> None:
    """Refuse a tokenizer that only sentencepiece reads, where that is not installed: transformers blames tiktoken.

    Raises:
        InputError: says what to install, or to write.
    """
    models = sorted(path.name for path in folder.glob("*.model") if path.is_file())
    others = any((folder / name).is_file() for name in _OWN_FORMATS)
    if models and not others and find_spec("sentencepiece") is None and find_spec("tiktoken") is None:
        raise InputError(
            f"{where} has its tokenizer as {models[0]} only, which needs a package that is not installed: run pip "
            "install sentencepiece protobuf, or write tokenizer.json beside it where that is installed, with "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )


def tokenizer_description(tokenizer: Any) -> str:
    """All that a tokenizer does, in words: its whole pipeline, or, of one in Python, its class and its files.

    Raises:
        ModelError: it is written in Python and does not say what it does.
    """
    if required(tokenizer, "is_fast"):
        description = json.loads(required(tokenizer, "backend_tokenizer").to_str())
        # A call to the tokenizer leaves its truncation and padding in it: they are no part of what it does.
        return json.dumps({**description, "truncation": None, "padding": None}, sort_keys=True)
    with TemporaryDirectory() as folder:
        try:
            tokenizer.save_vocabulary(folder)
        except NotImplementedError as error:
            raise ModelError(
                f"{type(tokenizer).__name__} does not say what it does (no save_vocabulary): use the fast tokenizer "
                "of the same model"
            ) from error
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}
    added = {number: repr(token) for number, token in tokenizer.added_tokens_decoder.items()}
    vocabulary = sorted(tokenizer.get_vocab().items())
    return json.dumps([type(tokenizer).__name__, files, added, vocabulary], sort_keys=True)
