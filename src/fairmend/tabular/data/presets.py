"""The public benchmarks by name: data, encoding, groups, network widths and size limits as published.

The settings are those of NeuFair (Dasu et al., ISSTA 2024); german-sex is our own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairmend.artifacts import Progress
from fairmend.errors import InputError
from fairmend.tabular.data.columns import Columns, IndexArray, matrix, text
from fairmend.tabular.data.datasets import OUTSIDE, Dataset, split_rows, verified
from fairmend.tabular.data.encoders import (
    age_bins,
    encode_adult,
    encode_bank,
    encode_compas,
    encode_default,
    encode_german,
)
from fairmend.tabular.data.meps import encode_meps, white
from fairmend.tabular.data.sources import FETCHABLE, RAW_TABLES, RawTable, fetch_table, locate

__all__ = ["FETCHABLE", "PRESETS", "Preset", "encode_preset", "fetch", "find_preset", "load_preset"]

GroupRule = Callable[[pd.DataFrame], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Preset:
    """One benchmark: a data set with a group rule and the settings it was published with.

    Attributes:
        name: such as "adult-sex".
        table: its raw table.
        encode: raw table and train rows to feature columns.
        label, positive: label column of the raw table and the value that is class 1.
        classes: names of class 0 and class 1.
        group_names: names of the compared groups, by code.
        groups: raw table to group codes, -1 for rows outside the comparison.
        n_features: columns after encoding.
        hidden: widths of the published networks' hidden layers (ReLU, one logit).
        min_drop, max_drop: size limits of the search in the published runs.
        notes: what a reader of its figures should know.
    """

    name: str
    table: RawTable
    encode: Callable[[pd.DataFrame, IndexArray], Columns]
    label: str
    positive: str
    classes: tuple[str, str]
    group_names: tuple[str, ...]
    groups: GroupRule
    n_features: int
    hidden: tuple[int, ...]
    min_drop: int
    max_drop: int
    notes: tuple[str, ...] = ()


def _is(column: str, value: str) -> GroupRule:
    def rule(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
        return np.asarray(text(frame, column) == value, dtype=np.int64)

    return rule


def _bank_ages(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Bins 0 and 3 of ten: about 18 to 25 and 41 to 48 years."""
    bins = age_bins(frame)
    return np.where(bins == 0, 0, np.where(bins == 3, 1, OUTSIDE)).astype(np.int64)


def _german_sex(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """A92 and A95 are the answers for women; marital status is the rest of the answer."""
    return np.asarray(~text(frame, "personal_status").isin(("A92", "A95")), dtype=np.int64)


_COMPAS_NOTES = (
    "two published features (is_recid, is_violent_recid) are recorded after the screening and all but contain the "
    "label: the F1 is not that of a forecast",
)


def _adult(name: str, group_names: tuple[str, ...], groups: GroupRule) -> Preset:
    return Preset(
        name=name,
        table=RAW_TABLES["adult"],
        encode=encode_adult,
        label="income",
        positive=">50K",
        classes=("<=50K", ">50K"),
        group_names=group_names,
        groups=groups,
        n_features=34,
        hidden=(64, 128, 64),
        min_drop=2,
        max_drop=50,
    )


def _compas(name: str, group_names: tuple[str, ...], groups: GroupRule) -> Preset:
    return Preset(
        name=name,
        table=RAW_TABLES["compas"],
        encode=encode_compas,
        label="label",
        positive="1",
        classes=("no recidivism", "recidivism"),
        group_names=group_names,
        groups=groups,
        n_features=12,
        hidden=(32, 32),
        min_drop=2,
        max_drop=24,
        notes=_COMPAS_NOTES,
    )


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        _adult("adult-sex", ("Female", "Male"), _is("sex", "Male")),
        _adult("adult-race", ("not White", "White"), _is("race", "White")),
        _compas("compas-sex", ("Male", "Female"), _is("sex", "1")),
        _compas("compas-race", ("not Caucasian", "Caucasian"), _is("race", "1")),
        Preset(
            name="bank-age",
            table=RAW_TABLES["bank"],
            encode=encode_bank,
            label="y",
            positive="yes",
            classes=("no", "yes"),
            group_names=("age 18-25", "age 41-48"),
            groups=_bank_ages,
            n_features=32,
            hidden=(32, 32),
            min_drop=2,
            max_drop=24,
        ),
        Preset(
            name="default-sex",
            table=RAW_TABLES["default"],
            encode=encode_default,
            label="label",
            positive="1",
            classes=("paid", "default"),
            group_names=("Male", "Female"),
            groups=_is("SEX", "2"),
            n_features=30,
            hidden=(16, 16, 16),
            min_drop=2,
            max_drop=20,
        ),
        Preset(
            name="meps16-race",
            table=RAW_TABLES["meps16"],
            encode=encode_meps,
            label="UTILIZATION",
            positive="1",
            classes=("under 10 visits", "10 or more visits"),
            group_names=("not White", "White"),
            groups=white,
            n_features=138,
            hidden=(128, 128, 128),
            min_drop=2,
            max_drop=135,
        ),
        Preset(
            name="german-sex",
            table=RAW_TABLES["german"],
            encode=encode_german,
            label="credit",
            positive="1",
            classes=("bad", "good"),
            group_names=("Female", "Male"),
            groups=_german_sex,
            n_features=50,
            hidden=(32, 32),
            min_drop=2,
            max_drop=24,
            notes=("german-sex is not one of the published settings: encoding, widths and limits are ours",),
        ),
    )
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
    notes = list(preset.notes)
    if preset.table.rows is not None and len(raw) != preset.table.rows:
        notes.append(
            f"the table has {len(raw):,} rows, the published one {preset.table.rows:,}: splits and figures differ "
            "from the published"
        )
    splits = split_rows(len(raw), split_seed)
    columns = preset.encode(raw, splits["train"])
    return verified(
        Dataset(
            name=preset.name,
            X=matrix(columns),
            y=_is(preset.label, preset.positive)(raw),
            classes=preset.classes,
            groups=preset.groups(raw),
            group_names=preset.group_names,
            feature_names=tuple(columns),
            splits=splits,
            source=source,
            licence=preset.table.licence,
            notes=tuple(notes),
        )
    )


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Put a raw table into the cache, by its name or a preset's, and return its path.

    Raises:
        InputError: no such table.
        ArtifactError: it cannot be fetched from here.
    """
    if name in PRESETS:
        return fetch_table(PRESETS[name].table, progress)
    if name in RAW_TABLES:
        return fetch_table(RAW_TABLES[name], progress)
    close = difflib.get_close_matches(name, [*RAW_TABLES, *PRESETS], n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"data sets are {', '.join(FETCHABLE)}"
    raise InputError(f"there is no data set {name!r} to fetch: {hint}")
