"""The public benchmarks by name: data, encoding, groups, network widths and size limits as published.

The settings are those of NeuFair (Dasu et al., ISSTA 2024); german-sex is our own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fairmend.artifacts import Progress
from fairmend.errors import InputError
from fairmend.tabular.data.columns import (
    Columns,
    FloatArray,
    IndexArray,
    filled,
    indicator,
    known,
    min_max,
    numbers,
    standardised,
)
from fairmend.tabular.data.datasets import OUTSIDE, Dataset, split_rows, verified
from fairmend.tabular.data.layouts import CATALOGUE, RAW_TABLES, RawTable, tuples
from fairmend.tabular.data.sheets import Sheet
from fairmend.tabular.data.sources import FETCHABLE, fetch_table, locate


@dataclass(frozen=True)
class Preset:
    """One benchmark: a data set with compared groups and the settings it was published with.

    Attributes:
        name: such as "adult-sex".
        table: its raw table.
        column: what tells the groups apart, a column of the raw table.
        groups: names of the compared groups in the order of their codes, and their levels; without one, all others.
        label, positive: label column of the raw table and the value that is class 1.
        classes: names of class 0 and class 1.
        hidden: widths of the published networks' hidden layers (ReLU, one logit).
        max_drop, min_drop: size limits of the search in the published runs.
    """

    name: str
    table: RawTable
    column: str
    groups: Mapping[str, list[str]]
    label: str
    positive: str
    classes: tuple[str, str]
    hidden: tuple[int, ...]
    max_drop: int
    min_drop: int = 2

    @property
    def n_features(self) -> int:
        """Number of columns after encoding."""
        one_hot = [how for how in self.table.encoding.values() if isinstance(how, list)]
        left_out = 0 if self.table.every_level else len(one_hot)
        return len(self.table.encoding) - len(one_hot) + sum(map(len, one_hot)) - left_out


PRESETS: Mapping[str, Preset] = {
    name: Preset(name, **tuples(CATALOGUE["published"][entry["table"]] | entry | {"table": RAW_TABLES[entry["table"]]}))
    for name, entry in CATALOGUE["presets"].items()
}


def find_preset(name: str) -> Preset:
    """Return the preset of that name.

    Raises:
        InputError: no such preset; lists close names, or all.
    """
    if name in PRESETS:
        return PRESETS[name]
    close = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"presets are {', '.join(PRESETS)}"
    raise InputError(f"there is no preset {name!r}: {hint}")


def load_preset(
    name: str, data: str | Path | None = None, split_seed: int = 42, progress: Progress | None = None
) -> Dataset:
    """Load a benchmark, encoded and split as published.

    Args:
        name: a key of `PRESETS`.
        data: a file in one of the table's public layouts, or a folder that holds it; None takes the cache, and
            fetches what is not there.
        split_seed: seed of the 60/20/20 split, and so of the standardisation.
        progress: called with bytes done and total while something is downloaded.

    Raises:
        InputError: no such preset.
        DataError: the file is not the preset's table.
        ArtifactError: no file was given and none can be fetched.
    """
    preset = find_preset(name)
    path, source = locate(preset.table, data, progress)
    return encode_preset(preset, preset.table.read(path), split_seed, source)


def encode_preset(preset: Preset, raw: pd.DataFrame, split_seed: int, source: str = "") -> Dataset:
    """Encode and split a raw table that `preset.table.read` has read.

    Raises:
        DataError: values that the encoding does not know, or too few rows.
    """
    notes = list(preset.table.notes)
    if preset.table.rows is not None and len(raw) != preset.table.rows:
        notes.append(
            f"the table has {len(raw):,} rows, the published one {preset.table.rows:,}: splits and figures differ "
            "from the published"
        )
    splits = split_rows(len(raw), split_seed)
    cut = [name for name, how in preset.table.encoding.items() if how == "ten bins"]
    sheet = Sheet(raw.assign(**{f"{name} in bins": _ten_bins(numbers(raw, name)) for name in cut}))
    columns = encoded(preset.table, sheet, splits["train"])
    return verified(
        Dataset(
            name=preset.name,
            X=filled(tuple(columns), columns.values(), len(sheet)),
            y=indicator(sheet.levels(preset.label), preset.positive).astype(np.int64),
            classes=preset.classes,
            groups=_group_codes(preset, sheet),
            group_names=tuple(preset.groups),
            feature_names=tuple(columns),
            splits=splits,
            source=source,
            licence=preset.table.licence,
            notes=tuple(notes),
        )
    )


def encoded(table: RawTable, sheet: Sheet, train: IndexArray) -> Columns:
    """The feature columns of a raw table, encoded as it says.

    Args:
        table: which one.
        sheet: what `table.read` has read.
        train: rows to standardise on.

    Raises:
        DataError: values that the encoding does not know.
    """
    scalings: dict[str, Callable[[FloatArray], FloatArray]] = {
        "standardised": lambda values: standardised(values, train),
        "min-max": min_max,
        "ten bins": lambda values: min_max(_ten_bins(values)),
    }
    columns: Columns = {}
    for name, how in table.encoding.items():
        if how == "yes or no":
            columns[name] = indicator(known(sheet.levels(name), name, ("no", "yes")), "yes")
        elif isinstance(how, str):
            columns[name] = scalings[how](numbers(sheet.frame, name))
        elif isinstance(how, Mapping):
            found = known(sheet.levels(name), name, tuple(how))
            columns[name] = min_max(np.array([float(how[level]) for level in found.names])[found.codes])
        else:
            levels = [str(level) for level in how]
            found = known(sheet.levels(name), name, levels)
            for level in levels if table.every_level else levels[1:]:
                values = indicator(found, level)
                columns[f"{name}={level}"] = standardised(values, train) if table.every_level else values
    return columns


def _ten_bins(values: FloatArray) -> FloatArray:
    """Ten bins of equal width over all rows, numbered from 0."""
    return np.asarray(pd.cut(values, bins=10, labels=False), dtype=np.float64)


def _group_codes(preset: Preset, sheet: Sheet) -> IndexArray:
    """Group codes of shape (n,), -1 for rows outside the comparison."""
    found = sheet.levels(preset.column)
    groups = list(preset.groups.values())
    codes = {level: code for code, levels in enumerate(groups) for level in levels}
    others = groups.index([]) if [] in groups else OUTSIDE
    return np.array([codes.get(name, others) for name in found.names], dtype=np.int64)[found.codes]


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Put a raw table into the cache, by its name or a preset's, and return its path.

    Raises:
        InputError: no such table.
        ArtifactError: it cannot be fetched from here.
    """
    table = PRESETS[name].table if name in PRESETS else RAW_TABLES.get(name)
    if table is not None:
        return fetch_table(table, progress)
    close = difflib.get_close_matches(name, [*RAW_TABLES, *PRESETS], n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"data sets are {', '.join(FETCHABLE)}"
    raise InputError(f"there is no data set {name!r} to fetch: {hint}")
