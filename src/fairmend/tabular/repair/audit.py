"""Audit a trained network: how unfair and how good it is on every split, and whether there is anything to repair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fairmend.records import Kind, built
from fairmend.statistics import Draws
from fairmend.tabular.data.datasets import Dataset, require_people
from fairmend.tabular.fairness.findings import FairnessFigures, verdict
from fairmend.tabular.fairness.uncertainty import Question, summarise
from fairmend.tabular.networks.networks import Network, decide
from fairmend.tabular.repair.judging import people_of, predictions
from fairmend.tabular.repair.repair import require_fit

_ROWS_LOOKED_AT = 20_000
_CLEARLY = 3.0  # standard errors


@dataclass(frozen=True)
class Audit:
    """What is known about a network's fairness on one data set.

    Attributes:
        dataset: name of the data set.
        network: digest of the network.
        splits: the figures of every split that has rows.
        verdicts: for every split, in words, whether there is anything to repair.
        notes: what a reader should know about the network and the data, such as tiny groups.
        seed: of the bootstrap and permutation draws.
        positive: the label that is the positive class; None with more than two classes.
        warnings: what makes the figures doubtful, such as a network that does worse than saying the opposite.
    """

    dataset: str
    network: str
    splits: dict[str, FairnessFigures]
    verdicts: dict[str, str]
    notes: tuple[str, ...]
    seed: int = 0
    positive: str | None = None
    warnings: tuple[str, ...] = ()


AUDIT = Kind("tabular audit", 1, "audit.json", "saved audit", "audit")


def saved_audit(saved: Mapping[str, Any]) -> Audit:
    """The audit that a record holds, beside what else it holds.

    Raises:
        KeyError, ValueError: the record lacks an entry, or has one of another type.
    """
    return built({entry.name: saved[entry.name] for entry in fields(Audit)}, Audit)


def audit(
    network: Network,
    dataset: Dataset,
    *,
    objective: str = "equalized_odds_difference",
    utilities: Sequence[str] = ("f1", "accuracy"),
    seed: int = 0,
    n_boot: int = 2000,
    n_perm: int = 2000,
) -> Audit:
    """Measure a network's unfairness and utility on every split, with intervals, noise floor and p-value.

    Args:
        network: a trained network; it is left as it is.
        dataset: rows with groups and splits. The rows of "test" are what a person should judge by: a network has
            seen its training rows.
        objective, utilities: by name, see `fairmend.tabular.fairness.metrics`, or "log_loss" among the utilities.
        seed: of the draws; every split has its own, so that its figures do not depend on the other splits.
        n_boot, n_perm: numbers of bootstrap and permutation draws, at least 100 each.

    Raises:
        DataError: a data set that does not fit the network, or a group without the people that a rate needs.
        InputError: an unknown name or too few draws.
    """
    question = Question(objective, tuple(dict.fromkeys(utilities)), Draws(n_boot, n_perm))
    require_fit(network, dataset)
    require_people(dataset, objective)
    warned = contradiction(network, dataset)
    splits: dict[str, FairnessFigures] = {}
    for number, (split, rows) in enumerate(dataset.splits.items()):
        if len(rows):
            predicted = predictions(network.logits(dataset.subset(split)[0]), question)
            rng = np.random.default_rng([seed, number])
            splits[split] = summarise(people_of(dataset, split), predicted, question, rng)
    return Audit(
        dataset=dataset.name,
        network=network.digest(),
        splits=splits,
        verdicts={split: verdict(figures) for split, figures in splits.items()},
        notes=(*network.notes, *dataset.notes),
        seed=seed,
        positive=dataset.positive,
        warnings=() if warned is None else (warned,),
    )


def contradiction(network: Network, dataset: Dataset) -> str | None:
    """Say that a network of two classes does worse than saying the opposite, where it clearly does; else None.

    Clearly: it is right on less than half of the rows, and its true positive rate lies below its false positive rate by
    more than three standard errors. Looked at are at most 20,000 rows, evenly spaced.
    """
    if dataset.positive is None:
        return None
    rows = slice(None, None, max(1, len(dataset.X) // _ROWS_LOOKED_AT))
    y, predicted = dataset.y[rows], decide(network.logits(dataset.X[rows]))
    right = float((y == predicted).mean())
    rates = [(float(predicted[y == code].mean()), int((y == code).sum())) for code in (0, 1) if (y == code).any()]
    if right >= 0.5 or len(rates) < 2:
        return None
    (alarms, _), (hits, _) = rates
    error = math.sqrt(sum(rate * (1 - rate) / n for rate, n in rates))
    if alarms - hits <= _CLEARLY * error:
        return None
    negative, positive = dataset.classes
    return (
        f"the network does worse than saying the opposite: it is right on {right:.1%} of the rows, the opposite would "
        f"be on {1 - right:.1%}. {positive!r} was taken as the positive class, the one that the network's class 1 "
        f"means: if that is {negative!r}, say so (positive=...)"
    )
