"""Taking named files out of zip archives, wheels and tar archives that nobody has vouched for."""

from __future__ import annotations

import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from fairmend.artifacts import staging
from fairmend.errors import ArtifactError

_BLOCK = 1 << 16
_MEGABYTE = 1 << 20

# What damaged or unsupported archives raise while they are read.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,  # a compression method that zipfile does not know
    RuntimeError,  # an encrypted member
    UnicodeDecodeError,
)


def extract(
    archive: Path,
    members: Iterable[str],
    into: Path,
    member_limit: int = 512 * _MEGABYTE,
    total_limit: int = 2048 * _MEGABYTE,
) -> dict[str, Path]:
    """Extract only the named members of a zip archive, wheel or tar archive, and return where each one is.

    Args:
        archive: the file; zip and tar (also .gz, .bz2, .xz) are told apart by content.
        members: names inside the archive; a name that ends with "/" stands for everything below it.
        into: the folder that receives them, under their names inside the archive. Files appear there whole, and
            only once all of them have been read.
        member_limit, total_limit: largest unpacked bytes of one member and of all together. The bytes that come
            out are counted; what the headers promise is not trusted.

    Raises:
        ArtifactError: a member that is missing, would land outside `into`, is not a plain file or is too large; an
            archive that is damaged. Nothing has been put into `into` then.
    """
    if not archive.is_file():
        raise ArtifactError(f"{archive} does not exist: fetch it first")
    wanted = tuple(dict.fromkeys(members))
    placed: dict[str, Path] = {}
    with staging(into) as folder, _reading(archive):
        written = 0
        missing = set(wanted)
        for name, source in _members(archive, wanted):
            target = _inside(archive, name, into)
            if name in placed:
                raise ArtifactError(f"{archive.name} holds {name!r} twice: refused, because the two may differ")
            part = folder / name
            part.parent.mkdir(parents=True, exist_ok=True)
            limit = min(member_limit, total_limit - written)
            written += _copy(archive, name, source, part, limit)
            placed[name] = target
            missing -= {entry for entry in missing if _selects(entry, name)}
        if missing:
            raise ArtifactError(f"{archive.name} does not hold {', '.join(sorted(missing))}: another release?")
        for name, target in placed.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / name, target)
    return placed


def _selects(entry: str, name: str) -> bool:
    return name.startswith(entry) if entry.endswith("/") else name == entry


def _members(archive: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and the open content of each selected plain file."""
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive, wanted)
    elif tarfile.is_tarfile(archive):
        yield from _tar_members(archive, wanted)
    else:
        raise ArtifactError(f"{archive} is neither a zip archive nor a tar archive, or it is damaged")


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{archive} cannot be unpacked ({error}): fetch it again") from error


def _zip_members(archive: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            # `orig_filename`, because `filename` has been cut at a NUL and had its backslashes turned.
            name = member.orig_filename
            if name.endswith("/") or not any(_selects(entry, name) for entry in wanted):
                continue
            mode = member.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise ArtifactError(f"{archive.name}: member {name!r} is a link or a device, not a plain file: refused")
            with content.open(member) as source:
                yield name, source


def _tar_members(archive: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as content:
        for member in content:
            if member.isdir() or not any(_selects(entry, member.name) for entry in wanted):
                continue
            source = content.extractfile(member) if member.isreg() else None
            if source is None:
                raise ArtifactError(
                    f"{archive.name}: member {member.name!r} is a link or a device, not a plain file: refused"
                )
            with source:
                yield member.name, source
        # A compressed stream checks its sum at its very end, which lies behind the last member.
        while content.fileobj is not None and content.fileobj.read(_BLOCK):
            pass


def _inside(archive: Path, name: str, into: Path) -> Path:
    """Where a member goes, after checking that it is inside `into` on every operating system."""
    parts = PurePosixPath(name).parts
    unsafe = (
        not parts
        or name.startswith("/")
        or any(character in name for character in ("\\", "\0", ":"))
        or any(part in ("..", ".") for part in name.split("/"))
    )
    target = into.joinpath(*parts)
    # Resolved, because a link that already stands in `into` could lead the path out of it.
    if unsafe or not target.resolve().is_relative_to(into.resolve()):
        raise ArtifactError(f"{archive.name}: member {name!r} would be written outside of {into}: refused")
    return target


def _copy(archive: Path, name: str, source: IO[bytes], part: Path, limit: int) -> int:
    size = 0
    with part.open("wb") as file:
        while block := source.read(_BLOCK):
            size += len(block)
            if size > limit:
                raise ArtifactError(
                    f"{archive.name}: member {name!r} unpacks to more than the {limit:,} bytes allowed: refused"
                )
            file.write(block)
    return size
