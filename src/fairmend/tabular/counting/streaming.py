"""Few masks on very many rows: block of rows by block of rows, so that memory does not grow with the table.

A remembered state of five million rows holds gigabytes, which pays off for thousands of masks that differ by a flip.
The hundred finalists of a search are measured together instead: each block of rows is taken up once, and all masks go
over it. Counts add up, so the figures are those of one state over all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fairmend.masks import Mask
from fairmend.tabular.counting.counting import Task, unfairness, usefulness
from fairmend.tabular.counting.incremental import RememberedState
from fairmend.tabular.counting.kernels import Float64
from fairmend.tabular.networks.networks import Network

BLOCK_BYTES = 1 << 23  # float64 first-layer values of one block
_FEWEST_ROWS = 4096


class Stream:
    """The rows of an evaluator, and what is counted on them.

    Args:
        network: a network with one logit and at least one hidden layer.
        X: (n_given_rows, n_features).
        order: (n_rows,) rows of X, sorted by cell; no copy of them is made.
        emitted: (n_units,) what a dropped unit emits.
        task: the cells of the sorted rows, and the figures to make of their counts.
    """

    def __init__(
        self,
        network: Network,
        X: npt.NDArray[np.generic],
        order: npt.NDArray[np.intp],
        emitted: Float64,
        task: Task,
    ) -> None:
        self._network, self._X, self._order, self._emitted, self._task = network, X, order, emitted, task
        size = max(_FEWEST_ROWS, BLOCK_BYTES // (8 * max(network.n_features, *network.hidden_widths)))
        self._starts = range(0, len(order), size)
        self._size = size
        self._tolerances: dict[int, float] = {}
        self._only: RememberedState | None = None

    def measure(self, masks: Sequence[Mask]) -> Float64:
        """Unfairness, utility and predicted positives per cell of every mask, shape (n_masks, 2 + n_cells)."""
        task, n_cells = self._task, len(self._task.totals)
        counts = np.zeros((len(masks), n_cells))
        for start in self._starts if masks else ():
            state = self._state(start)
            for place, mask in enumerate(masks):
                counts[place] += state.measure(mask, mask.dials[0] if mask.dials else 0.0)[2:]
        estimates = counts * task.scale
        figures = np.empty((len(masks), 2 + n_cells))
        figures[:, 2:] = estimates
        for place, cells in enumerate(estimates):
            figures[place, 0] = unfairness(cells, task.totals, task.n_groups, task.objective)
            figures[place, 1] = usefulness(cells, task.totals, task.utility)
        return figures

    def _state(self, start: int) -> RememberedState:
        """The state of one block; kept where there is only one."""
        if self._only is not None:
            return self._only
        rows = self._order[start : start + self._size]
        bounds = np.clip(self._task.bounds - start, 0, len(rows))
        here = self._task._replace(bounds=bounds, scale=np.ones_like(self._task.scale))
        state = RememberedState(
            self._network, self._X[rows], self._emitted, here, tolerance=self._tolerances.get(start)
        )
        self._tolerances[start] = state.tolerance
        if len(self._starts) == 1:
            self._only = state
        return state
