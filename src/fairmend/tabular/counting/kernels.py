"""Compiled kernels that measure one dropped set after another, each by what it changes against a remembered one.

A state remembers the pre-activations of every hidden layer under one mask. Flipping one unit changes the next layer by
a rank-1 update, and only the layers behind it have to be run again, and only for the rows on which the unit speaks:
with ReLU often less than half of them. Behind the first layer arrays are row-major, (n_rows, n_units), so that silent
rows can be skipped and the loops over the units of a row vectorise.

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

BLOCK = 512  # rows at a time: the working set of a block stays in the second-level cache

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
        weights: all weights between hidden layers, layer by layer, each transposed: (n_in, n_out) row-major.
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
    """What is remembered under one mask.

    Attributes:
        first: (n_first, n_rows) float32 pre-activations of the first hidden layer: no mask changes them.
        pre: those of the other hidden layers, one (n_rows, n_units_of_layer) block after the other.
        starts: (n_layers,) where the block of hidden layer l begins in `pre`; unused for the first.
        alive: (n_units,) False where dropped.
        speaks: (n_units,) float32: 1 where alive, 0 where dropped.
        logits: (n_rows,) float32 logits, without any dial.
        deltas, results: (BLOCK * widest,) float32 scratch; rows: (BLOCK,) int64 scratch; change: (n_rows,) scratch.
    """

    first: Float32
    pre: Float32
    starts: Int64
    alive: Bool
    speaks: Float32
    logits: Float32
    deltas: Float32
    results: Float32
    rows: Int64
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
def _weights(net: NetworkArrays, layer: int) -> Float32 | Float64:
    """The weights into hidden layer `layer`, (n_in, n_out)."""
    n_in = net.offsets[layer] - net.offsets[layer - 1]
    n_out = net.offsets[layer + 1] - net.offsets[layer]
    return net.weights[net.starts[layer] : net.starts[layer] + n_in * n_out].reshape(n_in, n_out)


@_jit
def _block(net: NetworkArrays, state: State, layer: int) -> Float32:
    """The pre-activations of hidden layer `layer` > 0, (n_rows, n_units_of_layer)."""
    n_rows, width = state.logits.shape[0], net.offsets[layer + 1] - net.offsets[layer]
    return state.pre[state.starts[layer] : state.starts[layer] + n_rows * width].reshape(n_rows, width)


@_jit
def _silent_logit(net: NetworkArrays, state: State) -> np.float32:
    """The output bias and what the dropped units of the last hidden layer contribute to every logit."""
    below = net.offsets[net.offsets.shape[0] - 2]
    total = np.float32(net.output_bias)
    for k in range(net.output.shape[0]):
        if not state.alive[below + k]:
            total += net.output[k] * net.emitted[below + k]
    return total


@_jit
def refresh(net: NetworkArrays, state: State) -> None:
    """Recompute everything behind the first hidden layer for the present `alive`."""
    n_rows, n_layers = state.logits.shape[0], net.offsets.shape[0] - 1
    silent = _silent_logit(net, state)
    for start in range(0, n_rows, BLOCK):
        m = min(BLOCK, n_rows - start)
        for layer in range(n_layers):
            below, width = net.offsets[layer], net.offsets[layer + 1] - net.offsets[layer]
            outputs = state.deltas[: m * width].reshape(m, width)
            if layer == 0:
                for k in range(width):
                    for i in range(m):
                        outputs[i, k] = state.first[k, start + i]
            else:
                pre = _block(net, state, layer)
                n_in = below - net.offsets[layer - 1]
                inputs = state.results[: m * n_in].reshape(m, n_in)
                target = pre[start : start + m]
                np.dot(inputs, _weights(net, layer), target)
                for i in range(m):
                    for k in range(width):
                        target[i, k] += net.biases[below + k]
                outputs[:] = target
            for i in range(m):
                _activate(outputs[i], net.codes[layer], net.parameters[layer], outputs[i])
                for k in range(width):
                    if not state.alive[below + k]:
                        outputs[i, k] = net.emitted[below + k]
            state.results[: m * width] = state.deltas[: m * width]
        last = n_layers - 1
        below, width = net.offsets[last], net.output.shape[0]
        outputs = state.results[: m * width].reshape(m, width)
        for i in range(m):
            total = silent
            for k in range(width):
                total += state.speaks[below + k] * net.output[k] * outputs[i, k]
            state.logits[start + i] = total


@_jit
def _unit_change(net: NetworkArrays, state: State, layer: int, position: int) -> None:
    """By how much the output of a unit changes when it is flipped: (n_rows,) into `state.change`."""
    change = state.change
    if layer == 0:
        _activate(state.first[position], net.codes[layer], net.parameters[layer], change)
    else:
        pre = _block(net, state, layer)
        for i in range(change.shape[0]):
            change[i] = pre[i, position]
        _activate(change, net.codes[layer], net.parameters[layer], change)
    unit = net.offsets[layer] + position
    sign = np.float32(-1.0) if state.alive[unit] else np.float32(1.0)
    emitted = net.emitted[unit]
    for i in range(change.shape[0]):
        change[i] = sign * (change[i] - emitted)


@_jit
def _flip_last(net: NetworkArrays, state: State, position: int, logits: Float32) -> None:
    weight = net.output[position]
    for i in range(logits.shape[0]):
        logits[i] = state.logits[i] + weight * state.change[i]


@_jit
def _flip_before_last(net: NetworkArrays, state: State, position: int, logits: Float32) -> None:
    """Flip a unit of the last hidden layer but one: update, activation and output sum of a row in one pass."""
    last = net.offsets.shape[0] - 2
    below, width = net.offsets[last], net.output.shape[0]
    code, parameter = net.codes[last], net.parameters[last]
    weights = _weights(net, last)[position]
    pre = _block(net, state, last)
    silent = _silent_logit(net, state)
    output = state.results[:width]
    for k in range(width):
        output[k] = net.output[k] * state.speaks[below + k]
    for i in range(logits.shape[0]):
        change = state.change[i]
        if change == _ZERO:
            logits[i] = state.logits[i]
            continue
        total = silent
        if code == RELU:
            for k in range(width):
                total += output[k] * max(pre[i, k] + weights[k] * change, _ZERO)
        else:
            for k in range(width):
                total += output[k] * np.float32(smooth(pre[i, k] + weights[k] * change, code, parameter))
        logits[i] = total


@_jit
def _advance_before_last(net: NetworkArrays, state: State, position: int) -> None:
    """Move the pre-activations of the last hidden layer to the mask in which a unit of the one before is flipped."""
    last = net.offsets.shape[0] - 2
    weights = _weights(net, last)[position]
    pre = _block(net, state, last)
    for i in range(pre.shape[0]):
        change = state.change[i]
        if change != _ZERO:
            for k in range(pre.shape[1]):
                pre[i, k] += weights[k] * change


@_jit
def _flip_panel(
    net: NetworkArrays, state: State, layer: int, position: int, m: int, logits: Float32, keep: bool
) -> None:
    """Flip a unit of an earlier layer for a panel: the first `m` of `state.rows`.

    With `keep` the pre-activations move and the logits are left alone; without, it is the other way round.
    """
    n_layers = net.offsets.shape[0] - 1
    silent = _silent_logit(net, state)
    rows = state.rows
    for level in range(layer + 1, n_layers):
        below, width = net.offsets[level], net.offsets[level + 1] - net.offsets[level]
        n_in = below - net.offsets[level - 1]
        code, parameter = net.codes[level], net.parameters[level]
        weights, pre = _weights(net, level), _block(net, state, level)
        shift = state.results[: m * width].reshape(m, width)
        if level == layer + 1:
            for t in range(m):
                change = state.change[rows[t]]
                for k in range(width):
                    shift[t, k] = change * weights[position, k]
        else:
            np.dot(state.deltas[: m * n_in].reshape(m, n_in), weights, shift)
        speaks = state.speaks[below : below + width]
        if level == n_layers - 1 and not keep:
            for t in range(m):
                r = rows[t]
                total = silent
                if code == RELU:
                    for k in range(width):
                        total += speaks[k] * net.output[k] * max(pre[r, k] + shift[t, k], _ZERO)
                else:
                    for k in range(width):
                        value = smooth(pre[r, k] + shift[t, k], code, parameter)
                        total += speaks[k] * net.output[k] * np.float32(value)
                logits[r] = total
        if level < n_layers - 1:
            deltas = state.deltas[: m * width].reshape(m, width)
            for t in range(m):
                r = rows[t]
                if code == RELU:
                    for k in range(width):
                        z = pre[r, k]
                        deltas[t, k] = speaks[k] * (max(z + shift[t, k], _ZERO) - max(z, _ZERO))
                else:
                    for k in range(width):
                        z = pre[r, k]
                        after, before = smooth(z + shift[t, k], code, parameter), smooth(z, code, parameter)
                        deltas[t, k] = speaks[k] * np.float32(after - before)
        if keep:
            for t in range(m):
                r = rows[t]
                for k in range(width):
                    pre[r, k] += shift[t, k]


@_jit
def _flip_panels(net: NetworkArrays, state: State, layer: int, position: int, logits: Float32, keep: bool) -> None:
    """Flip a unit of an earlier layer for all rows on which it speaks."""
    found = 0
    for i in range(logits.shape[0]):
        if state.change[i] != _ZERO:
            state.rows[found] = i
            found += 1
            if found == BLOCK:
                _flip_panel(net, state, layer, position, found, logits, keep)
                found = 0
    if found:
        _flip_panel(net, state, layer, position, found, logits, keep)


@_jit
def flip(net: NetworkArrays, state: State, layer: int, position: int, logits: Float32) -> None:
    """Logits after flipping one unit of hidden layer `layer`, into `logits` (n_rows,); the state stays."""
    last = net.offsets.shape[0] - 2
    _unit_change(net, state, layer, position)
    if layer == last:
        _flip_last(net, state, position, logits)
    elif layer == last - 1:
        _flip_before_last(net, state, position, logits)
    else:
        logits[:] = state.logits
        _flip_panels(net, state, layer, position, logits, False)


@_jit
def keep(net: NetworkArrays, state: State, layer: int, position: int, logits: Float32) -> None:
    """Move the state to the mask of the `flip` just made, whose `logits` (n_rows,) these are."""
    last = net.offsets.shape[0] - 2
    if layer == last - 1:
        _advance_before_last(net, state, position)
    elif layer < last - 1:
        _flip_panels(net, state, layer, position, logits, True)
    state.logits[:] = logits
    unit = net.offsets[layer] + position
    state.alive[unit] = not state.alive[unit]
    state.speaks[unit] = np.float32(1.0) - state.speaks[unit]
