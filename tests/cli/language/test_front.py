"""Fronts on the command line: lm repair --front, show, resume, and lm pick."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..conftest import Run
from ..language_desk import REPAIR, gpt2, lm, logits, press

FRONT: dict[str, Any] = REPAIR | {"--front": True, "--max-perplexity": 3.0, "--alpha": 0.5}


def test_a_front_is_found_shown_and_one_point_picked(run: Run, office: Path) -> None:
    done = lm(run, "repair", FRONT)
    assert done.code == 0, done.message
    assert all(Path("out", name).is_file() for name in ("front.json", "front.csv", "front.png", "front.svg"))
    assert "Trade-offs between people bias and perplexity" in done.out
    assert "Point 0 is the untouched model" in done.out
    front = json.loads(Path("out/front.json").read_text())
    last = front["points"][-1]
    assert len(front["points"]) > 1
    shown = run("show", "out")
    assert "Trade-offs between" in shown.out
    assert run("show", "out", "--json").document["front"] == front

    picked = run("lm", "pick", "out", "--point", str(last["point"]), "--out", "picked", "--quiet")
    assert picked.code == 0, picked.message
    assert f"point {last['point']}: {len(last['dropped'])} of 12 heads dropped" in picked.out
    assert json.loads(Path("picked/mask.json").read_text())["dropped"] == last["dropped"]
    assert lm(run, "apply", {"--out": "again", "--quiet": True}, "model", "picked/mask.json").code == 0
    np.testing.assert_array_equal(logits("picked"), logits("again"))
    again = run("show", "picked")
    assert again.code == 0, again.message
    assert again.out.strip() in picked.out
    assert run("show", "picked", "--json").document["point"] == last


def test_picking_says_what_it_saved_as_json(run: Run, office: Path) -> None:
    found = lm(run, "repair", FRONT | {"--json": True}).document
    told = run("lm", "pick", "out", "--point", "1", "--out", "picked", "--json").document
    assert told["point"] == found["front"]["points"][1]
    assert told["schema"] == "fairmend language front point"
    assert Path(told["files"]["model.safetensors"]).is_file()


def test_the_untouched_model_can_be_picked(run: Run, office: Path) -> None:
    assert lm(run, "repair", FRONT).code == 0
    assert run("lm", "pick", "out", "--point", "0", "--out", "picked").code == 0
    np.testing.assert_array_equal(logits("picked"), logits("model"))
    assert "The model is unchanged" in Path("picked/README.md").read_text()


def test_what_cannot_be_picked_is_refused(run: Run, office: Path) -> None:
    assert lm(run, "repair", FRONT).code == 0
    last = len(json.loads(Path("out/front.json").read_text())["points"]) - 1
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")

    def refused(*words: str, folder: str = "out", point: str = "1", out: str = "picked") -> None:
        outcome = run("lm", "pick", folder, "--point", point, "--out", out)
        assert outcome.code == 2
        assert all(word in outcome.message for word in words), outcome.message
        assert not Path("picked").exists()

    refused(f"no point {last + 1}", f"to {last}", point=str(last + 1))
    refused("no point -1", point="-1")
    refused("full is not empty", out="full")
    refused("out is not empty", out="out")
    refused("holds no front", "nowhere", folder="nowhere")
    gpt2("model", seed=5)
    refused("was made for model", "weights_sha256 differ")
    shutil.rmtree("model")
    refused("model")
    assert sorted(path.name for path in Path("full").iterdir()) == ["notes.txt"]


def test_a_repair_without_front_has_none_to_pick_from(run: Run, office: Path) -> None:
    assert lm(run, "repair", REPAIR).code == 0
    outcome = run("lm", "pick", "out", "--point", "1", "--out", "picked")
    assert outcome.code == 2
    assert "holds no front" in outcome.message
    assert "--front" in outcome.message
    assert not Path("out/front.json").exists()


def test_a_front_of_a_single_rule_is_refused(run: Run, office: Path) -> None:
    outcome = lm(run, "repair", FRONT | {"--choice": "rule"})
    assert outcome.code == 2
    assert "choose 'measured'" in outcome.message
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(FRONT | {"--finalists": 6}, id="fasp"),
        pytest.param(
            {name: value for name, value in FRONT.items() if name != "--alpha"}
            | {"--method": "active", "--subsets": 24, "--eta": 0.6, "--max-drop": 4, "--finalists": 6},
            id="active",
        ),
    ],
)
def test_a_stopped_front_goes_on_with_the_same_answer(
    run: Run, office: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    assert lm(run, "repair", options | {"--out": "whole"}).code == 0
    with monkeypatch.context() as pressed:
        pressed.setattr("fairmend.language.measurement.judging.judge", press)
        assert lm(run, "repair", options).code == 130
    assert not Path("out/front.json").exists()
    assert "fairmend resume" in run("lm", "pick", "out", "--point", "1", "--out", "picked").message
    assert run("resume", "out", "--scorer", REPAIR["--scorer"]).code == 0
    assert Path("out/front.json").read_bytes() == Path("whole/front.json").read_bytes()
