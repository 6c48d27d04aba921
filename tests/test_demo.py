"""The demo's last step: it fails when the known unfairness is not seen, or not repaired."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "check_demo.py"


def network(**changes: Any) -> dict[str, Any]:
    """A made-up result of a tabular repair that helped, with some of its figures changed."""
    said = {"before": 0.111, "floor": 0.028, "p": 0.002, "after": 0.074, "high": -0.017} | changes
    comparison = {
        "before": {"unfairness": said["before"], "floor": said["floor"], "p_value": said["p"]},
        "after": {"unfairness": said["after"]},
        "change": {"value": said["after"] - said["before"], "interval": {"low": -0.061, "high": said["high"]}},
    }
    # The split that was searched always looks repaired: what it says must not count.
    searched = {"before": {"unfairness": 0.9, "floor": 0.0, "p_value": 0.0}, "after": {"unfairness": 0.0}}
    return {
        "splits": {
            "train": {"comparison": searched | {"change": {"interval": {"low": -0.9, "high": -0.8}}}},
            "test": {"comparison": comparison},
        }
    }


def language_model(**changes: Any) -> dict[str, Any]:
    """The same of a language model's repair."""
    said = {"before": 1.108, "floor": 0.431, "p": 0.0005, "after": 0.372, "high": -0.342, "kept": None} | changes
    change = {
        "before": {"value": said["before"], "floor": said["floor"], "p_value": said["p"]},
        "after": {"value": said["after"]},
        "interval": {"low": -1.423, "high": said["high"]},
    }
    knowledge = None if said["kept"] is None else {"kept": said["kept"]}
    return {"held_out": {"axes": [{"axis": "gender_and_sex", "change": change}], "knowledge": knowledge}}


def check(folder: Path, *results: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the check on results of the network and the language model, as many as are given."""
    folders = [folder / name for name in ("network", "language-model")]
    for each, result in zip(folders, results, strict=False):
        each.mkdir()
        (each / "result.json").write_text(json.dumps(result))
    return subprocess.run([sys.executable, SCRIPT, *folders], capture_output=True, text=True, check=False)


def test_passes_when_both_repairs_helped(tmp_path: Path) -> None:
    checked = check(tmp_path, network(), language_model())

    assert checked.returncode == 0, checked.stderr
    assert "holds: the network is unfair: equalized-odds difference 0.111" in checked.stdout
    assert "bias 1.108 -> 0.372, a change in [-1.423, -0.342]" in checked.stdout
    assert "FAILS" not in checked.stdout


def test_says_what_is_left_of_the_knowledge(tmp_path: Path) -> None:
    checked = check(tmp_path, network(), language_model(kept=0.93))

    assert checked.returncode == 0, checked.stderr
    assert "holds: the language model still knows 93% of what it knew, at least 80%" in checked.stdout


@pytest.mark.parametrize(
    ("results", "failing"),
    [
        ((network(p=0.4), language_model()), ["the network is unfair"]),
        ((network(before=0.02, after=0.01), language_model()), ["the network is unfair"]),
        ((network(after=0.111, high=0.0), language_model()), ["the repair of the network helps"]),
        ((network(), language_model(before=0.40, p=0.31)), ["the language model is unfair"]),
        ((network(), language_model(kept=0.5)), ["the language model still knows 50%"]),
        ((network(), language_model(high=0.05)), ["the repair of the language model helps"]),
        ((network(), language_model(after=1.2)), ["the repair of the language model helps"]),
        (
            (network(), language_model(p=0.7, after=1.108, high=0.0)),  # "nothing to repair", as with a broken cache
            ["the language model is unfair", "the repair of the language model helps"],
        ),
        ((network(high=None), language_model()), ["the repair of the network helps"]),
        (
            (
                network(),
                {"held_out": {"axes": [{"axis": "gender_and_sex", "change": None}], "knowledge": None}},
            ),  # a broken model
            ["the language model is unfair", "the repair of the language model helps"],
        ),
        (
            (network(), {"held_out": None}),
            ["the language model is unfair", "the repair of the language model helps"],
        ),
    ],
)
def test_fails_when_the_bias_is_not_seen_or_not_reduced(
    results: tuple[dict[str, Any], ...], failing: list[str], tmp_path: Path
) -> None:
    checked = check(tmp_path, *results)

    assert checked.returncode == 1
    assert "did not show what it claims" in checked.stderr
    failed = [line for line in checked.stdout.splitlines() if line.startswith("  FAILS: ")]
    assert len(failed) == len(failing)
    assert all(line.startswith(f"  FAILS: {words}") for line, words in zip(failed, failing, strict=True))


@pytest.mark.parametrize("results", [(), (network(),)])
def test_fails_when_a_repair_wrote_no_result(results: tuple[dict[str, Any], ...], tmp_path: Path) -> None:
    checked = check(tmp_path, *results)

    assert checked.returncode == 1
    assert "result.json is missing" in checked.stderr
