"""Networks of scikit-learn classifiers."""

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from fairmend.errors import ModelError
from fairmend.tabular.formats.sklearn_networks import bake_sklearn, read_sklearn
from fairmend.tabular.networks.networks import emitted

pytestmark = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}")


def fitted(n_classes=2, activation="relu", dtype=np.float64):
    X, y = make_classification(200, 6, n_informative=4, n_classes=n_classes, random_state=0)
    names = np.array(["no", "yes", "perhaps"])[y]
    classifier = MLPClassifier((7, 5), activation=activation, max_iter=30, random_state=0).fit(X.astype(dtype), names)
    return classifier, X.astype(dtype)


def probabilities(logits):
    full = np.hstack([np.zeros_like(logits), logits]) if logits.shape[1] == 1 else logits
    powers = np.exp(full - full.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_a_network_predicts_as_its_classifier(n_classes, activation):
    classifier, X = fitted(n_classes, activation)
    network = read_sklearn(classifier)
    assert network.hidden_widths == (7, 5)
    assert network.n_classes == n_classes
    np.testing.assert_allclose(probabilities(network.logits(X)), classifier.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(classifier.classes_[network.predict(X)], classifier.predict(X))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("drop", ["output", "weights", "clamp"])
def test_a_baked_classifier_predicts_as_the_masked_network(n_classes, drop):
    classifier, X = fitted(n_classes, "tanh")
    network = read_sklearn(classifier)
    before = [array.copy() for array in (*classifier.coefs_, *classifier.intercepts_)]
    space = network.space(dials=network.threshold_dials())
    mask = space.mask([0, 3, 8], [0.25] * len(space.dials))
    constants = emitted(network, drop, X)
    repaired = bake_sklearn(classifier, mask, constants)
    np.testing.assert_allclose(repaired.predict_proba(X), probabilities(network.logits(X, mask, constants)), atol=1e-5)
    np.testing.assert_array_equal(repaired.predict(X), classifier.classes_[network.predict(X, mask, constants)])
    for array, old in zip((*classifier.coefs_, *classifier.intercepts_), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_a_single_precision_classifier_stays_one():
    classifier, X = fitted(dtype=np.float32)
    repaired = bake_sklearn(classifier, read_sklearn(classifier).space().mask([1]))
    assert {array.dtype for array in (*repaired.coefs_, *repaired.intercepts_)} == {np.dtype(np.float32)}
    assert repaired.predict(X).shape == (200,)


def test_classifiers_that_cannot_be_read_are_refused():
    X, y = make_classification(60, 6, random_state=0)
    with pytest.raises(ModelError, match="expected a fitted sklearn MLPClassifier, got LogisticRegression"):
        read_sklearn(LogisticRegression())
    with pytest.raises(ModelError, match="not fitted: call fit first"):
        read_sklearn(MLPClassifier())
    multilabel = MLPClassifier((3,), max_iter=2).fit(X, np.column_stack([y, 1 - y]))
    with pytest.raises(ModelError, match=r"multi-label \(2 labels\)"):
        read_sklearn(multilabel)
    with pytest.raises(ModelError, match="single class"):
        read_sklearn(MLPClassifier((3,), max_iter=2).fit(X, np.zeros(60)))


def test_a_classifier_that_another_scikit_learn_keeps_elsewhere_is_named_so():
    classifier, _ = fitted()
    classifier.weights_ = classifier.coefs_
    del classifier.coefs_
    with pytest.raises(ModelError, match=rf"of scikit-learn {sklearn.__version__} has no coefs_: this version keeps"):
        read_sklearn(classifier)


def test_an_activation_that_is_not_known_is_named():
    classifier, _ = fitted()
    classifier.activation = "gelu"
    with pytest.raises(ModelError, match="has the activation 'gelu': supported are relu, tanh, logistic, identity"):
        read_sklearn(classifier)
