"""Delimited text: CSV with comma, semicolon or tab, packed or not, read in pieces so that it is in memory once."""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from fairmend.errors import DataError
from fairmend.files import encoding_of
from fairmend.tabular.data.sheets import refuse_duplicates

# pandas' own list also swallows "None" and "n/a", which are ordinary levels in many tables.
MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]

_FIRST_LINE = 1 << 26  # characters; beyond that the file is no table
_PIECE_CELLS = 1 << 23
UNPACKED = 1 << 30  # bytes that any packed file may become,
RATIO = 200  # and how much larger than itself beyond that: ordinary tables shrink to a tenth
_SEPARATOR = re.compile(r'"?sep=(.|\\t)"?,*', re.IGNORECASE)


def first_line(path: Path) -> str:
    """Return the first line of a text file, unpacked if it is a .gz, without its line end.

    Raises:
        DataError: the file is not text, not readable, or its first line has no end.
    """
    try:
        with _open_text(path) as file:
            line = file.readline(_FIRST_LINE)
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise _unreadable(path, error) from error
    if len(line) == _FIRST_LINE:
        raise DataError(
            f"data file {path} is not a table: its first line has more than {_FIRST_LINE:,} characters; the first line "
            "names the columns"
        )
    return line.rstrip("\r\n")


def read_delimited(path: Path) -> pd.DataFrame:
    """Read a table whose first line names the columns.

    Raises:
        DataError: not such a table.
    """
    header = first_line(path)
    if not header.strip():
        raise DataError(f"data file {path} is empty: it needs a header line and data")
    if _SEPARATOR.fullmatch(header):
        raise DataError(
            f"data file {path} begins with {header!r}, which tells a spreadsheet what separates its columns: remove "
            "that line, so that the first one names the columns"
        )
    split = {mark: _fields(header, mark) for mark in ",;\t"}
    delimiter = max(split, key=lambda mark: len(split[mark]))
    names = split[delimiter]
    if len(names) < 2 or "\0" in header:
        raise DataError(
            f"data file {path} is not a table: its first line {header[:60]!r} has one column; columns are separated "
            "by comma, semicolon or tab, and the first line names them"
        )
    refuse_duplicates([name.strip() for name in names], f"data file {path}")
    try:
        frame = _read_pieces(path, delimiter, len(names))
    except DataError:
        raise
    except pd.errors.ParserWarning as error:  # the only one that reading by these options gives
        raise DataError(
            f"data file {path} is not a table: its rows have more fields than the {len(names)} columns that the first "
            "line names. If they begin with row names (as R's write.table writes them), name that column too"
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"data file {path} is not a table: {error}. Every row needs {len(names)} columns") from error
    except UnicodeError as error:
        raise _unreadable(path, error) from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"data file {path} is damaged or not text: {error}") from error
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    return frame


def _read_pieces(path: Path, delimiter: str, n_columns: int) -> pd.DataFrame:
    """Read piece by piece; a column that is text in one piece and not in another is text in all, as in one reading."""
    pieces = _pieces(path, delimiter, n_columns, None)
    families = [[_family(dtype) for dtype in piece.dtypes] for piece in pieces]
    unlike = [name for name, *found in zip(pieces[0].columns, *families, strict=True) if len(set(found)) > 1]
    frame = pieces[0] if len(pieces) == 1 else pd.concat(pieces, ignore_index=True)
    if unlike:
        pieces.clear()
        texts = pd.concat(_pieces(path, delimiter, n_columns, unlike), ignore_index=True)
        frame[unlike] = texts[unlike]
    return frame


def _pieces(path: Path, delimiter: str, n_columns: int, only: list[str] | None) -> list[pd.DataFrame]:
    with _open_text(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        with pd.read_csv(
            file,
            sep=delimiter,
            index_col=False,
            usecols=only,
            dtype=None if only is None else str,
            skipinitialspace=True,
            keep_default_na=False,
            na_values=MISSING,
            low_memory=False,
            chunksize=max(1, _PIECE_CELLS // n_columns),
        ) as reader:
            return list(reader)


def _family(dtype: Any) -> str:
    """What a piece of a column was read as; whole and other numbers, and what is missing, are one."""
    kind = dtype.kind if isinstance(dtype, np.dtype) else "O"
    return "boolean" if kind == "b" else "number" if kind in "fiu" else "text"


def _fields(line: str, mark: str) -> list[str]:
    """The fields of a line; one if that mark does not separate it into fields of a size that csv takes."""
    try:
        return next(csv.reader([line], delimiter=mark))
    except csv.Error:
        return [line]


def _open_text(path: Path) -> IO[str]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    binary = _Unpacked(path) if packed else path.open("rb")
    try:
        start = binary.peek(4)[:4]
    except BaseException:
        binary.close()
        raise
    return io.TextIOWrapper(binary, encoding=encoding_of(start), newline="")


class _Unpacked(gzip.GzipFile):
    """The content of a .gz, which ends with a DataError where it grows out of all proportion."""

    def __init__(self, path: Path) -> None:
        self._path, self._most = path, max(UNPACKED, RATIO * path.stat().st_size)
        with path.open("rb") as packed:
            packed.seek(-4, io.SEEK_END)
            self._require(int.from_bytes(packed.read(4), "little"))  # what it says itself, if it is not lying
        super().__init__(path, "rb")

    def read1(self, size: int = -1) -> bytes:
        found = super().read1(size)
        self._require(self.tell())
        return found

    def _require(self, size: int) -> None:
        if size > self._most:
            raise DataError(
                f"data file {self._path} unpacks to more than {self._most:,} bytes, out of all proportion to its size: "
                "is it a table? If so, unpack it first"
            )


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, UnicodeDecodeError) and error.encoding.startswith("utf-8"):
        return DataError(
            f"data file {path} is not a readable text table: it is not UTF-8 ({error}). Save it as UTF-8 (in a "
            "spreadsheet: CSV UTF-8); such bytes are Latin-1 or Windows-1252 text, or no text at all"
        )
    return DataError(f"data file {path} is not a readable text table ({error}): is it CSV?")
