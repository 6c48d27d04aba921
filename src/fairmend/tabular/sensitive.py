"""Sensitive features as people hand them over: a list, an array, a series or a frame, or a column of the features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_consistent_length

from fairmend.errors import DataError, InputError


def sensitive_frame(X: Any, given: Any, column: str | int | None = None) -> pd.DataFrame | None:
    """The columns that tell groups apart, one row per row of X; None if there are none.

    Args:
        X: (n_rows, n_features), an array or a frame.
        given: (n_rows,) or (n_rows, n_columns) of labels of any kind.
        column: name or index of the column of X to take when nothing is given.

    Raises:
        DataError: another number of rows, or a column that X does not have.
        InputError: a name for an X without column names.
    """
    if given is None and column is not None:
        given = _column(X, column)
    if given is None:
        return None
    values = np.asarray(given, dtype=object)
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise DataError(f"sensitive_features need shape (n_rows,) or (n_rows, n_columns), got {values.shape}")
    try:
        check_consistent_length(X, values)
    except ValueError as error:
        raise DataError(f"sensitive_features need one entry per row of X: {error}") from None
    if isinstance(given, pd.DataFrame):
        return given.reset_index(drop=True).rename(columns=str)
    if isinstance(given, pd.Series):
        return given.reset_index(drop=True).to_frame("group" if given.name is None else str(given.name))
    names = ["group"] if values.ndim == 1 else [f"group {index}" for index in range(1, values.shape[1] + 1)]
    return pd.DataFrame(values.reshape(len(values), -1), columns=names).infer_objects()


def _column(X: Any, column: str | int) -> Any:
    if isinstance(X, pd.DataFrame):
        if column in X.columns:
            return X[column]
        if isinstance(column, str):
            raise DataError(f"sensitive_column {column!r} is not in X: it has {', '.join(map(str, X.columns[:20]))}")
        return X.iloc[:, column]
    if isinstance(column, str):
        raise InputError(f"sensitive_column {column!r} is a name, but X has no column names: give its index")
    values = np.asarray(X)
    if values.ndim != 2 or not -values.shape[1] <= column < values.shape[1]:
        raise DataError(f"sensitive_column {column} does not exist in X of shape {values.shape}")
    return values[:, column]
