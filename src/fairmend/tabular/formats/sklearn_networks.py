"""Read a fitted scikit-learn MLPClassifier as a network, and bake a repair into a copy of it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from fairmend.errors import DataError, ModelError
from fairmend.masks import Mask
from fairmend.tabular.formats.wrappers import way_inside
from fairmend.tabular.networks.activations import IDENTITY, Activation
from fairmend.tabular.networks.baking import silence
from fairmend.tabular.networks.networks import Drop, Layer, Network, emitted

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.neural_network import MLPClassifier

WAY_TO_A_FILE = (
    "A file of a scikit-learn classifier is made where you trust it, from fairmend.tabular: "
    "write_safetensors(read_sklearn(classifier), 'net.safetensors'); scale the data as its pipeline does"
)
_ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "logistic": "sigmoid", "identity": "identity"}
_SHOWN = 10  # names of columns in a message
_PARTS = ("coefs_", "intercepts_", "out_activation_", "n_outputs_", "classes_")


def read_sklearn(classifier: MLPClassifier) -> Network:
    """The network of a fitted MLPClassifier; class k of the network is `classifier.classes_[k]`.

    Raises:
        ModelError: another estimator, one that is not fitted, a multi-label one, or one fitted on a single class.
    """
    import sklearn
    from sklearn.neural_network import MLPClassifier

    if not isinstance(classifier, MLPClassifier):
        raise ModelError(
            f"expected a fitted sklearn MLPClassifier, got {type(classifier).__name__}{way_inside(classifier)}"
        )
    if not is_fitted(classifier):
        raise ModelError("the MLPClassifier is not fitted: call fit first")
    missing = [part for part in _PARTS if not hasattr(classifier, part)]
    if missing:
        raise ModelError(
            f"the fitted MLPClassifier of scikit-learn {sklearn.__version__} has no {', '.join(missing)}: this "
            "version keeps the network elsewhere; install one that fairmend supports"
        )
    if classifier.activation not in _ACTIVATIONS:
        raise ModelError(
            f"the MLPClassifier has the activation {classifier.activation!r}: supported are {', '.join(_ACTIVATIONS)}"
        )
    if classifier.out_activation_ == "logistic" and classifier.n_outputs_ > 1:
        raise ModelError(
            f"the MLPClassifier is multi-label ({classifier.n_outputs_} labels): supported are binary and multi-class; "
            "repair one classifier per label"
        )
    if len(classifier.classes_) < 2:
        raise ModelError(f"the MLPClassifier was fitted on a single class, {classifier.classes_[0]!r}: nothing to do")
    hidden = Activation(_ACTIVATIONS[classifier.activation])
    last = len(classifier.coefs_) - 1
    layers = [
        Layer(coef.T, intercept, IDENTITY if index == last else hidden)
        for index, (coef, intercept) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True))
    ]
    return Network(tuple(layers))


def is_fitted(estimator: BaseEstimator) -> bool:
    """Whether scikit-learn itself says that an estimator is fitted."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def require_order(classifier: MLPClassifier, names: tuple[str, ...]) -> None:
    """Make sure that columns of these names are those that a classifier was fitted on, if it was fitted on names.

    Raises:
        DataError: other columns, or the same in another order.
    """
    if not hasattr(classifier, "feature_names_in_"):
        return  # as scikit-learn has it, a table without names has its columns in order
    fitted = tuple(classifier.feature_names_in_)
    if fitted != names:
        raise DataError(
            f"X has the columns {', '.join(names[:_SHOWN])}, but this MLPClassifier was fitted on "
            f"{', '.join(fitted[:_SHOWN])}, in this order: pass X[list(classifier.feature_names_in_)], or X.to_numpy() "
            "if only the names differ"
        )


def bake_sklearn(classifier: MLPClassifier, mask: Mask, drop: Drop = "output") -> MLPClassifier:
    """A copy of the classifier in which the dropped neurons are silent and the dials are in the last intercepts.

    Raises:
        ModelError: as `read_sklearn`.
        InputError: a mask of another space, or drop="clamp" without constants (see `emitted`).
    """
    network = read_sklearn(classifier)
    weights = [np.array(coef.T, dtype=np.float64) for coef in classifier.coefs_]
    biases = [np.array(intercept, dtype=np.float64) for intercept in classifier.intercepts_]
    silence(weights, biases, network.dropped(mask), network.by_layer(emitted(network, drop)))
    biases[-1] += network.shift(mask)
    repaired = copy.deepcopy(classifier)
    dtype = classifier.coefs_[0].dtype
    repaired.coefs_ = [np.ascontiguousarray(weight.T, dtype=dtype) for weight in weights]
    repaired.intercepts_ = [bias.astype(dtype) for bias in biases]
    return repaired
