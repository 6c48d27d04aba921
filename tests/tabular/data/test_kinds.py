"""What columns hold: numbers in every form that is one, and numbers that a few entries or a way of writing spoilt."""

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fairmend.errors import DataError
from fairmend.tabular.data.datasets import Dataset, make_dataset

N = 120
AGES = 20 + np.arange(N) % 45


def made(values: Any, encode: Any) -> Dataset:
    frame = pd.DataFrame({"value": values, "sex": ["F", "M"] * (N // 2), "hired": [0, 0, 1, 1] * (N // 4)})
    return make_dataset(frame, "hired", "sex", features=["value"], encode=encode)


def with_odd(odd: Any, *rows: int) -> list[Any]:
    return [odd if row in rows else str(age) for row, age in enumerate(AGES)]


NUMBERS: dict[str, tuple[Any, Any]] = {
    "Decimals": ([Decimal(int(age)) / 4 for age in AGES], AGES / 4),
    "Python numbers": (pd.Series([int(age) if age % 2 else float(age) for age in AGES], dtype=object), AGES),
    "nullable whole numbers": (pd.array(AGES, dtype="Int64"), AGES),
    "nullable numbers": (pd.array(AGES / 4, dtype="Float64"), AGES / 4),
    "nullable booleans": (pd.array(AGES % 2 == 0, dtype="boolean"), AGES % 2 == 0),
    "Python booleans": (pd.Series([bool(age % 2) for age in AGES], dtype=object), AGES % 2),
    "numbers of Arrow": (pd.array(AGES, dtype=pd.ArrowDtype(pa.int32())), AGES),
    "decimals of Arrow": ([Decimal(int(age)) for age in AGES], AGES),
    "sparse numbers": (pd.arrays.SparseArray(AGES), AGES),
    "half precision": (AGES.astype(np.float16), AGES),
    "categories that are numbers": (pd.Categorical(AGES % 3), AGES % 3),
    "numbers as text": ([f" {age / 4} " for age in AGES], AGES / 4),
    "numbers as Arrow's text": (pd.array(AGES.astype(str), dtype="string[pyarrow]"), AGES),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_are_numbers_whatever_they_are_kept_as(case: str) -> None:
    values, expected = NUMBERS[case]
    np.testing.assert_array_equal(made(values, "none").X[:, 0], np.asarray(expected, dtype=np.float32))


@pytest.mark.parametrize("encode", ["none", "standard"])
@pytest.mark.parametrize("odd", ["?", "-", "#N/A", "unknown", "", "n.a.", "1O"])
def test_entries_that_spoil_numbers_are_shown_with_rows_and_count(odd: str, encode: str) -> None:
    with pytest.raises(DataError) as refusal:
        made(with_odd(odd, 7, 30, 31, 99), encode)
    assert (
        f"'value' holds text among 116 numbers: 4 entries that are no numbers ({odd!r} in data row 8, 31, 32, ...)"
        in (str(refusal.value))
    )


@pytest.mark.parametrize("encode", ["none", "standard"])
@pytest.mark.parametrize(
    "values",
    [
        [int(age) if age != 50 else "?" for age in AGES],
        pd.array(with_odd("?", 30, 75), dtype="string[pyarrow]"),
        pd.Series([float(age) if age != 50 else "?" for age in AGES], dtype=object),
    ],
)
def test_so_are_they_in_mixed_columns_of_python_and_in_arrows_text(values: Any, encode: str) -> None:
    with pytest.raises(DataError, match=r"entries that are no numbers \('\?' in data row 31, 76"):
        made(values, encode)


def test_a_few_numbers_that_are_written_otherwise_are_shown_too() -> None:
    message = r"1 entry that is no number \('1,200' in data row 8\)\. Some look like thousands separators"
    with pytest.raises(DataError, match=message):
        made(with_odd("1,200", 7), "standard")


def test_of_many_odd_entries_the_first_are_shown_and_all_counted() -> None:
    values = [f"bad {row}" if row % 10 == 0 else str(age) for row, age in enumerate(AGES)]
    with pytest.raises(DataError, match=r"12 entries .*'bad 0' in data row 1; .*and 7 other values"):
        made(values, "standard")


WRITTEN: dict[str, tuple[Any, str]] = {
    "decimal commas": (
        [f"{age / 4}".replace(".", ",") for age in AGES],
        r"120 values with decimal commas.*decimal=','",
    ),
    "thousands": ([f"{age * 1000:,}" for age in AGES], r"thousands separators, such as '20,000'.*thousands=','"),
    "thousands and cents": ([f"{age * 1000:,}.50" for age in AGES], "thousands separators"),
    "Swiss thousands": ([f"{age}'000" for age in AGES], "thousands separators"),
    "percent": ([f"{age} %" for age in AGES], "120 values with percent signs, such as '20 %'"),
    "dollars": ([f"${age * 1000:,}" for age in AGES], "currency signs"),
    "euros": ([f"{age},50 €" for age in AGES], "currency signs"),
    "euros and a mark": (
        ["?", *(f"{age} €" for age in AGES[1:])],
        r"119 values with currency.*1 entry .*'\?' in data row 1",
    ),
    "dates": ([f"19{age}-01-31" for age in AGES], "dates as text: 120 such as '1920-01-31'"),
    "German dates": ([f"31.01.19{age}" for age in AGES], "dates as text"),
    "times": ([f"19{age}-01-31T08:00:00" for age in AGES], "dates as text"),
    "units": ([f"{age} kg" for age in AGES], "120 values with units"),
    "objects": ([[age] for age in AGES], "objects such as"),
    "dates of Python": ([datetime.date(1900 + int(age), 1, 31) for age in AGES], "holds dates"),
    "time stamps": (pd.to_datetime([f"19{age}-01-31" for age in AGES]), "holds dates"),
    "dates of Arrow": (
        pd.array([datetime.date(2000, 1, 31)] * N, dtype=pd.ArrowDtype(pa.date32())),
        "holds dates",
    ),
    "durations": (pd.to_timedelta(AGES, unit="D"), "holds durations"),
    "periods": (pd.period_range("2000-01", periods=N, freq="M"), "holds periods"),
    "complex numbers": (AGES + 1j, "holds complex numbers"),
    "missing in nullable": (pd.array([None, *AGES[1:]], dtype="Int64"), "1 values that are not finite.*data row 1"),
    "missing in booleans": (pd.array([None] + [True] * (N - 1), dtype="boolean"), "1 values that are not finite"),
    "too large for float32": (
        np.where(AGES == 30, 1.8e300, AGES),
        "3 values that are too large for float32.*data row 11",
    ),
    "just too large": (np.where(AGES == 30, 3.5e38, AGES), "3 values that are too large for float32"),
}


@pytest.mark.parametrize("encode", ["none", "standard"])
@pytest.mark.parametrize("case", WRITTEN)
def test_what_is_no_plain_number_is_named_and_never_encoded_in_silence(case: str, encode: str) -> None:
    values, message = WRITTEN[case]
    with pytest.raises(DataError, match=message):
        made(values, encode)


def test_numbers_as_text_are_no_levels_unless_a_person_says_so() -> None:
    codes = (AGES % 3).astype(str)
    with pytest.raises(DataError, match=r"numbers written as text, such as .*category if they are codes"):
        made(list(codes), "standard")
    assert made(pd.Categorical(codes), "standard").feature_names == ("value=1", "value=2")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (np.array(["no", "yes"])[AGES % 2], ("value=yes",)),
        (np.array(["True", "False"])[AGES % 2], ("value=True",)),
        (np.array(["1 room", "2 rooms"])[AGES % 2], ("value=2 rooms",)),
        (np.array([b"a", b"b"])[AGES % 2].astype(object), ("value=b",)),
        (pd.cut(AGES, [0, 40, 99]), ("value=(40, 99]",)),
    ],
)
def test_levels_stay_levels(values: Any, names: tuple[str, ...]) -> None:
    assert made(values, "standard").feature_names == names


def test_a_sensitive_number_with_odd_entries_is_no_set_of_groups() -> None:
    frame = pd.DataFrame({"x": AGES, "age": with_odd("?", 7), "hired": [0, 0, 1, 1] * (N // 4)})
    with pytest.raises(DataError, match=r"'\?' in data row 8.*bin it"):
        make_dataset(frame, "hired", "age")
