"""Confusion counts by group, and the rates of each group.

The central datum of the tabular wing is an array of counts of shape (..., n_groups + 1, n_classes, n_classes), indexed
[group, true class, predicted class]. The last group row holds the people outside every compared group (code -1): they
count for utility only. Leading dimensions (masks, bootstrap draws) are free: everything here is vectorised over them.

With two classes, class 1 is the positive one and the only one judged. With more, each is judged against the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def confusion_counts(
    y: npt.ArrayLike, predicted: npt.ArrayLike, groups: npt.ArrayLike, n_groups: int, n_classes: int
) -> Counts:
    """Count people by group, true class and predicted class.

    Args:
        y: true classes 0 to n_classes - 1, shape (n_rows,).
        predicted: predicted classes, shape (..., n_rows): any number of predictors at once.
        groups: group codes 0 to n_groups - 1, or -1 for people outside every compared group, shape (n_rows,).
        n_groups, n_classes: numbers of compared groups and of classes.

    Returns:
        Counts of shape (..., n_groups + 1, n_classes, n_classes), outsiders last.

    Raises:
        DataError: shapes that do not fit, or a code outside its range.
    """
    truth = codes("labels", y, 0, n_classes)
    guess = codes("predictions", predicted, 0, n_classes)
    group = codes("group codes", groups, -1, n_groups)
    if truth.ndim != 1 or group.shape != truth.shape or guess.shape[-1:] != truth.shape:
        raise DataError(
            f"labels, groups and predictions must share their rows, got shapes {truth.shape}, {group.shape} and "
            f"{guess.shape}: pass one label, one group and one prediction per row"
        )
    shape = (n_groups + 1, n_classes, n_classes)
    cells = int(np.prod(shape))
    outsiders_last = np.where(group < 0, n_groups, group)
    cell = (outsiders_last * n_classes + truth) * n_classes + guess
    predictors = cell.reshape(-1, truth.size)
    offsets = np.arange(len(predictors))[:, None] * cells
    flat = np.bincount((predictors + offsets).ravel(), minlength=cells * len(predictors))
    return flat.astype(np.int64).reshape(guess.shape[:-1] + shape)


def divide(numerator: npt.NDArray[np.generic], denominator: npt.NDArray[np.generic]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Floats = np.divide(numerator, denominator, dtype=np.float64)
    return quotient


def judged_classes(n_classes: int) -> slice:
    """The classes judged against the rest: with two classes, the positive one alone."""
    return slice(1, 2) if n_classes == 2 else slice(None)


def true_positive_rates(counts: Counts) -> Floats:
    """Rates of shape (..., n_groups, n_judged_classes)."""
    compared, judged = counts[..., :-1, :, :], judged_classes(counts.shape[-1])
    hits = np.diagonal(compared, axis1=-2, axis2=-1)
    return divide(hits[..., judged], compared.sum(axis=-1)[..., judged])


def false_positive_rates(counts: Counts) -> Floats:
    """Rates of shape (..., n_groups, n_judged_classes)."""
    compared, judged = counts[..., :-1, :, :], judged_classes(counts.shape[-1])
    hits = np.diagonal(compared, axis1=-2, axis2=-1)
    truth, guess = compared.sum(axis=-1), compared.sum(axis=-2)
    negatives = truth.sum(axis=-1, keepdims=True) - truth
    return divide((guess - hits)[..., judged], negatives[..., judged])


def selection_rates(counts: Counts) -> Floats:
    """Rates of shape (..., n_groups, n_judged_classes)."""
    guess = counts[..., :-1, :, :].sum(axis=-2)
    return divide(guess[..., judged_classes(counts.shape[-1])], guess.sum(axis=-1, keepdims=True))


def group_accuracies(counts: Counts) -> Floats:
    """Accuracies of shape (..., n_groups)."""
    compared = counts[..., :-1, :, :]
    return divide(np.trace(compared, axis1=-2, axis2=-1), compared.sum(axis=(-2, -1)))


@dataclass(frozen=True, slots=True)
class GroupRates:
    """One row of the by-group table: a group judged on one class against the rest.

    Attributes:
        group: name of the group.
        judged_class: the class taken as positive; 1 for two classes, one row per class for more.
        n, positives, negatives, selected: people of the group, by true class, and predicted positive.
        true_positive_rate, false_positive_rate, selection_rate, accuracy: NaN where there is nobody to rate.
    """

    group: str
    judged_class: int
    n: int
    positives: int
    negatives: int
    selected: int
    true_positive_rate: float
    false_positive_rate: float
    selection_rate: float
    accuracy: float


def rates_by_group(counts: Counts, group_names: Sequence[str]) -> tuple[GroupRates, ...]:
    """Tabulate the rates of every compared group from counts of shape (n_groups + 1, n_classes, n_classes)."""
    n_classes = counts.shape[-1]
    hits, alarms = true_positive_rates(counts), false_positive_rates(counts)
    selection, accuracy = selection_rates(counts), group_accuracies(counts)
    rows = []
    for code, name in enumerate(group_names):
        people = counts[code]
        for place, judged in enumerate(range(n_classes)[judged_classes(n_classes)]):
            n, positives = int(people.sum()), int(people[judged].sum())
            rows.append(
                GroupRates(
                    group=str(name),
                    judged_class=judged,
                    n=n,
                    positives=positives,
                    negatives=n - positives,
                    selected=int(people[:, judged].sum()),
                    true_positive_rate=float(hits[code, place]),
                    false_positive_rate=float(alarms[code, place]),
                    selection_rate=float(selection[code, place]),
                    accuracy=float(accuracy[code]),
                )
            )
    return tuple(rows)


def codes(what: str, values: npt.ArrayLike, low: int, stop: int) -> npt.NDArray[np.int64]:
    """Read whole numbers from `low` to `stop` - 1, whatever their dtype.

    Raises:
        DataError: no values, or values that are not such numbers.
    """
    array = np.asarray(values)
    if array.size == 0:
        raise DataError(f"{what} are empty: at least one row is needed")
    if array.dtype.kind == "f" and bool(np.all(np.floor(array) == array)) and bool(np.isfinite(array).all()):
        array = array.astype(np.int64)
    if array.dtype.kind not in "biu":
        raise DataError(f"{what} must be whole numbers {low} to {stop - 1} without NaN, got {array.dtype} values")
    smallest, largest = int(array.min()), int(array.max())
    if smallest < low or largest >= stop:
        raise DataError(f"{what} must lie in {low} to {stop - 1}, got {smallest} to {largest}")
    return array.astype(np.int64, copy=False)
