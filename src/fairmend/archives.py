"""Taking named files out of zip archives, wheels and tar archives that nobody has vouched for."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

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
    UnicodeError,  # also a name that the file system cannot write
)

_PACKED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


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
            out are counted; what the headers promise is not trusted. Of a tar, whose other members have to be read
            over, no more than about twice `total_limit` is unpacked.

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
        for name, source in _members(archive, wanted, 2 * total_limit + _MEGABYTE):
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


def _members(archive: Path, wanted: tuple[str, ...], limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and the open content of each selected plain file."""
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive, wanted)
    else:
        yield from _tar_members(archive, wanted, limit)


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


def _tar_members(archive: Path, wanted: tuple[str, ...], limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    with _unpacked(archive) as stream:
        bounded: Any = _Bounded(archive, stream, limit)
        try:
            content = tarfile.TarFile(fileobj=bounded)
        except tarfile.ReadError as error:
            raise ArtifactError(f"{archive} is neither a zip archive nor a tar archive, or it is damaged") from error
        with content:
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
            while bounded.read(_BLOCK):
                pass


def _unpacked(archive: Path) -> IO[bytes]:
    """The tar inside an archive, unpacked as it is read."""
    with archive.open("rb") as file:
        start = file.read(6)
    for magic, opener in _PACKED.items():
        if start.startswith(magic):
            return cast(IO[bytes], opener(archive))
    return archive.open("rb")


class _Bounded:
    """What tarfile reads from: no further than `limit` bytes, skipped members and all, and no header too large."""

    def __init__(self, archive: Path, stream: IO[bytes], limit: int) -> None:
        self._archive, self._stream, self._limit = archive, stream, limit
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        self._check(self.tell() + size, size)
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        self._check(position, 0)
        return self._stream.seek(position)

    def _check(self, end: int, size: int) -> None:
        if end > self._limit or not 0 <= size <= _MEGABYTE:
            raise ArtifactError(
                f"{self._archive.name} unpacks to more than the {self._limit:,} bytes allowed, or has a header of more "
                f"than {_MEGABYTE:,}: refused"
            )


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
