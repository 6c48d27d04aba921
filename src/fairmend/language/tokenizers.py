"""What a tokenizer does, in words, so that two of them can be told apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fairmend.errors import ModelError
from fairmend.language.versions import required


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
