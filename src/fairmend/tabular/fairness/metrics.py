"""Fairness objectives and utilities, all computed from confusion counts (see `fairmend.tabular.fairness.confusion`).

Objectives carry fairlearn's names and values. With more than two classes, every class is judged against the rest and
the worst class decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError, InputError
from fairmend.evaluation import Direction
from fairmend.tabular.fairness.confusion import (
    Counts,
    Floats,
    codes,
    confusion_counts,
    divide,
    false_positive_rates,
    group_accuracies,
    judged_classes,
    selection_rates,
    true_positive_rates,
)

Needs = Literal["positives and negatives", "positives", "members"]


@dataclass(frozen=True)
class Objective:
    """A fairness figure of confusion counts.

    Attributes:
        name: fairlearn's name.
        title: the name in words.
        better: which direction of the raw value is better.
        needs: what every compared group must have for the figure to exist.
        measure: the raw value from counts; use `value`.
    """

    name: str
    title: str
    better: Direction
    needs: Needs
    measure: Callable[[Counts], Floats]

    @property
    def given_class(self) -> bool:
        """Whether groups are compared within true classes, so that their base rates play no part."""
        return self.needs != "members"

    def value(self, counts: Counts) -> Floats:
        """Raw values of shape (...) from counts of shape (..., n_groups + 1, n_classes, n_classes); NaN if undefined.

        A group without the people that a rate needs has no rate, and the figure is undefined (fairlearn says 0 there).
        A ratio 0 / 0 is undefined too; as in fairlearn, a false-positive ratio 0 / 0 leaves the true-positive ratio.
        """
        return self.measure(counts)

    def unfairness(self, counts: Counts) -> Floats:
        """What a repair minimises, shape (...): a difference as it is, 1 - ratio, 1 - accuracy."""
        value = self.measure(counts)
        return value if self.better == "lower" else 1.0 - value


@dataclass(frozen=True)
class Utility:
    """How well a predictor does its job, over all people, compared or not: a value in [0, 1], higher is better."""

    name: str
    title: str
    measure: Callable[[Counts], Floats]

    def value(self, counts: Counts) -> Floats:
        """Values of shape (...) from counts of shape (..., n_groups + 1, n_classes, n_classes)."""
        return self.measure(counts.sum(axis=-3))


def _gap(rates: Floats) -> Floats:
    """Largest minus smallest over groups, then the worst class."""
    gaps: Floats = (rates.max(axis=-2) - rates.min(axis=-2)).max(axis=-1)
    return gaps


def _ratio(rates: Floats) -> Floats:
    """Smallest over largest over groups, per class: shape (..., n_judged_classes), NaN for 0 / 0."""
    return divide(rates.min(axis=-2), rates.max(axis=-2))


def _worst_ratio(ratios: Floats, *rates: Floats) -> Floats:
    """The worst class; classes at 0 / 0 are left out unless all are, but a missing rate makes the whole undefined."""
    missing = np.any([np.isnan(rate).any(axis=(-2, -1)) for rate in rates], axis=0)
    return np.where(missing, np.nan, np.fmin.reduce(ratios, axis=-1))


def _equalized_odds_difference(counts: Counts) -> Floats:
    if counts.shape[-1] == 2:
        # Searches ask for this one figure once per state: with two classes both rates are one division.
        compared = counts[..., :-1, :, :]
        return _gap(divide(compared[..., 1], compared.sum(axis=-1)))
    return np.maximum(_gap(true_positive_rates(counts)), _gap(false_positive_rates(counts)))


def _equalized_odds_ratio(counts: Counts) -> Floats:
    hits, alarms = true_positive_rates(counts), false_positive_rates(counts)
    hit_ratio, alarm_ratio = _ratio(hits), _ratio(alarms)
    both = np.where(np.isnan(alarm_ratio), hit_ratio, np.minimum(hit_ratio, alarm_ratio))
    return _worst_ratio(both, hits, alarms)


def _equal_opportunity_ratio(counts: Counts) -> Floats:
    rates = true_positive_rates(counts)
    return _worst_ratio(_ratio(rates), rates)


def _demographic_parity_ratio(counts: Counts) -> Floats:
    rates = selection_rates(counts)
    return _worst_ratio(_ratio(rates), rates)


def _worst_group_accuracy(counts: Counts) -> Floats:
    worst: Floats = group_accuracies(counts).min(axis=-1)
    return worst


def _f1(confusion: Counts) -> Floats:
    truth, guess = confusion.sum(axis=-1), confusion.sum(axis=-2)
    scores = divide(2 * np.diagonal(confusion, axis1=-2, axis2=-1), truth + guess)
    if confusion.shape[-1] == 2:
        return np.nan_to_num(scores[..., 1], nan=0.0)
    return _mean_of_defined(scores)


def _balanced_accuracy(confusion: Counts) -> Floats:
    return _mean_of_defined(divide(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1)))


def _accuracy(confusion: Counts) -> Floats:
    return divide(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def _mean_of_defined(scores: Floats) -> Floats:
    """Mean over the classes that occur, as scikit-learn has it."""
    defined = ~np.isnan(scores)
    return divide(np.where(defined, scores, 0.0).sum(axis=-1), defined.sum(axis=-1))


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(
            "equalized_odds_difference",
            "Equalized-odds difference",
            "lower",
            "positives and negatives",
            _equalized_odds_difference,
        ),
        Objective(
            "equal_opportunity_difference",
            "Equal-opportunity difference",
            "lower",
            "positives",
            lambda counts: _gap(true_positive_rates(counts)),
        ),
        Objective(
            "demographic_parity_difference",
            "Demographic-parity difference",
            "lower",
            "members",
            lambda counts: _gap(selection_rates(counts)),
        ),
        Objective(
            "equalized_odds_ratio", "Equalized-odds ratio", "higher", "positives and negatives", _equalized_odds_ratio
        ),
        Objective(
            "equal_opportunity_ratio", "Equal-opportunity ratio", "higher", "positives", _equal_opportunity_ratio
        ),
        Objective(
            "demographic_parity_ratio", "Demographic-parity ratio", "higher", "members", _demographic_parity_ratio
        ),
        Objective("worst_group_accuracy", "Worst-group accuracy", "higher", "members", _worst_group_accuracy),
    )
}

LOG_LOSS = "log_loss"
"""The utility that needs probabilities, see `log_loss`; lower is better."""

UTILITIES: dict[str, Utility] = {
    utility.name: utility
    for utility in (
        Utility("f1", "F1", _f1),
        Utility("balanced_accuracy", "Balanced accuracy", _balanced_accuracy),
        Utility("accuracy", "Accuracy", _accuracy),
    )
}


def find_objective(name: str) -> Objective:
    """The objective of that name.

    Raises:
        InputError: an unknown name; the message lists the known ones.
    """
    if name not in OBJECTIVES:
        raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}, got {name!r}")
    return OBJECTIVES[name]


def find_utility(name: str) -> Utility:
    """The utility of that name (log-loss, which needs probabilities, is the function `log_losses`).

    Raises:
        InputError: an unknown name; the message lists the known ones.
    """
    if name not in UTILITIES:
        raise InputError(f"utility must be one of {', '.join(UTILITIES)}, got {name!r}")
    return UTILITIES[name]


def title_of(utility: str) -> str:
    """A utility in words, for tables and pictures."""
    return UTILITIES[utility].title if utility in UTILITIES else utility.replace("_", "-")


def log_losses(y: npt.ArrayLike, probabilities: npt.ArrayLike) -> Floats:
    """Compute every row's negative log-likelihood in nats; lower is better, the mean is the log-loss.

    Args:
        y: true classes, shape (n_rows,).
        probabilities: of the positive class, shape (n_rows,), or of every class, shape (n_rows, n_classes);
            clipped to [eps, 1 - eps] of float64, as scikit-learn does.

    Returns:
        Shape (n_rows,), float64.

    Raises:
        DataError: shapes that do not fit, or a probability that is not in [0, 1].
    """
    given = np.asarray(probabilities, dtype=np.float64)
    if given.ndim == 1:
        given = np.stack([1.0 - given, given], axis=-1)
    if given.ndim != 2 or given.size == 0:
        raise DataError(f"probabilities need shape (n_rows,) or (n_rows, n_classes), got {given.shape}")
    if not np.all((given >= 0) & (given <= 1)):
        raise DataError("probabilities must lie in [0, 1] without NaN: apply a sigmoid or softmax to the logits")
    truth = codes("labels", y, 0, given.shape[1])
    if truth.shape != given.shape[:1]:
        raise DataError(f"one label per row of probabilities is needed, got {truth.shape} for {given.shape}")
    eps = np.finfo(np.float64).eps
    likelihood = np.clip(given[np.arange(truth.size), truth], eps, 1.0 - eps)
    losses: Floats = -np.log(likelihood)
    return losses


def log_loss(y: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Compute the mean of `log_losses`: scikit-learn's log-loss, in nats; lower is better."""
    return float(log_losses(y, probabilities).mean())


def check_groups(
    y: npt.ArrayLike,
    groups: npt.ArrayLike,
    group_names: Sequence[str],
    objective: Objective,
    n_classes: int = 2,
) -> None:
    """Make sure that every group has the people that the objective needs, before any work starts.

    Args:
        y: true classes, shape (n_rows,).
        groups: codes into `group_names`, or -1 for people outside every compared group, shape (n_rows,).

    Raises:
        DataError: fewer than two groups, or a group without members, positives or negatives, named with its counts.
    """
    if len(group_names) < 2:
        raise DataError(
            f"at least two groups are needed to compare, got {list(group_names)}: choose a sensitive column that varies"
        )
    labels = np.asarray(y)
    counts = confusion_counts(labels, labels, groups, len(group_names), n_classes)
    for code, name in enumerate(group_names):
        members = counts[code].sum(axis=-1)
        n = int(members.sum())
        if n == 0:
            raise DataError(_lack(name, n, "has no people", objective))
        for judged in range(n_classes)[judged_classes(n_classes)]:
            if objective.needs != "members" and members[judged] == 0:
                raise DataError(_lack(name, n, f"has nobody of class {judged}", objective))
            if objective.needs == "positives and negatives" and members[judged] == n:
                raise DataError(_lack(name, n, f"has nobody outside class {judged}", objective))


def _lack(name: str, n: int, what: str, objective: Objective) -> str:
    return (
        f"group {str(name)!r} ({n} people in this split) {what}, so it has no rate: {objective.name} needs "
        f"{objective.needs} in every group; merge it with another group, leave it out, or use a larger split"
    )
