"""A repair beside two rivals, on the published networks: equalized odds and F1 on the test split.

    OMP_NUM_THREADS=1 python benchmarks/rivals_with_groups.py --data ../shared/data --json rivals.json

* fairmend with its defaults: drops neurons and shifts everybody's threshold; needs no group at prediction.
* threshold only: shifts everybody's threshold and drops nothing; needs no group at prediction either.
* fairlearn's ThresholdOptimizer for equalized odds: a randomised threshold per group. It **needs every person's group
  at prediction**, which fairmend does not: a rival for those who have it and may use it, not a like for like.

All three are fitted on the same rows, train and validation together. People outside the compared groups (most ages of
bank-age) keep the network's own prediction under ThresholdOptimizer, and count for F1 in every row.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from fairlearn.postprocessing import ThresholdOptimizer
from published_networks import SETTINGS, PublishedNetwork, circumstances, default_folder, in_words, published
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits

from fairmend.tabular.data.presets import find_preset
from fairmend.tabular.fairness.confusion import confusion_counts
from fairmend.tabular.fairness.metrics import find_objective
from fairmend.tabular.repair.repair import repair_network
from fairmend.tabular.repair.rivals import shift_threshold
from fairmend.tabular.repair.settings import RepairSettings

TITLES = {
    "original": "original",
    "fairmend": "fairmend",
    "threshold only": "threshold only",
    "accuracy_score": "ThresholdOptimizer, accuracy",
    "balanced_accuracy_score": "ThresholdOptimizer, balanced accuracy",
}


class AsEstimator(ClassifierMixin, BaseEstimator):
    """A published network as the fitted classifier that ThresholdOptimizer expects."""

    def __init__(self, subject: PublishedNetwork | None = None) -> None:
        self.subject = subject
        self.classes_ = np.array([0, 1])

    def fit(self, X: np.ndarray, y: np.ndarray) -> AsEstimator:
        """Nothing to do: the network is trained."""
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities of both classes, shape (n_rows, 2)."""
        positive = expit(self.subject.network.logits(X)[:, 0])
        return np.stack([1 - positive, positive], axis=1)


def with_groups(subject: PublishedNetwork, objective: str, seed: int) -> np.ndarray:
    """Predictions on the test split that know everybody's group."""
    X, y, groups = subject.dataset.subset("train", "validation")
    inside = groups >= 0
    optimizer = ThresholdOptimizer(
        estimator=AsEstimator(subject),
        constraints="equalized_odds",
        objective=objective,
        prefit=True,
        predict_method="predict_proba",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fairlearn warns about the estimator's missing fitted attributes
        optimizer.fit(X[inside], y[inside], sensitive_features=groups[inside])
        X, _, groups = subject.dataset.subset("test")
        predicted = subject.network.predict(X)
        inside = groups >= 0
        predicted[inside] = optimizer.predict(X[inside], sensitive_features=groups[inside], random_state=seed)
    return predicted


def compare(subject: PublishedNetwork, states: int | None) -> dict[str, tuple[float, float]]:
    """(EOD, F1) on the test split of every contender."""
    preset = find_preset(subject.setting)
    settings = RepairSettings(states=states, min_drop=preset.min_drop, max_drop=preset.max_drop)
    X, y, groups = subject.dataset.subset("test")
    repair = repair_network(subject.network, subject.dataset, settings, judge=False)
    shift = shift_threshold(subject.network, subject.dataset, settings).mask
    predictions = {
        "original": subject.network.predict(X),
        "fairmend": repair.network.predict(X),
        "threshold only": subject.network.predict(X, shift),
        **{name: with_groups(subject, name, 0) for name in ("accuracy_score", "balanced_accuracy_score")},
    }
    eod = find_objective("equalized_odds_difference")
    n_groups = len(subject.dataset.group_names)
    return {
        name: (float(eod.value(confusion_counts(y, predicted, groups, n_groups, 2))), float(f1_score(y, predicted)))
        for name, predicted in predictions.items()
    }


def main() -> None:
    """Compare on all settings and print means over the networks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=default_folder(), help="folder of the published networks and data")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--networks", type=int, default=5, help="networks per setting")
    parser.add_argument("--states", type=int, help="states of each repair; the default is fairmend's own")
    parser.add_argument("--json", type=Path, help="where to write the figures of every network")
    options = parser.parse_args()
    facts = circumstances()
    results: dict[str, Any] = {}
    print(f"| setting, test EOD / F1 | {' | '.join(TITLES.values())} |\n|---|{'---|' * len(TITLES)}", flush=True)
    with threadpool_limits(1):
        for setting in options.settings:
            subjects = published(options.data, setting, options.networks)
            results[setting] = {subject.seed: compare(subject, options.states) for subject in subjects}
            means = {name: np.mean([row[name] for row in results[setting].values()], axis=0) for name in TITLES}
            cells = [f"{eod:.4f} / {f1:.3f}" for eod, f1 in means.values()]
            print(f"| {setting} ({len(subjects)} networks) | {' | '.join(cells)} |", flush=True)
    print(f"\n{in_words(facts)}")
    if options.json:
        options.json.write_text(json.dumps({"circumstances": facts, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
