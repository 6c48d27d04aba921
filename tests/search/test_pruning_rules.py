import csv
import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairmend.errors import InputError
from fairmend.search import PruningRule
from fairmend.search.names import METHODS

PUBLISHED = ["distilgpt2", "gpt2", "EleutherAI/gpt-neo-1.3B", "EleutherAI/gpt-j-6B"]


# --- the published selections


@pytest.fixture(scope="module")
def published(shared_data: Path) -> dict[str, tuple[dict[str, Any], dict[str, list[float]]]]:
    """Per model: the published selections, and the columns of the published head scores."""
    with gzip.open(shared_data / "fasp" / "selections.json.gz", "rt") as file:
        selections = json.load(file)["models"]
    with gzip.open(shared_data / "fasp" / "head_scores.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for model, chosen in selections.items():
        mine = sorted((row for row in rows if row["model"] == model), key=lambda row: int(row["head"]))
        columns = {name: [float(row[name] or "nan") for row in mine] for name in mine[0] if name != "model"}
        found[model] = (chosen, columns)
    return found


def disagreements(selections: dict[str, list[int]], columns: dict[str, list[float]], n: int, **rule: Any) -> list[str]:
    return [
        alpha
        for alpha, expected in selections.items()
        if list(PruningRule(alpha=float(alpha), ties="published", **rule).choose(columns, n)) != sorted(expected)
    ]


@pytest.mark.parametrize("model", PUBLISHED)
def test_every_published_selection_is_reproduced(published: Any, model: str) -> None:
    chosen, columns = published[model]
    n, wrong, checked = chosen["num_total"], [], 0
    loss = columns["ppl_without"]
    for axis, by_gamma in chosen["fasp"].items():
        scores = {"loss": loss, "bias": columns[f"bias_without_{axis}"]}
        for gamma, selections in by_gamma.items():
            wrong += disagreements(selections, scores, n, method="fasp", gamma=float(gamma))
            checked += len(selections)
        wrong += disagreements(chosen["bias_only"][axis], scores, n, method="fairness-only")
        checked += len(chosen["bias_only"][axis])
    singles = {"performance-only": ("loss", "ppl_without", "ppl_only")}
    singles |= {"magnitude": ("magnitude", "magnitude_l2", "magnitude_l2")}
    singles |= {"gradient": ("gradient", "mask_gradient_l2", "mask_gradient_l2")}
    for method, (name, column, key) in singles.items():
        wrong += disagreements(chosen[key], {name: columns[column]}, n, method=method)
        checked += len(chosen[key])
    assert wrong == []
    assert checked == (110 if model == "EleutherAI/gpt-j-6B" else 418)


def test_published_ties_overshoot_and_exact_ties_do_not(published: Any) -> None:
    _, columns = published["EleutherAI/gpt-j-6B"]
    scores = {"loss": columns["ppl_without"]}
    rule = PruningRule("performance-only", alpha=0.04)
    assert len(rule.at(ties="published").choose(scores, 448)) == 234
    assert len(rule.choose(scores, 448)) == 17


# --- the rules


def test_fasp_spares_critical_units_and_drops_those_that_lower_bias_most() -> None:
    loss = [9.0, 1.0, 8.0, 2.0, 3.0]
    bias = [0.0, 0.5, 0.1, 0.4, 0.3]
    rule = PruningRule("fasp", alpha=0.4, gamma=0.4)
    assert rule.choose({"loss": loss, "bias": bias}, 5) == (3, 4)
    assert PruningRule("fairness-only", alpha=0.4).choose({"bias": bias}, 5) == (0, 2)
    assert PruningRule("performance-only", alpha=0.4).choose({"loss": loss}, 5) == (1, 3)


def test_a_loss_weight_prefers_the_cheaper_of_two_equally_fair_units() -> None:
    scores = {"loss": [1.0, 5.0, 2.0, 3.0], "bias": [0.5, 0.1, 0.11, 0.5]}
    rule = PruningRule("fasp", alpha=0.25, gamma=0.0)
    assert rule.choose(scores, 4) == (1,)
    assert rule.at(loss_weight=0.5).choose(scores, 4) == (2,)


def test_of_equal_units_the_first_are_dropped_and_the_first_are_kept_from_being_critical() -> None:
    equal = {"loss": [1.0] * 10, "bias": [0.2] * 10}
    assert PruningRule("fasp", alpha=0.3, gamma=0.5).choose(equal, 10) == (0, 1, 2)
    assert PruningRule("fasp", alpha=0.3, gamma=0.5, ties="published").choose(equal, 10) == tuple(range(10))


def test_units_that_break_the_network_are_critical_or_left_alone() -> None:
    scores = {"loss": [math.nan, 1.0, 1.1, 1.2], "bias": [0.0, math.nan, 0.3, 0.2]}
    assert PruningRule("fasp", alpha=0.5, gamma=0.25).choose(scores, 4) == (2, 3)
    with pytest.raises(InputError, match="drop 3 units, but only 2 may be dropped"):
        PruningRule("fasp", alpha=0.75, gamma=0.25).choose(scores, 4)


def test_random_units_follow_from_the_seed_and_are_uniform() -> None:
    rule = PruningRule("random", alpha=0.3)
    assert rule.choose({}, 10) == rule.choose({}, 10) != rule.at(seed=1).choose({}, 10)
    times = np.zeros(10)
    for seed in range(600):
        times[list(rule.at(seed=seed).choose({}, 10))] += 1
    assert np.all(np.abs(times / 600 - 0.3) < 0.08)


@given(data=st.data(), n=st.integers(1, 30), method=st.sampled_from(METHODS))
def test_exactly_the_share_is_dropped_whatever_the_scores(data: st.DataObject, n: int, method: Any) -> None:
    values = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), min_size=n, max_size=n)
    scores = {name: data.draw(values) for name in ("loss", "bias", "magnitude", "gradient")}
    alpha = data.draw(st.floats(0, 0.5))
    gamma = data.draw(st.floats(0, 0.4))
    rule = PruningRule(method, alpha=alpha, gamma=gamma, loss_weight=data.draw(st.sampled_from([0.0, 1.0])))
    frozen = frozenset(data.draw(st.sets(st.integers(0, n - 1), max_size=n // 10)))
    if n - len(frozen) - int(n * gamma) < int(n * alpha):
        return
    chosen = rule.choose(scores, n, frozen)
    assert len(set(chosen)) == int(n * alpha)
    assert not frozen & set(chosen)
    if method == "fasp":
        kept_loss = sorted(scores["loss"])[: n - int(n * gamma)]
        assert all(scores["loss"][unit] <= kept_loss[-1] for unit in chosen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fastest"}, "method must be one of 'fasp', 'performance-only'"),
        ({"alpha": 1.2}, r"alpha must be a number within \[0, 1\], got 1.2"),
        ({"alpha": 0.5, "gamma": 0.6}, "their sum must be at most 1"),
        ({"ties": "none"}, "ties must be one of 'exact', 'published'"),
        ({"loss_weight": -1.0}, "loss_weight must be"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_refuses_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PruningRule(**options)


def test_refuses_missing_and_misshapen_scores() -> None:
    with pytest.raises(InputError, match="scores 'bias' of every unit are needed, got 'loss'"):
        PruningRule().choose({"loss": [1.0] * 20}, 20)
    with pytest.raises(InputError, match=r"'magnitude' have shape \(3,\), need one per unit: \(4,\)"):
        PruningRule("magnitude", alpha=0.5).choose({"magnitude": [1, 2, 3]}, 4)
