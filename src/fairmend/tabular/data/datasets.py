"""A data set: features, labels, groups and splits, checked once so that nothing later has to wonder."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError
from fairmend.evaluation import array_digest
from fairmend.tabular.data.columns import FloatArray, IndexArray, filled, numbers
from fairmend.tabular.data.features import encode_standard, group_codes, label_codes
from fairmend.tabular.data.sheets import Sheet
from fairmend.tabular.fairness.metrics import Objective, find_objective

SPLITS = ("train", "validation", "test")
OUTSIDE = -1
"""Group code of rows outside every compared group: they count for utility only."""

TINY_CELL = 30  # rows of one group and label below which a rate is named as unreliable
MIN_SPLIT_ROWS = 10
_OWN_NOTES = 6  # tiny groups of a split that get a note each
_SHOWN = 8


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
    def positive(self) -> str | None:
        """The label that is the positive class; None with more than two classes, each of which is judged."""
        return self.classes[1] if len(self.classes) == 2 else None

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
        n_groups, n_classes = len(self.group_names), len(self.classes)
        cells = (self.groups[rows] + 1) * n_classes + self.y[rows]  # whoever is outside comes first
        counts = np.bincount(cells, minlength=(n_groups + 1) * n_classes)
        return counts.reshape(n_groups + 1, n_classes)[1:].astype(np.int64)

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
    frame: Any,
    label: Hashable,
    sensitive: Hashable | Sequence[Hashable],
    *,
    positive: str | float | None = None,
    encode: Literal["standard", "none"] = "standard",
    features: Sequence[Hashable] | None = None,
    drop_sensitive: bool = False,
    split_seed: int = 42,
    split_column: Hashable | None = None,
    name: str = "table",
    source: str = "",
    licence: str = "",
) -> Dataset:
    """Make a data set from a person's own table.

    Args:
        frame: the table, as `load_table` reads it: a pandas frame, or an eager frame of another library that narwhals
            knows (polars, pyarrow, modin ...). Columns are named as the frame names them or by that name as text;
            of names that are tuples, the parts are joined by "_". Named levels of a pandas index are columns too.
        label: the column to predict.
        sensitive: the columns that make the groups; several are crossed ("sex=F & race=Black").
        positive: the label value that is the positive class, all others being the negative one. Needed for two text
            labels unless one of them plainly means yes; of two numbers the larger is positive.
        encode: "standard" one-hot encodes text (first level dropped, levels learnt on train, others become all
            zeros), standardises numbers on train and turns booleans into 0 and 1. "none" takes every feature as
            the number it is, in the order of the file: what a finished network expects.
        features: columns to use, in this order; by default all others (for .npz, the columns of X), index levels and
            columns without a name ("Unnamed: 0") left aside.
        drop_sensitive: leave the sensitive columns out of the features.
        split_seed: seed of the 60/20/20 split.
        split_column: a column with the values train, validation and test, instead of a random split.

    Raises:
        DataError: anything about the table that cannot work; the message names the column, value or group.
    """
    sheet = Sheet(frame)
    label, sensitive = sheet.column(label), sheet.columns(sensitive)
    split_by = None if split_column is None else sheet.column(split_column)
    chosen = sheet.features if features is None else sheet.columns(features)
    if not sensitive or label in sensitive or len(set(sensitive)) < len(sensitive):
        raise DataError(f"sensitive columns {sensitive}: name at least one, each once, other than the label {label!r}")
    if encode not in ("standard", "none"):
        raise DataError(f"encode must be 'standard' or 'none', got {encode!r}")
    taken_out = {label, split_by, *(sensitive if drop_sensitive else ())}
    if features is not None and label in chosen:
        raise DataError(f"the label {label!r} is among the features: a network must not see it")
    if len(set(chosen)) < len(chosen):
        raise DataError(f"the features {chosen} name a column twice: name each once")
    names = [column for column in chosen if column not in taken_out]
    if not names:
        raise DataError("no feature columns are left: the table holds only the label, split and sensitive columns")

    y, classes = label_codes(sheet, label, positive)
    groups, group_names = group_codes(sheet, sensitive)
    splits = split_rows(len(sheet), split_seed) if split_by is None else _split_by(sheet, split_by)
    columns: Iterator[FloatArray] = (numbers(sheet.frame, name) for name in names)
    if encode == "standard":
        names, columns = encode_standard(sheet, names, splits["train"])
    return verified(
        Dataset(
            name=name,
            X=filled(names, columns, len(sheet)),
            y=y,
            classes=classes,
            groups=groups,
            group_names=group_names,
            feature_names=tuple(names),
            splits=splits,
            source=source,
            licence=licence,
            notes=sheet.notes,
        )
    )


def verified(dataset: Dataset) -> Dataset:
    """Return the data set with notes on its tiny groups, after checking that there is something to compare.

    Whether every group has the people that a figure needs depends on the figure: `require_people` asks for them.

    Raises:
        DataError: fewer than two groups or classes, in the data or, with two classes, in a split, or a split that is
            too small.
    """
    present = np.unique(dataset.groups[dataset.groups != OUTSIDE])
    if len(present) < 2:
        raise DataError(f"data set {dataset.name} has rows in {len(present)} of its groups: at least 2 are compared")
    if len(np.unique(dataset.y)) < 2:
        raise DataError(f"data set {dataset.name} has a constant label: at least 2 classes are needed")
    notes = list(dataset.notes)
    for split, rows in dataset.splits.items():
        if len(rows) < MIN_SPLIT_ROWS:
            raise DataError(f"split {split!r} has {len(rows)} rows: at least {MIN_SPLIT_ROWS} are needed")
        if len(dataset.classes) == 2 and len(found := np.unique(dataset.y[rows])) < 2:
            raise DataError(
                f"every row of the {split} split is {dataset.classes[found[0]]!r}, so nothing can be judged there: "
                "choose another split or add rows"
            )
        tiny = []
        for code, counts in enumerate(dataset.group_counts(split)):
            small = [
                f"{count} with {dataset.classes[k]}" for k, count in enumerate(counts.tolist()) if count < TINY_CELL
            ]
            if small:
                tiny.append((dataset.group_names[code], ", ".join(small)))
        if len(tiny) > _OWN_NOTES:
            named = "; ".join(f"{group} ({small})" for group, small in tiny)
            notes.append(f"{len(tiny)} groups are tiny in the {split} split and their rates unreliable: {named}")
        else:
            notes += [
                f"group {group} is tiny in the {split} split: {small}; its rates are unreliable"
                for group, small in tiny
            ]
    return replace(dataset, notes=tuple(dict.fromkeys(notes)))


def arranged(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """The data set with more than two classes in the order that a network's file names them in; else as it is."""
    if dataset.positive is not None or classes == dataset.classes or set(classes) != set(dataset.classes):
        return dataset
    places = np.array([classes.index(name) for name in dataset.classes], dtype=np.int64)
    note = (
        f"the classes are in the order of the network's file, {', '.join(classes)}, which a repaired network keeps but "
        "does not name: do not take it for the order of the table's labels"
    )
    return replace(dataset, y=places[dataset.y], classes=classes, notes=(*dataset.notes, note))


def require_people(dataset: Dataset, objective: str | Objective) -> None:
    """Check that every group has the people that a fairness figure needs, in every split, before any work starts.

    Raises:
        DataError: groups without members, positives or negatives, whichever the figure needs, named with their counts.
    """
    target = find_objective(objective) if isinstance(objective, str) else objective
    for where, splits in [("the data", tuple(dataset.splits))] + [
        (f"the {each} split", (each,)) for each in dataset.splits
    ]:
        if not len(dataset.rows(*splits)):
            continue
        lacking = list(_lacking(dataset, dataset.group_counts(*splits), target))
        if lacking:
            group, people, lack = lacking[0]
            others = f" (so do {len(lacking) - 1} more: {_named(lacking[1:])})" if lacking[1:] else ""
            rates = "error rates do" if target.needs != "members" else "rate does"
            raise DataError(
                f"group {group} has no {lack} in {where} ({people}){others}, so its {rates} not exist, and "
                f"{target.name} needs {target.needs} in every group: merge groups, choose another split or objective, "
                "or add rows"
            )


def _lacking(dataset: Dataset, counts: npt.NDArray[np.int64], objective: Objective) -> Iterator[tuple[str, str, str]]:
    """(group, its people, what it lacks) of every group without the people that the objective needs."""
    two = len(dataset.classes) == 2
    for group, people in zip(dataset.group_names, counts.tolist(), strict=True):
        n = sum(people)
        words = f"{people[1]} positives, {people[0]} negatives" if two else f"{n} people"
        if n == 0:
            yield group, words, "people"
        elif objective.needs == "members":
            continue
        for code in [1] if two else range(len(people)):
            if n and people[code] == 0:
                yield group, words, "positives" if two else f"{dataset.classes[code]!r}"
                break
            if n and objective.needs == "positives and negatives" and people[code] == n:
                yield group, words, "negatives" if two else f"anybody but {dataset.classes[code]!r}"
                break


def _named(lacking: Sequence[tuple[str, str, str]]) -> str:
    shown = "; ".join(f"{group}, {people}" for group, people, _ in lacking[:_SHOWN])
    return shown if len(lacking) <= _SHOWN else f"{shown} ..."


def _split_by(sheet: Sheet, column: str) -> dict[str, IndexArray]:
    found = sheet.levels(column)
    if set(found.names) != set(SPLITS):
        shown = sorted(found.names)[:6]
        raise DataError(f"split column {column!r} has the values {shown}: it needs {', '.join(SPLITS)}, all three")
    return {split: np.flatnonzero(found.codes == found.names.index(split)).astype(np.int64) for split in SPLITS}
