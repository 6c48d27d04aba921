"""Is this installation sound? Versions, devices, cache and threads, each found out and judged by itself.

The wings add checks of their own, on tiny networks (`fairmend.tabular.health`, `fairmend.language.health`).
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fairmend.artifacts import cache_directory

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

EXTRAS = {"language": "transformers", "lexical": "alt-profanity-check", "toxblock": "h5py", "ray": "ray"}
"""Extras that people install, with the package without which an extra counts as left out."""
_MOST_ENTRIES = 20  # of the cache that are named


class Unsound(Exception):
    """What a check found is not as it should be. The message says what is, and what to do."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        section: versions, devices, cache, threads or self-check.
        name: what was looked at.
        ok: whether it is as it should be.
        found: what was found; the reason when not ok.
        seconds: that it took.
    """

    section: str
    name: str
    ok: bool
    found: str
    seconds: float


def check(section: str, name: str, look: Callable[[], str]) -> Check:
    """Look at one thing. Whatever it raises is what was found: a check that fails must not hide the others."""
    begun = time.perf_counter()
    try:
        ok, found = True, look()
    except Unsound as unsound:
        ok, found = False, str(unsound)
    except Exception as error:
        ok, found = False, f"{type(error).__name__}: {error}"
    return Check(section, name, ok, shorten(" ".join(found.split())), time.perf_counter() - begun)


def environment(threads: int) -> Iterator[Check]:
    """Versions, devices, cache and threads; `threads` is how many were asked for."""
    yield from _versions()
    yield check("devices", "processor", _processor)
    yield check("devices", "cuda", _cuda)
    yield check("devices", "mps", _mps)
    folder = cache_directory()
    yield check("cache", "folder", partial(_writable, folder))
    yield check("cache", "content", partial(_content, folder))
    yield check("threads", "used", partial(_threads, threads))


def shorten(text: str) -> str:
    """The text with the user's home folder as ~, so that it can be shown to others."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _versions() -> Iterator[Check]:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    yield check("versions", "fairmend", partial(_version, "fairmend"))
    if _version_if_any("fairmend") is None:
        return
    supported = SpecifierSet(metadata.metadata("fairmend")["Requires-Python"])
    python = platform.python_version()
    yield check("versions", "python", partial(_within, python, supported, f", {platform.platform()}"))
    required = [Requirement(text) for text in metadata.requires("fairmend") or ()]
    for extra, main in {"": "", **EXTRAS}.items():
        if extra and _version_if_any(main) is None:
            said = f"not installed, which is fine unless it is needed: pip install 'fairmend[{extra}]'"
            yield check("versions", f"extra {extra}", partial(str, said))
            continue
        for each in required:
            of_core = each.marker is None or each.marker.evaluate({"extra": ""})
            if of_core != bool(extra) and (each.marker is None or each.marker.evaluate({"extra": extra})):
                yield check("versions", each.name, partial(_installed, each.name, each.specifier))


def _version_if_any(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _version(package: str) -> str:
    version = _version_if_any(package)
    if version is None:
        raise Unsound(f"not installed: run pip install {package}")
    return version


def _installed(package: str, supported: SpecifierSet) -> str:
    return _within(_version(package), supported)


def _within(version: str, supported: SpecifierSet, more: str = "") -> str:
    if not supported.contains(version, prereleases=True):
        raise Unsound(f"{version}, supported is {supported}: install a release of these")
    return f"{version} ({supported} is supported){more}" if str(supported) else f"{version}{more}"


def _processor() -> str:
    model = platform.processor() or platform.machine()
    with suppress(OSError):  # Linux only
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{os.cpu_count()} of {model}, {_usable()} for this process"


def _usable() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"none; torch was built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU only'}"
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    _compute("cuda")
    return ", ".join(names)


def _mps() -> str:
    import torch

    if not torch.backends.mps.is_available():
        return "none"
    _compute("mps")
    return "available"


def _compute(device: str) -> None:
    import torch

    product = torch.full((8, 8), 2.0, device=device) @ torch.ones(8, 8, device=device)
    if product.cpu().tolist() != [[16.0] * 8] * 8:
        raise Unsound(f"{device} multiplies matrices wrongly: use --device cpu")


def _writable(folder: Path) -> str:
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    remedy = "name another folder in the environment variable FAIRMEND_CACHE"
    if not there.is_dir():
        raise Unsound(f"{folder}: {there} is not a folder; {remedy}")
    if there == folder:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"fairmend")
        except OSError as error:
            raise Unsound(f"{folder} cannot be written ({error.strerror}): {remedy}") from None
    elif not os.access(there, os.W_OK):
        raise Unsound(f"{folder} cannot be made: {remedy}")
    free = shutil.disk_usage(there).free
    state = "writable" if there == folder else "not made yet, can be"
    return f"{folder}, {state}, {_size(free)} free"


def _content(folder: Path) -> str:
    if not folder.is_dir():
        return "empty"
    sizes = {
        entry.name: sum(file.lstat().st_size for file in (entry, *entry.rglob("*")) if file.is_file())
        for entry in sorted(folder.iterdir())
    }
    named = [f"{name} {_size(size)}" for name, size in list(sizes.items())[:_MOST_ENTRIES]]
    more = [f"{len(sizes) - _MOST_ENTRIES} more"] if len(sizes) > _MOST_ENTRIES else []
    return f"{_size(sum(sizes.values()))}: {', '.join([*named, *more])}" if sizes else "empty"


def _threads(asked: int) -> str:
    import torch
    from threadpoolctl import threadpool_info

    settings = [f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.endswith("_NUM_THREADS")]
    pools = {pool["prefix"]: pool["num_threads"] for pool in threadpool_info()} | {"torch": torch.get_num_threads()}
    said = f"{', '.join(f'{name} {count}' for name, count in pools.items())}; asked for {asked}"
    said = f"{said}; {', '.join(settings) or 'no variable is set'}"
    if max(pools.values()) > _usable():
        raise Unsound(f"{said}: more than the {_usable()} processors there are wait for each other; use --threads 1")
    return said


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
