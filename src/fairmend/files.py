"""Result files are whole or absent."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from fairmend.errors import RunError


def write_atomically(path: str | os.PathLike[str], payload: bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part: a temporary file, then a rename.

    Raises:
        RunError: the folder is missing or read-only, the disk is full, or the path is a folder.
    """
    file = Path(path)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            with open(temporary, "xb") as stream:
                stream.write(payload)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"{file} cannot be written ({error.strerror or error}): choose a folder that exists, is writable and has "
            f"{len(payload):,} bytes free"
        ) from error
