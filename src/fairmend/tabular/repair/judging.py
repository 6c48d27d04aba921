"""Judge predictors on the splits of a data set, the held-out one included."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.findings import Comparison
from fairmend.tabular.fairness.metrics import LOG_LOSS
from fairmend.tabular.fairness.uncertainty import People, Predictions, Question, compare_predictions
from fairmend.tabular.networks.networks import decide, probabilities
from fairmend.tabular.repair.settings import RepairSettings

Logits: TypeAlias = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
"""Features (n_rows, n_features) to logits (n_rows, n_outputs)."""


def people_of(dataset: Dataset, *splits: str) -> People:
    """The people of some splits."""
    _, y, groups = dataset.subset(*splits)
    return People(y, groups, dataset.group_names, len(dataset.classes))


def predictions(logits: npt.NDArray[np.float64], question: Question) -> Predictions:
    """What logits of shape (n_rows, n_outputs) say, with probabilities if a utility needs them."""
    return Predictions(decide(logits), probabilities(logits) if LOG_LOSS in question.utilities else None)


def question_of(objective: str, utility: str) -> Question:
    """What is asked of a repair: its objective and utility, F1 and accuracy."""
    return Question(objective, tuple(dict.fromkeys([utility, "f1", "accuracy"])))


def judge_splits(dataset: Dataset, settings: RepairSettings, before: Logits, after: Logits) -> dict[str, Comparison]:
    """Compare two predictors on every split that has rows, with intervals; the change is paired, person by person."""
    question = question_of(settings.objective, settings.utility)
    rng = np.random.default_rng([settings.seed, 1])
    judged = {}
    for split in (name for name, rows in dataset.splits.items() if len(rows)):
        X = dataset.subset(split)[0]
        old, new = (predictions(logits(X), question) for logits in (before, after))
        judged[split] = compare_predictions(people_of(dataset, split), old, new, question, rng)
    return judged
