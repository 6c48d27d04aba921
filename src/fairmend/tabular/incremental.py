"""Remembered states: the cost of a flip for a mask that differs from a remembered one by a flip.

The flips are found from the masks themselves, so an evaluator built on this keeps the plain interface measure(masks).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fairmend.masks import Mask
from fairmend.tabular.counting import count_positives
from fairmend.tabular.kernels import ACTIVATION_CODES, BLOCK, Bool, Float32, Float64, Int64, NetworkArrays, State
from fairmend.tabular.kernels import flip as flip_unit
from fairmend.tabular.kernels import refresh as refresh_state
from fairmend.tabular.networks import Network

_REFRESH_AFTER = 128  # kept flips, after which a state is computed anew
_SAFETY = 4.0  # rounding after that many flips, as a multiple of the bound for one forward pass; see the tests
_FULL_FLIPS = 6  # flips that cost about as much as computing a state anew


class RememberedState:
    """One remembered mask of a single-output network, with the rows it is evaluated on.

    Args:
        network: a network with one logit and at least one hidden layer.
        X: (n_rows, n_features), sorted by cell.
        emitted: (n_units,) what a dropped unit emits.
        bounds: (n_cells + 1,) the rows of cell c are bounds[c] to bounds[c + 1] - 1.
    """

    def __init__(self, network: Network, X: npt.ArrayLike, emitted: Float64, bounds: Int64) -> None:
        rows = np.asarray(X, dtype=np.float64)
        self._bounds = bounds
        self._exact = _flatten(network, emitted, np.dtype(np.float64))
        self._fast = _flatten(network, emitted, np.dtype(np.float32))
        layer = network.layers[0]
        # The inputs of every mask: shared between states, because nothing that is dropped comes before them.
        self._first: Float64 = rows @ layer.weight.T.astype(np.float64) + layer.bias
        self._first_by_unit: Float32 = np.ascontiguousarray(self._first.T, dtype=np.float32)
        self._widths = network.hidden_widths
        self._tolerance = _SAFETY * _rounding(network, rows)
        self._places = [(layer, unit) for layer, width in enumerate(self._widths) for unit in range(width)]
        self._open()

    def another(self) -> RememberedState:
        """A second state over the same rows, sharing everything that no mask changes."""
        twin = object.__new__(RememberedState)
        twin.__dict__.update(self.__dict__)
        twin._open()
        return twin

    def _open(self) -> None:
        n_rows, n_units, widest = len(self._first), len(self._places), max(self._widths)
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
        self._proposed: Float32 = np.zeros(n_rows, dtype=np.float32)
        self._positives: Int64 = np.zeros(len(self._bounds) - 1, dtype=np.int64)
        self.bits = 0
        self.proposed_bits = 0
        self._refresh()

    def _refresh(self) -> None:
        refresh_state(self._fast, self._state)
        self._kept = 0

    def distance(self, bits: int) -> int:
        """How many flips away a mask is, from here or from the mask measured last."""
        return min((self.bits ^ bits).bit_count(), (self.proposed_bits ^ bits).bit_count())

    def count(self, mask: Mask, shift: float) -> Int64:
        """Rows of every cell with logit + shift > 0 under the mask, (n_cells,); overwritten by the next call."""
        try:
            return self._count(mask, shift)
        except BaseException:
            self._open()  # Ctrl-C may have struck between the two halves of a change
            raise

    def _count(self, mask: Mask, shift: float) -> Int64:
        difference = self.bits ^ mask.bits
        if difference & (difference - 1):
            # More than one flip away: an accepted proposal lies between, or the search jumped.
            self._approach(mask)
            difference = self.bits ^ mask.bits
        state = self._state
        self.proposed_bits = mask.bits
        if not difference:
            count_positives(
                self._exact, self._first, state.alive, state.logits, shift, self._tolerance, self._bounds,
                self._positives,
            )  # fmt: skip
            return self._positives
        unit = difference.bit_length() - 1
        flip_unit(self._fast, state, *self._places[unit], self._proposed, False)
        alive: Bool = state.alive
        alive[unit] = not alive[unit]
        count_positives(
            self._exact, self._first, alive, self._proposed, shift, self._tolerance, self._bounds, self._positives
        )
        alive[unit] = not alive[unit]
        return self._positives

    def _approach(self, mask: Mask) -> None:
        """Move to within one flip of the mask, by way of the last proposal where that is nearer."""
        between = self.proposed_bits ^ self.bits
        if between and (self.proposed_bits ^ mask.bits).bit_count() < (self.bits ^ mask.bits).bit_count():
            self._keep(between.bit_length() - 1)
        difference = self.bits ^ mask.bits
        if difference.bit_count() > _FULL_FLIPS:
            self.bits = mask.bits
            self._state.alive[:] = ~mask.dropped()
            self._state.speaks[:] = self._state.alive
            self._refresh()
            return
        while difference & (difference - 1):
            self._keep(difference.bit_length() - 1)
            difference = self.bits ^ mask.bits

    def _keep(self, unit: int) -> None:
        flip_unit(self._fast, self._state, *self._places[unit], self._state.logits, True)
        self.bits ^= 1 << unit
        self._kept += 1
        if self._kept >= _REFRESH_AFTER:
            self._refresh()


def _rounding(network: Network, rows: Float64) -> float:
    """The largest rounding error that one float32 forward pass can make in a logit of these rows.

    Sums of large terms that cancel round worse than their small result suggests, so the bound adds up absolute terms.
    """
    unit = float(np.finfo(np.float32).eps)
    values = rows
    errors: Float64 = np.zeros_like(rows)
    for index, layer in enumerate(network.layers):
        weight = np.abs(layer.weight.T.astype(np.float64))
        terms = np.abs(values) @ weight + np.abs(layer.bias)
        # The first layer is computed in float64 and only stored in float32.
        z = values @ layer.weight.T.astype(np.float64) + layer.bias
        errors = unit * np.abs(z) if index == 0 else errors @ weight + unit * terms
        values = layer.activation(z)
    return float(errors.max(initial=0.0)) + unit


def _flatten(network: Network, emitted: Float64, dtype: np.dtype[np.floating]) -> NetworkArrays:
    hidden, last = network.layers[:-1], network.layers[-1]
    between = [layer.weight.T.ravel() for layer in hidden[1:]]
    sizes = [0, *(part.size for part in between)]
    return NetworkArrays(
        offsets=np.cumsum([0, *network.hidden_widths]).astype(np.int64),
        codes=np.array([ACTIVATION_CODES[layer.activation.name] for layer in hidden], dtype=np.int64),
        parameters=np.array([layer.activation.parameter for layer in hidden]),
        weights=np.concatenate([np.zeros(0, dtype=np.float32), *between]).astype(dtype),
        starts=np.array([0, *np.cumsum(sizes)[: len(hidden) - 1]], dtype=np.int64),
        biases=np.concatenate([layer.bias for layer in hidden]).astype(dtype),
        output=last.weight[0].astype(dtype),
        output_bias=float(last.bias[0]),
        emitted=emitted.astype(dtype),
    )
