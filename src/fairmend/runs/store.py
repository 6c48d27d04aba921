"""The file of a run, `run.sqlite`: what was measured, under which settings, and what happened.

Nothing measured is measured twice and nothing is lost: a run is resumed by replaying its searcher against the store.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fairmend.errors import RunError
from fairmend.evaluation import Evaluator, Figures, digest
from fairmend.files import require_plain
from fairmend.masks import Space
from fairmend.records import built, differences, plain
from fairmend.runs import database
from fairmend.runs.context import Context
from fairmend.runs.journal import Event, Journal, json_of
from fairmend.runs.locks import WriterLock

__all__ = ["REQUEST", "Event", "Section", "Store", "recover"]

REQUEST = "request"
"""The entry of the header that says how a person asked for the run, and the kind of event that says it anew."""


class Store(Journal):
    """An open run. Use `Store.create` or `Store.open`, as a context manager or with `close`.

    Attributes:
        header: what the run is: its kind, settings, space, version, as given to `create`.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: WriterLock | None, salvaging: bool = False
    ) -> None:
        super().__init__(path, connection, salvaging)
        self._lock = lock
        self._contexts: dict[str, Context] = {}
        self.header = self._header()

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
        text = json_of("header", header)
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
            changed += differences(plain(context.figures), plain(evaluator.figures))
            changed += differences(context.fingerprint, json.loads(json_of("fingerprint", evaluator.fingerprint())))
            if changed:
                raise RunError(
                    f"{self.path} measured {name!r} under other settings than you give now: {'; '.join(changed)}. "
                    "Choose another --out for a new run, or give the settings of this run to resume it"
                )
        self._contexts[name] = context
        return context

    @property
    def request(self) -> Any:
        """How the run was asked for last; None where nobody asked."""
        again = self.events(REQUEST)
        return again[-1].payload if again else self.header.get(REQUEST)

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
        described, meant, fingerprint = (self._object(text, f"description of {name!r}") for text in row[2:5])
        try:
            space, figures = built(described, Space), built(meant, Figures)
        except ValueError as error:
            raise database.damaged(self.path, f"the description of {name!r}: {error}") from error
        return Context(self, row[0], name, space, figures, fingerprint)

    def _started(self, name: str, evaluator: Evaluator | None) -> Context:
        if evaluator is None:
            raise RunError(f"{self.path} has no measurements named {name!r}; it has {list(self.contexts())}")
        space, figures, fingerprint = evaluator.space, evaluator.figures, evaluator.fingerprint()
        texts = [json_of("space", plain(space)), json_of("figures", plain(figures))]
        texts += [json_of("fingerprint", fingerprint), digest(fingerprint)]
        number = 1 + max((row[0] for row in self._context_rows().values()), default=0)
        row = (number, name, *texts)
        self._commit("INSERT INTO contexts VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, database.checksum(*row)))
        return Context(self, number, name, space, figures, json.loads(texts[2]))

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


class Section:
    """A part of a store for one of several runs in it, see `Store.section`. Events are those of the whole store."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.path = store, name, store.path

    def context(self, name: str, evaluator: Evaluator | None = None) -> Context:
        """The measurements that this run made under `name`, see `Store.context`."""
        return self.store.context(f"{self.name}: {name}", evaluator)

    def record(self, kind: str, payload: Mapping[str, Any]) -> int:
        """Commit an event, see `Journal.record`."""
        return self.store.record(kind, payload)

    def events(self, kind: str | None = None) -> list[Event]:
        """What happened, see `Journal.events`."""
        return self.store.events(kind)


def recover(path: Path) -> None:
    """Undo what a process killed while it closed a run left half-done, which a reader may not do."""
    if require_plain(path.with_name(path.name + "-journal")):
        with suppress(RunError):  # a living process is closing it, or the reader finds out what is wrong
            Store.open(path).close()


def _units(space: Space) -> dict[str, Any]:
    """What has to stay the same for masks to mean the same; size limits and frozen units may change."""
    described = plain(space)
    return {"sites": described["sites"], "dials": described["dials"]}


def _remove(path: Path) -> None:
    for suffix in database.SUFFIXES:
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink()
