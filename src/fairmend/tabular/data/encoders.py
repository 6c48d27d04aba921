"""The published encodings of Adult, COMPAS, Bank Marketing and Default of Credit Card Clients, and German credit.

They give the matrices that the networks released with NeuFair (Dasu et al., ISSTA 2024) were trained on, column by
column. Each takes the raw table in one layout (`layouts` makes it) and the train rows, on which it standardises.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fairmend.tabular.data.columns import (
    Columns,
    FloatArray,
    IndexArray,
    known,
    min_max,
    numbers,
    one_hot,
    standardised,
    yes_no,
)

ADULT_CATEGORIES: dict[str, tuple[str, ...]] = {
    "workclass": (
        *("Federal-gov", "Local-gov", "Missing", "Never-worked", "Private"),
        *("Self-emp-inc", "Self-emp-not-inc", "State-gov", "Without-pay"),
    ),
    "marital_status": (
        *("Divorced", "Married-AF-spouse", "Married-civ-spouse", "Married-spouse-absent"),
        *("Never-married", "Separated", "Widowed"),
    ),
    "occupation_group": ("Managerial-professional", "Office-sales", "Service-manual", "Skilled-technical", "Missing"),
    "relationship": ("Husband", "Not-in-family", "Other-relative", "Own-child", "Unmarried", "Wife"),
    "race": ("Amer-Indian-Eskimo", "Asian-Pac-Islander", "Black", "Other", "White"),
    "sex": ("Female", "Male"),
}

# The published grouping has no names; which occupations share a column was recovered from the released networks'
# group counts. The order of the groups is theirs, the names are ours. The 9 rows of Armed-Forces change no count
# wherever they are put.
ADULT_OCCUPATIONS: dict[str, str] = {
    **dict.fromkeys(
        ("Armed-Forces", "Exec-managerial", "Prof-specialty", "Protective-serv"), "Managerial-professional"
    ),
    **dict.fromkeys(("Adm-clerical", "Sales"), "Office-sales"),
    **dict.fromkeys(("Farming-fishing", "Handlers-cleaners", "Other-service", "Priv-house-serv"), "Service-manual"),
    **dict.fromkeys(("Craft-repair", "Machine-op-inspct", "Tech-support", "Transport-moving"), "Skilled-technical"),
    "Missing": "Missing",
}

ADULT_NUMBERS = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")

BANK_CATEGORIES: dict[str, tuple[str, ...]] = {
    "job": (
        *("admin.", "blue-collar", "entrepreneur", "housemaid", "management", "retired", "self-employed"),
        *("services", "student", "technician", "unemployed", "unknown"),
    ),
    "marital": ("divorced", "married", "single"),
    "education": ("primary", "secondary", "tertiary", "unknown"),
    "contact": ("cellular", "telephone", "unknown"),
    "poutcome": ("failure", "other", "success", "unknown"),
}

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

DEFAULT_CATEGORIES: dict[str, tuple[str, ...]] = {
    "SEX": ("1", "2"),
    "EDUCATION": ("0", "1", "2", "3", "4", "5", "6"),
    "MARRIAGE": ("0", "1", "2", "3"),
}

GERMAN_CATEGORIES: dict[str, tuple[str, ...]] = {
    "status": ("A11", "A12", "A13", "A14"),
    "credit_history": ("A30", "A31", "A32", "A33", "A34"),
    "purpose": ("A40", "A41", "A410", "A42", "A43", "A44", "A45", "A46", "A47", "A48", "A49"),
    "savings": ("A61", "A62", "A63", "A64", "A65"),
    "employment": ("A71", "A72", "A73", "A74", "A75"),
    "personal_status": ("A91", "A92", "A93", "A94", "A95"),
    "other_debtors": ("A101", "A102", "A103"),
    "property": ("A121", "A122", "A123", "A124"),
    "installment_plans": ("A141", "A142", "A143"),
    "housing": ("A151", "A152", "A153"),
    "job": ("A171", "A172", "A173", "A174"),
    "telephone": ("A191", "A192"),
    "foreign_worker": ("A201", "A202"),
}


def encode_adult(frame: pd.DataFrame, train: IndexArray) -> Columns:
    """Encode Adult: 28 one-hot columns, then 6 standardised ones; education and native country are left out."""
    known(frame, "occupation", tuple(ADULT_OCCUPATIONS))
    frame = frame.assign(occupation_group=frame["occupation"].map(ADULT_OCCUPATIONS))
    columns = _fixed_one_hot(frame, ADULT_CATEGORIES)
    return columns | {name: standardised(numbers(frame, name), train) for name in ADULT_NUMBERS}


def encode_compas(frame: pd.DataFrame, train: IndexArray) -> Columns:
    """Encode COMPAS: all 12 columns scaled to [0, 1] over the whole file."""
    return {name: min_max(numbers(frame, name)) for name in frame.columns if name != "label"}


def encode_bank(frame: pd.DataFrame, train: IndexArray) -> Columns:
    """Encode Bank Marketing: 10 number columns in file order with age in 10 bins, then 22 one-hot columns."""
    scaled = {"age": age_bins(frame).astype(np.float64), "day": numbers(frame, "day"), "month": _month(frame)}
    columns: Columns = {}
    for name in frame.columns:
        if name in scaled:
            columns[name] = min_max(scaled[name])
        elif name in ("default", "housing", "loan"):
            columns[name] = yes_no(frame, name)
        elif name not in BANK_CATEGORIES and name != "y":
            columns[name] = standardised(numbers(frame, name), train)
    return columns | _fixed_one_hot(frame, BANK_CATEGORIES)


def age_bins(frame: pd.DataFrame) -> IndexArray:
    """Cut Bank Marketing's age into 10 bins of equal width over the whole file, numbered from 0."""
    return np.asarray(pd.cut(numbers(frame, "age"), bins=10, labels=False), dtype=np.int64)


def encode_default(frame: pd.DataFrame, train: IndexArray) -> Columns:
    """Encode Default of Credit Card Clients: PAY_* scaled to [0, 1], amounts and age standardised, then one-hot."""
    columns: Columns = {}
    for name in frame.columns:
        if name.startswith("PAY_") and not name.startswith("PAY_AMT"):
            columns[name] = min_max(numbers(frame, name))
        elif name not in DEFAULT_CATEGORIES and name != "label":
            columns[name] = standardised(numbers(frame, name), train)
    return columns | _fixed_one_hot(frame, DEFAULT_CATEGORIES)


def encode_german(frame: pd.DataFrame, train: IndexArray) -> Columns:
    """Encode German credit, our own way: 13 one-hot attributes, then 7 standardised ones."""
    rest = [name for name in frame.columns if name not in GERMAN_CATEGORIES and name != "credit"]
    columns = _fixed_one_hot(frame, GERMAN_CATEGORIES)
    return columns | {name: standardised(numbers(frame, name), train) for name in rest}


def _month(frame: pd.DataFrame) -> FloatArray:
    known(frame, "month", MONTHS)
    return np.asarray(frame["month"].map({month: float(i) for i, month in enumerate(MONTHS, start=1)}), np.float64)


def _fixed_one_hot(frame: pd.DataFrame, categories: dict[str, tuple[str, ...]]) -> Columns:
    columns: Columns = {}
    for name, levels in categories.items():
        known(frame, name, levels)
        columns |= one_hot(frame, name, levels)
    return columns
