"""Predictions as fairlearn's MetricFrame, for people whose dashboards and checks are built on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import accuracy_score

from fairmend.errors import InputError


def metric_frame(y: npt.NDArray[Any], predicted: npt.NDArray[Any], groups: pd.DataFrame, classes: list[Any]) -> Any:
    """Counts, accuracy, selection rates and error rates by group as a `fairlearn.metrics.MetricFrame`.

    With two classes the rates are of the second, which is the positive one. With more, every class is judged against
    the rest, and its name stands behind that of the rate.

    Args:
        y, predicted: labels, shape (n_rows,).
        groups: the sensitive features, shape (n_rows, n_features).
        classes: all labels in order.

    Raises:
        InputError: fairlearn is not installed.
    """
    try:
        from fairlearn import metrics
    except ImportError as error:
        raise InputError(f"a MetricFrame needs fairlearn: pip install 'fairmend[fairlearn]' ({error})") from None

    def against_the_rest(rate: Callable[..., float], label: Any, y_true: Any, y_pred: Any) -> float:
        found: float = rate(np.asarray(y_true) == label, np.asarray(y_pred) == label, pos_label=True)
        return found

    figures: dict[str, Callable[..., Any]] = {"count": metrics.count, "accuracy": accuracy_score}
    for label in classes[1:] if len(classes) == 2 else classes:
        for rate in ("selection_rate", "true_positive_rate", "false_positive_rate"):
            name = rate if len(classes) == 2 else f"{rate}, {label}"
            figures[name] = partial(against_the_rest, getattr(metrics, rate), label)
    return metrics.MetricFrame(metrics=figures, y_true=y, y_pred=predicted, sensitive_features=groups)
