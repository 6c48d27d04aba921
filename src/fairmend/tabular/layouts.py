"""Reading each preset's raw table, in whichever of its public layouts a file has it, into one layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fairmend.errors import DataError
from fairmend.tabular.columns import known, numbers, text
from fairmend.tabular.delimited import first_line
from fairmend.tabular.tables import load_table

_ADULT = (
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship"),
    *("race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income"),
)
_ADULT_NUMBERS = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
_ADULT_TEXT = ("workclass", "marital_status", "occupation", "relationship", "race", "sex", "income")

COMPAS = ("sex", "age", "race", "d", "e", "f", "g", "h", "i", "j", "k", "l", "label")
_COMPAS_RAW = (
    *("sex", "age_cat", "race", "juv_fel_count", "decile_score", "priors_count", "c_charge_degree", "is_recid"),
    *("is_violent_recid", "v_decile_score", "two_year_recid"),
)

_COMPAS_LAYOUTS = "the coded file (columns sex, age, race, d to l, label) or ProPublica's compas-scores-two-years.csv"

BANK = (
    *("age", "job", "marital", "education", "default", "balance", "housing", "loan", "contact", "day", "month"),
    *("duration", "campaign", "pdays", "previous", "poutcome", "y"),
)

DEFAULT = (
    *("LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE", "PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"),
    *(f"BILL_AMT{month}" for month in range(1, 7)),
    *(f"PAY_AMT{month}" for month in range(1, 7)),
    "label",
)

_GERMAN = (
    *("status", "duration", "credit_history", "purpose", "credit_amount", "savings", "employment"),
    *("installment_rate", "personal_status", "other_debtors", "residence_since", "property", "age"),
    *("installment_plans", "housing", "existing_credits", "job", "dependents", "telephone", "foreign_worker", "credit"),
)


def read_adult(path: Path) -> pd.DataFrame:
    """Read Adult from UCI's file without a header (adult.data) or a CSV with one, in the published order of rows.

    The published networks were trained on a copy whose rows are sorted by capital loss, then capital gain, both
    descending, and otherwise as at UCI. A stable sort makes every copy that one, so that the splits are the same.

    Raises:
        DataError: missing columns, unknown incomes, or not a table.
    """
    frame = _without_header(path, _ADULT, ",") if _starts_with_data(path) else load_table(path)
    names = {name: "".join("_" if mark in ".- " else mark for mark in name.lower()) for name in frame.columns}
    frame = frame.rename(columns=names).rename(columns={"class": "income", "income_per_year": "income"})
    _need(frame, (*_ADULT_NUMBERS, *_ADULT_TEXT), path, "UCI's adult.data, or a CSV with its column names")
    frame = frame.assign(**{name: text(frame, name).replace("?", "Missing") for name in _ADULT_TEXT})
    frame["income"] = frame["income"].str.rstrip(".")
    known(frame, "income", ("<=50K", ">50K"))
    frame = frame.assign(**{name: numbers(frame, name) for name in _ADULT_NUMBERS})
    order = ["capital_loss", "capital_gain"]
    return frame.sort_values(order, ascending=False, kind="stable").reset_index(drop=True)


def read_compas(path: Path) -> pd.DataFrame:
    """Read COMPAS from the coded file released with NeuFair or from ProPublica's two-years file.

    The 12 published columns are: sex (1 female), age category (0 to 2), race (1 Caucasian), juvenile felonies, decile
    score, priors, charge degree (1 felony), is_recid, is_violent_recid, decile score, violence decile score, priors.
    Of the two-years file only the columns behind them are read: names and free text stay in the file.

    Raises:
        DataError: missing columns or unknown levels.
    """
    if path.is_file() and "age_cat" in first_line(path):
        return _code_compas(path)
    frame = load_table(path)
    _need(frame, COMPAS, path, _COMPAS_LAYOUTS)
    return pd.DataFrame({name: np.asarray(numbers(frame, name), dtype=np.int64) for name in COMPAS})


def _code_compas(path: Path) -> pd.DataFrame:
    try:
        # The file names decile_score and priors_count twice, with equal values; pandas renames the second ones.
        frame = pd.read_csv(path, usecols=lambda name: name in _COMPAS_RAW)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    _need(frame, _COMPAS_RAW, path, _COMPAS_LAYOUTS)
    ages = ("Less than 25", "25 - 45", "Greater than 45")
    for column, levels in (("sex", ("Male", "Female")), ("age_cat", ages), ("c_charge_degree", ("F", "M"))):
        known(frame, column, levels)
    columns = {
        "sex": text(frame, "sex") == "Female",
        "age": text(frame, "age_cat").map({age: code for code, age in enumerate(ages)}),
        "race": text(frame, "race") == "Caucasian",
        "d": numbers(frame, "juv_fel_count"),
        "e": numbers(frame, "decile_score"),
        "f": numbers(frame, "priors_count"),
        "g": text(frame, "c_charge_degree") == "F",
        "h": numbers(frame, "is_recid"),
        "i": numbers(frame, "is_violent_recid"),
        "j": numbers(frame, "decile_score"),
        "k": numbers(frame, "v_decile_score"),
        "l": numbers(frame, "priors_count"),
        "label": numbers(frame, "two_year_recid"),
    }
    return pd.DataFrame({name: np.asarray(values, dtype=np.int64) for name, values in columns.items()})


def read_bank(path: Path) -> pd.DataFrame:
    """Read Bank Marketing from UCI's bank-full.csv.

    Raises:
        DataError: missing columns or unknown labels.
    """
    frame = load_table(path)
    _need(frame, BANK, path, "UCI's bank-full.csv (17 columns; not bank-additional)")
    known(frame, "y", ("no", "yes"))
    return frame[list(BANK)]


def read_default(path: Path) -> pd.DataFrame:
    """Read Default of Credit Card Clients from a CSV with UCI's column names.

    Raises:
        DataError: missing columns.
    """
    frame = load_table(path)
    labels = ("default.payment.next.month", "default payment next month", "default_payment_next_month")
    frame = frame.rename(columns=dict.fromkeys(labels, "label"))
    _need(frame, DEFAULT, path, "UCI's table as CSV (LIMIT_BAL, SEX ... default.payment.next.month)")
    return frame[list(DEFAULT)]


def read_german(path: Path) -> pd.DataFrame:
    """Read German credit from UCI's german.data, which has no header and is separated by spaces.

    Raises:
        DataError: not 21 columns, or unknown labels.
    """
    frame = _without_header(path, _GERMAN, " ")
    known(frame, "credit", ("1", "2"))
    return frame


def _starts_with_data(path: Path) -> bool:
    return path.is_file() and first_line(path).split(",")[0].strip().strip('"').isdigit()


def _without_header(path: Path, names: Sequence[str], delimiter: str) -> pd.DataFrame:
    line = first_line(path) if path.is_file() else ""
    if len(line.split(delimiter)) != len(names):
        raise DataError(
            f"{path} is not the expected table: its first line needs {len(names)} columns separated by {delimiter!r}"
        )
    try:
        return pd.read_csv(path, sep=delimiter, names=list(names), skipinitialspace=True, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _need(frame: pd.DataFrame, columns: Sequence[str], where: str | Path, layouts: str) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(f"{where} lacks the columns {missing}: this preset reads {layouts}")
