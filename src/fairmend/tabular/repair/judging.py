"""Judge two predictors on every split of a data set, the held-out one included."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.findings import Comparison
from fairmend.tabular.fairness.metrics import LOG_LOSS
from fairmend.tabular.fairness.uncertainty import compare_predictions
from fairmend.tabular.networks.networks import decide, probabilities
from fairmend.tabular.repair.settings import RepairSettings

Logits: TypeAlias = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
"""Features (n_rows, n_features) to logits (n_rows, n_outputs)."""


def judge_splits(dataset: Dataset, settings: RepairSettings, before: Logits, after: Logits) -> dict[str, Comparison]:
    """Compare two predictors on every split that has rows, with intervals; the change is paired, person by person."""
    utilities = dict.fromkeys([settings.utility, "f1", "accuracy"])
    rng = np.random.default_rng([settings.seed, 1])
    judged = {}
    for split, rows in dataset.splits.items():
        if not len(rows):
            continue
        X, y, groups = dataset.subset(split)
        logits = before(X), after(X)
        chances = [probabilities(each) if LOG_LOSS in utilities else None for each in logits]
        judged[split] = compare_predictions(
            y,
            decide(logits[0]),
            decide(logits[1]),
            groups,
            dataset.group_names,
            objective=settings.objective,
            utilities=list(utilities),
            rng=rng,
            n_classes=len(dataset.classes),
            probabilities_before=chances[0],
            probabilities_after=chances[1],
        )
    return judged
