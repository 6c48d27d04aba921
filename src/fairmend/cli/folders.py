"""A run that could not begin leaves no folder behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairmend.errors import InputError


@contextmanager
def tidy(out: Path, keep: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Remove what was put into a new or empty folder if the body finds that its input cannot work.

    Other errors, such as a full disk, keep the folder: what was measured until then can be gone on with. So does
    `keep`, which tells whether there is something worth keeping.
    """
    existed = out.exists()
    ours = not existed or (out.is_dir() and not any(out.iterdir()))
    try:
        yield
    except InputError:
        if ours and out.is_dir() and not keep():
            for entry in out.iterdir():
                entry.unlink()
            if not existed:
                with suppress(OSError):
                    out.rmdir()
        raise
