"""Bytes of a user's text files as text."""

from __future__ import annotations

import codecs
from pathlib import Path

from fairmend.errors import DataError

# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_bytes(path: Path, most: int) -> bytes:
    """The content of an ordinary file, up to one byte more than `most`.

    Raises:
        DataError: no such file, a folder, a pipe or a device, or it cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"cannot read {path}: it is not an ordinary file; name a file")
        with path.open("rb") as file:
            return file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def decode(raw: bytes, path: Path) -> str:
    """Text in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark, which is no part of it.

    Raises:
        DataError: names the line and the remedy.
    """
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8-sig")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        name = encoding.removesuffix("-sig").upper()
        raise DataError(f"{path}, line {line}: not {name} ({error.reason}): save the file as UTF-8") from error
    # Text of two or four bytes a letter has a NUL in most of them; a NUL in text of one byte is data.
    if text[:200].count("\0") > len(text[:200]) // 4:
        raise DataError(f"{path}: half of its bytes are zero, as in UTF-16 without a mark: save the file as UTF-8")
    return text
