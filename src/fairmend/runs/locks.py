"""A lock that lets one process at a time write a run, and that no dead process can hold."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from fairmend.errors import RunError
from fairmend.files import open_plain


class WriterLock:
    """The right to write `path`, held until `release` or the end of the process, however it ends.

    The operating system holds the lock on an open file beside `path` and drops it with the process, so a killed run
    never has to be unlocked by hand. The file is not `path` itself: closing a second handle on a database would drop
    SQLite's own locks.

    Raises:
        RunError: another process (or another `Store` of this one) writes the run, the directory is not writable, the
            disk is full, or something other than a plain file has the lock's name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + "-lock")
        self._handle: int | None = None
        while self._handle is None:
            self._handle = self._acquire(path)

    def _acquire(self, path: Path) -> int | None:
        try:
            handle = open_plain(self.path, os.O_RDWR | os.O_CREAT, own=True)
        except OSError as error:
            raise RunError(
                f"cannot write beside {path}: {error.strerror}. Make the directory writable, free some space, or "
                "choose another --out"
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
            self._sign(handle, path)
        except BaseException:
            with suppress(OSError):
                os.close(handle)
            raise
        return handle

    def _sign(self, handle: int, path: Path) -> None:
        """Say who holds the lock."""
        try:
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        except OSError as error:
            with suppress(OSError):
                self.path.unlink()
            raise RunError(
                f"cannot write beside {path}: {error.strerror}. Free some space, then give the command again: what a "
                "run has measured is intact"
            ) from error

    def _is_current(self, handle: int) -> bool:
        # Its previous holder may have removed the file between our opening and locking it.
        try:
            return os.path.samestat(os.fstat(handle), os.lstat(self.path))
        except FileNotFoundError:
            return False

    @staticmethod
    def _holder(handle: int) -> str:
        with suppress(OSError):
            # Windows has no pread. What is no number was not written by a lock of ours.
            said = os.pread(handle, 20, 0) if sys.platform != "win32" else b""
            if said.isdigit():
                return f"process {said.decode()}"
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
