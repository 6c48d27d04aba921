"""Measures masks of a tabular network: unfairness and utility on fixed rows.

Three paths give the same figures. Networks with one logit are measured in compiled kernels: by remembered states, where
a mask one flip away costs that flip, or, for a few masks on very many rows, block of rows by block of rows with nothing
remembered in between. Everything else takes a plain batched torch path.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

import fairmend
from fairmend.errors import InputError
from fairmend.evaluation import Direction, Figure, Figures, Measurement, array_digest
from fairmend.masks import Mask, Space
from fairmend.records import plain
from fairmend.tabular.fairness.confusion import confusion_counts
from fairmend.tabular.fairness.metrics import LOG_LOSS, check_groups, find_objective, find_utility, log_losses
from fairmend.tabular.networks.networks import Drop, Network, decide, emitted, probabilities

if TYPE_CHECKING:
    from fairmend.tabular.counting.batched import BatchedForward

Path = Literal["auto", "incremental", "streamed", "batched"]
_VERSION = 1  # raise when the same masks would measure differently
_PACKAGES = ("numpy", "numba", "torch")  # what draws the rows and computes the scores
_STATE_BYTES = 1 << 28  # memory for remembered states
_BLOCK_VALUES = 1 << 25  # activations of the widest layer that the batched path holds: 256 MiB of float64


@dataclass(frozen=True)
class Rows:
    """The rows that masks are measured on.

    Attributes:
        X, y, groups: (n_rows, n_features) features, (n_rows,) classes from 0, and (n_rows,) group codes, -1 for people
            outside the compared groups.
        group_names: a name per group code.
        name: of the rows, as people know them: "validation".
        per_cell: measure on at most so many rows of each (group, label) cell, a fixed sample that `seed` draws; figures
            then estimate those of all rows. A rate is as uncertain as its smallest cell makes it, so measuring the
            large cells in full costs time and settles nothing.
        seed: of the sample.
    """

    X: npt.ArrayLike
    y: npt.ArrayLike
    groups: npt.ArrayLike
    group_names: Sequence[str]
    name: str = "search"
    per_cell: int | None = None
    seed: int = 0


class TabularEvaluator:
    """Measures the unfairness and utility of a network with dropped neurons (`fairmend.evaluation.Evaluator`).

    Args:
        network: what is measured.
        rows: what it is measured on.
        space: the masks; its dials, if any, are `network.threshold_dials()`.
        objective: see `metrics.OBJECTIVES`.
        utility: see `metrics.UTILITIES`, or "log_loss".
        drop: what a dropped neuron emits, see `networks.emitted`.
        path: "incremental" (one logit only), "streamed" (the same with memory for one block of rows, for masks that are
            asked together), "batched", or the faster of the first and the last.

    Attributes:
        rebuild: makes an equal evaluator; set by whoever can, and what the evaluator is when it is pickled.

    Raises:
        InputError, DataError: unknown names, shapes that do not fit, a group without the people that a rate needs.
    """

    def __init__(
        self,
        network: Network,
        rows: Rows,
        space: Space,
        *,
        objective: str = "equalized_odds_difference",
        utility: str = "f1",
        drop: Drop = "output",
        path: Path = "auto",
    ) -> None:
        self.rebuild: Callable[[], TabularEvaluator] | None = None
        if space.n_units != network.n_units:
            raise InputError(f"the space has {space.n_units} units, the network {network.n_units} hidden neurons")
        network.shift(space.untouched())  # refuses dials that the network cannot absorb
        self._space, self._network = space, network
        self._group_names, self._rows_named = tuple(rows.group_names), rows.name
        self._objective = find_objective(objective)
        self._utility = None if utility == LOG_LOSS else find_utility(utility)
        self._emitted = emitted(network, drop, rows.X)
        check_groups(rows.y, rows.groups, rows.group_names, self._objective, network.n_classes)

        given_y, given_groups = np.asarray(rows.y, dtype=np.int64), np.asarray(rows.groups, dtype=np.int64)
        # Sorted by (group, label), outsiders last, as the kernels want it; no figure depends on the order.
        n_groups = len(self._group_names)
        cell = np.where(given_groups < 0, n_groups, given_groups) * network.n_classes + given_y
        order = np.argsort(cell, kind="stable")
        n_cells = (n_groups + 1) * network.n_classes
        self._totals = np.bincount(cell, minlength=n_cells).astype(np.int64)
        if rows.per_cell is not None:
            order = _sampled(order, self._totals, rows.per_cell, rows.seed)
        self._rows_of_X, self._order = np.asarray(rows.X), order
        if len(order) < len(given_y):  # a sample: the other rows are let go
            self._rows_of_X, self._order = self._rows_of_X[order], np.arange(len(order))
        self._y, self._groups = given_y[order], given_groups[order]
        self._bounds = np.searchsorted(cell[order], np.arange(n_cells + 1)).astype(np.int64)
        self._scale = self._totals / np.maximum(1, np.diff(self._bounds))

        served = network.n_outputs == 1 and utility != LOG_LOSS and space.n_units > 0
        if path in ("incremental", "streamed") and not served:
            raise InputError(
                f"path={path!r} serves networks with one logit and utilities of predictions, not {network.n_outputs} "
                f"logits with {utility!r}; use path='auto'"
            )
        if path == "auto":
            path = "incremental" if served else "batched"
        self.path: Path = path
        if self.path == "batched":
            self._open_forwards()
        else:
            self._open_states()
        better: Direction = "lower" if utility == LOG_LOSS else "higher"
        sampled = f", at most {rows.per_cell} of each group and label" if len(order) < len(given_y) else ""
        protocol = f"{len(order)} {rows.name} rows{sampled}"
        classes = range(network.n_classes)
        parts = tuple(
            f"{group}: {label} predicted {guess}"
            for group in (*rows.group_names, "outside")
            for label in classes
            for guess in classes[1:]
        )
        name = objective if self._objective.better == "lower" else f"1 - {objective}"
        self._figures = Figures(Figure(name, "lower", protocol), Figure(utility, better, protocol), parts)

    def _open_states(self) -> None:
        from fairmend.tabular.counting.counting import OBJECTIVE_CODES, UTILITY_CODES, Task
        from fairmend.tabular.counting.incremental import RememberedState, Stream

        assert self._utility is not None, "log-loss is measured by the batched path"
        task = Task(
            bounds=self._bounds,
            totals=self._totals,
            scale=self._scale,
            n_groups=len(self._group_names),
            objective=OBJECTIVE_CODES[self._objective.name],
            utility=UTILITY_CODES[self._utility.name],
        )
        if self.path == "streamed":
            self._stream = Stream(self._network, self._rows_of_X, self._order, self._emitted, task)
            return
        self._states = [RememberedState(self._network, self._X, self._emitted, task)]
        self._max_states = int(np.clip(_STATE_BYTES // (4 * self._space.n_units * max(1, len(self._y))), 1, 64))

    def _open_forwards(self) -> None:
        """One forward over all rows, kept; on very many rows, one per block of them, made anew when it is its turn."""
        n, widest = len(self._order), max(layer.n_out for layer in self._network.layers)
        size = max(1, _BLOCK_VALUES // widest)
        self._blocks = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        self._whole = self._forward(self._blocks[0]) if len(self._blocks) == 1 else None

    def _forward(self, rows: slice) -> BatchedForward:
        from fairmend.tabular.counting.batched import BatchedForward

        return BatchedForward(self._network, self._rows_of_X[self._order[rows]], self._emitted)

    @property
    def _X(self) -> npt.NDArray[Any]:
        """The measured rows, sorted by cell; a copy, so that what is only streamed lies in memory once."""
        rows: npt.NDArray[Any] = self._rows_of_X[self._order]
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        if self.rebuild is None:
            raise InputError("an evaluator that does not say how to rebuild it cannot be sent to other processes")
        return self.rebuild, ()

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
            "rows_named": self._rows_named,
            "groups": list(self._group_names),
            "objective": self._objective.name,
            "utility": self._figures.utility.name,
            "emitted": array_digest(self._emitted),
            "dials": plain(self._space)["dials"],
            "versions": {
                "fairmend": fairmend.__version__,
                **{package: importlib.metadata.version(package) for package in _PACKAGES},
            },
        }

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement per mask, in order. See `Evaluator.measure`."""
        if self.path == "streamed":
            return self._measure_streamed(masks)
        return self._measure_incrementally(masks) if self.path == "incremental" else self._measure_batched(masks)

    def _measure_streamed(self, masks: Sequence[Mask]) -> list[Measurement]:
        started = time.perf_counter()
        figures = self._stream.measure(masks)
        seconds = (time.perf_counter() - started) / max(1, len(masks))
        return [Measurement(row[0], row[1], tuple(row[2:]), len(self._y), seconds=seconds) for row in figures.tolist()]

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
        started = time.perf_counter()
        n_groups, n_classes = len(self._group_names), self._network.n_classes
        counted = np.zeros((len(masks), n_groups + 1, n_classes, n_classes), dtype=np.int64)
        losses = np.zeros(len(masks))
        weights = np.repeat(self._scale, np.diff(self._bounds))
        for rows in self._blocks if masks else ():
            forward = self._whole or self._forward(rows)
            y, groups = self._y[rows], self._groups[rows]
            for part, logits in forward.logits(masks):
                predicted = np.stack([decide(block) for block in logits])
                counted[part] += confusion_counts(y, predicted, groups, n_groups, n_classes)
                if self._utility is None:
                    found = [log_losses(y, probabilities(block)) for block in logits]
                    losses[part] += [np.multiply(each, weights[rows]).sum() for each in found]
        counts: Any = counted * self._scale.reshape(n_groups + 1, n_classes, 1)
        biases = self._objective.unfairness(counts)
        utilities = losses / weights.sum() if self._utility is None else self._utility.value(counts)
        parts = counts[..., 1:].reshape(len(masks), (n_groups + 1) * n_classes * (n_classes - 1))
        seconds = (time.perf_counter() - started) / max(1, len(masks))
        return [
            Measurement(float(bias), float(utility), tuple(part.tolist()), len(self._y), seconds=seconds)
            for bias, utility, part in zip(biases, utilities, parts, strict=True)
        ]


def _sampled(order: npt.NDArray[np.intp], totals: npt.NDArray[np.int64], limit: int, seed: int) -> npt.NDArray[np.intp]:
    """At most `limit` of the rows of every cell, from rows sorted by cell."""
    rng = np.random.default_rng(seed)
    cells = np.split(order, np.cumsum(totals)[:-1])
    return np.concatenate([np.sort(rng.permutation(rows)[:limit]) for rows in cells])
