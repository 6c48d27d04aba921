"""A small unfair network with its data, and settings that take milliseconds."""

from __future__ import annotations

import numpy as np

from fairmend.tabular.data.datasets import Dataset, split_rows
from fairmend.tabular.networks.activations import Activation
from fairmend.tabular.networks.networks import Layer, Network
from fairmend.tabular.repair.settings import RepairSettings

QUICK = RepairSettings(states=60)


def unfair_network(n_outputs: int = 1, n_hidden: int = 10) -> Network:
    """A network whose score follows its first feature and, unduly, its second."""
    rng = np.random.default_rng(3)
    first = rng.normal(size=(n_hidden, 3))
    score = (first[:, 0] + 0.6 * first[:, 1]) / n_hidden
    second = np.stack([score] if n_outputs == 1 else [(-1) ** (k + 1) * score * (1 + k) for k in range(n_outputs)])
    hidden = Layer(first, np.zeros(n_hidden), Activation.parse("relu"))
    return Network((hidden, Layer(second, np.full(n_outputs, -0.05))))


def people(n: int = 600, n_classes: int = 2) -> Dataset:
    """People whose second feature tells their group and nothing else."""
    rng = np.random.default_rng(1)
    group = rng.integers(2, size=n)
    merit = rng.normal(size=n)
    X = np.column_stack([merit + rng.normal(scale=0.6, size=n), group + rng.normal(scale=0.3, size=n), merit])
    edges = np.quantile(merit, np.arange(1, n_classes) / n_classes)
    return Dataset(
        name="people",
        X=X.astype(np.float32),
        y=np.searchsorted(edges, merit).astype(np.int64),
        classes=tuple(map(str, range(n_classes))),
        groups=group.astype(np.int64),
        group_names=("A", "B"),
        feature_names=("score", "unfair", "merit"),
        splits=split_rows(n, 0),
    )
