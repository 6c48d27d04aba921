"""A run that could not begin leaves no folder behind, and one that has measured anything is never removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fairmend.errors import InputError


@contextmanager
def tidy(out: Path, made: Sequence[str] = ()) -> Iterator[None]:
    """Remove a run that was begun in a new or empty folder if the body finds that its input cannot work.

    Only what fairmend itself put there is removed, and only if nothing was measured. Other errors, such as a full disk,
    keep the folder: what was measured until then can be gone on with.

    Args:
        out: the folder.
        made: names of what the run puts there beside its store.
    """
    from fairmend.runs.directories import has_measured, remove_run

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
