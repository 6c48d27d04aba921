"""A data set: features, labels, groups and splits, checked once so that nothing later has to wonder."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairmend.errors import DataError
from fairmend.evaluation import array_digest
from fairmend.tabular.columns import IndexArray, matrix, text
from fairmend.tabular.features import encode_as_is, encode_standard, group_codes, label_codes
from fairmend.tabular.tables import FEATURES, load_table, refuse_duplicates

__all__ = ["OUTSIDE", "SPLITS", "Dataset", "load_table", "make_dataset", "split_rows", "verified"]

SPLITS = ("train", "validation", "test")
OUTSIDE = -1
"""Group code of rows outside every compared group: they count for utility only."""

TINY_CELL = 30  # rows of one group and label below which a rate is named as unreliable
MIN_SPLIT_ROWS = 10


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set with compared groups and disjoint splits.

    Attributes:
        name: what it is called in tables and files.
        X: features, float32, shape (n, n_features).
        y: class codes, int64, shape (n,).
        classes: labels as text; with two of them, code 1 is the positive one.
        groups: group codes, int64, shape (n,); -1 is outside every compared group.
        group_names: names of the groups, by code.
        feature_names: names of the columns of X.
        splits: row numbers, ascending, of "train", "validation" and "test".
        source, licence: where the rows came from and on what terms.
        notes: what a reader of its figures should know, such as tiny groups.
    """

    name: str
    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    groups: npt.NDArray[np.int64]
    group_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    splits: Mapping[str, IndexArray]
    source: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.X)
        if self.X.ndim != 2 or self.y.shape != (n,) or self.groups.shape != (n,):
            raise DataError(
                f"data set {self.name}: X {self.X.shape}, y {self.y.shape} and groups {self.groups.shape} need the "
                "shapes (n, n_features), (n,) and (n,)"
            )
        if len(self.feature_names) != self.X.shape[1]:
            raise DataError(f"data set {self.name}: {len(self.feature_names)} names for {self.X.shape[1]} features")

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        return int(self.X.shape[1])

    def rows(self, *splits: str) -> IndexArray:
        """Return the row numbers of one or several splits, one after the other.

        Raises:
            DataError: no split named, or one that does not exist.
        """
        unknown = [split for split in splits if split not in self.splits]
        if unknown or not splits:
            raise DataError(f"data set {self.name} has no split {unknown}: allowed are {list(self.splits)}")
        return np.concatenate([self.splits[split] for split in splits])

    def subset(self, *splits: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return copies of (X, y, groups) for the rows of one or several splits.

        Raises:
            DataError: a split that does not exist.
        """
        rows = self.rows(*splits)
        return self.X[rows], self.y[rows], self.groups[rows]

    def group_counts(self, *splits: str) -> npt.NDArray[np.int64]:
        """Return how many rows each group and class has, shape (n_groups, n_classes); rows outside are not counted."""
        rows = self.rows(*splits)
        counts = np.zeros((len(self.group_names), len(self.classes)), dtype=np.int64)
        inside = rows[self.groups[rows] != OUTSIDE]
        np.add.at(counts, (self.groups[inside], self.y[inside]), 1)
        return counts

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the content, JSON-ready; where the file lay does not matter."""
        return {
            "name": self.name,
            "rows": len(self.X),
            "arrays": array_digest(self.X, self.y, self.groups),
            "splits": {split: array_digest(rows) for split, rows in self.splits.items()},
            "classes": list(self.classes),
            "groups": list(self.group_names),
            "features": list(self.feature_names),
        }


def split_rows(n: int, seed: int) -> dict[str, IndexArray]:
    """Split n rows 60/20/20 as the published runs do: test with `seed`, then validation with `seed + 1`.

    Raises:
        DataError: a seed outside 0 to 2**32 - 2, or too few rows.
    """
    from sklearn.model_selection import train_test_split

    if not 0 <= seed <= 2**32 - 2:
        raise DataError(f"split seed {seed} is outside 0 to {2**32 - 2}: choose another")
    if n < 5 * MIN_SPLIT_ROWS:
        raise DataError(f"{n} rows are too few to split 60/20/20: at least {5 * MIN_SPLIT_ROWS} are needed")
    rest, test = train_test_split(np.arange(n), test_size=0.2, random_state=seed)
    train, validation = train_test_split(rest, test_size=0.25, random_state=seed + 1)
    return {name: np.sort(rows) for name, rows in zip(SPLITS, (train, validation, test), strict=True)}


def make_dataset(
    frame: pd.DataFrame,
    label: str,
    sensitive: Sequence[str],
    *,
    positive: str | float | None = None,
    encode: Literal["standard", "none"] = "standard",
    features: Sequence[str] | None = None,
    drop_sensitive: bool = False,
    split_seed: int = 42,
    split_column: str | None = None,
    name: str = "table",
    source: str = "",
    licence: str = "",
) -> Dataset:
    """Make a data set from a person's own table.

    Args:
        frame: the table, as `load_table` reads it.
        label: the column to predict.
        sensitive: the columns that make the groups; several are crossed ("sex=F & race=Black").
        positive: the label value that is the positive class, all others being the negative one. Needed for two text
            labels unless one of them plainly means yes; of two numbers the larger is positive.
        encode: "standard" one-hot encodes text (first level dropped, levels learnt on train, others become all
            zeros), standardises numbers on train and turns booleans into 0 and 1. "none" takes every feature as
            the number it is, in the order of the file: what a finished network expects.
        features: columns to use, in this order; by default all others (for .npz, the columns of X).
        drop_sensitive: leave the sensitive columns out of the features.
        split_seed: seed of the 60/20/20 split.
        split_column: a column with the values train, validation and test, instead of a random split.

    Raises:
        DataError: anything about the table that cannot work; the message names the column, value or group.
    """
    refuse_duplicates(frame.columns, "the table")
    sensitive = [sensitive] if isinstance(sensitive, str) else list(sensitive)
    used = [label, *sensitive, *([split_column] if split_column is not None else []), *(features or [])]
    _refuse_unknown(used, frame)
    if not sensitive or label in sensitive or len(set(sensitive)) < len(sensitive):
        raise DataError(f"sensitive columns {sensitive}: name at least one, each once, other than the label {label!r}")
    if encode not in ("standard", "none"):
        raise DataError(f"encode must be 'standard' or 'none', got {encode!r}")
    chosen = features if features is not None else frame.attrs.get(FEATURES, list(frame.columns))
    taken_out = {label, split_column, *(sensitive if drop_sensitive else ())}
    if features is not None and label in features:
        raise DataError(f"the label {label!r} is among the features: a network must not see it")
    names = [str(column) for column in chosen if column not in taken_out]
    if not names:
        raise DataError("no feature columns are left: the table holds only the label, split and sensitive columns")

    y, classes = label_codes(frame, label, positive)
    groups, group_names = group_codes(frame, sensitive)
    splits = split_rows(len(frame), split_seed) if split_column is None else _split_by(frame, split_column)
    columns = encode_as_is(frame, names) if encode == "none" else encode_standard(frame, names, splits["train"])
    return verified(
        Dataset(
            name=name,
            X=matrix(columns),
            y=y,
            classes=classes,
            groups=groups,
            group_names=group_names,
            feature_names=tuple(columns),
            splits=splits,
            source=source,
            licence=licence,
        )
    )


def verified(dataset: Dataset) -> Dataset:
    """Return the data set with notes on its tiny groups, after checking that every rate exists.

    Raises:
        DataError: fewer than two groups or classes, a split that is too small, or, with two classes, a group without
            positives or negatives at all or in the validation or test split.
    """
    present = np.unique(dataset.groups[dataset.groups != OUTSIDE])
    if len(present) < 2:
        raise DataError(f"data set {dataset.name} has rows in {len(present)} of its groups: at least 2 are compared")
    if len(np.unique(dataset.y)) < 2:
        raise DataError(f"data set {dataset.name} has a constant label: at least 2 classes are needed")
    notes = list(dataset.notes)
    for split in dataset.splits:
        size = len(dataset.splits[split])
        if size < MIN_SPLIT_ROWS:
            raise DataError(f"split {split!r} has {size} rows: at least {MIN_SPLIT_ROWS} are needed")
    _refuse_empty_cells(dataset, "the data", tuple(dataset.splits))
    for split in dataset.splits:
        if split != "train":
            _refuse_empty_cells(dataset, f"the {split} split", (split,))
        for code, counts in enumerate(dataset.group_counts(split)):
            small = [
                f"{count} with {dataset.classes[k]}" for k, count in enumerate(counts.tolist()) if count < TINY_CELL
            ]
            if small:
                notes.append(
                    f"group {dataset.group_names[code]} is tiny in the {split} split: {', '.join(small)}; "
                    "its rates are unreliable"
                )
    return replace(dataset, notes=tuple(dict.fromkeys(notes)))


def _refuse_empty_cells(dataset: Dataset, where: str, splits: tuple[str, ...]) -> None:
    if len(dataset.classes) != 2:
        return
    for code, (negatives, positives) in enumerate(dataset.group_counts(*splits).tolist()):
        if not negatives or not positives:
            lacking = "positives" if not positives else "negatives"
            raise DataError(
                f"group {dataset.group_names[code]} has no {lacking} in {where} ({positives} positives, {negatives} "
                "negatives), so its error rates do not exist: merge groups, choose another split or add rows"
            )


def _refuse_unknown(wanted: Iterable[str], frame: pd.DataFrame) -> None:
    names = [str(name) for name in frame.columns]
    for column in wanted:
        if column not in frame.columns:
            close = difflib.get_close_matches(str(column), names, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(close)}?" if close else f"the table has {', '.join(names[:20])}"
            raise DataError(f"there is no column {column!r}: {hint}")


def _split_by(frame: pd.DataFrame, column: str) -> dict[str, IndexArray]:
    values = text(frame, column).to_numpy(dtype=object)
    found = set(values)
    if found != set(SPLITS):
        shown = sorted(found)[:6]
        raise DataError(f"split column {column!r} has the values {shown}: it needs {', '.join(SPLITS)}, all three")
    return {split: np.flatnonzero(values == split).astype(np.int64) for split in SPLITS}
