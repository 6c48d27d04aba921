"""Files: written whole or not at all, opened only where they are plain files, and decoded by their marks.

A run's folder may come from somebody else. A link in it would lead what is read or written elsewhere, and a named pipe
would wait for ever, so that neither is opened.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import secrets
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from fairmend.errors import DataError, RunError

if sys.platform != "win32":
    import fcntl

# Windows has neither flag, and no named pipes in folders; links are looked for there before opening.
_NO_LINKS = 0 if sys.platform == "win32" else os.O_NOFOLLOW | os.O_NONBLOCK
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PART_FOLDER = ".part-"
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")


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
                hold(stream.fileno())
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


def require_empty(folder: Path) -> None:
    """Refuse a folder for results that has something in it; one that does not exist is as good as empty.

    Raises:
        RunError: it has, it is a file, or it cannot be read.
    """
    try:
        found = sorted(entry.name for entry in folder.iterdir() if not is_leftover(entry))
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise RunError(f"{folder} is a file, not a folder: choose another --out") from error
    except OSError as error:
        raise RunError(f"{folder} cannot be read ({error.strerror or error}): choose another --out") from error
    if found:
        raise RunError(f"{folder} is not empty (it has {found[0]}): choose a new or empty folder as --out")


def make_folder(folder: Path) -> None:
    """Make a folder for results, if there is none.

    Raises:
        RunError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror or error}. Choose another --out") from error


def read_if_there(path: Path, most: int) -> bytes | None:
    """The content of a plain file in a run's folder; None if there is none, or it has more bytes than that.

    Raises:
        RunError: it is no plain file, see `require_plain`.
        OSError: it cannot be read.
    """
    if not require_plain(path):
        return None
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as stream:
        content = stream.read(most + 1)
    return content if len(content) <= most else None


def require_plain(path: Path, *, own: bool = False) -> bool:
    """Whether there is a file, which must be a plain one.

    Args:
        path: the file; links are not followed.
        own: whether it is to be written, so that it must have no second name (a hard link) either.

    Raises:
        RunError: something else is there.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise RunError(f"{path} cannot be looked at ({error.strerror or error}): choose another folder") from error
    _require_plain(path, status, own)
    return True


def open_plain(path: Path, flags: int, *, own: bool = False) -> int:
    """Open a plain file, as `os.open` does, without following a link or waiting.

    Raises:
        RunError: it is no plain file, see `require_plain`.
        OSError: it cannot be opened.
    """
    require_plain(path, own=own)
    handle = os.open(path, flags | _NO_LINKS, 0o644)
    try:
        _require_plain(path, os.fstat(handle), own)
    except BaseException:
        os.close(handle)
        raise
    return handle


def read_json(path: Path) -> Any:
    """What a JSON file in a run's folder holds.

    Raises:
        RunError: it is no plain file, see `require_plain`.
        OSError: it cannot be read.
        ValueError: it is not JSON, or nested too deeply.
    """
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as stream:
        return parse_json(stream.read())


def parse_json(text: str | bytes) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_bytes(path: Path, most: int) -> bytes:
    """The content of an ordinary file that a person named, up to one byte more than `most`.

    Raises:
        DataError: no such file, a folder, a pipe or a device, or it cannot be read.
    """
    try:
        if path.is_file() or not path.exists():
            with path.open("rb") as file:
                return file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    raise DataError(f"cannot read {path}: it is not an ordinary file; name a file")


def encoding_of(start: bytes) -> str:
    """How text with this beginning is encoded: in UTF-16 or UTF-32 where it has a byte-order mark, else in UTF-8."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8-sig")


def decode(raw: bytes, path: Path) -> str:
    """Text in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark, which is no part of it.

    Raises:
        DataError: names the line and the remedy.
    """
    encoding = encoding_of(raw)
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


def hold(handle: int) -> None:
    """Mark an unfinished file or folder as in use until its handle is closed or the process ends, see `sweep`."""
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_leftover(path: Path) -> bool:
    """Whether a name is one that unfinished files and folders have until they are renamed."""
    return path.name.startswith(_PART_FOLDER) or _PART.fullmatch(path.name) is not None


def sweep(folder: Path) -> None:
    """Remove what a killed process left unfinished in a folder; what a living one holds stays."""
    with suppress(OSError):
        for path in [each for each in folder.iterdir() if is_leftover(each)]:
            if not path.is_symlink() and _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    if sys.platform == "win32":
        return False
    try:
        handle = os.open(path, os.O_RDONLY | _NO_LINKS)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _require_plain(path: Path, status: os.stat_result, own: bool) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise RunError(
            f"{path} is {_KINDS.get(kind, 'no file')}, and fairmend opens plain files only, because a link or pipe in "
            "somebody else's folder leads elsewhere: put the file itself there, or remove it, or choose another folder"
        )
    if own and status.st_nlink > 1:
        raise RunError(
            f"{path} has a second name elsewhere (a hard link), and what is written to it would change there too: "
            "copy the folder, so that the file is its own, or choose another folder"
        )
