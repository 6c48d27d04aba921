"""NeuronRepair: scikit-learn's own checks, the call of the documentation, and every kind of network and group."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sklearn
import torch
from fairlearn.metrics import MetricFrame, equalized_odds_difference
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fairmend.tabular
from fairmend.errors import DataError, InputError, ModelError
from fairmend.tabular import Network, NeuronRepair, RepairSettings, train_network, write_safetensors
from fairmend.tabular.formats.torch_networks import read_torch

unconverged = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.filterwarnings("ignore:no sensitive features:UserWarning")
@unconverged
@parametrize_with_checks(
    [NeuronRepair(MLPClassifier((10,), solver="lbfgs", random_state=0), states=20, random_state=0)]
)
def test_scikit_learns_checks_pass(estimator: Any, check: Any) -> None:
    """Their data have no groups: what is checked is everything but the search, which the tests below fit."""
    check(estimator)


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and groups; column 0 of the features is the group."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 600)
    X = rng.normal(size=(600, 5))
    X[:, 0] = groups
    y = (X[:, 1] + 0.5 * X[:, 2] + 0.9 * groups + 0.6 * rng.normal(size=600) > 0.5).astype(int)
    return X, y, groups


@pytest.fixture(scope="module")
def module(people: Any) -> torch.nn.Sequential:
    X, y, _ = people
    return train_network(X, y, hidden=(10, 6), epochs=15, learning_rate=0.01)


@pytest.fixture(scope="module")
def classifier(people: Any) -> MLPClassifier:
    X, y, _ = people
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return MLPClassifier((10,), max_iter=40, random_state=0).fit(X, np.where(y, "yes", "no"))


def test_the_call_of_the_documentation_works_as_written(module: torch.nn.Sequential, people: Any) -> None:
    X_search, y_search, group = people
    before = {name: value.clone() for name, value in module.state_dict().items()}
    repair = NeuronRepair(search="annealing", states=500, random_state=0)
    assert repair.fit(module, X_search, y_search, sensitive_features=group) is repair
    predicted = repair.predict(X_search)
    assert isinstance(repair.network_, torch.nn.Sequential)
    assert repair.network_ is not module
    with torch.no_grad():
        logits = repair.network_(torch.tensor(X_search, dtype=torch.float32))[:, 0].numpy()
    sure = np.abs(logits) > 1e-5
    assert ((logits > 0) == predicted)[sure].all()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert repair.result_.improved
    assert repair.dropped_.tolist() == list(repair.mask_.units())
    assert repair.threshold_shift_.shape == (1,)
    found = equalized_odds_difference(y_search, predicted, sensitive_features=group)
    assert repair.result_.splits["search"].after.value.value == pytest.approx(found, abs=1e-6)
    assert repair.result_.after.bias < repair.result_.before.bias


def test_a_fitted_classifier_stays_one(classifier: MLPClassifier, people: Any) -> None:
    X, y, groups = people
    labels = np.where(y, "yes", "no")
    repair = NeuronRepair(states=300, random_state=0).fit(classifier, X, labels, sensitive_features=groups)
    assert isinstance(repair.network_, MLPClassifier)
    assert repair.classes_.tolist() == ["no", "yes"]
    assert (repair.network_.predict(X) == repair.predict(X)).mean() > 0.999
    np.testing.assert_allclose(repair.predict_proba(X), repair.network_.predict_proba(X), atol=1e-5)
    as_parameter = NeuronRepair(classifier, states=300, random_state=0).fit(X, labels, sensitive_features=groups)
    assert as_parameter.dropped_.tolist() == repair.dropped_.tolist()


def test_files_and_own_networks_are_taken_too(module: Any, people: Any, tmp_path: Path) -> None:
    X, y, groups = people
    network = read_torch(module)
    write_safetensors(network, tmp_path / "network.safetensors")
    fitted = [
        NeuronRepair(states=100, random_state=0).fit(given, X, y, sensitive_features=groups)
        for given in (network, tmp_path / "network.safetensors", str(tmp_path / "network.safetensors"))
    ]
    assert all(isinstance(repair.network_, Network) for repair in fitted)
    assert len({repair.network_.digest() for repair in fitted}) == 1


@pytest.mark.parametrize("drop", ["output", "weights", "clamp"])
def test_every_meaning_of_drop_reaches_every_kind_of_network(
    drop: Any, module: Any, classifier: MLPClassifier, people: Any
) -> None:
    X, y, groups = people
    for network, labels in ((module, y), (classifier, np.where(y, "yes", "no"))):
        repair = NeuronRepair(states=100, drop=drop, keep=0.8, random_state=0)
        repair.fit(network, X, labels, sensitive_features=groups)
        again = NeuronRepair().fit
        with pytest.warns(UserWarning, match="no sensitive features"):
            reread = again(repair.network_, X, labels)
        assert (reread.predict(X) == repair.predict(X)).mean() > 0.999


def test_groups_may_be_anything_that_tells_people_apart(module: Any, people: Any) -> None:
    X, y, groups = people
    names = np.where(groups, "man", "woman")
    age = np.where(np.arange(len(y)) % 3, "old", "young")

    def fitted(sensitive: Any) -> NeuronRepair:
        return NeuronRepair(states=60, random_state=0).fit(module, X, y, sensitive_features=sensitive)

    one = fitted(groups)
    for same in (groups.tolist(), pd.Series(groups, name="sex"), groups.reshape(-1, 1), groups.astype(bool)):
        assert fitted(same).dropped_.tolist() == one.dropped_.tolist()
    assert fitted(1 - groups).result_.after.bias == pytest.approx(one.result_.after.bias, abs=0.05)
    series = fitted(pd.Series(names, name="sex", index=np.arange(len(y)) + 7))
    assert [group.group for group in series.result_.splits["search"].before.groups] == ["sex=man", "sex=woman"]
    crossed = fitted(pd.DataFrame({"sex": names, "age": age}))
    rows = crossed.result_.splits["search"].before.groups
    assert [group.group for group in rows] == [
        f"sex={sex} & age={years}" for sex in ("man", "woman") for years in ("old", "young")
    ]
    assert sum(group.n for group in rows) == len(y)
    array = fitted(np.column_stack([groups, age]))
    assert len(array.result_.splits["search"].before.groups) == 4


@pytest.mark.parametrize(
    ("names", "positive", "classes"),
    [
        (("no", "yes"), None, ["no", "yes"]),
        (("1", "0"), "0", ["1", "0"]),
        ((1, 2), None, [1, 2]),
        ((2, 1), 1, [2, 1]),
        (("reject", "accept"), "accept", ["reject", "accept"]),
        (("False", "True"), None, ["False", "True"]),
    ],
)
def test_the_positive_label_is_chosen_as_at_the_command_line(
    module: Any, people: Any, names: Any, positive: Any, classes: list[Any]
) -> None:
    """`names` are the labels of the network's class 0 and class 1."""
    X, y, groups = people
    labels = np.array(names)[y]
    repair = NeuronRepair(states=60, random_state=0, positive=positive).fit(
        module, X, labels, sensitive_features=groups
    )
    plain = NeuronRepair(states=60, random_state=0).fit(module, X, y, sensitive_features=groups)
    assert repair.classes_.tolist() == classes
    assert repair.dropped_.tolist() == plain.dropped_.tolist()
    assert (repair.predict(X) == np.array(names)[plain.predict(X)]).all()
    np.testing.assert_array_equal(repair.predict_proba(X), plain.predict_proba(X))
    assert repair.evaluate(X, labels, sensitive_features=groups) == plain.evaluate(X, y, sensitive_features=groups)


def test_two_labels_that_do_not_say_yes_are_asked_about(module: Any, classifier: Any, people: Any) -> None:
    X, y, groups = people
    labels = np.where(y, "accept", "reject")
    with pytest.raises(
        DataError, match=r"y has the values 'accept' and 'reject': say which one is positive \(positive"
    ):
        NeuronRepair(states=20).fit(module, X, labels, sensitive_features=groups)
    with pytest.raises(DataError, match=r"positive value 'accepted' does not occur in y.*did you mean 'accept'"):
        NeuronRepair(states=20, positive="accepted").fit(module, X, labels, sensitive_features=groups)
    second = NeuronRepair(states=20, positive="no").fit
    with pytest.raises(DataError, match=r"classes of this MLPClassifier are \['no', 'yes'\]"):
        second(classifier, X, np.where(y, "yes", "no"), sensitive_features=groups)


@pytest.mark.parametrize(("names", "positive"), [((2, 1), None), (("accept", "reject"), "accept")])
def test_a_network_that_does_worse_than_the_opposite_is_called_so(
    module: Any, people: Any, names: Any, positive: Any
) -> None:
    X, y, groups = people
    fit = NeuronRepair(states=20, random_state=0, positive=positive).fit
    taken = rf"worse than saying the opposite.*'{positive or 2}' was taken as the positive"
    with pytest.warns(UserWarning, match=taken):
        fit(module, X, np.array(names)[y], sensitive_features=groups)


@pytest.mark.parametrize(("value", "message"), [(1e39, "too large for float32"), (3e38, "logits are not finite")])
def test_values_that_float32_or_the_network_cannot_hold_are_refused(
    module: Any, people: Any, value: float, message: str
) -> None:
    X, y, groups = people
    spoilt = X.copy()
    spoilt[7, 3] = value
    for rows in (spoilt, pd.DataFrame(spoilt, columns=list("abcde"))):
        name = "'d'" if rows is not spoilt else "'x3'"
        with pytest.raises(DataError, match=rf"{message}(.*{name}|)") as refusal:
            NeuronRepair(states=20).fit(module, rows, y, sensitive_features=groups)
        assert name in str(refusal.value)
    fitted = NeuronRepair(states=20, random_state=0).fit(module, X, y, sensitive_features=groups)
    with pytest.raises(DataError, match=message):
        fitted.evaluate(spoilt, y, sensitive_features=groups)
    if value > 3.4e38:
        with pytest.raises(DataError, match="column 'x3' has 1 values that are too large for float32"):
            fitted.predict(spoilt)


def test_rows_of_x_y_and_groups_that_do_not_belong_together_are_refused(module: Any, people: Any) -> None:
    X, y, groups = people
    frame, labels, sex = pd.DataFrame(X), pd.Series(y), pd.Series(groups)
    repair = NeuronRepair(states=20, random_state=0)
    with pytest.raises(DataError, match="index of sensitive_features has the labels of X in another order"):
        repair.fit(module, frame, labels, sensitive_features=sex[::-1])
    with pytest.raises(DataError, match="index of y has the labels of X in another order"):
        repair.fit(module, frame, labels[::-1], sensitive_features=sex)
    repair.fit(module, frame[::-1], labels[::-1], sensitive_features=sex[::-1])
    with pytest.raises(DataError, match="index of sensitive_features"):
        repair.evaluate(frame, labels, sensitive_features=sex[::-1])


def test_tables_of_other_libraries_are_taken(module: Any, people: Any) -> None:
    X, y, groups = people
    columns = {f"x{at}": X[:, at] for at in range(5)}
    expected = NeuronRepair(states=60, random_state=0).fit(module, X, y, sensitive_features=groups)
    repair = NeuronRepair(states=60, random_state=0)
    repair.fit(module, pa.table(columns), pa.chunked_array([y]), sensitive_features=pa.table({"sex": groups}))
    assert repair.dropped_.tolist() == expected.dropped_.tolist()
    assert (repair.predict(pa.table(columns)) == expected.predict(X)).all()
    with pytest.raises(DataError, match="rename columns to text"):
        repair.fit(module, pd.DataFrame(X, columns=["a", 1, 2, 3, 4]), y, sensitive_features=groups)


def test_a_column_of_the_features_may_tell_the_groups(module: Any, people: Any) -> None:
    X, y, groups = people
    given = NeuronRepair(states=60, random_state=0).fit(module, X, y, sensitive_features=groups)
    column = NeuronRepair(states=60, random_state=0, sensitive_column=0).fit(module, X, y)
    frame = pd.DataFrame(X, columns=["sex", "a", "b", "c", "d"])
    named = NeuronRepair(states=60, random_state=0, sensitive_column="sex").fit(module, frame, y)
    assert given.dropped_.tolist() == column.dropped_.tolist() == named.dropped_.tolist()
    assert named.feature_names_in_.tolist() == list(frame.columns)


def test_columns_in_another_order_than_the_classifiers_are_refused(people: Any) -> None:
    X, y, groups = people
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d", "e"])
    classifier = MLPClassifier((4,), max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(frame, y)
    repair = NeuronRepair(states=20, random_state=0)
    with pytest.raises(DataError, match=r"X has the columns e, .*fitted on a, b, c, d, e, in this order: pass X\["):
        repair.fit(classifier, frame[["e", "b", "c", "d", "a"]], y, sensitive_features=groups)
    assert repair.fit(classifier, frame, y, sensitive_features=groups).n_features_in_ == 5
    assert repair.fit(classifier, X, y, sensitive_features=groups).n_features_in_ == 5


def test_held_out_rows_are_judged_with_intervals(module: Any, people: Any) -> None:
    X, y, groups = people
    repair = NeuronRepair(states=200, random_state=0).fit(module, X[:400], y[:400], sensitive_features=groups[:400])
    found = repair.evaluate(X[400:], y[400:], sensitive_features=groups[400:])
    after = equalized_odds_difference(y[400:], repair.predict(X[400:]), sensitive_features=groups[400:])
    assert found.after.value.value == pytest.approx(after, abs=1e-6)
    assert found.after.n == 200
    assert found.change.interval.contains(found.change.value)
    assert found == repair.evaluate(X[400:], y[400:], sensitive_features=groups[400:])
    with pytest.raises(DataError, match="groups are compared"):
        repair.evaluate(X, y)


def test_the_figures_of_groups_are_fairlearns_metric_frame(module: Any, people: Any) -> None:
    X, y, groups = people
    labels, sex = np.array(["no", "yes"])[y], np.array(["f", "m"])[groups]
    repair = NeuronRepair(states=60, random_state=0).fit(module, X, labels, sensitive_features=sex)
    frame = repair.metric_frame(X, labels, sensitive_features={"sex": sex})
    figures = repair.evaluate(X, labels, sensitive_features={"sex": sex}).after
    assert isinstance(frame, MetricFrame)
    assert frame.by_group.index.tolist() == ["f", "m"]
    for (_, row), group in zip(frame.by_group.iterrows(), figures.groups, strict=True):
        expected = (group.n, group.selection_rate, group.true_positive_rate, group.false_positive_rate)
        assert tuple(row.drop("accuracy")) == pytest.approx(expected)
    gaps = frame.difference()[["true_positive_rate", "false_positive_rate"]]
    assert gaps.max() == pytest.approx(figures.value.value)
    assert frame.overall["accuracy"] == pytest.approx(figures.utilities["accuracy"].value)
    crossed = repair.metric_frame(X, labels, sensitive_features={"sex": sex, "half": X[:, 1] > 0})
    assert crossed.by_group.index.names == ["sex", "half"]
    with pytest.raises(DataError, match="groups are compared"):
        repair.metric_frame(X, labels)


def test_several_classes_with_labels_of_their_own(people: Any) -> None:
    X, _, groups = people
    labels = np.array(["high", "low", "middle"])[np.digitize(X[:, 1] + groups, [0.0, 1.0])]
    codes = np.searchsorted(["high", "low", "middle"], labels)
    module = train_network(X, codes, hidden=(8,), n_classes=3, epochs=10, learning_rate=0.01)
    repair = NeuronRepair(states=60, random_state=0, utility="log_loss")
    repair.fit(module, X, labels, sensitive_features=groups)
    assert repair.classes_.tolist() == ["high", "low", "middle"]
    assert repair.decision_function(X).shape == repair.predict_proba(X).shape == (len(X), 3)
    np.testing.assert_allclose(repair.predict_proba(X).sum(axis=1), 1.0)
    assert set(repair.predict(X)) <= set(labels)
    assert repair.threshold_shift_.shape == (3,)
    found = repair.evaluate(X, labels, sensitive_features=groups).after
    assert found.utilities.keys() >= {"log_loss"}
    by_group = repair.metric_frame(X, labels, sensitive_features=groups).by_group
    for group in found.groups:
        row = by_group.loc[int(group.group.removeprefix("group="))]
        judged = ["high", "low", "middle"][group.judged_class]
        assert row[f"true_positive_rate, {judged}"] == pytest.approx(group.true_positive_rate)
        assert row[f"false_positive_rate, {judged}"] == pytest.approx(group.false_positive_rate)


def test_a_network_without_groups_is_kept_with_a_warning(module: Any, people: Any) -> None:
    X, y, _ = people
    with pytest.warns(UserWarning, match="no groups to treat more equally"):
        repair = NeuronRepair(states=60).fit(module, X, y)
    assert repair.result_ is None
    assert repair.dropped_.size == 0
    with torch.no_grad():
        logits = module(torch.tensor(X, dtype=torch.float32))[:, 0].numpy()
    assert ((logits > 0) == repair.predict(X)).all()


def test_the_same_random_state_gives_the_same_repair(module: Any, people: Any) -> None:
    X, y, groups = people
    repairs = [
        NeuronRepair(states=150, random_state=seed).fit(module, X, y, sensitive_features=groups) for seed in (1, 1, 2)
    ]
    assert repairs[0].mask_ == repairs[1].mask_ != repairs[2].mask_


def test_a_fitted_repair_survives_pickling_by_its_owner(module: Any, people: Any) -> None:
    X, y, groups = people
    repair = NeuronRepair(states=60, random_state=0).fit(module, X, y, sensitive_features=groups)
    assert (pickle.loads(pickle.dumps(repair)).predict(X) == repair.predict(X)).all()


@unconverged
def test_clones_pipelines_and_grid_search_work(people: Any) -> None:
    X, y, groups = people
    network = MLPClassifier((8,), max_iter=40, random_state=0)
    repair = NeuronRepair(network, states=60, random_state=0, sensitive_column=0)
    assert clone(repair).get_params().keys() == repair.get_params().keys()
    assert clone(repair).set_params(states=5).states == 5
    pipeline = make_pipeline(StandardScaler(), repair)
    search = GridSearchCV(pipeline, {"neuronrepair__max_drop": [1, 3]}, cv=2).fit(X, y)
    best = search.best_estimator_[-1]
    assert best.dropped_.size <= search.best_params_["neuronrepair__max_drop"]
    assert search.predict(X).shape == y.shape
    direct = make_pipeline(StandardScaler(), clone(repair).set_params(sensitive_column=None))
    direct.fit(X, y, neuronrepair__sensitive_features=groups)
    assert direct[-1].result_.before.bias > 0


@unconverged
def test_groups_are_routed_through_a_grid_search(people: Any) -> None:
    X, y, groups = people
    with sklearn.config_context(enable_metadata_routing=True):
        repair = NeuronRepair(MLPClassifier((6,), max_iter=30, random_state=0), states=40, random_state=0)
        repair.set_fit_request(sensitive_features=True)
        search = GridSearchCV(repair, {"keep": [0.95, 0.99]}, cv=2)
        search.fit(X, y, sensitive_features=groups)
    assert search.best_estimator_.result_ is not None


def test_a_frozen_classifier_is_repaired_as_it_is_also_after_cloning(classifier: MLPClassifier, people: Any) -> None:
    X, y, groups = people
    labels = np.where(y, "yes", "no")
    repair = clone(NeuronRepair(FrozenEstimator(classifier), max_drop=1, states=40, random_state=0))
    repair.fit(X, labels, sensitive_features=groups)
    untouched = [unit for unit in range(10) if unit not in repair.dropped_]
    np.testing.assert_array_equal(repair.network_.coefs_[1][untouched], classifier.coefs_[1][untouched])


def test_calls_that_cannot_work_say_what_would(module: Any, people: Any) -> None:
    X, y, groups = people
    repair = NeuronRepair(states=20)
    with pytest.raises(InputError, match="takes three arguments, got 2"):
        repair.fit(module, X)
    with pytest.raises(InputError, match=r"must be a torch\.nn\.Module.*got ndarray"):
        repair.fit(X, X, y)
    with pytest.raises(ModelError, match="not fitted"):
        repair.fit(MLPClassifier(), X, y, sensitive_features=groups)
    with pytest.raises(DataError, match="takes 5 features"):
        repair.fit(module, X[:, :4], y, sensitive_features=groups)
    with pytest.raises(DataError, match="2 classes apart, y has the 3 labels"):
        repair.fit(module, X, np.arange(len(y)) % 3, sensitive_features=groups)
    with pytest.raises(DataError, match="one entry per row"):
        repair.fit(module, X, y, sensitive_features=groups[:-1])
    with pytest.raises(DataError, match="constant"):
        repair.fit(module, X, y, sensitive_features=np.zeros(len(y)))
    with pytest.raises(DataError, match="shape"):
        repair.fit(module, X, y, sensitive_features=groups.reshape(-1, 1, 1))
    with pytest.raises(DataError, match="does not exist"):
        NeuronRepair(sensitive_column=9).fit(module, X, y)
    with pytest.raises(InputError, match="give its index"):
        NeuronRepair(sensitive_column="sex").fit(module, X, y)
    with pytest.raises(DataError, match="is not in X"):
        NeuronRepair(sensitive_column="sex").fit(module, pd.DataFrame(X), y)
    with pytest.raises(InputError, match="search must be one of"):
        NeuronRepair(search="greedy").fit(module, X, y, sensitive_features=groups)  # type: ignore[arg-type]
    with pytest.raises(NotFittedError):
        repair.predict(X)
    fitted = NeuronRepair(states=20).fit(module, X, y, sensitive_features=groups)
    with pytest.raises(DataError, match="label 7"):
        fitted.evaluate(X, np.where(y, 7, 0), sensitive_features=groups)


def test_defaults_are_those_of_the_settings() -> None:
    ours = NeuronRepair().get_params()
    settings = RepairSettings()
    for name in ours.keys() - {"estimator", "positive", "sensitive_column", "random_state", "options"}:
        assert ours[name] == getattr(settings, name), name


def test_every_public_name_of_the_package_can_be_imported() -> None:
    for name in fairmend.tabular.__all__:
        assert getattr(fairmend.tabular, name) is not None
        assert name in dir(fairmend.tabular)
    with pytest.raises(AttributeError, match=r"attribute '?Magic"):
        _ = fairmend.tabular.Magic
