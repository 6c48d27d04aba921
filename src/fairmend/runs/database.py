"""The SQLite file of a run: its tables, how it is opened, and what its errors mean for the person who runs it.

A run's folder may come from somebody else, or from a failing disk. The file is opened only if it and its companions are
plain files; its tables must be exactly those that fairmend makes, so that no view, trigger or computed column runs; and
every row carries a checksum.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

from fairmend.errors import RunError
from fairmend.files import open_plain, require_plain

APPLICATION_ID = 0x6661_6972  # "fair": tells a run's file from any other SQLite file
SCHEMA_VERSION = 2
SUFFIXES = ("", "-wal", "-shm", "-journal")

# The id of a measurement is its place in the order in which all were made. Masks are not indexed: a run looks them up
# in memory, and an index on random bytes would cost more than the row. Nor are names: an index is a second copy that
# a damage could change alone.
_TABLES = """
CREATE TABLE header (json TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE contexts (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, space TEXT NOT NULL, figures TEXT NOT NULL,
    fingerprint TEXT NOT NULL, digest TEXT NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE measurements (
    id INTEGER PRIMARY KEY, context INTEGER NOT NULL REFERENCES contexts (id), mask BLOB NOT NULL, dials BLOB NOT NULL,
    bias REAL, utility REAL, bias_se REAL, utility_se REAL, n INTEGER NOT NULL, seconds REAL, parts BLOB NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL, crc INTEGER NOT NULL
);
"""
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # ends a journal that names another file

_MEANINGS = {
    sqlite3.SQLITE_FULL: "the disk is full. Free some space, then resume the run: what was committed is intact",
    sqlite3.SQLITE_READONLY: "it cannot be written. Make the file and its directory writable or choose another --out",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written. Check its space and health, then resume the run",
    sqlite3.SQLITE_BUSY: "another program holds it. Close that program, then resume the run",
    sqlite3.SQLITE_LOCKED: "another program holds it. Close that program, then resume the run",
    sqlite3.SQLITE_NOTADB: "it is not a run of fairmend (not an SQLite file). Choose another --out",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Check that its directory exists and that you may read and write it",
    sqlite3.SQLITE_PERM: "you may not access it. Change its permissions or choose another --out",
}


def damaged(path: Path, what: object) -> RunError:
    """The error that says what is left of a damaged run."""
    found = " ".join(str(what).split())
    return RunError(
        f"{path} is damaged or was changed by something else ({found}), so that the run cannot be gone on with. The "
        "measurements whose checksums are right can still be saved: `fairmend export DIR FILE.csv --damaged`. Then "
        "restore the file from a copy, or start again with another --out"
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a `RunError` that names the run's file and the remedy."""
    try:
        yield
    except sqlite3.Error as error:
        # SQLite's own errors carry its code. One without comes from Python's module: of text that is not UTF-8 as
        # OperationalError, of a mistake in this code as another class, which must not be put down to the file.
        if not hasattr(error, "sqlite_errorcode"):
            if type(error) is sqlite3.OperationalError:
                raise damaged(path, error) from error
            raise
        code = error.sqlite_errorcode & 0xFF
        if code == sqlite3.SQLITE_CORRUPT:
            raise damaged(path, error) from error
        raise RunError(f"{path}: {_MEANINGS.get(code, 'it cannot be used')} (SQLite says: {error})") from error


def connect(path: Path, mode: Literal["ro", "rw", "rwc"]) -> sqlite3.Connection:
    """Open the file in autocommit mode: to read, to write, or to write and create it if need be.

    Raises:
        RunError: it, or a file that SQLite keeps beside it, is a link or no file, or its journal names other files.
        sqlite3.Error: SQLite cannot open it.
    """
    for suffix in SUFFIXES:
        require_plain(path.with_name(path.name + suffix), own=mode != "ro")
    _require_own_journal(path)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=5.0)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    if sys.version_info >= (3, 12):  # Python 3.11 cannot say it; `require_run` refuses what it would disarm
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
    return connection


def _require_own_journal(path: Path) -> None:
    """Refuse a journal that names another file: SQLite would open that one, and remove it."""
    journal = path.with_name(path.name + "-journal")
    if require_plain(journal):
        with os.fdopen(open_plain(journal, os.O_RDONLY), "rb") as stream:
            stream.seek(-min(len(_SUPER_JOURNAL), stream.seek(0, os.SEEK_END)), os.SEEK_END)
            if stream.read() == _SUPER_JOURNAL:
                raise RunError(f"{journal} names other files, which no journal of fairmend does: remove it")


def prepare_to_write(connection: sqlite3.Connection) -> None:
    """Set the file up for one writer and any number of readers, safe against kills.

    A power cut can cost the last commits, never the file: what is lost is measured again.
    """
    # Large pages halve the cost of a row; they take effect only before the first table.
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def is_blank(connection: sqlite3.Connection) -> bool:
    """Whether the file holds nothing: new, or left by a process killed before it wrote the header."""
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def initialise(connection: sqlite3.Connection, header: str) -> None:
    """Write the tables and the header in one transaction: a run either exists whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.execute("INSERT INTO header VALUES (?, ?)", (header, checksum(header)))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def checksum(*values: object) -> int:
    """The checksum of a row's plain values, of whatever type: it tells a changed row, not who changed it."""
    return zlib.crc32(repr(values).encode(errors="surrogatepass"))


def require_run(connection: sqlite3.Connection, path: Path, *, whole: bool = True) -> None:
    """Check that the file is a run that this version reads.

    Args:
        connection: to the file.
        path: of it, for messages.
        whole: also check every page, and that no measurement is missing.

    Raises:
        RunError: it is blank, of another program, of another schema version, or damaged.
    """
    if is_blank(connection):
        raise RunError(f"{path} holds no run yet: it was stopped before it began. Start it again with the same --out")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise RunError(f"{path} is an SQLite file of another program, not a run of fairmend. Choose another --out")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path} was written with schema version {version}, this fairmend reads version {SCHEMA_VERSION}. "
            "Use the fairmend that made it (version 1 is that of fairmend 0.1.0, without checksums) to go on with it "
            "or to export it, or start a new run with another --out. A finished result is still shown: fairmend show"
        )
    if _tables(connection) != _expected_tables():
        raise damaged(path, "its tables are not those of a run")
    if whole:
        _require_whole(connection, path)


def _require_whole(connection: sqlite3.Connection, path: Path) -> None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise damaged(path, found)
    contexts = {number for (number,) in connection.execute("SELECT id FROM contexts")}
    counted = connection.execute("SELECT context, count(*), max(id) FROM measurements GROUP BY context").fetchall()
    if not {number for number, _, _ in counted} <= contexts:
        raise damaged(path, "measurements of nothing that is named")
    number, last = sum(count for _, count, _ in counted), max((last for _, _, last in counted), default=0)
    if number != last:
        raise damaged(path, f"it has {number:,} measurements, and the last one is number {last:,}")


def _tables(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY rowid").fetchall()


@cache
def _expected_tables() -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        initialise(connection, "{}")
        return _tables(connection)


def settle(connection: sqlite3.Connection) -> None:
    """Fold the write-ahead log into the file, so that it is whole by itself and readable from read-only media.

    A reader elsewhere prevents it, harmlessly: the log then stays beside the file until the next writer.
    """
    try:
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError:
        return
