"""Objectives of a user's own on the command line: told before and after, kept on resume, refused with reasons."""

from pathlib import Path

import pytest

from ..conftest import Run
from ..language_desk import REPAIR, lm

OBJECTIVES = """\
import torch

TEXTS = [[3, 4, 5, 6], [7, 8, 9, 10], [11, 12, 13, 14], [15, 16, 17, 18], [19, 20, 21, 22], [23, 24, 25, 26]]


def losses(model, tokenizer):
    with torch.no_grad():
        return [float(model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss) for ids in TEXTS]


def broken(model, tokenizer):
    return [float("nan")] * 6
"""


@pytest.fixture
def desk(office: Path) -> Path:
    Path("objectives_of_cli_tests.py").write_text(OBJECTIVES)
    return office


def test_a_repair_tells_of_an_objective_and_resumes_with_it(run: Run, desk: Path) -> None:
    named = "python:objectives_of_cli_tests:losses"
    done = lm(run, "repair", REPAIR | {"--objective": named, "--objective-limit": 1.5, "--json": True})
    assert done.code == 0, done.message
    (told,) = done.document["objectives"]
    assert told["name"] == named
    assert told["search"]["after"] <= told["search"]["limit"]
    assert told["search"]["limit"] == pytest.approx(1.5 * told["search"]["before"])
    assert told["held_out"]["n"] == 3
    shown = run("show", "out")
    assert "Further objectives" in shown.out
    (Path("out") / "result.json").unlink()
    assert f"--objective {named}" in run("resume", "out").message
    again = run("resume", "out", "--json", "--scorer", REPAIR["--scorer"], "--objective", named)
    assert again.code == 0, again.message
    assert again.document["objectives"] == [told]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("python:objectives_of_cli_tests:broken", ("nan for item 0", "finite")),
        ("python:objectives_of_cli_tests:none", ("no function 'none'", "losses, broken")),
        ("losses", ("python:MODULE:FUNCTION", "'losses'")),
    ],
)
def test_what_cannot_work_is_refused(run: Run, desk: Path, name: str, told: tuple[str, ...]) -> None:
    refused = lm(run, "repair", REPAIR | {"--objective": name})
    assert refused.code == 2
    assert all(part in refused.message for part in told), refused.message
    assert not Path("out").exists()
