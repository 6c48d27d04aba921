"""A run's file that a disk has damaged, or that somebody has made: refused with what can be saved, and nothing runs."""

import math
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_runs import SPACE, ToyEvaluator, ToySearcher

from fairmend.errors import RunError
from fairmend.runs import database
from fairmend.runs.directories import open_directory
from fairmend.runs.export import export
from fairmend.runs.parts import Parts
from fairmend.runs.runner import Runner
from fairmend.runs.store import Store

HEADER = {"kind": "toy", "settings": {"seed": 1}}


def a_run(path: Path, states: int = 1500) -> None:
    evaluator, rng = ToyEvaluator(), np.random.default_rng(2)
    masks = list(dict.fromkeys(SPACE.sample(rng) for _ in range(states)))
    with Store.create(path, HEADER) as store:
        store.context("search", evaluator).put(masks, evaluator.measure(masks))
        store.context("held-out", evaluator).put(masks[:20], evaluator.measure(masks[:20]))
        store.record("session", {"told": len(masks), "seconds": 1.5})


def everything(path: Path) -> list[Any]:
    with Store.open(path) as store:
        measured = [[(mask, repr(made)) for mask, made in store.context(name)] for name in store.contexts()]
        return [store.header, store.contexts(), measured, store.events()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run.sqlite"
    a_run(path)
    return path


def changed(whole: Path, folder: Path, change: Callable[[bytearray], object]) -> Path:
    content = bytearray(whole.read_bytes())
    change(content)
    path = folder / "run.sqlite"
    path.write_bytes(content)
    return path


def test_a_flipped_bit_is_refused_or_changes_nothing(whole: Path, tmp_path: Path) -> None:
    rng, right, refused = random.Random(8), everything(whole), 0

    def flip(content: bytearray) -> None:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)

    for _ in range(80):
        path = changed(whole, tmp_path, flip)
        try:
            assert everything(path) == right
        except RunError:
            refused += 1
    assert refused > 25  # what is left are bytes that hold nothing


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.3])
def test_a_cut_file_is_refused_and_what_can_be_saved_is_said(whole: Path, tmp_path: Path, share: float) -> None:
    path = changed(whole, tmp_path, lambda content: content.__delitem__(slice(int(len(content) * share), None)))
    with pytest.raises(RunError, match=r"damaged.*fairmend export DIR FILE\.csv --damaged.*another --out"):
        everything(path)


def test_a_missing_measurement_is_noticed(whole: Path, tmp_path: Path) -> None:
    path = changed(whole, tmp_path, lambda content: None)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM measurements WHERE id = 7")
        connection.commit()
    with pytest.raises(RunError, match="damaged"):
        everything(path)


def test_what_is_whole_of_a_damaged_run_can_be_exported(whole: Path, tmp_path: Path) -> None:
    with Store.open(whole, read_only=True) as store:
        measured = dict(store.context("search"))
    with closing(sqlite3.connect(whole)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'measurements'").fetchone()
    pages = whole.stat().st_size // 16384
    middle = next(page for page in range(pages // 2, pages) if page + 1 != root)

    def break_a_page(content: bytearray) -> None:
        content[middle * 16384 : middle * 16384 + 8192] = b"\xff" * 8192

    path = changed(whole, tmp_path, lambda content: None)
    rewrite("UPDATE measurements SET bias = bias + 1 WHERE id = 3")(path)
    path = changed(path, tmp_path, break_a_page)
    with Store.open(path, read_only=True, salvage=True) as store:
        saved = dict(store.context("search"))
        assert export(store, "search", tmp_path / "saved.csv") == len(saved)
    assert len(measured) / 2 < len(saved) < len(measured)
    assert saved.items() <= measured.items()


def rewrite(*statements: str) -> Callable[[Path], None]:
    """What somebody does to the file who can count checksums, too."""

    def change(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return change


def header(text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE header SET json = ?, crc = ?", (text, database.checksum(text)))

    return change


def space(text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for row in connection.execute(
                "SELECT id, name, space, figures, fingerprint, digest FROM contexts"
            ).fetchall():
                made = (*row[:2], text, *row[3:])
                connection.execute(
                    "REPLACE INTO contexts VALUES (?, ?, ?, ?, ?, ?, ?)", (*made, database.checksum(*made))
                )

    return change


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT"
MADE = {
    "a recursive view in place of a table": rewrite(
        "DROP TABLE measurements",
        f"CREATE VIEW measurements AS {ENDLESS} x AS id, 1 AS context, x'00' AS mask FROM n",
    ),
    "a trigger": rewrite(
        "CREATE TRIGGER t AFTER INSERT ON measurements BEGIN INSERT INTO events VALUES (1, 1, 'x', '{}', 1); END"
    ),
    "another table": rewrite("CREATE TABLE more (x)"),
    "a check that computes": rewrite(
        "DROP TABLE events",
        "CREATE TABLE events (id INTEGER PRIMARY KEY, time, kind, payload, crc CHECK (length(zeroblob(1000000)) > 0))",
    ),
    "a text as a mask": rewrite("UPDATE measurements SET mask = 'ab'"),
    "a number as a mask": rewrite("UPDATE measurements SET mask = 7"),
    "a text as a figure": rewrite("UPDATE measurements SET bias = 'much'"),
    "a text as a count": rewrite("UPDATE measurements SET n = 'many'"),
    "text that is not UTF-8": rewrite("UPDATE header SET json = CAST(x'fffe' AS TEXT)"),
    "two headers": rewrite("INSERT INTO header SELECT * FROM header"),
    "a header that is a list": header("[1, 2]"),
    "a header that is nested deeply": header("[" * 100_000),
    "a header that is no JSON": header("{"),
    "a space of no sites": space('{"sites": 3}'),
    "a space of sites without units": space('{"sites": [["a", "many"]], "min_drop": 0}'),
    "a space that is nested deeply": space('{"sites":' + "[" * 100_000),
}


@pytest.mark.parametrize("change", MADE.values(), ids=MADE)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_somebody_made_is_refused_and_nothing_in_it_runs(
    whole: Path, tmp_path: Path, change: Callable[[Path], None], read_only: bool
) -> None:
    path = changed(whole, tmp_path, lambda content: None)
    change(path)

    def read() -> None:
        with Store.open(path, read_only=read_only) as store:
            for name in store.contexts():
                len(store.context(name))

    with pytest.raises(RunError, match="damaged"):
        read()


def test_a_mistake_of_this_code_is_not_put_down_to_the_file(whole: Path) -> None:
    store = Store.open(whole, read_only=True)
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        store.events()


@pytest.mark.parametrize("payload", [{}, {"name": "a", "arrays": 5}, {"name": "a", "arrays": {"x": {"dtype": "O"}}}])
def test_a_kept_part_that_is_none_is_refused(tmp_path: Path, payload: dict[str, Any]) -> None:
    with Store.create(tmp_path / "run.sqlite", HEADER) as store:
        kind = Parts(store, {"work": 1})._kind
        store.record(kind, payload)
        with pytest.raises(RunError, match="a kept part"):
            Parts(store, {"work": 1})("a", lambda: {})


@pytest.mark.parametrize("change", [{"told": "many"}, {"seconds": None}, {"told": math.inf}])
def test_a_session_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    evaluator = ToyEvaluator()
    with Store.create(tmp_path / "run.sqlite", HEADER) as store:
        runner = Runner(evaluator, store.context("search", evaluator))
        runner.run(ToySearcher(states=5))
        (session,) = store.events("session")
        store.amend(session.id, {**session.payload, **change})
        with pytest.raises(RunError, match="the record of a session"):
            runner.run(ToySearcher(states=5))


class TestWhatIsNoPlainFile:
    """Neither followed, nor opened, nor waited for."""

    @pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", "-lock"])
    @pytest.mark.parametrize("kind", ["a symbolic link", "a hard link", "a named pipe", "a folder"])
    def test_is_refused_and_its_target_is_untouched(self, whole: Path, tmp_path: Path, suffix: str, kind: str) -> None:
        precious, path = tmp_path / "precious", tmp_path / "run" / "run.sqlite"
        path.parent.mkdir()
        precious.write_bytes(whole.read_bytes())
        if suffix:
            path.write_bytes(whole.read_bytes())
        make: dict[str, Callable[[Path], object]] = {
            "a symbolic link": lambda link: link.symlink_to(precious),
            "a hard link": lambda link: link.hardlink_to(precious),
            "a named pipe": os.mkfifo,
            "a folder": lambda folder: folder.mkdir(),
        }
        make[kind](path.with_name(f"run.sqlite{suffix}"))
        with pytest.raises(RunError, match=kind):
            Store.open(path)
        # A reader does not mind a second name, and cannot undo a journal.
        with pytest.raises(RunError, match=f"{kind}|cannot be written"):
            open_directory(path.parent, HEADER, identity=("kind",)).close()
        assert precious.read_bytes() == whole.read_bytes()

    @pytest.mark.parametrize("suffix", ["", "-lock"])
    def test_is_not_created_through_a_link_to_nothing(self, tmp_path: Path, suffix: str) -> None:
        out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
        out.mkdir()
        (out / f"run.sqlite{suffix}").symlink_to(elsewhere)
        with pytest.raises(RunError, match="a symbolic link"):
            open_directory(out, HEADER, identity=("kind",))
        assert not elsewhere.exists()
        assert os.listdir(out) == [f"run.sqlite{suffix}"]

    def test_a_journal_that_names_another_file_is_refused(self, whole: Path, tmp_path: Path) -> None:
        path = changed(whole, tmp_path, lambda content: None)
        path.with_name("run.sqlite-journal").write_bytes(b"x" * 600 + bytes.fromhex("d9d505f920a163d7"))
        with pytest.raises(RunError, match="names other files"):
            Store.open(path)


def test_a_full_disk_at_the_lock_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(RunError, match=r"No space left on device.*intact"):
            Store.create(tmp_path / "run.sqlite", HEADER)
    assert os.listdir(tmp_path) == []
