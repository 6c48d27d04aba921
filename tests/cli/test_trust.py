"""What somebody else's run folder cannot do: run code, be trusted, or lead to other files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fairmend
from fairmend.language.repair.settings import RepairSettings
from fairmend.runs import Store
from fairmend.tabular import RepairSettings as TabularSettings

from .conftest import REPAIR, Run, arguments

EVIL = """
from pathlib import Path
Path(__file__).with_name("pwned").touch()
def score(texts):
    return [0] * len(texts)
"""


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module that leaves a trace when it is imported lies in the working directory and in the run's folder."""
    monkeypatch.chdir(tmp_path)
    for folder in (Path("out"), Path("elsewhere")):
        folder.mkdir()
        (folder / "evil_module.py").write_text(EVIL)
    before = list(sys.path)
    yield
    assert not list(tmp_path.rglob("pwned"))
    assert "evil_module" not in sys.modules
    assert sys.path == before


def language_header(**request: Any) -> dict[str, Any]:
    """Of a run that was begun with options of the given values."""
    plain: dict[str, Any] = {
        **{"model": "/models/gpt2", "called": "gpt2", "scorer": "lexical", "scorer_label": None, "axis": None},
        **{"prompts": None, "holistic_bias": None, "prompt_count": 16, "protocol": "fairmend", "new_tokens": 4},
        **{"samples": 1, "text": None, "text_tokens": 96, "dtype": "float32", "device": "cpu", "batch_size": "auto"},
        **{
            "revision": None,
            "trust_remote_code": False,
            "objectives": [],
            "scores": None,
            "from": None,
            "slice": False,
            "bias": None,
            "knowledge": "gender",
        },
    }
    settings = RepairSettings().to_json()
    return {
        "kind": "language repair",
        "fairmend": fairmend.__version__,
        "settings": settings,
        "request": plain | request,
    }


def tabular_header(settings: dict[str, Any] | None = None, **request: Any) -> dict[str, Any]:
    plain = {"model": "/nets/net.safetensors", "data": "/data/people.csv", "label": "hired", "sensitive": "sex"}
    made = json.loads(json.dumps(TabularSettings().to_json())) | (settings or {})
    return {"kind": "tabular repair", "fairmend": fairmend.__version__, "settings": made, "request": plain | request}


def resumed(run: Run, header: dict[str, Any], *words: str) -> str:
    Store.create(Path("out/run.sqlite"), header).close()
    outcome = run("resume", "out", *words)
    assert outcome.code == 2, outcome.err
    assert isinstance(outcome.exception, SystemExit), outcome.err
    return outcome.message


OWN_SCORER = {"scorer": "python:evil_module:score", "folder": "elsewhere"}
OWN_OBJECTIVE = {"objectives": ["python:evil_module:score"], "folder": "elsewhere"}


@pytest.mark.parametrize(
    ("request_", "words", "needed"),
    [
        (OWN_SCORER, (), "fairmend resume out --scorer python:evil_module:score"),
        (OWN_SCORER, ("--scorer", "python:other:score"), "--scorer python:evil_module:score"),
        (OWN_OBJECTIVE, (), "fairmend resume out --objective python:evil_module:score"),
        (OWN_OBJECTIVE, ("--scorer", "python:evil_module:score"), "--objective python:evil_module:score"),
        ({"trust_remote_code": True}, (), "fairmend resume out --trust-remote-code"),
        ({"trust_remote_code": 1}, (), "fairmend resume out --trust-remote-code"),
        ({}, ("--trust-remote-code",), "leave out --trust-remote-code"),
        ({}, ("--scorer", "python:evil_module:score"), "leave out"),
    ],
)
def test_code_and_trust_are_given_again_or_nothing_runs(
    run: Run, request_: dict[str, Any], words: tuple[str, ...], needed: str
) -> None:
    assert needed in resumed(run, language_header(**request_), *words)


def test_a_module_is_not_looked_for_in_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.create(Path("out/run.sqlite"), language_header(**OWN_SCORER)).close()
    monkeypatch.chdir("out")
    outcome = run("resume", ".", "--scorer", "python:evil_module:score")
    assert outcome.code == 2
    assert "inside the run's folder" in outcome.message


@pytest.mark.parametrize(
    "request_",
    [
        *({"model": name} for name in ("elsewhere", "./elsewhere", "../x/y", "~/model", "a/b/c", 7)),
        *({"scorer": name} for name in ("elsewhere", "detoxify:elsewhere", "./elsewhere", ["lexical"])),
        *({"text": name} for name in ("text.txt", "wikitext2:texts", {"a": 1})),
        *({name: "elsewhere/file"} for name in ("prompts", "holistic_bias", "scores", "from")),
        *({name: 3} for name in ("prompts", "holistic_bias", "scores", "from")),
    ],
)
def test_relative_paths_of_a_language_run_are_refused(run: Run, request_: dict[str, Any]) -> None:
    (name,) = request_
    message = resumed(run, language_header(**request_))
    assert name in message
    assert "absolute paths" in message


@pytest.mark.parametrize("request_", [{"model": "net.safetensors"}, {"data": "../people.csv"}, {"data": 3}])
def test_relative_paths_of_a_tabular_run_are_refused(run: Run, request_: dict[str, Any]) -> None:
    assert "absolute paths" in resumed(run, tabular_header(**request_))


@pytest.mark.parametrize(
    "header",
    [
        tabular_header(label=5),
        tabular_header(drop_sensitive="yes"),
        tabular_header(split_seed=True),
        tabular_header({"states": "many"}),
        tabular_header({"keep": "much"}),
        tabular_header({"seed": 1.5}),
        tabular_header({"options": [1]}),
        tabular_header({"search": ["annealing"]}),
        tabular_header({"colour": "red"}),
        tabular_header() | {"settings": 5},
        language_header(axis=5),
        language_header(batch_size=[1]),
        language_header(device=None),
        language_header(called=3),
        language_header() | {"settings": RepairSettings().to_json() | {"reading": [1]}},
        language_header() | {"settings": RepairSettings().to_json() | {"alpha": "big"}},
        language_header() | {"settings": RepairSettings().to_json() | {"prompts": 1e400}},
    ],
)
def test_a_record_with_wrong_types_or_names_is_refused(run: Run, header: dict[str, Any]) -> None:
    assert "resume it with the version that started it" in resumed(run, header)


@pytest.mark.parametrize(
    "header",
    [
        tabular_header() | {"request": ["model"]},
        tabular_header() | {"kind": ["tabular repair"]},
        language_header(objectives="python:evil_module:score"),
        {},
    ],
)
def test_a_header_that_is_none_is_refused(run: Run, header: dict[str, Any]) -> None:
    assert "out" in resumed(run, header)


@pytest.mark.parametrize("header", [tabular_header(), language_header()], ids=["tabular", "language"])
def test_a_run_of_another_version_is_not_gone_on_with(run: Run, header: dict[str, Any]) -> None:
    message = resumed(run, header | {"fairmend": "0.0.9"})
    assert "begun by fairmend 0.0.9" in message
    assert "resume it with the version that started it" in message.lower()


@pytest.mark.parametrize(
    ("request_", "words", "said"),
    [
        ({"trust_remote_code": True}, (), "with --trust-remote-code, which is never taken from a folder: add it"),
        ({}, ("--trust-remote-code",), "without --trust-remote-code"),
        ({"model": "elsewhere"}, (), "absolute paths"),
        ({"dtype": 32}, (), "resume it with the version that started it"),
    ],
)
def test_a_point_is_picked_only_of_a_model_that_the_command_line_trusts(
    run: Run, request_: dict[str, Any], words: tuple[str, ...], said: str
) -> None:
    session = {"request": language_header(**request_)["request"]}
    result = {"schema": "fairmend language repair", "schema_version": 1, "session": session}
    Path("out/result.json").write_text(json.dumps(result))
    front = {"schema": "fairmend language front", "schema_version": 1, "points": [{"dropped": []}]}
    Path("out/front.json").write_text(json.dumps(front))
    outcome = run("lm", "pick", "out", "--point", "0", "--out", "picked", *words)
    assert outcome.code == 2, outcome.err
    assert said in outcome.message
    del front["points"]
    Path("out/front.json").write_text(json.dumps(front))
    assert "does not hold what one holds" in run("lm", "pick", "out", "--point", "0", "--out", "picked").message


class TestResultsOfSomebodyElse:
    """`show` and `resume` say what is wrong with a saved result."""

    @pytest.fixture
    def saved(self, run: Run, desk: Path) -> Path:
        assert run("tabular", "repair", *arguments(REPAIR | {"--states": 20, "--out": "saved"})).code == 0
        return Path("saved/result.json")

    @pytest.mark.parametrize(
        "change",
        [
            lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "outcome": 5})),
            lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "splits": ["test"]})),
            lambda path: path.write_text(json.dumps({"schema": "fairmend tabular repair", "schema_version": 1})),
            lambda path: path.write_text("[" * 100_000),
            lambda path: path.write_text('{"schema": ' + "[" * 100_000),
            lambda path: path.write_bytes(b"\xff\xfe"),
            lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
            lambda path: (path.unlink(), os.mkfifo(path)),
            lambda path: (path.unlink(), path.mkdir()),
        ],
    )
    def test_are_refused_where_they_are_none(self, run: Run, saved: Path, change: Callable[[Path], object]) -> None:
        change(saved)
        outcome = run("show", "saved")
        assert outcome.code == 2, outcome.err
        assert "saved" in outcome.message

    def test_are_exported_only_to_a_new_file(self, run: Run, saved: Path) -> None:
        assert run("export", "saved", "measured.csv").code == 0
        Path("measured.csv").write_text("my own")
        outcome = run("export", "saved", "measured.csv")
        assert outcome.code == 2
        assert "--force" in outcome.message
        assert Path("measured.csv").read_text() == "my own"
        assert run("export", "saved", "measured.csv", "--force").code == 0
        assert Path("measured.csv").read_text().startswith("dropped,")

    def test_are_saved_as_far_as_they_are_whole(self, run: Run, saved: Path) -> None:
        store = saved.with_name("run.sqlite")
        store.write_bytes(store.read_bytes()[:-100])
        saved.unlink()
        refused = run("resume", "saved")
        assert refused.code == 2
        assert "fairmend export DIR FILE.csv --damaged" in refused.message
        outcome = run("export", "saved", "rest.csv", "--damaged", "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.document["measurements"] == len(Path("rest.csv").read_text().splitlines()) - 1
