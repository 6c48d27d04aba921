"""What is written into a run's file while it goes on: measurements, half a second at a time, and what happened."""

from __future__ import annotations

import json
import math
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fairmend.errors import InputError
from fairmend.files import parse_json
from fairmend.runs import database

_COMMIT_EVERY = 0.5
"""Seconds between commits: what a kill or a power cut can cost at most, in time spent on measuring."""

_Number: TypeAlias = float | None
Row: TypeAlias = tuple[int, int, bytes, bytes, _Number, _Number, _Number, _Number, int, _Number, bytes, int]
"""A measurement as `INSERT` takes it, its checksum last; NaN is None."""

INSERT = "INSERT OR REPLACE INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_NUMBERS = struct.Struct("<2q4dqd")


RESULT = "result"
"""With this begin the kinds of events that hold something computed."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened during a run. `time` is in seconds since 1970."""

    id: int
    time: float
    kind: str
    payload: Mapping[str, Any]


class Journal:
    """The rows of an open file.

    Attributes:
        path: the file.
        salvaging: whether rows that are damaged are left out, instead of refusing the run.
        pending: measurements that wait for the next commit.
        next_id: the id of the next measurement.
        commit_due: when (`time.monotonic`) measurements are to be committed.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, salvaging: bool = False) -> None:
        self.path = path
        self.salvaging = salvaging
        self.pending: list[Row] = []
        self.commit_due = time.monotonic() + _COMMIT_EVERY
        self._connection = connection
        (last,) = connection.execute("SELECT max(id) FROM measurements").fetchone()
        self.next_id = 1 if last is None else last + 1

    def record(self, kind: str, payload: Mapping[str, Any]) -> int:
        """Commit an event together with everything put so far, and return its id."""
        row = (time.time(), kind, json_of("event", payload))
        insert = "INSERT INTO events (time, kind, payload, crc) VALUES (?, ?, ?, ?)"
        return self._commit(insert, (*row, database.checksum(*row)))

    def amend(self, event: int, payload: Mapping[str, Any]) -> None:
        """Replace the payload of an event, in one commit with everything put so far."""
        with database.explained(self.path):
            began, kind = self._connection.execute("SELECT time, kind FROM events WHERE id = ?", (event,)).fetchone()
        text = json_of("event", payload)
        values = (text, database.checksum(began, kind, text), event)
        self._commit("UPDATE events SET payload = ?, crc = ? WHERE id = ?", values)

    def events(self, kind: str | None = None) -> list[Event]:
        """What happened, in order: everything, or the events of one kind."""
        return [
            Event(number, when, name, self._object(payload, "record of what happened"))
            for number, when, name, payload, _ in self._event_rows(kind)
        ]

    def _event_rows(self, kind: str | None = None) -> list[tuple[Any, ...]]:
        query = "SELECT id, time, kind, payload, crc FROM events WHERE ? IS NULL OR kind = ? ORDER BY id"
        with database.explained(self.path):
            found = self._connection.execute(query, (kind, kind)).fetchall()
        if any(database.checksum(*row) != crc for _, *row, crc in found):
            raise database.damaged(self.path, "the record of what happened is not as written")
        return found

    def kinds(self) -> set[str]:
        """The kinds of all events."""
        with database.explained(self.path):
            return {kind for (kind,) in self._connection.execute("SELECT DISTINCT kind FROM events")}

    @property
    def holds_results(self) -> bool:
        """Whether anything was measured or computed."""
        return self.next_id > 1 or any(kind.startswith(RESULT) for kind in self.kinds())

    def rows(self, context: int) -> Iterator[tuple[Any, ...]]:
        """The rows of a context in the order in which they were measured, checksums last and not yet checked."""
        query = "SELECT * FROM measurements WHERE context = ? AND id > ? ORDER BY id"
        if not self.salvaging:
            with database.explained(self.path):
                yield from self._connection.execute(query, (context, 0))
            return
        # Around the first page that cannot be read: up to it from the front, and down to it from the back.
        last = 0
        behind: list[tuple[Any, ...]] = []
        try:
            for row in self._connection.execute(query, (context, last)):
                last = row[0]
                yield row
        except sqlite3.DatabaseError:
            with suppress(sqlite3.DatabaseError):
                behind.extend(self._connection.execute(f"{query} DESC", (context, last)))
        yield from reversed(behind)

    def flush(self) -> None:
        """Commit everything put so far.

        Raises:
            RunError: the disk is full or cannot be written. Nothing is half-written, and nothing is forgotten: the
                next commit tries again.
        """
        if self.pending:
            self._commit()
        self.commit_due = time.monotonic() + _COMMIT_EVERY

    def _commit(self, statement: str = "", values: tuple[object, ...] = ()) -> int:
        batch = self.pending[:]
        number = 0
        with database.explained(self.path):
            if self._connection.in_transaction:  # Ctrl-C struck an earlier commit before it was rolled back
                self._connection.execute("ROLLBACK")
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(INSERT, batch)
                if statement:
                    number = self._connection.execute(statement, values).lastrowid or 0
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        # Ctrl-C before this line commits the batch again, under the same ids.
        del self.pending[: len(batch)]
        self.commit_due = time.monotonic() + _COMMIT_EVERY
        return number

    def _object(self, text: str, what: str) -> dict[str, Any]:
        """The JSON object in a row whose checksum is right."""
        try:
            found = parse_json(text)
        except (TypeError, ValueError) as error:
            raise database.damaged(self.path, f"the {what}: {error}") from error
        if not isinstance(found, dict):
            raise database.damaged(self.path, f"the {what} is no JSON object")
        return found


def row_checksum(*values: Any) -> int:
    """The checksum of a measurement, the values of a `Row` before it: one changed bit changes it.

    Raises:
        TypeError, struct.error: values of other types than a measurement has.
    """
    number, context, mask, dials, bias, utility, bias_se, utility_se, n, seconds, parts = values
    crc = zlib.crc32(
        _NUMBERS.pack(
            number,
            context,
            math.nan if bias is None else bias or 0.0,  # SQLite knows no negative zero
            math.nan if utility is None else utility or 0.0,
            math.nan if bias_se is None else bias_se or 0.0,
            math.nan if utility_se is None else utility_se or 0.0,
            n,
            math.nan if seconds is None else seconds or 0.0,
        )
    )
    return zlib.crc32(parts, zlib.crc32(dials, zlib.crc32(mask, crc)))


def json_of(what: str, payload: Mapping[str, Any]) -> str:
    """A JSON-ready mapping as it is kept.

    Raises:
        InputError: it holds something that JSON cannot.
    """
    try:
        return json.dumps(payload)
    except (TypeError, ValueError) as error:
        raise InputError(f"the {what} must hold only what JSON can: {error}. Got {payload!r}") from error
