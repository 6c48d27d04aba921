"""The SQLite file of a run: its tables, how it is opened, and what its errors mean for the person who runs it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from fairmend.errors import RunError

APPLICATION_ID = 0x6661_6972  # "fair": tells a run's file from any other SQLite file
SCHEMA_VERSION = 1

# The id of a measurement is its place in the order in which all were made. Masks are not indexed: a run looks them up
# in memory, and an index on random bytes would cost more than the row.
_TABLES = """
CREATE TABLE header (json TEXT NOT NULL);
CREATE TABLE contexts (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, space TEXT NOT NULL, figures TEXT NOT NULL,
    fingerprint TEXT NOT NULL, digest TEXT NOT NULL
);
CREATE TABLE measurements (
    id INTEGER PRIMARY KEY, context INTEGER NOT NULL REFERENCES contexts (id), mask BLOB NOT NULL, dials BLOB NOT NULL,
    bias REAL, utility REAL, bias_se REAL, utility_se REAL, n INTEGER NOT NULL, seconds REAL, parts BLOB NOT NULL
);
CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL);
"""

_MEANINGS = {
    sqlite3.SQLITE_FULL: "the disk is full. Free some space, then resume the run: what was committed is intact",
    sqlite3.SQLITE_READONLY: "it cannot be written. Make the file and its directory writable or choose another --out",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written. Check its space and health, then resume the run",
    sqlite3.SQLITE_BUSY: "another program holds it. Close that program, then resume the run",
    sqlite3.SQLITE_LOCKED: "another program holds it. Close that program, then resume the run",
    sqlite3.SQLITE_NOTADB: "it is not a run of fairmend (not an SQLite file). Choose another --out",
    sqlite3.SQLITE_CORRUPT: "it is damaged. Restore it from a copy, or start again with another --out",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Check that its directory exists and that you may read and write it",
    sqlite3.SQLITE_PERM: "you may not access it. Change its permissions or choose another --out",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a `RunError` that names the run's file and the remedy."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        meaning = _MEANINGS.get(code & 0xFF if code is not None else -1)
        raise RunError(f"{path}: {meaning or 'it cannot be used'} (SQLite says: {error})") from error


def connect(path: Path, mode: Literal["ro", "rw", "rwc"]) -> sqlite3.Connection:
    """Open the file in autocommit mode: to read, to write, or to write and create it if need be."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=5.0)


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
        connection.execute("INSERT INTO header VALUES (?)", (header,))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def require_run(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is a run that this version reads.

    Raises:
        RunError: it is blank, of another program, or of another schema version.
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
            "Use the fairmend that made it (its header says which), or start a new run with another --out"
        )


def settle(connection: sqlite3.Connection) -> None:
    """Fold the write-ahead log into the file, so that it is whole by itself and readable from read-only media.

    A reader elsewhere prevents it, harmlessly: the log then stays beside the file until the next writer.
    """
    try:
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError:
        return
