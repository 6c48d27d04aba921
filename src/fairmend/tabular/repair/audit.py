"""Audit a trained network: how unfair and how good it is on every split, and whether there is anything to repair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairmend.tabular.data.datasets import Dataset, require_people
from fairmend.tabular.fairness.findings import FairnessFigures
from fairmend.tabular.fairness.metrics import LOG_LOSS
from fairmend.tabular.fairness.uncertainty import summarise
from fairmend.tabular.fairness.verdict import verdict
from fairmend.tabular.networks.networks import Network, decide, probabilities
from fairmend.tabular.repair.contradiction import contradiction
from fairmend.tabular.repair.repair import require_fit


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

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description, undefined figures as null; `from_json` reads it back."""
        return {
            "dataset": self.dataset,
            "network": self.network,
            "splits": {split: figures.to_json() for split, figures in self.splits.items()},
            "verdicts": dict(self.verdicts),
            "notes": list(self.notes),
            "seed": self.seed,
            "positive": self.positive,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Audit:
        """The audit that `to_json` described."""
        return cls(
            dataset=payload["dataset"],
            network=payload["network"],
            splits={split: FairnessFigures.from_json(figures) for split, figures in payload["splits"].items()},
            verdicts=dict(payload["verdicts"]),
            notes=tuple(payload["notes"]),
            seed=payload["seed"],
            positive=payload["positive"],
            warnings=tuple(payload["warnings"]),
        )


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
    require_fit(network, dataset)
    require_people(dataset, objective)
    warned = contradiction(network, dataset)
    splits: dict[str, FairnessFigures] = {}
    for number, (split, rows) in enumerate(dataset.splits.items()):
        if not len(rows):
            continue
        X, y, groups = dataset.subset(split)
        logits = network.logits(X)
        splits[split] = summarise(
            y,
            decide(logits),
            groups,
            dataset.group_names,
            objective=objective,
            utilities=list(dict.fromkeys(utilities)),
            rng=np.random.default_rng([seed, number]),
            n_classes=network.n_classes,
            probabilities=probabilities(logits) if LOG_LOSS in utilities else None,
            n_boot=n_boot,
            n_perm=n_perm,
        )
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
