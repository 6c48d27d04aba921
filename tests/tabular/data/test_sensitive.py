"""Sensitive features in every form that people have them in, and rows that do not belong together."""

from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest

from fairmend.errors import DataError
from fairmend.tabular.data.sensitive import require_same_rows, sensitive_frame

X = pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=[7, 8, 9])
SEX, OLD = ["F", "M", "F"], [True, False, False]


def columns(given: Any, rows: Any = X) -> dict[str, list[Any]]:
    frame = sensitive_frame(rows, given)
    assert frame is not None
    assert frame.index.equals(pd.RangeIndex(3))
    return {str(name): frame[name].tolist() for name in frame}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sex": SEX, "old": np.array(OLD)}, {"sex": SEX, "old": OLD}),
        ({"sex": pd.Series(SEX, index=X.index)}, {"sex": SEX}),
        ({1: SEX}, {"1": SEX}),
        ([np.array(SEX), np.array(OLD)], {"group 1": SEX, "group 2": OLD}),
        ([SEX, OLD], {"group 1": SEX, "group 2": OLD}),
        ([pd.Series(SEX, name="sex"), pd.Series(OLD)], {"sex": SEX, "group 2": OLD}),
        ([["F", True], ["M", False], ["F", False]], {"group 1": SEX, "group 2": OLD}),
        (pd.DataFrame({"sex": SEX}, index=X.index), {"sex": SEX}),
        (pd.Series(SEX, name=("sex", "")), {"sex": SEX}),
        (pd.array([1, 0, 1], dtype="Int64"), {"group": [1, 0, 1]}),
        (pd.Categorical(SEX), {"group": SEX}),
        (pa.chunked_array([SEX]), {"": SEX}),
        (pa.table({"sex": SEX}), {"sex": SEX}),
    ],
)
def test_columns_come_as_arrays_lists_dicts_series_and_frames(given: Any, expected: dict[str, list[Any]]) -> None:
    assert columns(given) == expected


def test_columns_of_polars_are_taken() -> None:
    assert columns(polars.Series("sex", SEX)) == columns(polars.DataFrame({"sex": SEX})) == {"sex": SEX}


@pytest.mark.parametrize("kind", [pd.Series, lambda values, index: pd.DataFrame({"sex": values}, index=index)])
def test_rows_in_another_order_are_refused_not_taken_by_position(kind: Any) -> None:
    with pytest.raises(DataError, match=r"labels of X in another order.*\.loc\[X\.index\].*\.to_numpy\(\)"):
        sensitive_frame(X, kind(SEX, index=[9, 8, 7]))
    with pytest.raises(DataError, match=r"sensitive_features\['sex'\] has the labels of X in another order"):
        sensitive_frame(X, {"sex": pd.Series(SEX, index=[9, 8, 7])})
    with pytest.raises(DataError, match="other labels than that of X"):
        sensitive_frame(X, kind(SEX, index=[17, 18, 19]))


def test_a_default_index_beside_another_says_nothing() -> None:
    assert columns(pd.Series(SEX, name="sex")) == {"sex": SEX}
    assert columns(pd.Series(SEX, name="sex", index=[7, 8, 9]), X.reset_index(drop=True)) == {"sex": SEX}
    assert columns(pd.Series(SEX, name="sex", index=[2, 1, 0]), X.to_numpy()) == {"sex": SEX}
    with pytest.raises(DataError, match="another order"):
        require_same_rows(X.reset_index(drop=True), pd.Series(SEX, index=[2, 1, 0]), "y")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "empty dict"),
        ({"sex": SEX[:2]}, "one entry per row"),
        ({"sex": [SEX]}, r"\['sex'\] needs shape \(n_rows,\), got \(1, 3\)"),
        (SEX[:2], "one entry per row"),
        ("sex", "need shape"),
        (np.zeros((3, 1, 1)), "need shape"),
    ],
)
def test_what_does_not_fit_is_refused(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sensitive_frame(X, given)


INDICES = {
    "several levels": pd.MultiIndex.from_tuples([(0, "a"), (0, "b"), (1, "a")]),
    "dates": pd.date_range("2020", periods=3),
    "periods": pd.period_range("2020", periods=3, freq="D"),
    "intervals": pd.interval_range(0, 3),
    "text": pd.Index(["a", "b", "c"]),
    "numbers of Arrow": pd.Index([7, 8, 9], dtype="int64[pyarrow]"),
    "of all kinds": pd.Index([1, "a", (2, None)], dtype=object),
}


@pytest.mark.parametrize("other", INDICES)
@pytest.mark.parametrize("kind", INDICES)
def test_labels_of_any_kinds_are_compared(kind: str, other: str) -> None:
    """pandas' own comparison raises its own errors for some pairs of kinds."""
    given = X.set_axis(INDICES[kind])
    require_same_rows(given, pd.Series(SEX), "y")
    require_same_rows(X.reset_index(drop=True), pd.Series(SEX, index=INDICES[other]), "y")
    if kind == other:
        require_same_rows(given, pd.Series(SEX, index=INDICES[other]), "y")
        with pytest.raises(DataError, match="in another order"):
            require_same_rows(given, pd.Series(SEX, index=INDICES[other][::-1]), "y")
    else:
        with pytest.raises(DataError, match="other labels than"):
            require_same_rows(given, pd.Series(SEX, index=INDICES[other]), "y")
