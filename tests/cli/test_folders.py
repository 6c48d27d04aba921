"""Every kind of folder that a command leaves is shown, and gone on with if it is not finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import OWN, Run, arguments
from .conftest import REPAIR as TABULAR

OUT = {"--out": "out"}
STUDY = OWN | OUT | {"--states": 30, "--quiet": True}
SCORER = "python:words_scorer_of_cli_tests:score"
MEASURE: dict[str, Any] = {
    **{"--prompts": "people.csv", "--prompt-count": 16, "--scorer": SCORER, "--new-tokens": 4, "--text": "text.txt"},
    **{"--text-tokens": 96, "--device": "cpu", "--quiet": True},
}
RANKED = MEASURE | OUT | {"--alpha": 0.4, "--loss-scores": "first-order"}
FRONT = RANKED | {"--front": True, "--max-perplexity": 3.0, "--alpha": 0.5}
SUBSETS = MEASURE | {"--eta": 0.6, "--max-drop": 5}
COLLECT = SUBSETS | {"--subsets": 40}
SWEEP = SUBSETS | OUT | {"--from": "collected", "--epsilon": "0.5", "--surrogate": "additive", "--subsets": 30}
COSTS = RANKED | {"--method": "fasp,magnitude", "--tokens": 3000, "--seeds": 1}

KINDS: dict[str, tuple[str, str, list[list[str]]]] = {
    "tabular repair": ("desk", "result.json", [["tabular", "repair", *arguments(TABULAR)]]),
    "tabular compare": (
        *("desk", "compare.json"),
        [["tabular", "compare", *arguments(STUDY), "--seeds", "1", "--search", "annealing"]],
    ),
    "tabular sweep": ("desk", "sweep.json", [["tabular", "sweep", *arguments(STUDY), "--seeds", "1", "--keep", "0.9"]]),
    "tabular reproduce": ("desk", "reproduce.json", [["tabular", "reproduce"]]),
    "language repair": ("office", "result.json", [["lm", "repair", "model", *arguments(RANKED)]]),
    "language repair with a front": ("office", "result.json", [["lm", "repair", "model", *arguments(FRONT)]]),
    "language front point": (
        *("office", "point.json"),
        [
            ["lm", "repair", "model", *arguments(FRONT | {"--out": "front"})],
            ["lm", "pick", "front", "--point", "1", "--out", "out", "--quiet"],
        ],
    ),
    "language comparison": (
        *("office", "compare.json"),
        [["lm", "compare", "model", *arguments(RANKED), "--method", "fasp", "--gamma", "0.3"]],
    ),
    "language comparison at equal cost": (
        *("office", "compare.json"),
        [["lm", "compare", "model", *arguments(COSTS)]],
    ),
    "language sweep": (
        *("office", "sweep.json"),
        [
            ["lm", "collect", "model", *arguments(COLLECT | {"--out": "collected"})],
            ["lm", "sweep", "model", *arguments(SWEEP)],
        ],
    ),
}


def unsaid(path: Path) -> dict[str, Any]:
    """What was found, without when and how."""
    found: dict[str, Any] = json.loads(path.read_text())
    return {**found, "session": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_shown_and_gone_on_with(run: Run, request: pytest.FixtureRequest, kind: str) -> None:
    place, file, commands = KINDS[kind]
    request.getfixturevalue(place)
    if kind == "tabular reproduce":
        data = request.getfixturevalue("shared_data")
        commands[0] += ["--networks", data / "neufair", "--data", data, "--only", "compas-sex", "--states", "30"]
        commands[0] += ["--quiet", "--out", "out"]
    for command in commands:
        made = run(*command)
        assert made.code == 0, made.err
    result = Path("out", file)
    before = unsaid(result)
    shown, resumed = run("show", "out"), run("resume", "out")
    assert (shown.code, resumed.code) == (0, 0), shown.err + resumed.err
    assert shown.out == resumed.out
    assert shown.out.strip() in made.out
    assert "is finished" in resumed.err
    document = run("show", "out", "--json").document
    assert document["schema"] == f"fairmend {kind.removesuffix(' with a front')}"
    assert {**document, "session": 0} | before == {**document, "session": 0}

    store = Path("out/run.sqlite")
    if not store.exists():
        return
    result.unlink()
    unfinished = run("show", "out")
    assert unfinished.code == 2
    assert "fairmend resume out" in unfinished.message
    gone_on = run("resume", "out", *(["--scorer", SCORER] if place == "office" else []))
    assert gone_on.code == 0, gone_on.err
    assert unsaid(result) == before
    store.unlink()
    assert run("show", "out").out == shown.out
    assert run("resume", "out").out == shown.out


def test_a_collection_is_counted_and_gone_on_with(run: Run, office: Path) -> None:
    assert run("lm", "collect", "model", *arguments(COLLECT | OUT)).code == 0
    document = run("show", "out", "--json").document
    assert (document["samples"], document["subsets"]) == (40, 40)
    assert run("resume", "out", "--json", "--quiet", "--scorer", SCORER).document["new"] == 0


@pytest.mark.parametrize("command", ["show", "resume"])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("compare.json", '{"kind": "tabular compare", "rows": []}', "written by fairmend 0.1.0"),
        ("compare.json", '{"schema": "fairmend dance"}', "is not the result of a fairmend"),
        ("result.json", "{", "cannot be read"),
        ("result.json", '{"schema": "fairmend tabular repair", "schema_version": 9}', "has schema version 9"),
        ("sweep.json", '{"schema": "fairmend language sweep", "schema_version": 1}', "no tables that can be read"),
        ("letter.txt", "dear", "no "),
    ],
)
def test_a_foreign_older_newer_or_damaged_folder_is_refused(
    run: Run, desk: Path, command: str, name: str, content: str, said: str
) -> None:
    Path("out").mkdir()
    Path("out", name).write_text(content)
    outcome = run(command, "out")
    assert outcome.code == 2
    assert said in outcome.message
    assert sorted(path.name for path in Path("out").iterdir()) == [name]


def test_a_study_of_the_first_version_is_not_gone_on_with(run: Run, desk: Path) -> None:
    Path("out/repairs").mkdir(parents=True)
    Path("out/study.json").write_text('{"kind": "tabular compare", "subjects": {}}')
    outcome = run("tabular", "compare", *arguments(STUDY), "--seeds", "1", "--search", "annealing")
    assert outcome.code == 2
    assert "a study of fairmend 0.1.0" in outcome.message
