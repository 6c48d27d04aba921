"""Reading a person's table: CSV with any of three delimiters, Parquet, or NumPy's .npz."""

from __future__ import annotations

import csv
import gzip
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pandas as pd

from fairmend.errors import DataError

FEATURES = "features"
"""Key in a frame's `attrs`: the columns that are features, where the file itself says so (.npz)."""

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".data")
PARQUET_SUFFIXES = (".parquet", ".pq")

# pandas' own list also swallows "None" and "n/a", which are ordinary levels in many tables.
_MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]


def load_table(path: str | Path) -> pd.DataFrame:
    """Read a table from CSV (comma, semicolon or tab; also .gz), Parquet or .npz.

    An .npz holds `X` of shape (n, n_features), `y` of shape (n,), optionally `feature_names`, and one array of shape
    (n,) per further column, such as the sensitive ones; only the columns of `X` become features.

    Raises:
        DataError: no such file, not a table, empty, duplicate column names, or an array that holds Python objects.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"data file {path} does not exist or is not a file: check the path")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    plain = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if plain in TEXT_SUFFIXES:
        frame = _read_text(path)
    elif plain in PARQUET_SUFFIXES:
        frame = _read_parquet(path)
    elif plain == ".npz":
        frame = _read_npz(path)
    else:
        allowed = ", ".join((*TEXT_SUFFIXES, *PARQUET_SUFFIXES, ".npz"))
        raise DataError(f"data file {path} has the ending {plain!r}: allowed are {allowed} (text also with .gz)")
    if frame.empty:
        raise DataError(f"data file {path} has no rows: it needs a header line and data")
    return frame


def first_line(path: Path) -> str:
    """Return the first line of a text file, unpacked if it is a .gz, without its line end.

    Raises:
        DataError: the file is not text, or not readable.
    """
    try:
        with _open_text(path) as file:
            return file.readline(1 << 20).rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"data file {path} is not a readable text table ({error}): is it CSV?") from error


def refuse_duplicates(names: Iterable[Any], where: str) -> None:
    """Check that column names are different from each other.

    Raises:
        DataError: names the columns that occur twice.
    """
    seen: set[Any] = set()
    twice = sorted({str(name) for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    if twice:
        raise DataError(f"{where} has the columns {twice} more than once: give each its own name")


def _open_text(path: Path) -> IO[str]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    # utf-8-sig, because spreadsheets put a byte-order mark before the first column name.
    opener = gzip.open if packed else open
    return cast(IO[str], opener(path, "rt", encoding="utf-8-sig", newline=""))


def _read_text(path: Path) -> pd.DataFrame:
    header = first_line(path)
    if not header.strip():
        raise DataError(f"data file {path} is empty: it needs a header line and data")
    split = {mark: next(csv.reader([header], delimiter=mark)) for mark in ",;\t"}
    delimiter = max(split, key=lambda mark: len(split[mark]))
    names = split[delimiter]
    if len(names) < 2 or "\0" in header:
        raise DataError(
            f"data file {path} is not a table: its first line {header[:60]!r} has one column; columns are separated "
            "by comma, semicolon or tab, and the first line names them"
        )
    refuse_duplicates([name.strip() for name in names], f"data file {path}")
    try:
        with _open_text(path) as file, warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                file,
                sep=delimiter,
                index_col=False,
                skipinitialspace=True,
                keep_default_na=False,
                na_values=_MISSING,
                low_memory=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise DataError(f"data file {path} is not a table: {error}. Every row needs {len(names)} columns") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"data file {path} is damaged or not text: {error}") from error
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except (ValueError, OSError, NotImplementedError, KeyError) as error:
        raise DataError(f"data file {path} is not a readable Parquet table: {error}") from error
    frame.columns = pd.Index([str(name) for name in frame.columns])
    refuse_duplicates(frame.columns, f"data file {path}")
    return frame.reset_index(drop=True)


def _read_npz(path: Path) -> pd.DataFrame:
    if not zipfile.is_zipfile(path):
        raise DataError(f"data file {path} is not an .npz archive: write it with numpy.savez(path, X=..., y=...)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"data file {path} cannot be read: {error}. Arrays of Python objects are never loaded; "
            "use numbers or fixed-width strings"
        ) from error
    if "X" not in arrays or "y" not in arrays:
        raise DataError(f"data file {path} holds the arrays {sorted(arrays)}: it needs X (n, n_features) and y (n,)")
    features = arrays.pop("X")
    if features.ndim != 2 or features.dtype.kind not in "fiub" or features.shape[1] == 0:
        raise DataError(
            f"X in {path} has shape {features.shape} and type {features.dtype}: it needs shape (n, n_features) "
            "and numbers"
        )
    numbered = np.array([f"x{column}" for column in range(features.shape[1])])
    names = [str(name) for name in arrays.pop("feature_names", numbered)]
    if len(names) != features.shape[1]:
        raise DataError(f"feature_names in {path} has {len(names)} names for {features.shape[1]} columns of X")
    for name, array in arrays.items():
        if array.shape != (len(features),):
            raise DataError(f"array {name!r} in {path} has shape {array.shape}: it needs ({len(features)},), as X has")
    refuse_duplicates([*names, *arrays], f"data file {path}")
    frame = pd.concat([pd.DataFrame(features, columns=names), pd.DataFrame(arrays)], axis=1)
    frame.attrs[FEATURES] = names
    return frame
