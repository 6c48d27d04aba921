"""Kinds of bad input, what prepares them, and how a refusal is checked."""

from __future__ import annotations

import os
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairmend.tabular.formats.formats import write_safetensors

from .conftest import OWN, Run, arguments, small_network, small_table

Change = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A kind of bad input.

    Attributes:
        name: of the test.
        words: what the message must contain: the value and the remedy.
        options: what differs from a repair that works.
        prepare: what is done to the files first.
        command: the command to run.
    """

    name: str
    words: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    prepare: Change = lambda: None
    command: tuple[str, ...] = ("tabular", "repair")


def table(**columns: Any) -> Change:
    """Replace columns of the table; None removes one."""

    def change() -> None:
        frame = small_table()
        for name, values in columns.items():
            frame = frame.drop(columns=name) if values is None else frame.assign(**{name: values})
        frame.to_csv("people.csv", index=False)

    return change


def with_value(column: str, value: float | str | None) -> Change:
    """Put one value into the sixth row of a column."""

    def change() -> None:
        frame = small_table()
        frame[column] = frame[column].astype(object)
        frame.loc[5, column] = value
        frame.to_csv("people.csv", index=False)

    return change


def text(name: str, content: str) -> Change:
    return lambda: Path(name).write_text(content) and None


def binary(name: str, content: bytes) -> Change:
    return lambda: Path(name).write_bytes(content) and None


def truncated(name: str) -> Change:
    return lambda: Path(name).write_bytes(Path(name).read_bytes()[:-40]) and None


def damaged(name: str) -> Change:
    def change() -> None:
        content = bytearray(Path(name).read_bytes())
        content[: len(content) // 2] = b"\x07" * (len(content) // 2)
        Path(name).write_bytes(content)

    return change


def network(**shape: int) -> Change:
    return lambda: write_safetensors(small_network(**shape), "net.safetensors")


def nan_network() -> None:
    tensors = {
        "layer1.weight": np.full((8, 3), np.nan, np.float32),
        "layer2.weight": np.ones((1, 8), np.float32),
    }
    from safetensors.numpy import save_file

    save_file(tensors, "net.safetensors")


def group_without_positives() -> None:
    frame = small_table()
    frame.loc[frame["sex"] == "F", "hired"] = "no"
    frame.to_csv("people.csv", index=False)


def duplicate_columns() -> None:
    lines = Path("people.csv").read_text().splitlines()
    lines[0] = lines[0].replace("years", "score")
    Path("people.csv").write_text("\n".join(lines))


def objects_in_npz() -> None:
    frame = small_table()
    np.savez(
        "people.npz",
        X=frame[["score", "years", "test"]].to_numpy(),
        y=frame["hired"].to_numpy(dtype="U3"),
        sex=frame["sex"].to_numpy(dtype=object),
    )


def pickled_network(name: str) -> Change:
    def change() -> None:
        class Trap:
            def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
                return os.system, ("touch pwned",)

        Path(name).write_bytes(pickle.dumps(Trap()))

    return change


def torch_file(name: str) -> Change:
    return lambda: torch.save(torch.nn.Linear(3, 1).state_dict(), name)


def filled_folder() -> None:
    Path("out").mkdir()
    Path("out/thesis.docx").write_text("years of work")


def foreign_database() -> None:
    Path("out").mkdir()
    with sqlite3.connect("out/run.sqlite") as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()


def damaged_run() -> None:
    Path("out").mkdir()
    Path("out/run.sqlite").write_bytes(b"SQLite format 3\x00" + b"\xff" * 4000)


def damaged_result() -> None:
    Path("out").mkdir()
    Path("out/result.json").write_text('{"schema": "fairmend tab')


def three_labels() -> None:
    frame = small_table()
    frame["hired"] = np.resize(["no", "yes", "maybe"], len(frame))
    frame.to_csv("people.csv", index=False)


def snapshot() -> dict[str, bytes | list[str] | None]:
    """Every file below the working directory, the cache left out, with its content; of a run its rows."""
    return {str(path): content(path) for path in sorted(Path().rglob("*")) if path.parts[0] != "cache"}


def content(path: Path) -> bytes | list[str] | None:
    if path.name == "run.sqlite" and path.with_name("original.safetensors").exists():
        with closing(sqlite3.connect(path)) as connection:
            return list(connection.iterdump())
    return path.read_bytes() if path.is_file() else None


def refused(run: Run, words: tuple[str, ...], *command: str) -> None:
    """Run a command that must fail as bad input does."""
    before = snapshot()
    outcome = run(*command)
    assert outcome.code == 2, outcome.err
    assert isinstance(outcome.exception, SystemExit)  # handled, not a traceback
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.message
    assert snapshot() == before


def check_case(run: Run, case: Case) -> None:
    case.prepare()
    refused(run, case.words, *case.command, *arguments(OWN | {"--states": 20, "--out": "out"} | case.options))
    assert not Path("pwned").exists()
