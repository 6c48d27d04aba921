"""--workers on the command line: the same results, what each worker did, and what cannot be shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairmend.runs import Store

from .conftest import OWN, Run, arguments
from .language_desk import MEASURE, REPAIR, lm

COLLECT: dict[str, Any] = MEASURE | {"--subsets": 20, "--eta": 0.6, "--max-drop": 5}


def rows(folder: str) -> list[tuple[Any, ...]]:
    with Store.open(Path(folder) / "run.sqlite", read_only=True) as store:
        return [(name, mask, made) for name in store.contexts() for mask, made in store.context(name)]


def test_two_workers_collect_what_one_does_and_say_what_each_did(run: Run, office: Path) -> None:
    assert lm(run, "collect", COLLECT | {"--out": "alone"}).code == 0
    done = lm(run, "collect", COLLECT | {"--out": "together", "--workers": 2, "--json": True})
    assert done.code == 0, done.message
    assert rows("together") == rows("alone")
    did = done.document["workers"]["done"]
    assert [each["worker"] for each in did] == ["process 1", "process 2"]
    assert sum(each["done"] for each in did) == done.document["new"]
    more = lm(run, "collect", COLLECT | {"--out": "together", "--workers": 2, "--subsets": 24, "--quiet": False})
    assert "Done by process 1: " in more.message


def test_a_repair_says_what_was_done_in_one_process_all_the_same(run: Run, office: Path) -> None:
    done = lm(run, "repair", REPAIR | {"--workers": 2, "--json": True})
    assert done.code == 0, done.message
    (note,) = done.document["workers"]["notes"]
    assert note.startswith("first-order scores are found in this process")
    again = run("resume", "out", "--workers", "2", "--scorer", REPAIR["--scorer"])
    assert again.code == 0, again.message


def test_annealing_says_that_it_cannot(run: Run, desk: Path) -> None:
    words = OWN | {"--states": 60}
    made = {}
    for search, workers in (("annealing", 2), ("genetic", 2), ("genetic", 1)):
        out = f"{search}{workers}"
        done = run("tabular", "repair", *arguments(words | {"--search": search, "--workers": workers, "--out": out}))
        assert done.code == 0, done.message
        assert ("annealing is measured in this process: every state" in done.message) == (search == "annealing")
        made[out] = json.loads((Path(out) / "mask.json").read_text())
    assert made["genetic2"] == made["genetic1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", "0"), "--workers must be a number from 1 on, ray, or ray://HOST:PORT, got '0'"),
        (("--workers", "ray:10.0.0.1"), "got 'ray:10.0.0.1'"),
        (("--max-workers", "2"), "--max-workers is for Ray: give it with --workers ray"),
        (("--workers", "2", "--gpus-per-worker", "0.5"), "--gpus-per-worker is for Ray"),
        (("--workers", "ray", "--cpus-per-worker", "0"), "--cpus-per-worker must be a positive number, got 0"),
    ],
)
def test_workers_that_cannot_be_are_refused_first(run: Run, words: tuple[str, ...], message: str) -> None:
    outcome = run("lm", "audit", "nowhere", *words)
    assert outcome.code == 2
    assert message in outcome.message
