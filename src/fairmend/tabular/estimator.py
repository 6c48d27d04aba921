"""The scikit-learn face of a repair: fit finds what to drop, predict needs no sensitive attribute."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.neural_network import MLPClassifier
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fairmend.errors import DataError, InputError
from fairmend.masks import Mask
from fairmend.settings import settings_of
from fairmend.tabular.data.columns import in_float32
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.data.features import group_codes, label_text, ordered_classes
from fairmend.tabular.data.sensitive import require_same_rows, sensitive_frame
from fairmend.tabular.data.sheets import Sheet, as_frame, as_series, is_frame
from fairmend.tabular.fairness.findings import Comparison
from fairmend.tabular.fairness.uncertainty import People, compare_predictions
from fairmend.tabular.formats.formats import SUPPORTED, bake_model, is_model, read_model
from fairmend.tabular.formats.sklearn_networks import is_fitted, require_order
from fairmend.tabular.formats.wrappers import is_sklearn, unwrapped, way_inside
from fairmend.tabular.networks.activations import FloatArray
from fairmend.tabular.networks.networks import NOT_FINITE, Network, decide, emitted, probabilities
from fairmend.tabular.repair.audit import contradiction
from fairmend.tabular.repair.judging import predictions, question_of
from fairmend.tabular.repair.repair import Repair, repair_network, require_fit
from fairmend.tabular.repair.settings import RepairSettings

if TYPE_CHECKING:
    from fairlearn.metrics import MetricFrame

    from fairmend.tabular.formats.formats import Model

_ROWS = "search"
_HIDDEN = (32, 16)


_SETTINGS = {
    **{name: each.default for name, each in settings_of(RepairSettings).items() if name not in ("search_on", "seed")},
    "options": None,
}


class NeuronRepair(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Drop hidden neurons of a trained network so that groups are treated more equally (NeuFair, ISSTA 2024).

    `fit(network, X, y, sensitive_features=groups)` repairs a network. `fit(X, y, sensitive_features=groups)` repairs
    the one given as `estimator`, which is how pipelines and searches over settings call it. Predicting needs no groups.

    Without sensitive features there is nothing to make equal: `network_` is then the network as it was, with a warning.

    Args:
        estimator: the network that `fit(X, y)` repairs: a torch module, an MLPClassifier, a fairmend `Network`, or the
            path of a .safetensors or .onnx file. None, or an MLPClassifier that is not fitted, is trained on the rows
            first. scikit-learn's `clone`, and so `GridSearchCV`, makes unfitted copies of classifiers: wrap a fitted
            one in `sklearn.frozen.FrozenEstimator` to repair it as it is.
        search, states, seconds, min_drop, max_drop, objective, utility, keep, penalty, drop, threshold, restarts,
            chains, finalists, rows_per_cell, options: see `RepairSettings`. The search sees no rows but those given to
            `fit`.
        positive: the label that is the positive class, the one that class 1 of the network means. Needed for two labels
            that are neither numbers (of which the larger is positive) nor plainly yes and no, unless the network knows
            its labels, as an MLPClassifier does.
        sensitive_column: name or index of the column of X that tells the groups when `fit` is given no
            `sensitive_features`.
        random_state: of everything random.

    Attributes:
        network_: the repaired network, of the same kind as the one given (a `Network` for a path).
        dropped_: indices of the dropped neurons, counted over all hidden layers.
        mask_: the same as a `Mask`, with the dials.
        threshold_shift_: what was added to the logits, shape (n_outputs,).
        result_: everything else as a `Repair`; None if nothing was searched. Its figures, under `splits["search"]` too,
            are of the rows that the search saw and overstate the gain: use `evaluate` on others.
        classes_, n_features_in_, feature_names_in_: as everywhere in scikit-learn; of two classes, the positive one is
            `classes_[1]`.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        bound = inspect.signature(type(self).__init__).bind(self, *given, **named)
        bound.apply_defaults()
        for name, value in list(bound.arguments.items())[1:]:
            setattr(self, name, value)

    @overload
    def fit(self, X: Model, y: Any, /, *labels: Any, sensitive_features: Any = None) -> Self: ...
    @overload
    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None) -> Self: ...
    def fit(self, X: Any, y: Any = None, *labels: Any, sensitive_features: Any = None) -> Self:
        """Find the neurons to drop: `fit(network, X, y, ...)`, or `fit(X, y, ...)` with `estimator`.

        Args:
            X: (n_rows, n_features), encoded as the network was trained; or first the network, then X and y. An array,
                or a frame of any library that narwhals knows.
            y: (n_rows,) class labels. A network that knows no labels takes 0 to n_classes - 1, two others as `positive`
                says, or more in ascending order.
            sensitive_features: (n_rows,) or (n_rows, n_columns) of anything that tells groups apart; also a dict, or a
                list, of columns. Several columns are crossed. Rows of X, y and these belong together by position;
                pandas objects whose indices say otherwise are refused.

        Warns:
            UserWarning: no sensitive features, or a network that does worse than saying the opposite.

        Raises:
            InputError: settings that cannot work, a network of no known kind, or data that do not fit it.
        """
        model, X, y = _sorted_out(X, y, labels)
        X, y = _aligned(X, y)
        sensitive = sensitive_frame(X, sensitive_features, self.sensitive_column)
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        if len(np.unique(y)) < 2:
            raise DataError(f"y has one class, {y.tolist()[0]!r}: at least two are needed")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        settings = self._settings(seed)
        if model is None:
            model = self._model(X, y, seed)
        network = read_model(model)
        if is_sklearn(model) and hasattr(self, "feature_names_in_"):
            require_order(model, self._names())
        classes = _classes(model, network, y, self.positive)
        mask, drop, repaired = Mask(0, network.n_units), np.zeros(network.n_units), network
        if sensitive is None:
            warnings.warn(
                "no sensitive features were given, so there are no groups to treat more equally: the network is kept "
                "as it is. Pass sensitive_features to fit, or set sensitive_column",
                UserWarning,
                stacklevel=2,
            )
            self.result_: Repair | None = None
        else:
            dataset = _dataset(X, _codes(y, classes), classes, sensitive, self._names())
            require_fit(network, dataset)
            if (doubt := contradiction(network, dataset)) is not None:
                warnings.warn(doubt, UserWarning, stacklevel=2)
            result = repair_network(network, dataset, settings)
            mask, drop, repaired = result.mask, emitted(network, result.drop, dataset.X), result.network
            self.result_ = replace(result, splits={_ROWS: result.splits["validation"]})
        self.network_ = bake_model(model, network, mask, drop)
        self.mask_ = mask
        self.dropped_ = np.array(mask.units(), dtype=np.int64)
        self.threshold_shift_ = network.shift(mask)
        self.classes_ = classes
        self._original, self._repaired, self._seed = network, repaired, seed
        return self

    def decision_function(self, X: Any) -> FloatArray:
        """Compute logits: of the second class, shape (n_rows,), for two classes; of every class for more."""
        logits = self._logits(X)
        if len(self.classes_) > 2:
            return logits
        decision: FloatArray = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        return decision

    def predict_proba(self, X: Any) -> FloatArray:
        """Compute class probabilities, shape (n_rows, n_classes), in the order of `classes_`."""
        found = probabilities(self._logits(X))
        return np.stack([1.0 - found, found], axis=1) if found.ndim == 1 else found

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predict class labels, shape (n_rows,). No sensitive attribute is needed."""
        decided = decide(self._logits(X))
        labels: npt.NDArray[Any] = self.classes_[decided]
        return labels

    def evaluate(self, X: Any, y: Any, *, sensitive_features: Any = None) -> Comparison:
        """Compare the network before and after the repair on rows that the search has not seen, with intervals.

        Raises:
            DataError: rows that do not fit, or a group without the people that a rate needs.
        """
        rows, _ = self._rows(X, y, sensitive_features)
        question = question_of(self.objective, self.utility)
        old, new = (predictions(network.logits(rows.X), question) for network in (self._original, self._repaired))
        people = People(rows.y, rows.groups, rows.group_names, len(self.classes_))
        return compare_predictions(people, old, new, question, np.random.default_rng([self._seed, 2]))

    def metric_frame(self, X: Any, y: Any, *, sensitive_features: Any = None) -> MetricFrame:
        """What the repaired network does to every group, as fairlearn's MetricFrame: counts, accuracy and rates.

        The groups are the crossed columns of the sensitive features. With more than two classes every class is judged
        against the rest, and stands behind the name of its rates.

        Raises:
            DataError: rows that do not fit, or a group without the people that a rate needs.
            InputError: fairlearn is not installed; the extra fairlearn brings it.
        """
        from fairmend.tabular.fairness.metric_frames import metric_frame  # fairlearn is an extra

        rows, sensitive = self._rows(X, y, sensitive_features)
        decided = decide(self._repaired.logits(rows.X))
        return metric_frame(self.classes_[rows.y], self.classes_[decided], sensitive, self.classes_.tolist())

    def _rows(self, X: Any, y: Any, sensitive_features: Any) -> tuple[Dataset, pd.DataFrame]:
        """Rows to judge on, and their sensitive features."""
        check_is_fitted(self, "network_")
        X, y = _aligned(X, y)
        sensitive = sensitive_frame(X, sensitive_features, self.sensitive_column)
        if sensitive is None:
            raise DataError("groups are compared: pass sensitive_features, or set sensitive_column")
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), reset=False)
        rows = _dataset(X, _codes(y, self.classes_), self.classes_, sensitive, self._names())
        require_fit(self._original, rows)
        return rows, sensitive

    def _logits(self, X: Any) -> FloatArray:
        check_is_fitted(self, "network_")
        if is_frame(X):
            X = as_frame(X, "X")
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        logits = self._repaired.logits(_single(X, self._names()))
        if not np.isfinite(logits).all():
            raise DataError(NOT_FINITE)
        return logits

    def _names(self) -> tuple[str, ...]:
        """What X's columns are called in messages."""
        return tuple(getattr(self, "feature_names_in_", ())) or tuple(f"x{at}" for at in range(self.n_features_in_))

    def _settings(self, seed: int) -> RepairSettings:
        given = {name: getattr(self, name) for name in _SETTINGS if name != "options"}
        return RepairSettings(**given, search_on="validation", seed=seed, options=dict(self.options or {}))

    def _model(self, X: npt.NDArray[Any], y: npt.NDArray[Any], seed: int) -> Any:
        """The network that `fit(X, y)` repairs, trained first if need be."""
        model = unwrapped(self.estimator)
        if model is None:
            return MLPClassifier(_HIDDEN, max_iter=500, random_state=seed).fit(X, y)
        if is_sklearn(model) and not is_fitted(model):
            return clone(model).fit(X, y)
        return model


def _signature() -> inspect.Signature:
    """The parameters of the estimator, which scikit-learn reads: the settings of a repair among them."""
    defaults = {"estimator": None, **_SETTINGS, "positive": None, "sensitive_column": None, "random_state": None}
    named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=each) for name, each in defaults.items()]
    first = named[0].replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Signature([inspect.Parameter("self", first.kind), first, *named[1:]])


NeuronRepair.__init__.__signature__ = _signature()  # type: ignore[attr-defined]


def _sorted_out(first: Any, second: Any, labels: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """(network or None, X, y) of either way to call `fit`."""
    if is_model(first):
        if len(labels) != 1:
            raise InputError(f"fit(network, X, y) takes three arguments, got {2 + len(labels)}")
        return unwrapped(first), second, labels[0]
    if labels:
        raise InputError(
            f"the first of three arguments of fit must be {SUPPORTED}, got {type(first).__name__}{way_inside(first)}"
        )
    return None, first, second


def _aligned(X: Any, y: Any) -> tuple[Any, Any]:
    """Frames and columns of other libraries as pandas ones, whose indices say nothing against taking them together."""
    if is_frame(X):
        X = as_frame(X, "X")
        if 0 < sum(isinstance(name, str) for name in X.columns) < X.shape[1]:
            raise DataError("some column names of X are text and some are not: rename columns to text")
    y = as_series(y)
    require_same_rows(X, y, "y")
    return X, y


def _classes(model: Any, network: Network, y: npt.NDArray[Any], positive: str | float | None) -> npt.NDArray[Any]:
    """The label of every class of the network; of two, the positive one last."""
    if is_sklearn(model):
        classes: npt.NDArray[Any] = model.classes_
        if positive is not None and (len(classes) != 2 or label_text(positive) != label_text(classes.tolist()[1])):
            raise DataError(
                f"positive={positive!r}, but the classes of this MLPClassifier are {classes.tolist()}, and of two its "
                "second is the positive one: leave positive out, or train it on labels in another order"
            )
        return classes
    natural = np.arange(network.n_classes)
    found = np.unique(y)
    if positive is None and found.dtype.kind in "biuf" and np.isin(found, natural).all():
        return natural
    if len(found) != network.n_classes:
        raise DataError(
            f"the network tells {network.n_classes} classes apart, y has the {len(found)} labels "
            f"{', '.join(map(str, found[:10]))}: give it as many, or 0 to {network.n_classes - 1}"
        )
    if len(found) != 2:
        if positive is not None:
            raise DataError(f"positive={positive!r} is for two classes, y has {len(found)}: leave it out")
        return found
    labels = {label_text(label): label for label in found.tolist()}
    return np.array([labels[name] for name in ordered_classes(list(labels), "y", positive)], dtype=found.dtype)


def _codes(y: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    others = np.setdiff1d(y, classes)
    if len(others):
        raise DataError(
            f"y has the label {others.tolist()[0]!r}, which the network cannot predict: it knows "
            f"{', '.join(map(str, classes[:10]))}"
        )
    order = np.argsort(classes)
    return order[np.searchsorted(classes, y, sorter=order)].astype(np.int64)


def _dataset(
    X: npt.NDArray[Any],
    codes: npt.NDArray[np.int64],
    classes: npt.NDArray[Any],
    sensitive: pd.DataFrame,
    names: tuple[str, ...],
) -> Dataset:
    sheet = Sheet(sensitive, "sensitive_features")
    groups, group_names = group_codes(sheet, list(sheet.frame.columns))
    return Dataset(
        name="rows given to fit",
        X=_single(X, names),
        y=codes,
        classes=tuple(map(str, classes)),
        groups=groups,
        group_names=group_names,
        feature_names=names,
        splits={"validation": np.arange(len(X))},
    )


def _single(X: npt.NDArray[Any], names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """X in float32, in which networks compute and are saved; values too large for it are refused by column."""
    with np.errstate(over="ignore"):
        single = X.astype(np.float32)
    if not np.isfinite(single).all():
        for at, name in enumerate(names):
            in_float32(X[:, at], name)
    return single
