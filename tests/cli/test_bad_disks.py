"""Disks that are full, too small or read-only: nothing half-written is left, and what was measured is kept."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from fairmend.files import hold

from .bad_input import refused
from .conftest import OWN, arguments


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_at_the_start_leaves_nothing(run, desk, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    refused(run, ("No space left", "bytes free"), "tabular", "repair", *arguments(OWN | {"--out": "out"}))


def limited(pages: int) -> Callable[..., sqlite3.Connection]:
    """SQLite's own answer to a full disk, after so many pages."""
    from fairmend.runs import database

    connect = database.connect

    def on_a_small_disk(path: Path, mode: str) -> sqlite3.Connection:
        connection = connect(path, mode)
        connection.execute("PRAGMA page_size = 16384")
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    return on_a_small_disk


def test_a_disk_that_is_too_small_for_the_run_leaves_nothing(run, desk, monkeypatch):
    monkeypatch.setattr("fairmend.runs.database.connect", limited(3))
    refused(run, ("full", "space"), "tabular", "repair", *arguments(OWN | {"--out": "out"}))


def test_a_disk_that_fills_during_the_search_keeps_what_was_measured(run, desk, monkeypatch):
    words = arguments(OWN | {"--states": 3000, "--out": "out"})
    with monkeypatch.context() as patched:
        patched.setattr("fairmend.runs.database.connect", limited(7))
        outcome = run("tabular", "repair", *words)
    assert outcome.code == 2
    assert "full" in outcome.message
    assert not Path("out/result.json").exists()
    assert run("resume", "out").code == 0
    assert Path("out/result.json").exists()


def test_a_disk_that_fills_while_the_result_is_saved_leaves_no_part(run, desk, monkeypatch):
    words = arguments(OWN | {"--states": 30, "--out": "out"})
    with monkeypatch.context() as patched:
        patched.setattr("fairmend.tabular.repair.saving.write_onnx", lambda *_: full_disk_error())
        assert run("tabular", "repair", *words).code == 2
    assert not list(Path("out").glob("*.part"))
    assert not Path("out/result.json").exists()
    assert run("resume", "out").code == 0


def test_input_that_turns_out_bad_late_costs_nothing_that_was_measured(run, desk, monkeypatch):
    from fairmend.errors import InputError

    def late(*_, **__):
        raise InputError("the model card cannot be made")

    words = arguments(OWN | {"--states": 30, "--out": "out"})
    with monkeypatch.context() as patched:
        patched.setattr("fairmend.tabular.repair.saving.make_card", late)
        assert run("tabular", "repair", *words).code == 2
    assert run("export", "out", "measured.csv").code == 0
    assert run("resume", "out").code == 0


def test_input_that_turns_out_bad_before_anything_is_measured_leaves_what_others_put_there(run, desk, monkeypatch):
    from fairmend.errors import InputError

    def refuse(*_, **__):
        Path("out/notes").mkdir()
        Path("out/notes/mine.txt").write_text("years of work")
        raise InputError("no such thing")

    monkeypatch.setattr("fairmend.tabular.repair.repair.repair_network", refuse)
    assert run("tabular", "repair", *arguments(OWN | {"--states": 30, "--out": "out"})).code == 2
    assert [path.name for path in Path("out").iterdir()] == ["notes"]
    assert Path("out/notes/mine.txt").read_text() == "years of work"


def test_what_a_kill_left_unfinished_is_swept_and_what_is_at_work_stays(run, desk):
    words = arguments(OWN | {"--states": 30, "--out": "out"})
    Path("out/.part-killed/checkpoint").mkdir(parents=True)
    Path("out/.part-killed/checkpoint/model.safetensors").write_text("half")
    Path("out/.result.json.0123abcd.part").write_text("half")
    with open("out/.mask.json.0123abcd.part", "w") as at_work:
        hold(at_work.fileno())
        assert run("tabular", "repair", *words).code == 0
        assert Path("out/.mask.json.0123abcd.part").exists()
    assert not Path("out/.part-killed").exists()
    assert not Path("out/.result.json.0123abcd.part").exists()
    Path("out/result.json").unlink()
    assert run("resume", "out").code == 0
    assert not list(Path("out").glob(".*"))


def full_disk_error() -> None:
    from fairmend.files import write_atomically

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        write_atomically("out/network.onnx", b"x" * 100)


def test_a_read_only_folder_is_refused(run, desk, monkeypatch):
    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    refused(run, ("out", "Read-only", "--out"), "tabular", "repair", *arguments(OWN | {"--out": "out"}))
