"""MEPS panel 21, fiscal year 2016: from AHRQ's own file to the 138 features of the public fairness benchmark.

The selection of rows and columns follows the definition of AIF360's MEPSDataset21 (Bellamy et al., 2018): panel 21
only, rows with unknown answers removed, 5 number columns, then one column per answer of 36 questions, none dropped.
AHRQ's terms forbid passing the rows on, so the file is always the user's own copy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairmend.errors import DataError
from fairmend.tabular.data.columns import Columns, IndexArray, known, numbers, one_hot, standardised
from fairmend.tabular.data.tables import load_table

FILE_NAMES = ("h192.csv", "h192.csv.gz", "h192.ssp", "h192.dta")
HOW_TO_GET = (
    "get the MEPS file HC-192, 2016 Full Year Consolidated Data File, from AHRQ (meps.ahrq.gov, data files, HC-192), "
    "after reading its data use agreement; unpack it and keep its name: h192.ssp (SAS transport), h192.dta (Stata), "
    "or h192.csv if you export it"
)

_PANEL = 21
_NUMBERS = ("AGE", "RACE", "PCS42", "MCS42", "K6SUM42")
_YES_NO = (-1, 1, 2)

# Answers of panel 21 in 2016 that remain after the selection; -1 is "inapplicable".
_ANSWERS: dict[str, tuple[int, ...]] = {
    "REGION": (1, 2, 3, 4),
    "SEX": (1, 2),
    "MARRY": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
    "FTSTU": (-1, 1, 2, 3),
    "ACTDTY": (1, 2, 3, 4),
    "HONRDC": (1, 2, 3, 4),
    "RTHLTH": (-1, 1, 2, 3, 4, 5),
    "MNHLTH": (-1, 1, 2, 3, 4, 5),
    **dict.fromkeys(("HIBPDX", "CHDDX", "ANGIDX", "MIDX", "OHRTDX", "STRKDX", "EMPHDX", "CHBRON"), _YES_NO),
    **dict.fromkeys(("CHOLDX", "CANCERDX", "DIABDX", "JTPAIN", "ARTHDX"), _YES_NO),
    "ARTHTYPE": (-1, 1, 2, 3),
    "ASTHDX": (1, 2),
    **dict.fromkeys(("ADHDADDX", "PREGNT", "WLKLIM", "ACTLIM", "SOCLIM", "COGLIM"), _YES_NO),
    **dict.fromkeys(("DFHEAR42", "DFSEE42", "ADSMOK42"), _YES_NO),
    "PHQ242": (-1, 0, 1, 2, 3, 4, 5, 6),
    "EMPST": (-1, 1, 2, 3, 4),
    "POVCAT": (1, 2, 3, 4, 5),
    "INSCOV": (1, 2, 3),
}

# Names of AHRQ that carry the round or year, by the names of the benchmark.
_AHRQ_NAMES: dict[str, str] = {
    **{"FTSTU": "FTSTU53X", "MARRY": "MARRY53X", "AGE": "AGE53X", "POVCAT": "POVCAT16", "INSCOV": "INSCOV16"},
    **{
        name: f"{name}53"
        for name in (
            *("ACTDTY", "HONRDC", "RTHLTH", "MNHLTH", "CHBRON", "JTPAIN", "PREGNT", "WLKLIM", "ACTLIM", "SOCLIM"),
            *("COGLIM", "EMPST", "REGION"),
        )
    },
}

_VISITS = ("OBTOTV16", "OPTOTV16", "ERTOT16", "IPNGTD16", "HHTOTD16")
_EDUCATION = ("EDUCYR", "HIDEG")  # select rows, but are not features
_ALWAYS_KNOWN = ("REGION", "AGE", "MARRY", "ASTHDX")  # "inapplicable" removes the row too
_MANY_VISITS = 10
_SAS_ZERO = 1e-70


def read_meps(path: Path) -> pd.DataFrame:
    """Read AHRQ's file h192 (CSV, SAS transport or Stata) and select the rows of the benchmark.

    Returns the columns of the benchmark under its names, with RACE 1 for White non-Hispanic and 0 for all others, and
    UTILIZATION 1 for 10 or more visits.

    Raises:
        DataError: a file that cannot be read, lacks columns, or has no rows of panel 21.
    """
    raw = _read(path)
    raw.columns = pd.Index([str(name).upper() for name in raw.columns])
    wanted = {_AHRQ_NAMES.get(name, name): name for name in ("AGE", *_NUMBERS[2:], *_ANSWERS)}
    needed = ["PANEL", "RACEV2X", "HISPANX", *_EDUCATION, *_VISITS, *wanted]
    missing = [name for name in needed if name not in raw.columns]
    if missing:
        raise DataError(f"{path} lacks the MEPS columns {missing}: {HOW_TO_GET}")
    raw = raw[needed].apply(pd.to_numeric, errors="coerce")
    frame = raw.rename(columns=wanted)
    frame["RACE"] = ((raw["HISPANX"] == 2) & (raw["RACEV2X"] == 1)).astype(np.int64)
    frame["UTILIZATION"] = (raw[list(_VISITS)].sum(axis=1) >= _MANY_VISITS).astype(np.int64)
    answered = [name for name in _ANSWERS if name not in ("SEX", "REGION", "MARRY")] + list(_EDUCATION)
    keep = (
        (frame["PANEL"] == _PANEL)
        & (frame[list(_ALWAYS_KNOWN)] >= 0).all(axis=1)
        & (frame[answered] >= -1).all(axis=1)
        & frame.notna().all(axis=1)
    )
    if not keep.any():
        raise DataError(f"{path} has no usable rows of panel {_PANEL}: is it the file of 2016? {HOW_TO_GET}")
    selected: pd.DataFrame = frame.loc[keep, [*_NUMBERS, *_ANSWERS, "UTILIZATION"]]
    return selected.reset_index(drop=True)


def encode_meps(frame: pd.DataFrame, train: IndexArray) -> Columns:
    """Encode MEPS: 5 number columns and 133 answers, all standardised on the train rows."""
    columns: Columns = {name: numbers(frame, name) for name in _NUMBERS}
    for name, answers in _ANSWERS.items():
        levels = [str(answer) for answer in answers]
        known(frame, name, levels)
        columns |= one_hot(frame, name, levels, drop_first=False)
    return {name: standardised(values, train) for name, values in columns.items()}


def white(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return 1 for White non-Hispanic persons and 0 for all others, shape (n,)."""
    return np.asarray(frame["RACE"], dtype=np.int64)


def _read(path: Path) -> pd.DataFrame:
    suffix = path.suffix.lower()
    try:
        if suffix in (".ssp", ".xpt"):
            sas: pd.DataFrame = pd.read_sas(path, format="xport")
            numeric = sas.select_dtypes("number")
            # pandas reads a transport file's zero as 5.4e-79, the smallest number of that format.
            sas[numeric.columns] = numeric.mask(numeric.abs() < _SAS_ZERO, 0.0)
            return sas
        if suffix == ".dta":
            stata: pd.DataFrame = pd.read_stata(path, convert_categoricals=False)
            return stata
    except (ValueError, OSError, KeyError, IndexError, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read: {error}. {HOW_TO_GET}") from error
    return load_table(path)
