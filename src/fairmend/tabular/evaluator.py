"""Measures masks of a tabular network: unfairness and utility on fixed rows.

Two paths give the same figures: remembered states in compiled kernels for networks with one logit, where a mask one
flip away costs that flip, and a plain batched torch path for everything else.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import fairmend
from fairmend.errors import InputError
from fairmend.evaluation import Direction, Figure, Figures, Measurement, array_digest
from fairmend.masks import Mask, Space
from fairmend.tabular.metrics import LOG_LOSS, check_groups, confusion_counts, find_objective, find_utility, log_losses
from fairmend.tabular.networks import Drop, Network, decide, emitted, probabilities

Path = Literal["auto", "incremental", "batched"]
_VERSION = 1  # raise when the same masks would measure differently
_PACKAGES = ("numpy", "numba", "torch")  # what draws the rows and computes the scores
_STATE_BYTES = 1 << 28  # memory for remembered states


class TabularEvaluator:
    """Measures the unfairness and utility of a network with dropped neurons (`fairmend.evaluation.Evaluator`).

    Args:
        network: what is measured.
        X, y, groups: (n_rows, n_features) features, (n_rows,) classes from 0, and (n_rows,) group codes, -1 for people
            outside the compared groups.
        group_names: a name per group code.
        space: the masks; its dials, if any, are `network.threshold_dials()`.
        objective: see `metrics.OBJECTIVES`.
        utility: see `metrics.UTILITIES`, or "log_loss".
        drop: what a dropped neuron emits, see `networks.emitted`.
        rows: a name for the rows, as people know them: "validation".
        rows_per_cell: measure on at most so many rows of each (group, label) cell, a fixed sample that `sample_seed`
            draws; figures then estimate those of all rows. A rate is as uncertain as its smallest cell makes it, so
            measuring the large cells in full costs time and settles nothing.
        path: "incremental" (one logit only), "batched", or the faster of them.
        device: where the batched path runs.

    Raises:
        InputError, DataError: unknown names, shapes that do not fit, a group without the people that a rate needs.
    """

    def __init__(
        self,
        network: Network,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        groups: npt.ArrayLike,
        group_names: Sequence[str],
        *,
        space: Space,
        objective: str = "equalized_odds_difference",
        utility: str = "f1",
        drop: Drop = "output",
        rows: str = "search",
        rows_per_cell: int | None = None,
        sample_seed: int = 0,
        path: Path = "auto",
        device: str = "cpu",
    ) -> None:
        if space.n_units != network.n_units:
            raise InputError(f"the space has {space.n_units} units, the network {network.n_units} hidden neurons")
        network.shift(space.untouched())  # refuses dials that the network cannot absorb
        self._space, self._network = space, network
        self._objective = find_objective(objective)
        self._utility = None if utility == LOG_LOSS else find_utility(utility)
        self._emitted = emitted(network, drop, X)
        check_groups(y, groups, group_names, self._objective, network.n_classes)

        self._group_names = tuple(group_names)
        self._rows = rows
        given_y, given_groups = np.asarray(y, dtype=np.int64), np.asarray(groups, dtype=np.int64)
        # Sorted by (group, label), outsiders last, as the kernels want it; no figure depends on the order.
        cell = np.where(given_groups < 0, len(group_names), given_groups) * network.n_classes + given_y
        order = np.argsort(cell, kind="stable")
        n_cells = (len(group_names) + 1) * network.n_classes
        self._totals = np.bincount(cell, minlength=n_cells).astype(np.int64)
        if rows_per_cell is not None:
            order = _sampled(order, self._totals, rows_per_cell, sample_seed)
        self._X, self._y, self._groups = np.asarray(X)[order], given_y[order], given_groups[order]
        self._bounds = np.searchsorted(cell[order], np.arange(n_cells + 1)).astype(np.int64)
        self._scale = self._totals / np.maximum(1, np.diff(self._bounds))

        served = network.n_outputs == 1 and utility != LOG_LOSS and device == "cpu" and space.n_units > 0
        if path == "incremental" and not served:
            raise InputError(
                "path='incremental' serves networks with one logit on the CPU and utilities of predictions, not "
                f"{network.n_outputs} logits on {device!r} with {utility!r}; use path='auto'"
            )
        self.path: Path = "incremental" if served and path != "batched" else "batched"
        if self.path == "incremental":
            self._open_states()
        else:
            from fairmend.tabular.batched import BatchedForward

            self._forward = BatchedForward(network, self._X, self._emitted, device)
        better: Direction = "lower" if utility == LOG_LOSS else "higher"
        sampled = f", at most {rows_per_cell} of each group and label" if len(order) < len(given_y) else ""
        protocol = f"{len(order)} {rows} rows{sampled}"
        classes = range(network.n_classes)
        parts = tuple(
            f"{group}: {label} predicted {guess}"
            for group in (*self._group_names, "outside")
            for label in classes
            for guess in classes[1:]
        )
        name = objective if self._objective.better == "lower" else f"1 - {objective}"
        self._figures = Figures(Figure(name, "lower", protocol), Figure(utility, better, protocol), parts)

    def _open_states(self) -> None:
        from fairmend.tabular.counting import OBJECTIVE_CODES, UTILITY_CODES, Task
        from fairmend.tabular.incremental import RememberedState

        assert self._utility is not None, "log-loss is measured by the batched path"
        task = Task(
            bounds=self._bounds,
            totals=self._totals,
            scale=self._scale,
            n_groups=len(self._group_names),
            objective=OBJECTIVE_CODES[self._objective.name],
            utility=UTILITY_CODES[self._utility.name],
        )
        self._states = [RememberedState(self._network, self._X, self._emitted, task)]
        self._max_states = int(np.clip(_STATE_BYTES // (4 * self._space.n_units * max(1, len(self._X))), 1, 64))

    @property
    def space(self) -> Space:
        """The masks that can be measured."""
        return self._space

    @property
    def figures(self) -> Figures:
        """What the measurements mean; parts are numbers of people by group, label and predicted class."""
        return self._figures

    def fingerprint(self) -> Mapping[str, Any]:
        """Network, rows, objective, utility, what dropping means and versions: everything the figures depend on."""
        return {
            "evaluator": f"tabular {_VERSION}",
            "network": self._network.digest(),
            "rows": array_digest(self._X, self._y, self._groups, self._totals),
            "rows_named": self._rows,
            "groups": list(self._group_names),
            "objective": self._objective.name,
            "utility": self._figures.utility.name,
            "emitted": array_digest(self._emitted),
            "dials": self._space.to_json()["dials"],
            "versions": {"fairmend": fairmend.__version__}
            | {package: importlib.metadata.version(package) for package in _PACKAGES},
        }

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement per mask, in order. See `Evaluator.measure`."""
        return self._measure_incrementally(masks) if self.path == "incremental" else self._measure_batched(masks)

    def _measure_incrementally(self, masks: Sequence[Mask]) -> list[Measurement]:
        measurements = []
        states, n = self._states, len(self._y)
        clock = time.perf_counter
        started = clock()
        for position, mask in enumerate(masks):
            # Chains are asked in lockstep: the mask at a position is usually a neighbour of the last one there.
            index = position % self._max_states
            if index == len(states):
                states.append(states[0].another())
            bias, utility, *parts = states[index].measure(mask, mask.dials[0] if mask.dials else 0.0)
            ended = clock()
            measurements.append(Measurement(bias, utility, tuple(parts), n, seconds=ended - started))
            started = ended
        return measurements

    def _measure_batched(self, masks: Sequence[Mask]) -> list[Measurement]:
        measurements: list[Measurement] = []
        started = time.perf_counter()
        n_groups, n_classes = len(self._group_names), self._network.n_classes
        for _, logits in self._forward.logits(masks):
            predicted = np.stack([decide(block) for block in logits])
            counted = confusion_counts(self._y, predicted, self._groups, n_groups, n_classes)
            counts: Any = counted * self._scale.reshape(n_groups + 1, n_classes, 1)
            bias = self._objective.unfairness(counts)
            utility = self._log_loss(logits) if self._utility is None else self._utility.value(counts)
            parts = counts[..., 1:].reshape(len(logits), -1)
            seconds = (time.perf_counter() - started) / len(logits)
            started = time.perf_counter()
            measurements += [
                Measurement(float(b), float(u), tuple(p.tolist()), len(self._y), seconds=seconds)
                for b, u, p in zip(bias, utility, parts, strict=True)
            ]
        return measurements

    def _log_loss(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        weights = np.repeat(self._scale, np.diff(self._bounds))
        return np.array([np.average(log_losses(self._y, probabilities(block)), weights=weights) for block in logits])


def _sampled(order: npt.NDArray[np.intp], totals: npt.NDArray[np.int64], limit: int, seed: int) -> npt.NDArray[np.intp]:
    """At most `limit` of the rows of every cell, from rows sorted by cell."""
    rng = np.random.default_rng(seed)
    cells = np.split(order, np.cumsum(totals)[:-1])
    return np.concatenate([np.sort(rng.permutation(rows)[:limit]) for rows in cells])
