"""Reading each preset's raw table, in whichever of its public layouts a file has it, into one layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fairmend.errors import DataError
from fairmend.tabular.data.columns import known, numbers, text
from fairmend.tabular.data.delimited import first_line
from fairmend.tabular.data.sheets import Sheet
from fairmend.tabular.data.tables import is_text, load_table

_ADULT = (
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship"),
    *("race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income"),
)
_ADULT_NUMBERS = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
_ADULT_OTHER_NAMES = {
    **dict.fromkeys(("class", "income_per_year"), "income"),
    "gender": "sex",
    "educational_num": "education_num",
}
_ADULT_MISSING = ("workclass", "occupation")  # columns with the level Missing: "?" at UCI, empty at OpenML
_ADULT_TEXT = ("workclass", "marital_status", "occupation", "relationship", "race", "sex", "income")

_ADULT_LAYOUTS = "UCI's adult.data, or a table with its column names, as OpenML and fairlearn give it"

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


_BANK_UNKNOWN = ("job", "education", "contact", "poutcome")  # columns with the level unknown

# OpenML's credit-g: its column, UCI's, and UCI's code for every word; none for numbers.
CREDIT_G: dict[str, tuple[str, dict[str, str]]] = {
    "checking_status": ("status", {"<0": "A11", "0<=X<200": "A12", ">=200": "A13", "no checking": "A14"}),
    "duration": ("duration", {}),
    "credit_history": (
        "credit_history",
        {
            "no credits/all paid": "A30",
            "all paid": "A31",
            "existing paid": "A32",
            "delayed previously": "A33",
            "critical/other existing credit": "A34",
        },
    ),
    "purpose": (
        "purpose",
        {
            "new car": "A40",
            "used car": "A41",
            "furniture/equipment": "A42",
            "radio/tv": "A43",
            "domestic appliance": "A44",
            "repairs": "A45",
            "education": "A46",
            "vacation": "A47",
            "retraining": "A48",
            "business": "A49",
            "other": "A410",
        },
    ),
    "credit_amount": ("credit_amount", {}),
    "savings_status": (
        "savings",
        {"<100": "A61", "100<=X<500": "A62", "500<=X<1000": "A63", ">=1000": "A64", "no known savings": "A65"},
    ),
    "employment": ("employment", {"unemployed": "A71", "<1": "A72", "1<=X<4": "A73", "4<=X<7": "A74", ">=7": "A75"}),
    "installment_commitment": ("installment_rate", {}),
    "personal_status": (
        "personal_status",
        {
            "male div/sep": "A91",
            "female div/dep/mar": "A92",
            "male single": "A93",
            "male mar/wid": "A94",
            "female single": "A95",
        },
    ),
    "other_parties": ("other_debtors", {"none": "A101", "co applicant": "A102", "guarantor": "A103"}),
    "residence_since": ("residence_since", {}),
    "property_magnitude": (
        "property",
        {"real estate": "A121", "life insurance": "A122", "car": "A123", "no known property": "A124"},
    ),
    "age": ("age", {}),
    "other_payment_plans": ("installment_plans", {"bank": "A141", "stores": "A142", "none": "A143"}),
    "housing": ("housing", {"rent": "A151", "own": "A152", "for free": "A153"}),
    "existing_credits": ("existing_credits", {}),
    "job": (
        "job",
        {
            "unemp/unskilled non res": "A171",
            "unskilled resident": "A172",
            "skilled": "A173",
            "high qualif/self emp/mgmt": "A174",
        },
    ),
    "num_dependents": ("dependents", {}),
    "own_telephone": ("telephone", {"none": "A191", "yes": "A192"}),
    "foreign_worker": ("foreign_worker", {"yes": "A201", "no": "A202"}),
    "class": ("credit", {"good": "1", "bad": "2"}),
}


def read_adult(path: Path) -> pd.DataFrame:
    """Read Adult from UCI's file without a header (adult.data) or a table with one, in the published order of rows.

    The published networks were trained on a copy whose rows are sorted by capital loss, then capital gain, both
    descending, and otherwise as at UCI. A stable sort makes every copy that one, so that the splits are the same.
    A missing workclass or occupation is the level Missing, whether it is "?", as at UCI, or empty, as at OpenML.

    Raises:
        DataError: missing columns, unknown incomes, or not a table.
    """
    frame = _without_header(path, _ADULT, ",") if _starts_with_data(path) else _table(path)
    names = {name: "".join("_" if mark in ".- " else mark for mark in name.lower()) for name in frame.columns}
    frame = frame.rename(columns=names).rename(columns=_ADULT_OTHER_NAMES)
    _need(frame, (*_ADULT_NUMBERS, *_ADULT_TEXT), path, _ADULT_LAYOUTS)
    frame = _filled(frame, _ADULT_MISSING, "Missing")
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
    raw = path.is_file() and is_text(path) and "age_cat" in first_line(path)
    frame = _two_years(path) if raw else _table(path)
    if "age_cat" in frame.columns:
        return _code_compas(frame, path)
    _need(frame, COMPAS, path, _COMPAS_LAYOUTS)
    return pd.DataFrame({name: np.asarray(numbers(frame, name), dtype=np.int64) for name in COMPAS})


def _two_years(path: Path) -> pd.DataFrame:
    try:
        # The file names decile_score and priors_count twice, with equal values; pandas renames the second ones.
        return pd.read_csv(path, usecols=lambda name: name in _COMPAS_RAW)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _code_compas(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
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
    """Read Bank Marketing from UCI's bank-full.csv, or as OpenML (V1, V2 ...) or UCI's own package gives it.

    Raises:
        DataError: missing columns or unknown labels.
    """
    frame = _table(path)
    if list(frame.columns) == [*(f"V{at}" for at in range(1, len(BANK))), "Class"]:
        frame = frame.set_axis(list(BANK), axis=1)
    frame = frame.rename(columns={"day_of_week": "day", "deposit": "y"})
    _need(frame, BANK, path, "UCI's bank-full.csv (17 columns; not bank-additional), or OpenML's copy of it")
    frame = _filled(frame, _BANK_UNKNOWN, "unknown")
    frame["y"] = text(frame, "y").replace({"1": "no", "2": "yes"})
    known(frame, "y", ("no", "yes"))
    return frame[list(BANK)]


def read_default(path: Path) -> pd.DataFrame:
    """Read Default of Credit Card Clients: UCI's column names, or X1 to X23 and Y, as OpenML and UCI's package have it.

    Raises:
        DataError: missing columns.
    """
    frame = _table(path)
    anonymous = [*(f"X{at}" for at in range(1, len(DEFAULT))), "Y"]
    upper = {name: name.upper() for name in frame.columns if name.upper() in anonymous}
    if sorted(upper.values()) == sorted(anonymous):
        frame = frame.rename(columns=upper).rename(columns=dict(zip(anonymous, DEFAULT, strict=True)))
        if (
            str(frame["LIMIT_BAL"].iloc[0]) == "LIMIT_BAL"
        ):  # the spreadsheet has both kinds of names, one below the other
            frame = frame.iloc[1:].reset_index(drop=True)
            frame = frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce") for name in DEFAULT})
    labels = ("default.payment.next.month", "default payment next month", "default_payment_next_month")
    frame = frame.rename(columns=dict.fromkeys(labels, "label"))
    if "PAY_0" not in frame.columns:
        frame = frame.rename(columns={"PAY_1": "PAY_0"})
    _need(
        frame,
        DEFAULT,
        path,
        "UCI's table as CSV (LIMIT_BAL, SEX ... default.payment.next.month), or with X1 to X23 and Y",
    )
    return frame[list(DEFAULT)]


def read_german(path: Path) -> pd.DataFrame:
    """Read German credit: UCI's german.data, which has no header and is separated by spaces, or tables with a header.

    Such are UCI's package (Attribute1 to Attribute20, class) and OpenML's credit-g, whose levels are words.

    Raises:
        DataError: other columns, or unknown labels.
    """
    if is_text(path) and not (path.is_file() and first_line(path).count(",") >= len(_GERMAN) - 1):
        frame = _without_header(path, _GERMAN, " ")
    else:
        frame = _table(path)
        attributes = [*(f"Attribute{at}" for at in range(1, len(_GERMAN))), "class"]
        if list(frame.columns) == attributes:
            frame = frame.set_axis(list(_GERMAN), axis=1)
        elif "checking_status" in frame.columns:
            frame = _from_words(frame, path)
        _need(frame, _GERMAN, path, "UCI's german.data, or OpenML's credit-g")
    known(frame, "credit", ("1", "2"))
    return frame[list(_GERMAN)]


def _from_words(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """OpenML's credit-g with UCI's codes for its words."""
    _need(frame, tuple(CREDIT_G), path, "UCI's german.data, or OpenML's credit-g")
    made = {}
    for name, (column, words) in CREDIT_G.items():
        if not words:
            made[column] = frame[name]
            continue
        found = text(frame, name).str.strip("'\"")
        known(pd.DataFrame({name: found}), name, tuple(words))
        made[column] = found.map(words)
    return pd.DataFrame(made)


def _table(path: Path) -> pd.DataFrame:
    """Any table, with text for names."""
    return Sheet(load_table(path)).frame


def _filled(frame: pd.DataFrame, columns: Sequence[str], level: str) -> pd.DataFrame:
    """Missing text as the level that the preset has for it."""
    return frame.assign(**{name: frame[name].astype(object).where(frame[name].notna(), level) for name in columns})


def _starts_with_data(path: Path) -> bool:
    if not path.is_file() or not is_text(path):
        return False
    return first_line(path).split(",")[0].strip().strip('"').isdigit()


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
