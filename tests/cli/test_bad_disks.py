"""Disks that are full, too small or read-only: nothing half-written is left, and what was measured is kept."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

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
        patched.setattr("fairmend.tabular.saving.write_onnx", lambda *_: full_disk_error())
        assert run("tabular", "repair", *words).code == 2
    assert not list(Path("out").glob("*.part"))
    assert not Path("out/result.json").exists()
    assert run("resume", "out").code == 0


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
