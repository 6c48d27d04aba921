"""A lock that lets one process at a time write a run, and that no dead process can hold."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fairmend.errors import RunError
from fairmend.files import require_plain


class WriterLock:
    """The right to write `path`, held until `release` or the end of the process, however it ends.

    The operating system holds the lock on an open file beside `path` and drops it with the process, so a killed run
    never has to be unlocked by hand. The file is not `path` itself: closing a second handle on a database would drop
    SQLite's own locks. It holds the number of the process, for the message of the next.

    Raises:
        RunError: another process (or another `Store` of this one) writes the run, the directory is not writable, the
            disk is full, or something other than a plain file has the lock's name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + "-lock")
        require_plain(self.path, own=True)
        self._lock = FileLock(self.path, timeout=0, thread_local=False, on_acquired=self._sign)
        try:
            self._lock.acquire()
        except Timeout:
            raise RunError(
                f"{path} is being written by {self._holder()}. Wait for it to end, stop it, or choose another --out"
            ) from None
        except OSError as error:
            raise RunError(
                f"cannot write beside {path}: {error.strerror}. Make the directory writable, free some space, or "
                "choose another --out; what a run has measured is intact"
            ) from error

    def _sign(self, handle: int) -> None:
        """Say who holds the lock."""
        try:
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        except OSError:
            self._remove()
            raise

    def _holder(self) -> str:
        with suppress(OSError, UnicodeDecodeError):
            said = self.path.read_text(encoding="ascii")  # what is no number was not written by a lock of ours
            if said.isdigit():
                return f"process {said}"
        return "another process"

    def _remove(self) -> None:
        with suppress(OSError):
            self.path.unlink()

    def release(self) -> None:
        """Give the right back and remove the lock's file."""
        if self._lock.is_locked:
            self._remove()
            self._lock.release()
