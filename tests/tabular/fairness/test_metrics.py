"""Every objective has fairlearn's value and every utility scikit-learn's; what has no rate is NaN or an error."""

import math
import warnings

import fairlearn.metrics as fairlearn
import numpy as np
import pytest
import sklearn.metrics as sklearn
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fairmend.errors import DataError, InputError
from fairmend.tabular.fairness.confusion import confusion_counts, rates_by_group
from fairmend.tabular.fairness.metrics import (
    OBJECTIVES,
    UTILITIES,
    check_groups,
    find_objective,
    find_utility,
    log_loss,
)

PARITY = [name for name in OBJECTIVES if name != "worst_group_accuracy"]


@st.composite
def people(draw, n_classes=2, outsiders=False):
    n = draw(st.integers(12, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_groups = draw(st.integers(2, 4))
    bias = draw(st.sampled_from([0.02, 0.2, 0.5, 0.9]))  # small and large: rates of exactly 0 and 1 occur
    y = rng.integers(n_classes, size=n)
    predicted = np.where(rng.random(n) < bias, rng.integers(n_classes, size=n), 0 if bias < 0.1 else y)
    groups = rng.integers(-1 if outsiders else 0, n_groups, size=n)
    return y, predicted, groups, n_groups


def complete(y, groups, n_groups):
    """Whether every group has people inside and outside every class."""
    return all(len(np.unique(y[groups == g])) == len(np.unique(y)) > 1 for g in range(n_groups))


def oracle(name, y, predicted, groups):
    if name == "worst_group_accuracy":
        frame = fairlearn.MetricFrame(
            metrics=sklearn.accuracy_score, y_true=y, y_pred=predicted, sensitive_features=groups
        )
        return frame.group_min()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(fairlearn, name)(y, predicted, sensitive_features=groups)


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=people())
def test_objectives_have_fairlearns_values(name, data):
    y, predicted, groups, n_groups = data
    assume(complete(y, groups, n_groups))
    ours = OBJECTIVES[name].value(confusion_counts(y, predicted, groups, n_groups, 2))
    assert ours == pytest.approx(oracle(name, y, predicted, groups), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(data=people(n_classes=3))
def test_with_many_classes_the_worst_one_against_the_rest_decides(name, data):
    y, predicted, groups, n_groups = data
    assume(complete(y, groups, n_groups) and len(np.unique(y)) == 3)
    objective = OBJECTIVES[name]
    ours = objective.value(confusion_counts(y, predicted, groups, n_groups, 3))
    if name == "worst_group_accuracy":
        expected = oracle(name, y, predicted, groups)
    else:
        each = [oracle(name, y == k, predicted == k, groups) for k in range(3)]
        defined = [value for value in each if not math.isnan(value)]
        worst = min if objective.better == "higher" else max
        expected = worst(defined) if defined else math.nan
    assert ours == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_leading_dimensions_are_independent(name):
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 30, size=(4, 5, 4, 3, 3))
    together = OBJECTIVES[name].value(counts)
    assert together.shape == (4, 5)
    for place in np.ndindex(4, 5):
        assert together[place] == OBJECTIVES[name].value(counts[place])


def test_unfairness_falls_as_the_value_gets_better():
    counts = np.random.default_rng(1).integers(1, 30, size=(6, 3, 2, 2))
    for objective in OBJECTIVES.values():
        value, unfairness = objective.value(counts), objective.unfairness(counts)
        expected = value if objective.better == "lower" else 1 - value
        assert np.array_equal(unfairness, expected)
        assert (unfairness >= 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_outsiders_do_not_count_for_fairness(name):
    rng = np.random.default_rng(2)
    y, predicted, groups = rng.integers(2, size=(2, 300)), rng.integers(2, size=300), rng.integers(-1, 2, size=300)
    inside = groups >= 0
    ours = OBJECTIVES[name].value(confusion_counts(y[0], predicted, groups, 2, 2))
    assert ours == pytest.approx(oracle(name, y[0][inside], predicted[inside], groups[inside]))


@pytest.mark.parametrize("name", PARITY)
def test_a_group_without_people_has_no_rate(name):
    counts = np.array([[[0, 0], [0, 0]], [[5, 1], [1, 5]], [[3, 3], [3, 3]]])
    assert math.isnan(OBJECTIVES[name].value(counts))
    assert math.isnan(OBJECTIVES[name].unfairness(counts))


@pytest.mark.parametrize("name", [name for name in PARITY if OBJECTIVES[name].given_class])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_group_without_positives_has_no_true_positive_rate(name, n_classes):
    counts = np.full((3, n_classes, n_classes), 4)
    counts[0, 1] = 0
    assert math.isnan(OBJECTIVES[name].value(counts))


def test_a_false_positive_ratio_of_nothing_to_nothing_leaves_the_other_ratio():
    counts = np.array([[[9, 0], [5, 5]], [[9, 0], [0, 10]], [[0, 0], [0, 0]]])
    assert OBJECTIVES["equalized_odds_ratio"].value(counts) == 0.5


@pytest.mark.parametrize("n_classes", [2, 3])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_utilities_are_scikit_learns(n_classes, data):
    y, predicted, groups, n_groups = data.draw(people(n_classes=n_classes, outsiders=True))
    counts = confusion_counts(y, predicted, groups, n_groups, n_classes)
    average = "binary" if n_classes == 2 else "macro"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "f1": sklearn.f1_score(y, predicted, average=average),
            "accuracy": sklearn.accuracy_score(y, predicted),
            "balanced_accuracy": sklearn.balanced_accuracy_score(y, predicted),
        }
    assert {name: float(job.value(counts)) for name, job in UTILITIES.items()} == pytest.approx(expected, abs=1e-12)


def test_log_loss_is_scikit_learns_even_for_certain_mistakes():
    rng = np.random.default_rng(3)
    y = rng.integers(2, size=100)
    likely = rng.random(100)
    likely[:2], y[:2] = [0.0, 1.0], [1, 0]
    assert log_loss(y, likely) == pytest.approx(sklearn.log_loss(y, likely))
    many = rng.dirichlet(np.ones(4), size=100)
    labels = np.arange(100) % 4
    assert log_loss(labels, many) == pytest.approx(sklearn.log_loss(labels, many))


def test_counts_of_several_predictors_are_counted_one_by_one():
    rng = np.random.default_rng(4)
    y, groups = rng.integers(3, size=50), rng.integers(-1, 2, size=50)
    predicted = rng.integers(3, size=(2, 4, 50))
    together = confusion_counts(y, predicted, groups, 2, 3)
    assert together.shape == (2, 4, 3, 3, 3)
    assert together.dtype == np.int64
    for place in np.ndindex(2, 4):
        loop = np.zeros((3, 3, 3), dtype=int)
        for truth, guess, group in zip(y, predicted[place], groups, strict=True):
            loop[group, truth, guess] += 1
        assert np.array_equal(together[place], loop)


def test_booleans_and_whole_floats_are_codes_too():
    y, predicted = np.array([0.0, 1.0, 1.0]), np.array([True, True, False])
    assert np.array_equal(
        confusion_counts(y, predicted, [0, 0, 0], 1, 2), confusion_counts([0, 1, 1], [1, 1, 0], [0, 0, 0], 1, 2)
    )


def test_published_networks_have_their_published_figures(shared_data):
    import json

    for networks in json.loads((shared_data / "neufair" / "baselines.json").read_text()).values():
        for network in networks:
            for split in ("train", "val", "test"):
                counts = published_counts(network[f"{split}_groups"])
                eod = OBJECTIVES["equalized_odds_difference"].value(counts)
                assert eod == pytest.approx(network[f"{split}_eod"], abs=1e-7)
                assert UTILITIES["f1"].value(counts) == pytest.approx(network[f"{split}_f1"], abs=1e-12)
                assert UTILITIES["accuracy"].value(counts) == pytest.approx(network[f"{split}_acc"], abs=1e-12)


def published_counts(cells):
    counts = np.zeros((3, 2, 2), dtype=np.int64)
    for name, (n, selected) in cells.items():
        group, truth = name[1:].split("y")
        counts[int(group), int(truth)] = [n - selected, selected]
    return counts


def test_the_table_by_group_has_fairlearns_rates():
    rng = np.random.default_rng(5)
    y, predicted, groups = rng.integers(2, size=90), rng.integers(2, size=90), rng.integers(3, size=90)
    frame = fairlearn.MetricFrame(
        metrics={
            "true_positive_rate": fairlearn.true_positive_rate,
            "false_positive_rate": fairlearn.false_positive_rate,
            "selection_rate": fairlearn.selection_rate,
            "accuracy": sklearn.accuracy_score,
            "n": fairlearn.count,
        },
        y_true=y,
        y_pred=predicted,
        sensitive_features=groups,
    ).by_group
    rows = rates_by_group(confusion_counts(y, predicted, groups, 3, 2), ["a", "b", "c"])
    assert [row.group for row in rows] == ["a", "b", "c"]
    for code, row in enumerate(rows):
        assert {name: getattr(row, name) for name in frame} == pytest.approx(dict(frame.loc[code]))
        assert row.positives + row.negatives == row.n
        assert row.positives == (y[groups == code] == 1).sum()
        assert row.selected == (predicted[groups == code] == 1).sum()


def test_the_table_has_a_row_per_group_and_class_when_there_are_many():
    counts = np.arange(27).reshape(3, 3, 3)
    rows = rates_by_group(counts, ["a", "b"])
    assert [(row.group, row.judged_class) for row in rows] == [(g, k) for g in "ab" for k in range(3)]
    assert rows[0].true_positive_rate == 0.0
    assert rows[1].true_positive_rate == 4 / 12


@pytest.mark.parametrize(
    ("y", "groups", "name", "message"),
    [
        ([0, 1, 0, 1], [0, 0, 0, 0], "demographic_parity_difference", "'old' .0 people.* has no people"),
        ([0, 1, 0, 0], [0, 0, 1, 1], "equal_opportunity_ratio", "'old' .2 people.* nobody of class 1"),
        ([0, 1, 1, 1], [0, 0, 1, 1], "equalized_odds_difference", "'old' .2 people.* nobody outside class 1"),
        ([0, 1, 0, 1], [0, 0, 2, 1], "demographic_parity_difference", "group codes must lie in -1 to 1, got 0 to 2"),
        ([0, 1, 0, 2], [0, 0, 1, 1], "demographic_parity_difference", "labels must lie in 0 to 1, got 0 to 2"),
        ([0, 1, 0], [0, 0, 1, 1], "demographic_parity_difference", "share their rows"),
        ([], [], "demographic_parity_difference", "at least one row"),
        ([0, 1, math.nan, 0], [0, 0, 1, 1], "demographic_parity_difference", "without NaN"),
        (["no", "yes", "no", "yes"], [0, 0, 1, 1], "demographic_parity_difference", "whole numbers"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused_by_name(y, groups, name, message):
    with pytest.raises(DataError, match=message):
        check_groups(y, groups, ["young", "old"], find_objective(name))


def test_what_an_objective_does_not_need_is_not_asked_for():
    check_groups([1, 1, 0, 1], [0, 0, 1, 1], ["a", "b"], find_objective("equal_opportunity_difference"))
    check_groups([1, 1, 0, 0], [0, 0, 1, 1], ["a", "b"], find_objective("demographic_parity_ratio"))


def test_one_group_cannot_be_compared():
    with pytest.raises(DataError, match="at least two groups"):
        check_groups([0, 1], [0, 0], ["all"], find_objective("equalized_odds_difference"))


@pytest.mark.parametrize("find", [find_objective, find_utility])
def test_an_unknown_name_is_answered_with_the_known_ones(find):
    with pytest.raises(InputError, match=r"one of .*, .*, got 'fairness'"):
        find("fairness")


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [([0.5, 1.5], "sigmoid"), ([0.5, math.nan], "NaN"), ([[[0.5]]], "shape"), ([0.5], "one label per row")],
)
def test_impossible_probabilities_are_refused(probabilities, message):
    with pytest.raises(DataError, match=message):
        log_loss([0, 1], probabilities)
