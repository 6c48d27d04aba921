"""Tables of any library, with names of any kind."""

from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest

from fairmend.errors import DataError
from fairmend.tabular.data.columns import levels
from fairmend.tabular.data.datasets import Dataset, make_dataset
from fairmend.tabular.data.features import in_order
from fairmend.tabular.data.sheets import Sheet

N = 60
FRAME = pd.DataFrame(
    {
        "age": np.arange(float(N)),
        "income": np.arange(N) % 7,
        "sex": ["F", "M"] * (N // 2),
        "hired": [0, 0, 1, 1] * (N // 4),
    }
)


def plain() -> Dataset:
    return make_dataset(FRAME, "hired", ["sex"])


def same(found: Dataset) -> bool:
    expected = plain()
    return found.feature_names == expected.feature_names and all(
        np.array_equal(getattr(found, part), getattr(expected, part)) for part in ("X", "y", "groups")
    )


def test_numbers_as_names_are_taken_as_numbers_and_as_text() -> None:
    frame = FRAME.set_axis(range(4), axis=1)
    for label, sensitive in ((3, [2]), (3, 2), ("3", "2"), (np.int64(3), [np.int64(2)])):
        made = make_dataset(frame, label, sensitive)
        assert made.feature_names == ("0", "1", "2=M")
        np.testing.assert_array_equal(made.X, plain().X)
    assert make_dataset(frame, 3, 2, features=[1]).feature_names == ("1",)


def test_names_of_several_levels_are_joined() -> None:
    frame = FRAME.set_axis(
        pd.MultiIndex.from_tuples([("age", ""), ("income", "2020"), ("sex", ""), ("hired", "")]), axis=1
    )
    for label, sensitive in ((("hired", ""), [("sex", "")]), (("hired", ""), ("sex", "")), ("hired", "sex")):
        assert make_dataset(frame, label, sensitive).feature_names == ("age", "income_2020", "sex=M")


def test_names_that_are_one_as_text_are_refused() -> None:
    with pytest.raises(DataError, match=r"its names as text, has the columns \['1'\] more than once"):
        make_dataset(FRAME.set_axis([1, "1", "sex", "hired"], axis=1), "hired", "sex")


def test_tables_of_arrow_are_taken() -> None:
    assert same(make_dataset(pa.Table.from_pandas(FRAME), "hired", "sex"))


def test_tables_of_polars_are_taken_and_lazy_ones_refused_by_name() -> None:
    table = polars.DataFrame({name: FRAME[name].tolist() for name in FRAME})
    assert same(make_dataset(table, "hired", "sex"))
    with pytest.raises(DataError, match=r"polars\.LazyFrame, which is lazy: collect it first"):
        make_dataset(table.lazy(), "hired", "sex")


@pytest.mark.parametrize("given", [np.eye(3), {"age": [1]}, [[1]], "people.csv", None])
def test_what_is_no_table_is_refused_by_name(given: Any) -> None:
    with pytest.raises(DataError, match="pass a pandas, polars or pyarrow table"):
        make_dataset(given, "hired", "sex")


def test_a_table_is_left_as_it_is_and_its_columns_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = FRAME.set_index("sex")
    before = given.copy()
    read = []
    monkeypatch.setattr(
        "fairmend.tabular.data.sheets.levels", lambda frame, name: read.append(name) or levels(frame, name)
    )
    make_dataset(FRAME, "hired", "sex")
    make_dataset(given, "hired", "sex")
    pd.testing.assert_frame_equal(given, before)
    assert read == ["hired", "sex"] * 2


def test_levels_are_text_in_the_order_of_rows() -> None:
    sheet = Sheet(
        pd.DataFrame({"v": [2.0, 1.0, 2.0], "w": pd.Series([1, " 1", "b"], dtype=object), "t": [True, False, True]})
    )
    assert sheet.levels("v").names == ["2", "1"]
    assert sheet.levels("v").codes.tolist() == [0, 1, 0]
    assert sheet.levels("w").names == ["1", "b"]
    assert sheet.levels("w").codes.tolist() == [0, 0, 1]
    assert sheet.levels("t").names == ["True", "False"]


@pytest.mark.parametrize("levels", [("nan", "2", "1", "10"), ("1", "01", "1.0", "0")])
def test_groups_have_one_order_whatever_the_order_of_a_set(levels: tuple[str, ...]) -> None:
    """Sets are in another order in every process, and runs go on by the fingerprint of groups in order."""
    assert len({tuple(in_order(given)) for given in permutations(levels)}) == 1


def test_endless_and_very_large_levels_are_levels() -> None:
    frame = pd.DataFrame({"v": [np.inf, 0.0], "w": pd.Series([10**400, 1], dtype=object)})
    assert Sheet(frame).levels("v").names == ["inf", "0.0"]
    assert Sheet(frame).levels("w").names == [str(10**400), "1"]
