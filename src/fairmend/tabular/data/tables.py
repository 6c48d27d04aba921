"""Reading a person's table: delimited text, Parquet, or NumPy's .npz."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fairmend.errors import DataError
from fairmend.tabular.data.delimited import RATIO, UNPACKED, read_delimited
from fairmend.tabular.data.sheets import FEATURES, refuse_duplicates

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".data")
PARQUET_SUFFIXES = (".parquet", ".pq")
_TOO_LARGE = "leave columns out that are not needed, or take a sample of the rows"
_PLAIN = "fiubUS"  # kinds of dtype that are columns of a table
# What zipfile (RuntimeError: an encrypted member) and NumPy's reading of a header raise on hostile content.
_DAMAGED = (
    *(ValueError, OSError, EOFError, KeyError, TypeError, OverflowError, SyntaxError, RuntimeError, RecursionError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
_NEEDS = "it needs X (n, n_features) and y (n,), as numpy.savez(path, X=..., y=...) writes them"


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
            frame = _read_npz(path)
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


def _read_npz(path: Path) -> pd.DataFrame:
    """Read `X`, `y`, `feature_names` and the columns beside them, see `load_table`.

    Raises:
        DataError: another kind of file, members that are no arrays, or arrays that do not fit together.
    """
    if not zipfile.is_zipfile(path):
        raise DataError(f"data file {path} is not an .npz archive: write it with numpy.savez(path, X=..., y=...)")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {info.filename.removesuffix(".npy"): _array(archive, info, path) for info in archive.infolist()}
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(
            f"data file {path} cannot be read: {error}. Arrays of Python objects are never loaded; "
            "use numbers or fixed-width strings"
        ) from error
    if "X" not in arrays or "y" not in arrays:
        raise DataError(f"data file {path} holds the arrays {sorted(arrays)}: {_NEEDS}")
    features = arrays.pop("X")
    if features.ndim != 2 or features.dtype.kind not in "fiub" or features.size == 0:
        raise DataError(
            f"X in {path} has shape {features.shape} and type {features.dtype}: it needs shape (n, n_features) "
            "and numbers"
        )
    given = arrays.pop("feature_names", None)
    if given is None:
        names = [f"x{column}" for column in range(features.shape[1])]
    elif given.ndim != 1 or len(given) != features.shape[1]:
        counted = f"{len(given)} names" if given.ndim == 1 else f"the shape {given.shape}"
        raise DataError(f"feature_names in {path} has {counted} for {features.shape[1]} columns of X: one for each")
    else:
        names = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in given.tolist()]
    for name, array in arrays.items():
        if array.shape != (len(features),):
            raise DataError(f"array {name!r} in {path} has shape {array.shape}: it needs ({len(features)},), as X has")
    refuse_duplicates([*names, *arrays], f"data file {path}")
    frame = pd.concat([pd.DataFrame(features, columns=names), pd.DataFrame(arrays)], axis=1)
    frame.attrs[FEATURES] = names
    return frame


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> npt.NDArray[Any]:
    """One member, after a look at what it declares: memory is taken for what is there only."""
    where = f"{info.filename!r} in {path}"
    if info.file_size > max(UNPACKED, RATIO * info.compress_size):
        raise DataError(f"{where} unpacks to {info.file_size:,} bytes, out of all proportion: is it a table?")
    with archive.open(info) as file:
        if not info.filename.endswith(".npy") or file.read(6) != b"\x93NUMPY":
            raise DataError(f"{where} is not an array: {_NEEDS}, and nothing but arrays beside them")
    with archive.open(info) as file:
        shape, dtype = _header(file, where)
        declared = int(np.prod(shape, dtype=object)) * dtype.itemsize if shape else dtype.itemsize
        if dtype.hasobject:
            raise DataError(f"{where} holds Python objects, which are never loaded: use numbers or fixed-width strings")
        if declared > info.file_size:
            raise DataError(
                f"{where} declares the shape {shape}, {declared:,} bytes, but holds {info.file_size:,}: it is damaged"
            )
        if dtype.kind not in _PLAIN:
            raise DataError(f"{where} has the type {dtype}: use numbers or fixed-width strings")
    with archive.open(info) as file:
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise DataError(f"{where} has version {version} of NumPy's format: write it with numpy.savez")
    shape, _, dtype = read(file)
    if any(size < 0 for size in shape):
        raise DataError(f"{where} declares the shape {shape}: it is damaged")
    return shape, dtype
