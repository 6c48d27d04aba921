"""The audit of a network: figures of independent libraries, words, and its JSON form."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from fairlearn.metrics import equalized_odds_difference, equalized_odds_ratio
from sklearn.metrics import accuracy_score, f1_score, log_loss

from fairmend.errors import DataError, InputError
from fairmend.records import built, plain
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.networks.activations import Activation
from fairmend.tabular.networks.networks import Layer, Network
from fairmend.tabular.repair.audit import Audit, audit, contradiction


def make_dataset(lean: float = 1.0, n: int = 600) -> Dataset:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, n)
    X = np.column_stack([rng.normal(size=n), lean * groups]).astype(np.float32)
    return Dataset(
        name="made",
        X=X,
        y=(X[:, 0] + 0.3 * rng.normal(size=n) > 0).astype(np.int64),
        classes=("no", "yes"),
        groups=groups,
        group_names=("women", "men"),
        feature_names=("score", "group"),
        splits={
            "train": np.arange(300),
            "validation": np.arange(0),
            "test": np.arange(300, n),
        },
        notes=("made for a test",),
    )


@pytest.fixture
def network() -> Network:
    first = Layer(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), np.zeros(3), Activation("relu"))
    return Network((first, Layer(np.array([[1.0, -1.0, 0.8]]), np.zeros(1))), notes=("relu is assumed",))


def test_figures_are_those_of_fairlearn_and_scikit_learn(network: Network) -> None:
    data = make_dataset()
    found = audit(network, data, utilities=("f1", "accuracy", "log_loss"), n_boot=200, n_perm=200)
    assert list(found.splits) == ["train", "test"]  # a split without rows has no figures
    for split, figures in found.splits.items():
        X, y, groups = data.subset(split)
        predicted = network.predict(X)
        truth = equalized_odds_difference(y, predicted, sensitive_features=groups)
        assert figures.value.value == pytest.approx(truth, abs=1e-12)
        assert figures.value.interval.contains(truth)
        assert figures.utilities["f1"].value == pytest.approx(f1_score(y, predicted))
        assert figures.utilities["accuracy"].value == pytest.approx(accuracy_score(y, predicted))
        chances = 1 / (1 + np.exp(-network.logits(X)[:, 0]))
        assert figures.utilities["log_loss"].value == pytest.approx(log_loss(y, chances))
        assert [group.n for group in figures.groups] == np.bincount(groups).tolist()


def test_other_objectives_have_fairlearns_values(network: Network) -> None:
    data = make_dataset()
    found = audit(network, data, objective="equalized_odds_ratio", n_boot=100, n_perm=100)
    X, y, groups = data.subset("test")
    truth = equalized_odds_ratio(y, network.predict(X), sensitive_features=groups)
    assert found.splits["test"].value.value == pytest.approx(truth)


def test_it_says_in_words_whether_there_is_anything_to_repair(network: Network) -> None:
    assert "there is something to repair" in audit(network, make_dataset()).verdicts["test"]
    fair = audit(network, make_dataset(lean=0.0)).verdicts["test"]
    assert "nothing to repair at this sample size" in fair


def test_notes_of_network_and_data_are_passed_on(network: Network) -> None:
    found = audit(network, make_dataset(), n_boot=100, n_perm=100)
    assert found.notes == ("relu is assumed", "made for a test")
    assert (found.dataset, found.network) == ("made", network.digest())


def test_the_same_seed_gives_the_same_draws(network: Network) -> None:
    data = make_dataset()
    first, again, other = (audit(network, data, seed=seed, n_boot=200, n_perm=200) for seed in (1, 1, 2))
    assert first == again
    assert first.splits["test"].value.value == other.splits["test"].value.value
    assert first.splits["test"].value.interval != other.splits["test"].value.interval


def test_figures_of_a_split_do_not_depend_on_the_others(network: Network) -> None:
    data = make_dataset()
    shorter = replace(data, splits={**data.splits, "train": np.arange(100)})
    first, second = (audit(network, each, n_boot=200, n_perm=200).splits["test"] for each in (data, shorter))
    assert first == second


def test_an_audit_survives_strict_json(network: Network) -> None:
    found = audit(network, make_dataset(), n_boot=100, n_perm=100)
    text = json.dumps(plain(found), allow_nan=False)
    assert built(json.loads(text), Audit) == found


def test_what_cannot_be_audited_is_refused(network: Network) -> None:
    data = make_dataset()
    with pytest.raises(DataError, match="takes 2 features, made has 1"):
        audit(network, replace(data, X=data.X[:, :1], feature_names=("score",)))
    with pytest.raises(DataError, match="women"):
        audit(network, replace(data, y=np.where(data.groups == 0, 0, data.y)))
    with pytest.raises(InputError, match="utility must be one of"):
        audit(network, data, utilities=("auc",))
    with pytest.raises(InputError, match="at least 100"):
        audit(network, data, n_boot=10)


def test_the_positive_class_is_said_and_a_network_worse_than_the_opposite_is_called_so(network: Network) -> None:
    data = make_dataset()
    right = audit(network, data, n_boot=100, n_perm=100)
    assert (right.positive, right.warnings) == ("yes", ())
    wrong = audit(network, replace(data, y=1 - data.y, classes=("yes", "no")), n_boot=100, n_perm=100)
    accuracy = accuracy_score(1 - data.y, network.predict(data.X))
    assert wrong.positive == "no"
    assert f"right on {accuracy:.1%} of the rows, the opposite would be on {1 - accuracy:.1%}" in wrong.warnings[0]
    assert "if that is 'yes', say so (positive=...)" in wrong.warnings[0]
    assert built(json.loads(json.dumps(plain(wrong), allow_nan=False)), Audit) == wrong


def test_a_network_that_guesses_is_not_called_worse_than_the_opposite(network: Network) -> None:
    data = make_dataset()
    rng = np.random.default_rng(3)
    for _ in range(20):
        guessed = replace(data, y=rng.integers(0, 2, len(data.y)))
        assert contradiction(network, guessed) is None


def test_rates_that_do_not_exist_are_unknown_where_the_objective_does_without(network: Network) -> None:
    data = make_dataset()
    data = replace(data, y=np.where(data.groups == 0, 0, data.y))
    found = audit(network, data, objective="demographic_parity_difference", n_boot=100, n_perm=100)
    women = found.splits["test"].groups[0]
    assert (women.positives, math.isnan(women.true_positive_rate)) == (0, True)
    assert women.selection_rate == network.predict(data.subset("test")[0])[data.subset("test")[2] == 0].mean()
    with pytest.raises(DataError, match="group women has no positives in the data"):
        audit(network, data)


@pytest.mark.parametrize(("value", "fits"), [(1e30, True), (3e38, False)])
def test_features_whose_products_overflow_are_refused(network: Network, value: float, fits: bool) -> None:
    data = make_dataset()
    X = data.X.copy()
    X[3, 1] = value
    large = replace(data, X=X)
    if fits:
        audit(network, large, n_boot=100, n_perm=100)
        return
    steep = Network((network.layers[0], Layer(network.layers[1].weight * 9, np.zeros(1))))
    with pytest.raises(DataError, match=r"logits are not finite.*Column 'group' has the largest values, up to 3e\+38"):
        audit(steep, large)
