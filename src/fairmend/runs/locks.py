"""A lock that lets one process at a time write a run, and that no dead process can hold."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from fairmend.errors import RunError


class WriterLock:
    """The right to write `path`, held until `release` or the end of the process, however it ends.

    The operating system holds the lock on an open file beside `path` and drops it with the process, so a killed run
    never has to be unlocked by hand. The file is not `path` itself: closing a second handle on a database would drop
    SQLite's own locks.

    Raises:
        RunError: another process (or another `Store` of this one) writes the run, or the directory is not writable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + "-lock")
        self._handle: int | None = None
        while self._handle is None:
            self._handle = self._acquire(path)

    def _acquire(self, path: Path) -> int | None:
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(
                f"cannot write beside {path}: {error.strerror}. Make the directory writable or choose another --out"
            ) from error
        try:
            if not _lock(handle):
                raise RunError(
                    f"{path} is being written by {self._holder(handle)}. "
                    "Wait for it to end, stop it, or choose another --out"
                )
            if not self._is_current(handle):
                os.close(handle)
                return None
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        except BaseException:
            with suppress(OSError):
                os.close(handle)
            raise
        return handle

    def _is_current(self, handle: int) -> bool:
        # Its previous holder may have removed the file between our opening and locking it.
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path))
        except FileNotFoundError:
            return False

    @staticmethod
    def _holder(handle: int) -> str:
        with suppress(OSError):
            pid = os.pread(handle, 20, 0).decode() if hasattr(os, "pread") else ""
            if pid:
                return f"process {pid}"
        return "another process"

    def release(self) -> None:
        """Give the right back and remove the lock's file."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with suppress(OSError):
                self.path.unlink()
            os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> bool:
        # Beyond the process number, which stays readable for others.
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
