"""Remembered states: the cost of a flip for a mask that differs from a remembered one by a flip.

The flips are found from the masks themselves, so an evaluator built on this keeps the plain interface measure(masks).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError
from fairmend.masks import Mask
from fairmend.tabular.counting import workspaces
from fairmend.tabular.counting.counting import ExactNetwork, Task, unfairness, usefulness
from fairmend.tabular.counting.kernels import ACTIVATION_CODES, BLOCK, Float32, Float64, NetworkArrays, State
from fairmend.tabular.networks.networks import NOT_FINITE, Network

_REFRESH_AFTER = 128  # kept flips, after which a state is computed anew
_SAFETY = 64.0  # rounding after that many flips, as a multiple of that of one forward pass; see the tests
_VECTOR = 8  # loops of so many float32 values vectorise without a remainder
_FULL_FLIPS = 6  # flips that cost about as much as computing a state anew
STREAM_BYTES = 1 << 23  # float64 first-layer values of one block of rows that are streamed
_FEWEST_ROWS = 4096


class RememberedState:
    """One remembered mask of a single-output network, with the rows it is evaluated on.

    Args:
        network: a network with one logit and at least one hidden layer.
        X: (n_rows, n_features), sorted by cell.
        emitted: (n_units,) what a dropped unit emits.
        task: the cells of the rows, and the figures to make of their counts.
        tolerance: the attribute of an earlier state over the same rows, which spares measuring it.

    Attributes:
        tolerance: float32 logits as near to the threshold as this are decided again in float64.

    Raises:
        DataError: float32 logits that are not finite.
    """

    def __init__(
        self, network: Network, X: npt.ArrayLike, emitted: Float64, task: Task, tolerance: float | None = None
    ) -> None:
        rows = np.asarray(X, dtype=np.float64)
        self._task = task
        self._fast = _flatten(network, emitted, np.dtype(np.float32))
        layer = network.layers[0]
        # The inputs of every mask: shared between states, because nothing that is dropped comes before them.
        first: Float64 = np.zeros((len(rows), _padded(layer.n_out)))
        first[:, : layer.n_out] = rows @ layer.weight.T.astype(np.float64) + layer.bias
        self._exact = ExactNetwork(_flatten(network, emitted, np.dtype(np.float64)), first)
        self._first_by_unit: Float32 = np.ascontiguousarray(first.T, dtype=np.float32)
        self._widths = [_padded(width) for width in network.hidden_widths]
        self._places = [(level, unit) for level, width in enumerate(network.hidden_widths) for unit in range(width)]
        offsets = self._fast.offsets.tolist()
        self._padded_units = [offsets[level] + unit for level, unit in self._places]
        self._open()
        self.tolerance = self._measured_tolerance(network, rows) if tolerance is None else tolerance

    def _measured_tolerance(self, network: Network, rows: Float64) -> float:
        """Measured, because sums of large terms that cancel round worse than their small result suggests."""
        if not np.isfinite(self._state.logits).all():
            raise DataError(NOT_FINITE)
        logits = network.logits(rows)[:, 0]
        scale = float(np.abs(logits).max()) + abs(self._fast.output_bias)
        rounding = float(np.abs(self._state.logits - logits).max())
        return _SAFETY * max(rounding, float(np.finfo(np.float32).eps) * scale)

    def another(self) -> RememberedState:
        """A second state over the same rows, sharing everything that no mask changes."""
        twin = object.__new__(RememberedState)
        twin.__dict__.update(self.__dict__)
        twin._open()
        return twin

    def _open(self) -> None:
        n_rows, n_units, widest = len(self._exact.first), sum(self._widths), max(self._widths)
        sizes = [0, *(n_rows * width for width in self._widths[1:])]
        self._state = State(
            first=self._first_by_unit,
            pre=np.zeros(sum(sizes), dtype=np.float32),
            starts=np.array([0, *np.cumsum(sizes)[: len(self._widths) - 1]], dtype=np.int64),
            alive=np.ones(n_units, dtype=np.bool_),
            speaks=np.ones(n_units, dtype=np.float32),
            logits=np.zeros(n_rows, dtype=np.float32),
            deltas=np.zeros(BLOCK * widest, dtype=np.float32),
            results=np.zeros(BLOCK * widest, dtype=np.float32),
            rows=np.zeros(BLOCK, dtype=np.int64),
            change=np.zeros(n_rows, dtype=np.float32),
        )
        self._figures: Float64 = np.zeros(2 + len(self._task.totals))
        proposed: Float32 = np.zeros(n_rows, dtype=np.float32)
        self._workspace = workspaces.workspace(
            self._fast, self._exact, self._state, self._task, proposed, self._figures
        )
        self._flipped = -1  # the unit whose flip the scratch arrays hold
        self.bits = 0
        self.proposed_bits = 0
        self._refresh()

    def _refresh(self) -> None:
        workspaces.refresh(self._workspace)
        self._kept = 0

    def distance(self, bits: int) -> int:
        """How many flips away a mask is, from here or from the mask measured last."""
        return min((self.bits ^ bits).bit_count(), (self.proposed_bits ^ bits).bit_count())

    def measure(self, mask: Mask, shift: float) -> list[float]:
        """Unfairness, utility and predicted positives per cell under the mask, at logit + shift > 0."""
        try:
            return self._measure(mask, shift)
        except BaseException:
            self._open()  # Ctrl-C may have struck between the two halves of a change
            raise

    def _measure(self, mask: Mask, shift: float) -> list[float]:
        difference = self.bits ^ mask.bits
        if difference & (difference - 1):
            # More than one flip away: an accepted proposal lies between, or the search jumped.
            self._approach(mask)
            difference = self.bits ^ mask.bits
        self.proposed_bits = mask.bits
        flipped = -1
        if difference:
            unit = difference.bit_length() - 1
            self._flip(unit)
            flipped = self._padded_units[unit]
        workspaces.measure(self._workspace, flipped, shift, self.tolerance)
        figures: list[float] = self._figures.tolist()
        return figures

    def _approach(self, mask: Mask) -> None:
        """Move to within one flip of the mask, by way of the last proposal where that is nearer."""
        between = self.proposed_bits ^ self.bits
        if between and (self.proposed_bits ^ mask.bits).bit_count() < (self.bits ^ mask.bits).bit_count():
            self._keep(between.bit_length() - 1)
        difference = self.bits ^ mask.bits
        if difference.bit_count() > _FULL_FLIPS:
            self.bits = mask.bits
            self._state.alive[self._padded_units] = ~mask.dropped()
            self._state.speaks[:] = self._state.alive
            self._flipped = -1
            self._refresh()
            return
        while difference & (difference - 1):
            self._keep(difference.bit_length() - 1)
            difference = self.bits ^ mask.bits

    def _flip(self, unit: int) -> None:
        self._flipped = -1  # until the arrays are whole again
        layer, position = self._places[unit]
        workspaces.flip(self._workspace, layer, position)
        self._flipped = unit

    def _keep(self, unit: int) -> None:
        if self._flipped != unit:
            self._flip(unit)
        layer, position = self._places[unit]
        workspaces.keep(self._workspace, layer, position)
        self._flipped = -1
        self.bits ^= 1 << unit
        self._kept += 1
        if self._kept >= _REFRESH_AFTER:
            self._refresh()


class Stream:
    """Few masks on very many rows: block of rows by block of rows, so that memory does not grow with the table.

    A remembered state of five million rows holds gigabytes, which pays off for thousands of masks that differ by a
    flip. The hundred finalists of a search are measured together instead: each block of rows is taken up once, and all
    masks go over it. Counts add up, so the figures are those of one state over all rows.

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
        size = max(_FEWEST_ROWS, STREAM_BYTES // (8 * max(network.n_features, *network.hidden_widths)))
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


def _padded(width: int) -> int:
    """The width at which the compiled loops over a layer's units run in whole vectors."""
    return width if width <= _VECTOR // 4 else -(-width // _VECTOR) * _VECTOR


def _flatten(network: Network, emitted: Float64, dtype: np.dtype[np.floating]) -> NetworkArrays:
    """The arrays of the kernels; every layer is padded with units that say nothing."""
    hidden, last = network.layers[:-1], network.layers[-1]
    widths = [_padded(layer.n_out) for layer in hidden]

    def pad(values: npt.NDArray[np.generic], width: int) -> Float64:
        out = np.zeros(width)
        out[: values.size] = values
        return out

    between = []
    for layer, n_in, n_out in zip(hidden[1:], widths, widths[1:], strict=False):
        weights = np.zeros((n_in, n_out))
        weights[: layer.n_in, : layer.n_out] = layer.weight.T
        between.append(weights.ravel())
    sizes = [0, *(part.size for part in between)]
    return NetworkArrays(
        offsets=np.cumsum([0, *widths]).astype(np.int64),
        codes=np.array([ACTIVATION_CODES[layer.activation.name] for layer in hidden], dtype=np.int64),
        parameters=np.array([layer.activation.parameter for layer in hidden]),
        weights=np.concatenate([np.zeros(0), *between]).astype(dtype),
        starts=np.array([0, *np.cumsum(sizes)[: len(hidden) - 1]], dtype=np.int64),
        biases=np.concatenate([pad(layer.bias, width) for layer, width in zip(hidden, widths, strict=True)]).astype(
            dtype
        ),
        output=pad(last.weight[0], widths[-1]).astype(dtype),
        output_bias=float(last.bias[0]),
        emitted=np.concatenate(
            [pad(part, width) for part, width in zip(network.by_layer(emitted), widths, strict=True)]
        ).astype(dtype),
    )
