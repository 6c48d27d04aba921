"""The commands compare, reproduce and sweep, from options to files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fairmend.cli.display import INTERRUPTED, USAGE_ERROR
from fairmend.cli.main import app
from fairmend.search.names import SEARCH_NAMES
from fairmend.search.schedules import SCHEDULES
from fairmend.tabular.studies.compare import DEFAULT_SEARCHES
from fairmend.tabular.studies.sweep import AXES

SOURCE = (
    *("--model", "net.safetensors", "--data", "people.csv", "--label", "hired"),
    *("--sensitive", "sex", "--drop-sensitive", "--quiet"),
)
COMPARE = ("tabular", "compare", *SOURCE, "--states", "40", "--seeds", "2", "--search", "annealing, dice")
SWEEP = ("tabular", "sweep", *SOURCE, "--states", "30,40", "--seeds", "1")


def test_compare_shows_searches_and_rivals_and_writes_them(run, desk):
    outcome = run(*COMPARE, "--out", "out")
    assert outcome.code == 0, outcome.err
    for name in ("annealing", "dice", "threshold only", "untouched", "Holm-adjusted"):
        assert name in outcome.out
    assert {path.name for path in Path("out").iterdir()} == {
        *("run.sqlite", "compare.json", "compare.csv", "compare.png", "compare.svg", "report.html"),
    }


def test_json_is_one_document_with_the_files(run, desk):
    outcome = run(*COMPARE, "--json")
    assert outcome.code == 0, outcome.err
    assert [row["search"] for row in outcome.document["rows"]] == ["annealing", "dice", "threshold only", "untouched"]
    assert Path(outcome.document["files"]["compare.csv"]) == Path("fairmend-compare-people/compare.csv")
    again = run(*COMPARE, "--json")
    assert again.document["rows"] == outcome.document["rows"]  # seconds too: nothing was repaired again


def test_sweep_repairs_every_combination(run, desk):
    outcome = run(*SWEEP, "--keep", "0.9,1", "--out", "out")
    assert outcome.code == 0, outcome.err
    assert "Untouched: " in outcome.out
    assert Path("out/sweep.png").stat().st_size > 0
    assert len(json.loads(Path("out/sweep.json").read_bytes())["rows"]) == 4


def test_reproduce_names_what_is_missing(run, desk, shared_data):
    options = ("--networks", shared_data / "neufair", "--data", shared_data, "--only", "compas-sex,meps16-race")
    outcome = run("tabular", "reproduce", *options, "--states", "40", "--threshold", "both", "--quiet", "--out", "out")
    assert outcome.code == 0, outcome.err
    assert "meps16-race is missing" in outcome.out
    assert outcome.out.count("compas-sex") >= 4  # joint and fixed, in both tables
    assert {"settings.csv", "networks.csv", "reproduce.json", "reproduce.png", "reproduce.svg"} <= {
        path.name for path in Path("out").iterdir()
    }
    for asked in (("show", "out"), ("resume", "out", "--quiet")):
        shown = run(*asked)
        assert shown.code == 0, shown.err
        assert outcome.out.startswith(shown.out)  # all but the list of files


@pytest.mark.parametrize(("words", "says"), [(COMPARE, "Holm-adjusted"), ((*SWEEP, "--keep", "1"), "Untouched: ")])
def test_a_study_is_shown_again_from_its_folder(run, desk, words, says):
    made = run(*words, "--out", "out")
    assert made.code == 0, made.err
    for asked in (("show", "out"), ("resume", "out", "--quiet")):
        shown = run(*asked)
        assert shown.code == 0, shown.err
        assert says in shown.out
        assert made.out.startswith(shown.out)  # all but the list of files
    saved = run("show", "out", "--json").document
    assert saved["rows"]
    del saved["tables"]
    Path(f"out/{words[1]}.json").write_text(json.dumps(saved))
    assert "no tables that can be read" in run("show", "out").message
    Path(f"out/{words[1]}.json").write_text(json.dumps({"kind": f"tabular {words[1]}", "rows": []}))
    assert "was written by fairmend 0.1.0" in run("show", "out").message


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(desk, monkeypatch):
    from fairmend.cli.progress import Steps

    shown = []

    def press_after_two(self, done, *rest):
        shown.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Steps, "update", press_after_two)
        result = CliRunner().invoke(app, [*COMPARE, "--out", "out"])
    assert result.exit_code == INTERRUPTED
    assert "the same command again goes on" in result.stderr
    assert "2 of 4 repairs are in" in " ".join(result.stdout.split())
    assert len(json.loads(Path("out/compare.json").read_bytes())["repairs"]) == 2
    again = CliRunner().invoke(app, ["resume", "out"])
    assert again.exit_code == 0, again.stderr
    assert len(json.loads(Path("out/compare.json").read_bytes())["repairs"]) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*COMPARE, "--search", "hill"), "search must be one of"),
        ((*COMPARE, "--search", ","), "--search needs at least one value"),
        ((*COMPARE, "--seeds", "0"), "seeds must be at least 1"),
        ((*COMPARE, "--seconds", "3"), "give states instead of seconds"),
        ((*COMPARE, "--workers", "0"), "--workers must be a number from 1 on, ray, or ray://HOST:PORT, got '0'"),
        ((*COMPARE, "--out", "people.csv"), "people.csv is a file, not a directory"),
        ((*COMPARE, "--out", "."), "not empty and holds no run"),
        ((*SWEEP, "--keep", "0.9,much"), "--keep '0.9,much': 'much' is not a number"),
        ((*SWEEP, "--max-drop", "1.5"), "'1.5' is not a whole number"),
        ((*SWEEP, "--schedule", "sudden"), "schedule must be one of"),
        ((*SWEEP, "--drop", "clamp"), "--drop must be output or weights"),
        ((*SWEEP, "--drop", "hard"), "drop must be one of"),
        (("tabular", "reproduce", "--networks", "nowhere"), "nowhere/models.json cannot be read"),
        (("tabular", "reproduce", "--networks", ".", "--only", "adult-age"), "no published setting 'adult-age'"),
        (("tabular", "reproduce", "--networks", ".", "--threshold", "loose"), "threshold must be one of"),
    ],
)
def test_what_cannot_work_is_named_and_nothing_is_left(run, desk, words, message):
    before = sorted(path.name for path in desk.iterdir())
    outcome = run(*words)
    assert outcome.code == USAGE_ERROR, outcome.err
    assert message in outcome.message
    assert sorted(path.name for path in desk.iterdir()) == before


@pytest.mark.parametrize("name", ["compare", "reproduce", "sweep"])
def test_every_command_explains_itself_with_an_example(run, name):
    outcome = run("tabular", name, "--help")
    assert f"Example: fairmend tabular {name}" in " ".join(outcome.out.split())
    for option in ("--workers", "--out", "--seed", "--json", "--quiet"):
        assert option in outcome.out


def test_the_options_are_those_of_the_library(run):
    def said(name):
        return " ".join(run("tabular", name, "--help-all").out.replace("│", " ").split())

    assert [axis for axis in AXES if f"--{axis.replace('_', '-')} " not in said("sweep")] == []
    assert [name for name in SCHEDULES if name not in said("sweep")] == []
    assert [name for name in SEARCH_NAMES if name not in said("compare")] == []
    assert ",".join(DEFAULT_SEARCHES).partition(",genetic")[0] in said("compare")
