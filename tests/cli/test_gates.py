"""`--fail-above`: audits that stop an automatic check, in both wings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fairmend.cli.gates import Gate
from fairmend.errors import InputError

from .conftest import OWN, Run, arguments
from .language_desk import MEASURE, lm


@pytest.mark.parametrize("objective", ["equalized_odds_difference", "worst_group_accuracy"])
def test_the_lower_end_of_the_test_splits_interval_decides(run: Run, desk: Path, objective: str) -> None:
    words = ("tabular", "audit", *arguments(OWN), "--objective", objective)
    test = run(*words, "--json").document["splits"]["test"]["value"]
    least = test["interval"]["low"] if test["better"] == "lower" else 1 - test["interval"]["high"]
    assert least > 0
    assert run(*words, "--fail-above", str(least)).code == 0
    failed = run(*words, "--fail-above", str(least - 0.001))
    assert failed.code == 1
    assert failed.out.splitlines()[-1] == (
        f"FAILED: test split is at least {least:.4f}, allowed is {least - 0.001:g} (--fail-above)"
    )
    assert "Traceback" not in failed.err
    gate = run(*words, "--fail-above", "0.0001", "--json").document["gate"]
    assert gate == {"limit": 0.0001, "least": {"test split": least}, "above": ["test split"], "passed": False}


def test_every_axis_of_a_language_model_decides(run: Run, office: Path) -> None:
    found = lm(run, "audit", MEASURE | {"--json": True}).document
    least = found["axes"][0]["bias"]["interval"]["low"]
    assert lm(run, "audit", MEASURE | {"--fail-above": least}).code == 0
    stopped = lm(run, "audit", MEASURE | {"--fail-above": 0, "--json": True})
    assert stopped.code == int(least > 0)
    assert stopped.document["gate"]["least"] == {found["axes"][0]["axis"]: least}


@pytest.mark.parametrize("limit", [-0.1, math.nan, math.inf])
def test_a_limit_that_says_nothing_is_refused(limit: float) -> None:
    with pytest.raises(InputError, match="--fail-above must be a number from 0 on"):
        Gate(limit)


def test_what_has_no_interval_passes_no_gate() -> None:
    with pytest.raises(InputError, match="people has no interval"):
        Gate(0.1).result({"people": math.nan})
    assert Gate(None).result({"people": math.nan}) == {}
