"""Compiled kernels that measure one dropped set after another, each by what it changes against a remembered one.

A state remembers the pre-activations of every hidden layer under one mask. Flipping one unit changes the next layer by
a rank-1 update, and only the layers behind it have to be run again. Arrays are unit-major, (n_units, n_rows), so that
the inner loops run over contiguous rows and vectorise; rows are sorted by (group, label) cell, so that counting
predictions per cell is a contiguous sum.

The float32 logits carry rounding that depends on the path to a mask; `counting` decides the doubtful ones again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

BLOCK = 256  # rows at a time: the working set of a block stays in the first-level cache
WIDE = 2048  # weights of a layer from which a matrix product beats the fused loop

IDENTITY, RELU, LEAKY_RELU, GELU, GELU_TANH, SILU, TANH, SIGMOID, ELU = range(9)
ACTIVATION_CODES = {
    "identity": IDENTITY,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "gelu": GELU,
    "gelu_tanh": GELU_TANH,
    "silu": SILU,
    "tanh": TANH,
    "sigmoid": SIGMOID,
    "elu": ELU,
}

_ZERO = np.float32(0.0)
_jit = njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})


class NetworkArrays(NamedTuple):
    """A single-output network, flattened for the kernels.

    Attributes:
        offsets: (n_layers + 1,) first unit of every hidden layer.
        codes, parameters: (n_layers,) activation of every hidden layer.
        weights: all weights between hidden layers, layer by layer, each (n_out, n_in) row-major.
        starts: (n_layers,) where the weights into hidden layer l begin; unused for the first.
        biases: (n_units,) biases of the hidden units.
        output: (n_last,) output weights, and `output_bias`.
        emitted: (n_units,) what a dropped unit emits.
    """

    offsets: Int64
    codes: Int64
    parameters: Float64
    weights: Float64 | Float32
    starts: Int64
    biases: Float64 | Float32
    output: Float64 | Float32
    output_bias: float
    emitted: Float64 | Float32


class State(NamedTuple):
    """What is remembered under one mask: rows are padded to a multiple of `BLOCK`.

    Attributes:
        pre: (n_units, n_rows) float32 pre-activations.
        alive: (n_units,) False where dropped.
        logits: (n_rows,) float32 logits, without any dial.
        deltas, results: (widest, BLOCK) float32 scratch; row_index: (BLOCK,) int64 scratch; change: (n_rows,) scratch.
    """

    pre: Float32
    alive: Bool
    logits: Float32
    deltas: Float32
    results: Float32
    row_index: Int64
    change: Float32


@_jit
def smooth(z: float, code: int, parameter: float) -> float:
    """Every activation but ReLU, which the loops treat on their own."""
    if code == LEAKY_RELU:
        return z if z > 0.0 else parameter * z
    if code == GELU:
        return 0.5 * z * (1.0 + math.erf(z * 0.7071067811865476))
    if code == GELU_TANH:
        return 0.5 * z * (1.0 + math.tanh(0.7978845608028654 * (z + 0.044715 * z * z * z)))
    if code == SILU:
        return z / (1.0 + math.exp(-z))
    if code == TANH:
        return math.tanh(z)
    if code == SIGMOID:
        return 1.0 / (1.0 + math.exp(-z))
    if code == ELU:
        return z if z > 0.0 else parameter * math.expm1(z)
    return z


@_jit
def _activate(source: Float32, code: int, parameter: float, target: Float32) -> None:
    if code == RELU:
        for i in range(source.shape[0]):
            target[i] = max(source[i], _ZERO)
    else:
        for i in range(source.shape[0]):
            target[i] = smooth(source[i], code, parameter)


@_jit
def _forward_layer(net: NetworkArrays, state: State, layer: int, first: int) -> None:
    """Pre-activations of `layer` for one block of rows, from those of the layer before it."""
    below, here, above = net.offsets[layer - 1], net.offsets[layer], net.offsets[layer + 1]
    n_in, n_out = here - below, above - here
    inputs = state.deltas[:n_in]
    for k in range(n_in):
        if state.alive[below + k]:
            row = state.pre[below + k, first : first + BLOCK]
            _activate(row, net.codes[layer - 1], net.parameters[layer - 1], inputs[k])
        else:
            inputs[k, :] = net.emitted[below + k]
    weights = net.weights[net.starts[layer] : net.starts[layer] + n_in * n_out].reshape(n_out, n_in)
    outputs = state.results[:n_out]
    np.dot(weights, inputs, outputs)
    for k in range(n_out):
        target = state.pre[here + k, first : first + BLOCK]
        bias = net.biases[here + k]
        for i in range(BLOCK):
            target[i] = outputs[k, i] + bias


@_jit
def _output(net: NetworkArrays, state: State, first: int) -> None:
    """Logits of one block of rows from the pre-activations of the last hidden layer."""
    last = net.offsets.shape[0] - 2
    below = net.offsets[last]
    logits = state.logits[first : first + BLOCK]
    logits[:] = np.float32(net.output_bias)
    row = state.results[0]
    for k in range(net.offsets[last + 1] - below):
        weight = net.output[k]
        if state.alive[below + k]:
            _activate(state.pre[below + k, first : first + BLOCK], net.codes[last], net.parameters[last], row)
            for i in range(BLOCK):
                logits[i] += weight * row[i]
        else:
            constant = weight * net.emitted[below + k]
            for i in range(BLOCK):
                logits[i] += constant


@_jit
def refresh(net: NetworkArrays, state: State) -> None:
    """Recompute everything behind the first hidden layer for the present `alive`."""
    for first in range(0, state.logits.shape[0], BLOCK):
        for layer in range(1, net.offsets.shape[0] - 1):
            _forward_layer(net, state, layer, first)
        _output(net, state, first)


@_jit
def _unit_change(net: NetworkArrays, state: State, layer: int, unit: int) -> None:
    """By how much the output of `unit` changes when it is flipped: (n_rows,) into `state.change`."""
    _activate(state.pre[unit], net.codes[layer], net.parameters[layer], state.change)
    sign = np.float32(-1.0) if state.alive[unit] else np.float32(1.0)
    emitted = net.emitted[unit]
    for i in range(state.change.shape[0]):
        state.change[i] = sign * (state.change[i] - emitted)


@_jit
def _flip_last(net: NetworkArrays, state: State, position: int, logits: Float32) -> None:
    weight = net.output[position]
    for i in range(logits.shape[0]):
        logits[i] = state.logits[i] + weight * state.change[i]


@_jit
def _flip_before_last(net: NetworkArrays, state: State, position: int, logits: Float32, keep: bool) -> None:
    """Flip a unit of the last hidden layer but one: rank-1 update, activation and output sum in one pass."""
    last = net.offsets.shape[0] - 2
    below, here, above = net.offsets[last - 1], net.offsets[last], net.offsets[last + 1]
    n_in = here - below
    code, parameter = net.codes[last], net.parameters[last]
    silent = np.float32(net.output_bias)
    for k in range(above - here):
        if not state.alive[here + k]:
            silent += net.output[k] * net.emitted[here + k]
    updated = state.results[0]
    for first in range(0, logits.shape[0], BLOCK):
        change = state.change[first : first + BLOCK]
        total = state.deltas[0]
        total[:] = silent
        for k in range(above - here):
            alive = state.alive[here + k]
            if not (alive or keep):
                continue
            weight = net.weights[net.starts[last] + k * n_in + position]
            pre = state.pre[here + k, first : first + BLOCK]
            out = net.output[k]
            if code == RELU and not keep:
                for i in range(BLOCK):
                    total[i] += out * max(pre[i] + weight * change[i], _ZERO)
                continue
            for i in range(BLOCK):
                updated[i] = pre[i] + weight * change[i]
            if keep:
                pre[:] = updated
            if alive:
                _activate(updated, code, parameter, updated)
                for i in range(BLOCK):
                    total[i] += out * updated[i]
        logits[first : first + BLOCK] = total


@_jit
def _flip_panel(
    net: NetworkArrays, state: State, layer: int, position: int, rows: Int64, logits: Float32, keep: bool
) -> None:
    """Flip a unit of any earlier layer for one panel of `rows` (BLOCK of them; a panel's tail repeats its last row)."""
    n_layers = net.offsets.shape[0] - 1
    change = np.empty(BLOCK, np.float32)
    for t in range(BLOCK):
        change[t] = state.change[rows[t]]
    deltas, results = state.deltas, state.results
    updated = np.empty(BLOCK, np.float32)
    present = np.empty(BLOCK, np.float32)
    for m in range(layer + 1, n_layers):
        below, here, above = net.offsets[m - 1], net.offsets[m], net.offsets[m + 1]
        n_in, n_out = here - below, above - here
        code, parameter = net.codes[m], net.parameters[m]
        start = net.starts[m]
        if m > layer + 1:
            if n_in * n_out >= WIDE:
                np.dot(net.weights[start : start + n_in * n_out].reshape(n_out, n_in), deltas[:n_in], results[:n_out])
            else:
                for k in range(n_out):
                    results[k, :] = _ZERO
                    for h in range(n_in):
                        weight = net.weights[start + k * n_in + h]
                        for t in range(BLOCK):
                            results[k, t] += weight * deltas[h, t]
        is_last = m == n_layers - 1
        total = np.full(BLOCK, np.float32(net.output_bias)) if is_last else updated
        for k in range(n_out):
            alive = state.alive[here + k]
            if is_last and not alive:
                silent = net.output[k] * net.emitted[here + k]
                for t in range(BLOCK):
                    total[t] += silent
            if not alive:
                if not is_last:
                    deltas[k, :] = _ZERO
                if not keep:
                    continue
            pre = state.pre[here + k]
            for t in range(BLOCK):
                present[t] = pre[rows[t]]
            if m == layer + 1:
                weight = net.weights[start + k * n_in + position]
                for t in range(BLOCK):
                    updated[t] = present[t] + weight * change[t]
            else:
                for t in range(BLOCK):
                    updated[t] = present[t] + results[k, t]
            if keep:
                for t in range(BLOCK):
                    pre[rows[t]] = updated[t]
            if not alive:
                continue
            if is_last:
                _activate(updated, code, parameter, updated)
                out = net.output[k]
                for t in range(BLOCK):
                    total[t] += out * updated[t]
            else:
                target = deltas[k]
                _activate(updated, code, parameter, target)
                _activate(present, code, parameter, present)
                for t in range(BLOCK):
                    target[t] -= present[t]
        if is_last:
            for t in range(BLOCK):
                logits[rows[t]] = total[t]


@_jit
def flip(net: NetworkArrays, state: State, layer: int, position: int, logits: Float32, keep: bool) -> None:
    """Logits after flipping one unit of hidden layer `layer`, into `logits` (n_rows,).

    With `keep` the state moves to the flipped mask (`logits` must then be `state.logits`); without, it stays.
    """
    unit = net.offsets[layer] + position
    last = net.offsets.shape[0] - 2
    _unit_change(net, state, layer, unit)
    if keep:
        state.alive[unit] = not state.alive[unit]
    if layer == last:
        _flip_last(net, state, position, logits)
    elif layer == last - 1:
        _flip_before_last(net, state, position, logits, keep)
    else:
        if not keep:
            logits[:] = state.logits
        # Only rows on which the unit speaks can change: for ReLU, often less than half of them.
        rows = state.row_index
        found = 0
        for i in range(logits.shape[0]):
            if state.change[i] != _ZERO:
                rows[found] = i
                found += 1
                if found == BLOCK:
                    _flip_panel(net, state, layer, position, rows, logits, keep)
                    found = 0
        if found:
            rows[found:] = rows[found - 1]
            _flip_panel(net, state, layer, position, rows, logits, keep)
