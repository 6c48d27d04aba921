"""Sensitive features as people hand them over: a list, an array, a series, a frame or a dict, or a column of X."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_consistent_length

from fairmend.errors import DataError, InputError
from fairmend.tabular.data.sheets import as_frame, as_series, as_text, is_frame

_NAME = "sensitive_features"


def sensitive_frame(X: Any, given: Any, column: str | int | None = None) -> pd.DataFrame | None:
    """The columns that tell groups apart, one row per row of X; None if there are none.

    Args:
        X: (n_rows, n_features), an array or a frame.
        given: (n_rows,) or (n_rows, n_columns) of labels of any kind; also a dict, or a list, of columns of shape
            (n_rows,). Rows belong together by position, see `require_same_rows`.
        column: name or index of the column of X to take when nothing is given.

    Raises:
        DataError: another number of rows, rows in another order, or a column that X does not have.
        InputError: a name for an X without column names.
    """
    if given is None and column is not None:
        given = _column(X, column)
    if given is None:
        return None
    given = as_series(given)
    if isinstance(given, Mapping):
        return _joined(X, {as_text(name): values for name, values in given.items()})
    if isinstance(given, (list, tuple)) and _are_columns(given, len(X)):
        own = [getattr(values, "name", None) for values in given]  # a series has a name, or None; an array has none
        names = [f"group {at}" if name is None else as_text(name) for at, name in enumerate(own, start=1)]
        return _joined(X, dict(zip(names, given, strict=True)))
    if is_frame(given):
        given = as_frame(given, _NAME)
    values = given.to_numpy(dtype=object) if isinstance(given, pd.Series) else np.asarray(given, dtype=object)
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise DataError(
            f"{_NAME} need shape (n_rows,) or (n_rows, n_columns), or a dict of columns, got {values.shape}"
        )
    _require_length(X, values)
    require_same_rows(X, given, _NAME)
    if isinstance(given, pd.DataFrame):
        return given.reset_index(drop=True)
    if isinstance(given, pd.Series):
        return given.reset_index(drop=True).to_frame("group" if given.name is None else as_text(given.name))
    names = ["group"] if values.ndim == 1 else [f"group {index}" for index in range(1, values.shape[1] + 1)]
    return pd.DataFrame(values.reshape(len(values), -1), columns=names).infer_objects()


def require_same_rows(X: Any, other: Any, what: str) -> None:
    """Check that rows which are taken by position belong together by the labels of their pandas indices, too.

    Equal indices do, and so does a default one (0, 1, 2, ...) beside labels of another kind, because it says nothing.

    Raises:
        DataError: the same labels in another order, or other labels.
    """
    kinds = (pd.DataFrame, pd.Series)
    if not isinstance(X, kinds) or not isinstance(other, kinds) or len(X) != len(other) or X.index.equals(other.index):
        return
    ours, its = (values.index.to_flat_index().astype(object) for values in (X, other))  # labels of any kind compare
    same = bool(ours.isin(its).all() and its.isin(ours).all())
    if not same and any(index.equals(pd.RangeIndex(len(index))) for index in (X.index, other.index)):
        return
    raise DataError(
        f"the index of {what} has {'the labels of X in another order' if same else 'other labels than that of X'}, and "
        f"rows are taken by position: pass {what}.loc[X.index] if they belong together by label, or without the index "
        "(.to_numpy()) if they do so by position"
    )


def _joined(X: Any, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Columns of shape (n_rows,) as a frame."""
    if not columns:
        raise DataError(f"{_NAME} are an empty dict: name at least one column")
    made = {}
    for name, given in columns.items():
        values = as_series(given)
        if np.ndim(values) != 1:
            raise DataError(f"{_NAME}[{name!r}] needs shape (n_rows,), got {np.shape(values)}")
        _require_length(X, values)
        require_same_rows(X, values, f"{_NAME}[{name!r}]")
        made[name] = pd.Series(values).reset_index(drop=True)
    return pd.DataFrame(made)


def _are_columns(given: list[Any] | tuple[Any, ...], n_rows: int) -> bool:
    """Whether a list holds columns, not rows: series, or arrays and lists of n_rows entries."""
    if not given or not all(isinstance(values, (pd.Series, np.ndarray, list, tuple)) for values in given):
        return False
    if all(isinstance(values, pd.Series) for values in given):
        return True
    return len(given) != n_rows and all(np.ndim(values) == 1 and len(values) == n_rows for values in given)


def _require_length(X: Any, values: Any) -> None:
    try:
        check_consistent_length(X, values)
    except ValueError as error:
        raise DataError(f"{_NAME} need one entry per row of X: {error}") from None


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
