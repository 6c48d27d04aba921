"""The file of a run, `run.sqlite`: what was measured, under which settings, and what happened.

Nothing measured is measured twice and nothing is lost: a run is resumed by replaying its searcher against the store.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fairmend.errors import InputError, RunError
from fairmend.evaluation import Evaluator, Figures, digest
from fairmend.files import parse_json, require_plain
from fairmend.masks import Space
from fairmend.runs import database
from fairmend.runs.context import INSERT, Context, Row, differences
from fairmend.runs.locks import WriterLock
from fairmend.runs.sections import Event, Section

__all__ = ["Event", "Section", "Store", "recover"]

_COMMIT_EVERY = 0.5
"""Seconds between commits: what a kill or a power cut can cost at most, in time spent on measuring."""


class Store:
    """An open run. Use `Store.create` or `Store.open`, as a context manager or with `close`.

    Attributes:
        path: the file.
        header: what the run is: its kind, settings, space, version, as given to `create`.
        salvaging: whether rows that are damaged are left out, instead of refusing the run.
        pending: measurements that wait for the next commit.
        next_id: the id of the next measurement.
        commit_due: when (`time.monotonic`) the next `put` commits.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: WriterLock | None, salvaging: bool = False
    ) -> None:
        self.path = path
        self.salvaging = salvaging
        self.pending: list[Row] = []
        self.commit_due = time.monotonic() + _COMMIT_EVERY
        self._connection = connection
        self._lock = lock
        self._contexts: dict[str, Context] = {}
        self.header = self._header()
        (last,) = connection.execute("SELECT max(id) FROM measurements").fetchone()
        self.next_id = 1 if last is None else last + 1

    def _header(self) -> Mapping[str, Any]:
        found = self._connection.execute("SELECT json, crc FROM header").fetchall()
        if len(found) != 1 or found[0][1] != database.checksum(found[0][0]):
            raise database.damaged(self.path, "its header is not as written")
        return self._object(found[0][0], "header")

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any]) -> Self:
        """Start a run in a new file, making its directory if need be.

        Args:
            path: the file; one left by a run that was killed before it began is taken over.
            header: JSON-ready: what the run is, its settings, its version.

        Raises:
            RunError: the file exists, another process writes it, or it cannot be written (nothing is left behind).
            InputError: a header that JSON cannot hold.
        """
        text = _json("header", header)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {path.parent}: {error.strerror}. Choose another --out") from error
        lock = WriterLock(path)
        try:
            return cls._create(path, text, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _create(cls, path: Path, header: str, lock: WriterLock) -> Self:
        existed = require_plain(path, own=True)
        with database.explained(path):
            connection = database.connect(path, "rwc")
            try:
                if not database.is_blank(connection):
                    raise RunError(
                        f"{path} already exists. Resume that run, remove it, or choose another --out for a new one"
                    )
                database.prepare_to_write(connection)
                database.initialise(connection, header)
                return cls(path, connection, lock)
            except BaseException:
                connection.close()
                if not existed:
                    _remove(path)
                raise

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False, salvage: bool = False) -> Self:
        """Open a run to go on with it, or to read it while another process may be writing it.

        Args:
            path: the file.
            read_only: nothing is written, and another process may be writing.
            salvage: read what can be read of a damaged run: measurements whose checksums are wrong are left out.

        Raises:
            RunError: no such file, not a run, damaged, of another schema version, or written by another process.
        """
        if not require_plain(path):
            raise RunError(f"{path} does not exist: there is no run to open. Check the directory, or start a new run")
        if read_only:
            recover(path)
        lock = None if read_only else WriterLock(path)
        try:
            with database.explained(path):
                connection = database.connect(path, "ro" if read_only else "rw")
                try:
                    database.require_run(connection, path, whole=not salvage)
                    if not read_only:
                        database.prepare_to_write(connection)
                    store = cls(path, connection, lock, salvage)
                    if not salvage:  # measurements are checked when they are read: there may be many
                        store._context_rows()
                        store._event_rows()
                    return store
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def context(self, name: str, evaluator: Evaluator | None = None) -> Context:
        """The measurements made under `name`, by an evaluator like the given one.

        Args:
            name: such as "search", "validation" or "held-out".
            evaluator: who measures. None reads what an earlier evaluator measured.

        Raises:
            RunError: the evaluator's space, figures or fingerprint differ from those that the context was started
                with (each difference is named), or there is no such context and it cannot be made.
        """
        context = self._contexts.get(name)  # an empty one is falsy
        if context is None:
            context = self._stored(name)
        if context is None:
            context = self._started(name, evaluator)
        elif evaluator is not None:
            changed = differences(_units(context.space), _units(evaluator.space))
            changed += differences(context.figures.to_json(), evaluator.figures.to_json())
            changed += differences(context.fingerprint, json.loads(_json("fingerprint", evaluator.fingerprint())))
            if changed:
                raise RunError(
                    f"{self.path} measured {name!r} under other settings than you give now: {'; '.join(changed)}. "
                    "Choose another --out for a new run, or give the settings of this run to resume it"
                )
        self._contexts[name] = context
        return context

    def contexts(self) -> tuple[str, ...]:
        """The names of all contexts, in the order in which they were started."""
        return tuple(self._context_rows())

    def _context_rows(self) -> dict[str, tuple[Any, ...]]:
        """Id, name, space, figures, fingerprint and digest of every context, by name."""
        query = "SELECT id, name, space, figures, fingerprint, digest, crc FROM contexts ORDER BY id"
        with database.explained(self.path):
            found = self._connection.execute(query).fetchall()
        rows = {row[1]: row for *row, crc in found if database.checksum(*row) == crc}
        if len(rows) != len(found):
            raise database.damaged(self.path, "the names of what was measured are not as written")
        return rows

    def section(self, name: str) -> Section:
        """A part of the store for one of several runs in it: its contexts have names of their own."""
        return Section(self, name)

    def _stored(self, name: str) -> Context | None:
        row = self._context_rows().get(name)
        if row is None:
            return None
        plain = [self._object(text, f"description of {name!r}") for text in row[2:5]]
        try:
            space, figures = Space.from_json(plain[0]), Figures.from_json(plain[1])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise database.damaged(self.path, f"the description of {name!r}: {error}") from error
        return Context(self, row[0], name, space, figures, plain[2])

    def _started(self, name: str, evaluator: Evaluator | None) -> Context:
        if evaluator is None:
            raise RunError(f"{self.path} has no measurements named {name!r}; it has {list(self.contexts())}")
        space, figures, fingerprint = evaluator.space, evaluator.figures, evaluator.fingerprint()
        texts = [_json("space", space.to_json()), _json("figures", figures.to_json())]
        texts += [_json("fingerprint", fingerprint), digest(fingerprint)]
        number = 1 + max((row[0] for row in self._context_rows().values()), default=0)
        row = (number, name, *texts)
        self._commit("INSERT INTO contexts VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, database.checksum(*row)))
        return Context(self, number, name, space, figures, json.loads(texts[2]))

    def _object(self, text: str, what: str) -> dict[str, Any]:
        """The JSON object in a row whose checksum is right."""
        try:
            found = parse_json(text)
        except (TypeError, ValueError) as error:
            raise database.damaged(self.path, f"the {what}: {error}") from error
        if not isinstance(found, dict):
            raise database.damaged(self.path, f"the {what} is no JSON object")
        return found

    def record(self, kind: str, payload: Mapping[str, Any]) -> int:
        """Commit an event together with everything put so far, and return its id."""
        row = (time.time(), kind, _json("event", payload))
        insert = "INSERT INTO events (time, kind, payload, crc) VALUES (?, ?, ?, ?)"
        return self._commit(insert, (*row, database.checksum(*row)))

    def amend(self, event: int, payload: Mapping[str, Any]) -> None:
        """Replace the payload of an event, in one commit with everything put so far."""
        with database.explained(self.path):
            began, kind = self._connection.execute("SELECT time, kind FROM events WHERE id = ?", (event,)).fetchone()
        text = _json("event", payload)
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

    def close(self) -> None:
        """Commit everything, close the file and let others write it. A closed store cannot be used again."""
        try:
            if self._lock is not None:
                self.flush()
                database.settle(self._connection)
        finally:
            self._connection.close()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def recover(path: Path) -> None:
    """Undo what a process killed while it closed a run left half-done, which a reader may not do."""
    if require_plain(path.with_name(path.name + "-journal")):
        with suppress(RunError):  # a living process is closing it, or the reader finds out what is wrong
            Store.open(path).close()


def _json(what: str, payload: Mapping[str, Any]) -> str:
    try:
        return json.dumps(payload)
    except (TypeError, ValueError) as error:
        raise InputError(f"the {what} must hold only what JSON can: {error}. Got {payload!r}") from error


def _units(space: Space) -> dict[str, Any]:
    """What has to stay the same for masks to mean the same; size limits and frozen units may change."""
    described = space.to_json()
    return {"sites": described["sites"], "dials": described["dials"]}


def _remove(path: Path) -> None:
    for suffix in database.SUFFIXES:
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink()
