"""Reading a person's table: delimited text, Parquet, or NumPy's .npz."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fairmend.errors import DataError
from fairmend.tabular.data.delimited import RATIO, UNPACKED, read_delimited
from fairmend.tabular.data.npz import read_npz
from fairmend.tabular.data.sheets import refuse_duplicates

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".data")
PARQUET_SUFFIXES = (".parquet", ".pq")
_TOO_LARGE = "leave columns out that are not needed, or take a sample of the rows"


def load_table(path: str | Path) -> pd.DataFrame:
    """Read a table from CSV (comma, semicolon or tab; also .gz), Parquet or .npz.

    An .npz holds `X` of shape (n, n_features), `y` of shape (n,), optionally `feature_names`, and one array of shape
    (n,) per further column, such as the sensitive ones; only the columns of `X` become features.

    Raises:
        DataError: no such file, not a table, empty, too large, duplicate column names, or an array that holds Python
            objects.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"data file {path} does not exist or is not a file: check the path")
    plain = plain_suffix(path)
    try:
        if plain in TEXT_SUFFIXES:
            frame = read_delimited(path)
        elif plain in PARQUET_SUFFIXES:
            frame = _read_parquet(path)
        elif plain == ".npz":
            frame = read_npz(path)
        else:
            allowed = ", ".join((*TEXT_SUFFIXES, *PARQUET_SUFFIXES, ".npz"))
            raise DataError(f"data file {path} has the ending {plain!r}: allowed are {allowed} (text also with .gz)")
    except MemoryError as error:
        raise DataError(f"data file {path} does not fit into the memory of this machine: {_TOO_LARGE}") from error
    if frame.empty:
        raise DataError(f"data file {path} has no rows: it needs a header line and data")
    return frame


def plain_suffix(path: Path) -> str:
    """The ending that says what a file holds, in lower case: that before .gz, if there is one."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])


def is_text(path: Path) -> bool:
    """Whether a file's ending says that it is a text table."""
    return plain_suffix(path) in TEXT_SUFFIXES


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        with pa.OSFile(str(path)) as source:
            stored = pq.ParquetFile(source)
            _require_proportion(path, stored.metadata)
            table = stored.read()
        refuse_duplicates(table.column_names, f"data file {path}")
        for place, field in enumerate(table.schema):
            if _is_foreign(field.type):
                table = table.set_column(place, field.name, _stored(table.column(place)))
        # Column by column, each freed in Arrow once pandas has it: the table does not lie in memory twice.
        frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    except DataError:
        raise
    except (pa.ArrowException, ValueError, OSError, NotImplementedError, KeyError, RecursionError) as error:
        raise DataError(f"data file {path} is not a readable Parquet table: {error}") from error
    return frame


def _is_foreign(kind: pa.DataType) -> bool:
    """Whether pandas has no like of a type, such as JSON text or one-byte booleans."""
    if not isinstance(kind, pa.BaseExtensionType):
        return False
    try:
        kind.to_pandas_dtype()
    except NotImplementedError:
        return True
    return False


def _stored(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of an extension type as what it is stored as."""
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def _require_proportion(path: Path, metadata: pq.FileMetaData) -> None:
    """Refuse a few bytes that say one value billions of times, before memory is taken for them."""
    size = metadata.num_rows * metadata.num_columns * 8
    if size > max(UNPACKED, RATIO * path.stat().st_size):
        raise DataError(
            f"data file {path} unpacks to {metadata.num_rows:,} rows of {metadata.num_columns:,} columns, out of all "
            f"proportion to its size: {_TOO_LARGE}"
        )


def release_memory() -> None:
    """Give back what reading left in Arrow's pool, once a table is no longer needed."""
    pa.default_memory_pool().release_unused()
