"""The directory of a run: a new one is started, the same one is gone on with, anything else is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import fairmend
from fairmend.errors import InputError, RunError
from fairmend.files import is_leftover, require_plain, sweep
from fairmend.records import RUN, differences
from fairmend.runs import database
from fairmend.runs.store import REQUEST, Store, recover

__all__ = ["RUN", "has_measured", "holds_run", "open_directory", "remove_run", "require_version", "tidy"]

_SUFFIXES = (*database.SUFFIXES, "-lock")


def open_directory(
    out: Path,
    header: Mapping[str, Any],
    *,
    identity: Sequence[str],
    results: Sequence[str] = (),
    furnish: Callable[[], None] | None = None,
) -> Store:
    """Start a run in a directory, or open the same run there to go on with it.

    Args:
        out: the directory; made if it does not exist.
        header: JSON-ready: what the run is.
        identity: the entries of the header that tell runs apart.
        results: names of files that an earlier session of the run may have left beside its store.
        furnish: puts what else the run needs into the directory; called each time, leaves nothing when it fails.

    What a killed process left unfinished there is removed.

    Raises:
        RunError: the directory holds another run (what differs is named), one of another version of fairmend, or other
            files, is not a directory, or cannot be written; nothing is left behind then.
    """
    path = out / RUN
    existed, goes_on = out.exists(), holds_run(out, results)
    if goes_on:
        with Store.open(path, read_only=True) as stored:  # a foreign run is not touched
            require_version(stored.header, out)
            _require_same(stored, json.loads(json.dumps(header)), identity, out)
    store: Store | None = None
    try:
        store = Store.open(path) if goes_on else Store.create(path, header)
        sweep(out)
        if store.request != json.loads(json.dumps(header.get("request"))):
            store.record(REQUEST, header["request"])
        if furnish is not None:
            furnish()
    except BaseException:
        if store is not None:
            store.close()
            if not goes_on:
                _remove_store(out)
        if not existed:
            with suppress(OSError):
                out.rmdir()
        raise
    return store


def require_version(header: Mapping[str, Any], out: Path) -> None:
    """Refuse to go on with a run that another version of fairmend began: its figures would stand beside others.

    Raises:
        RunError: one did.
    """
    began = header.get("fairmend", fairmend.__version__)  # only a run of the library's may leave it out
    if began != fairmend.__version__:
        raise RunError(
            f"the run in {out} was begun by fairmend {began}, and this is {fairmend.__version__}: figures of two "
            "versions are not mixed. Resume it with the version that started it, or start again with another --out; "
            "what was measured stays there, see fairmend export"
        )


def has_measured(out: Path) -> bool:
    """Whether a directory holds a run that has measured anything, or one that cannot be read, which may have."""
    if not require_plain(out / RUN):
        return False
    try:
        with Store.open(out / RUN, read_only=True) as store:
            return store.holds_results
    except RunError:
        return (out / RUN).stat().st_size > 0


@contextmanager
def tidy(out: Path, made: Sequence[str] = ()) -> Iterator[None]:
    """Remove a run that was begun in a new or empty folder if the body finds that its input cannot work.

    Only what fairmend itself put there is removed, and only if nothing was measured. Other errors, such as a full disk,
    keep the folder: what was measured until then can be gone on with.

    Args:
        out: the folder.
        made: names of what the run puts there beside its store.
    """
    existed = out.exists()
    ours = not existed or (out.is_dir() and not any(out.iterdir()))
    try:
        yield
    except InputError:
        if ours and not has_measured(out):
            remove_run(out, made)
            if not existed:
                with suppress(OSError):  # somebody else put something there
                    out.rmdir()
        raise


def remove_run(out: Path, results: Sequence[str] = ()) -> None:
    """Remove a run's store, the named files and what a kill left, and nothing else that is in the directory."""
    _remove_store(out)
    for name in results:
        with suppress(OSError):
            (out / name).unlink(missing_ok=True)
    sweep(out)


def _remove_store(out: Path) -> None:
    for suffix in _SUFFIXES:
        with suppress(OSError):
            (out / (RUN + suffix)).unlink(missing_ok=True)


def holds_run(out: Path, results: Sequence[str] = ()) -> bool:
    """Whether there is a run to go on with; a new or empty directory holds none, nor do leftovers of a kill.

    Raises:
        RunError: the directory is a file, cannot be read, or holds something else, or a run that is no plain file.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file, not a directory: choose another --out")
    path = out / RUN
    if require_plain(path):
        recover(path)
        with database.explained(path), closing(database.connect(path, "ro")) as connection:
            return not database.is_blank(connection)  # blank if it was killed before it began
    ours = {*results, *(RUN + suffix for suffix in _SUFFIXES)}
    try:
        found = sorted(entry.name for entry in out.iterdir() if not is_leftover(entry)) if out.exists() else []
    except OSError as error:
        raise RunError(f"{out} cannot be read ({error.strerror or error}): choose another --out") from error
    others = [name for name in found if name not in ours]
    if "study.json" in others and "repairs" in others:
        raise RunError(
            f"{out} holds a study of fairmend 0.1.0, which this version does not go on with: use the version that "
            "began it, or choose another --out"
        )
    if others:
        raise RunError(
            f"{out} is not empty and holds no run of fairmend (it has {', '.join(others[:3])}): choose a new or empty "
            "directory as --out"
        )
    return False


def _require_same(store: Store, given: Mapping[str, Any], identity: Sequence[str], out: Path) -> None:
    stored = store.header
    changed = differences({name: stored.get(name) for name in identity}, {name: given.get(name) for name in identity})
    if changed:
        raise RunError(
            f"{out} belongs to another run: {'; '.join(changed)}. Choose another --out, or give that run's settings "
            "to go on with it"
        )
