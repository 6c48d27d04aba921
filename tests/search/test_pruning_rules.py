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
from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.masks import Mask, Site, Space
from fairmend.search import Candidates, PruningRule, Ranking
from fairmend.settings import METHODS

PERPLEXITY = Figures(Figure("bias", "lower", "table"), Figure("perplexity", "lower", "table"))
ACCURACY = Figures(Figure("bias", "lower", "table"), Figure("accuracy", "higher", "table"))
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


# --- the searchers


def drive(searcher: Any, table: dict[int, tuple[float, float]], reference: tuple[float, float]) -> list[list[Mask]]:
    asked = []
    while masks := searcher.ask():
        asked.append(list(masks))
        searcher.tell(masks, [Measurement(*table.get(m.bits.bit_length() - 1, reference)) for m in masks])
    return asked


def test_fasp_asks_untouched_then_every_unit_then_one_set() -> None:
    space = Space((Site("layer", 5),), frozen=frozenset({4}))
    table = {0: (0.1, 90.0), 1: (0.2, 30.0), 2: (0.15, 31.0), 3: (0.3, 32.0)}
    searcher = Ranking(space, PERPLEXITY, PruningRule(alpha=0.4, gamma=0.2), batch=3)
    asked = drive(searcher, table, (0.4, 29.0))
    assert [[mask.units() for mask in turn] for turn in asked] == [[()], [(0,), (1,), (2,)], [(3,)], [(1, 2)]]
    assert searcher.chosen == space.mask([1, 2])
    assert searcher.scores["bias"][:4].tolist() == [0.1, 0.2, 0.15, 0.3]


def test_a_utility_that_is_better_higher_is_a_loss_turned_round() -> None:
    space = Space((Site("layer", 3),))
    table = {0: (0.1, 0.5), 1: (0.2, 0.8), 2: (0.3, 0.9)}
    searcher = Ranking(space, ACCURACY, PruningRule("performance-only", alpha=0.34))
    drive(searcher, table, (0.4, 0.9))
    assert searcher.chosen == space.mask([2])


@pytest.mark.parametrize(
    ("rule", "scores"),
    [
        (PruningRule("magnitude", alpha=0.5), {"magnitude": [3.0, 1.0, 2.0, 4.0]}),
        (PruningRule("gradient", alpha=0.5), {"gradient": [3.0, 1.0, 2.0, 4.0]}),
        (PruningRule("fasp", alpha=0.5, gamma=0.0), {"bias": [3.0, 1.0, 2.0, 4.0], "loss": [1.0] * 4}),
    ],
)
def test_known_scores_are_not_measured_again(rule: PruningRule, scores: dict[str, list[float]]) -> None:
    asked = drive(Ranking(Space((Site("layer", 4),)), PERPLEXITY, rule, scores=scores), {}, (0.4, 29.0))
    assert [[mask.units() for mask in turn] for turn in asked] == [[()], [(1, 2)]]


def test_nothing_to_drop_asks_for_no_set() -> None:
    searcher = Ranking(Space((Site("layer", 4),)), PERPLEXITY, PruningRule("random", alpha=0.2))
    assert drive(searcher, {}, (0.4, 29.0)) == [[searcher.space.untouched()]]
    assert searcher.chosen == searcher.space.untouched()


def test_refuses_a_set_that_the_space_does_not_admit_and_scores_that_no_mask_gives() -> None:
    with pytest.raises(InputError, match="are 3, but the space admits 0 to 2"):
        Ranking(Space((Site("layer", 6),), max_drop=2), PERPLEXITY, PruningRule(alpha=0.5))
    with pytest.raises(InputError, match="ranks by the magnitude of every unit, which no measurement"):
        Ranking(Space((Site("layer", 6),)), PERPLEXITY, PruningRule("magnitude"))
    with pytest.raises(InputError, match="measures every unit alone, but the space admits 2 to 3"):
        Ranking(Space((Site("layer", 6),), 2, 3), PERPLEXITY, PruningRule(alpha=0.5))


def test_candidates_are_asked_once_each_after_the_untouched_mask() -> None:
    space = Space((Site("layer", 4),))
    masks = [space.mask([1]), space.mask([0, 2]), space.mask([1])]
    asked = drive(Candidates(space, masks), {}, (0.4, 29.0))
    assert [[mask.units() for mask in turn] for turn in asked] == [[()], [(1,), (0, 2)]]
