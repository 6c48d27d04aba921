"""The compiled annealer: one chain on two forms, of which a flip of one unit changes little.

A form's linear part and pairs are kept as the change that each unit's flip would bring, a network's first layer as its
pre-activations: a proposed flip then costs one look-up and one row of weights, whatever the number of units. What has
been added up over many accepted moves is computed anew now and then, so that rounding cannot grow.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fairmend.surrogates.families.forms import Floats, Form

Int64 = npt.NDArray[np.int64]

GEOMETRIC, LOGARITHMIC, EXPONENTIAL = range(3)
_REFRESH = 4096  # accepted moves between two computations from scratch

_jit = njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
_exact = njit(cache=True, nogil=True)  # what must agree with Python's own floats


class FormArrays(NamedTuple):
    """A form as the kernel takes it.

    Attributes:
        intercept, linear, pairs: as in `Form`.
        columns: (n_units, n_first) weights into the first hidden layer; (n_units, 0) without a network.
        biases: (n_first,) of the first hidden layer.
        widths: (n_layers,) widths behind the units: hidden layers and the output; () without a network.
        deeper: all weights (n_out, n_in) row-major and biases behind the first hidden layer, layer after layer.
    """

    intercept: float
    linear: Floats
    pairs: Floats
    columns: Floats
    biases: Floats
    widths: Int64
    deeper: Floats


class CostNumbers(NamedTuple):
    """How two forms f and g become a cost: a * f + b * h(g) + c, where h is g or exp(g), and p more if h(g) > limit."""

    a: float
    b: float
    c: float
    log: bool
    limit: float
    p: float


class Cooling(NamedTuple):
    """A schedule of `fairmend.search.schedules` as numbers; `ratio` is the factor per step."""

    schedule: int
    start: float
    ratio: float
    end: float


def form_arrays(form: Form) -> FormArrays:
    """A form as the kernel takes it."""
    n_units = len(form.linear)
    deeper = [part for weight, bias in form.layers[1:] for part in (weight.T.ravel(), bias)]
    first = form.layers[0] if form.layers else (np.zeros((n_units, 0)), np.zeros(0))
    return FormArrays(
        form.intercept,
        np.ascontiguousarray(form.linear),
        np.ascontiguousarray(form.pairs),
        np.ascontiguousarray(first[0]),
        np.ascontiguousarray(first[1]),
        np.array([len(bias) for _, bias in form.layers], dtype=np.int64),
        np.concatenate(deeper) if deeper else np.zeros(0),
    )


@_jit
def _network(form: FormArrays, before: Floats, unit: int, sign: float, signals: Floats) -> float:
    """The network's output after the flip of `unit` (or before it, with sign 0)."""
    column, n_first = form.columns[unit], form.biases.shape[0]
    if form.widths.shape[0] == 1:
        return float(before[0] + sign * column[0])
    if form.widths.shape[0] == 2:
        total = float(form.deeper[n_first])
        for j in range(n_first):
            total += max(before[j] + sign * column[j], 0.0) * form.deeper[j]
        return total
    current: Floats = signals[0]
    for j in range(n_first):
        current[j] = max(before[j] + sign * column[j], 0.0)
    n_in, start, last = n_first, 0, form.widths.shape[0] - 1
    for layer in range(1, last + 1):
        n_out = form.widths[layer]
        following = signals[layer % 2]
        for k in range(n_out):
            total = form.deeper[start + n_out * n_in + k]
            row = form.deeper[start + k * n_in : start + (k + 1) * n_in]
            for j in range(n_in):
                total += row[j] * current[j]
            following[k] = total if layer == last else max(total, 0.0)
        start += n_out * (n_in + 1)
        n_in, current = n_out, following
    return float(current[0])


@_jit
def _refresh(form: FormArrays, x: Floats, slopes: Floats, before: Floats) -> float:
    """Compute slopes and pre-activations from scratch; the value of the intercept, the linear part and the pairs."""
    value = form.intercept
    slopes[:] = form.linear
    before[:] = form.biases
    for i in range(x.shape[0]):
        if x[i] != 0.0:
            value += form.linear[i]
            before += form.columns[i]
            if form.pairs.shape[0]:
                slopes += form.pairs[i]
    if form.pairs.shape[0]:
        for i in range(x.shape[0]):
            if x[i] != 0.0:
                value += 0.5 * (slopes[i] - form.linear[i])
    return value


@_jit
def _move(form: FormArrays, unit: int, sign: float, slopes: Floats, before: Floats) -> None:
    """Update slopes and pre-activations for an accepted flip."""
    if form.pairs.shape[0]:
        row = form.pairs[unit]
        for i in range(row.shape[0]):
            slopes[i] += sign * row[i]
    column = form.columns[unit]
    for j in range(column.shape[0]):
        before[j] += sign * column[j]


@_exact
def cost_of(numbers: CostNumbers, first: float, second: float) -> float:
    """The cost of the values of both forms; infinite where it is undefined."""
    loss = math.exp(second) if numbers.log else second
    value = numbers.a * first + numbers.b * loss + numbers.c
    if loss > numbers.limit:
        value += numbers.p
    return value if math.isfinite(value) else math.inf


@_exact
def _temperature(cooling: Cooling, step: int) -> float:
    if cooling.schedule == GEOMETRIC:
        return cooling.start * cooling.ratio ** float(step)
    if cooling.schedule == LOGARITHMIC:
        return cooling.start / math.log(2.0 + step)
    return max(cooling.start * cooling.ratio ** float(step), cooling.end)


@_jit
def _signals(form: FormArrays) -> Floats:
    """Room for the signals of two layers."""
    widest = 1
    for width in form.widths:
        widest = max(widest, width)
    return np.zeros((2, widest))


@_jit
def _value(form: FormArrays, before: Floats, known: float, unit: int, sign: float, signals: Floats) -> float:
    if form.widths.shape[0] == 0:
        return known
    return known + _network(form, before, unit, sign, signals)


@_jit
def run_chain(
    rng: np.random.Generator,
    f: FormArrays,
    g: FormArrays,
    numbers: CostNumbers,
    cooling: Cooling,
    droppable: Int64,
    smallest: int,
    largest: int,
    steps: int,
    keep_last: bool,
    start_cost: float,
) -> tuple[Any, float, int]:
    """One chain of simulated annealing from the untouched mask, with the moves of `fairmend.search.moves.Walker`.

    Returns:
        The dropped units of the best mask as 0.0 and 1.0 of shape (n_units,), its cost, and the step at which it was
        proposed; cost and step are infinite and -1 if nothing was proposed.
    """
    n_units, n_order = f.linear.shape[0], droppable.shape[0]
    order, place = droppable.copy(), np.full(n_units, -1, dtype=np.int64)
    x, size, step = np.zeros(n_units), 0, 0
    best, best_cost, best_step = np.zeros(n_units), math.inf, -1
    f_slopes, f_before, f_signals = np.zeros(n_units), np.zeros(f.biases.shape[0]), _signals(f)
    g_slopes, g_before, g_signals = np.zeros(n_units), np.zeros(g.biases.shape[0]), _signals(g)
    current = start_cost
    entered = steps > 0 and smallest > 0
    if entered:
        # Walker.entry: units are popped from a shrinking list.
        rest = droppable.copy()
        for k in range(smallest):
            here = int(rng.random() * (n_order - k))
            x[rest[here]] = 1.0
            for m in range(here, n_order - k - 1):
                rest[m] = rest[m + 1]
        count = 0
        for unit in droppable:  # dropped ones first, both ascending, as Walker.stand orders them
            if x[unit] != 0.0:
                order[count] = unit
                count += 1
        size = count
        for unit in droppable:
            if x[unit] == 0.0:
                order[count] = unit
                count += 1
    for k in range(n_order):
        place[order[k]] = k
    f_known, g_known = _refresh(f, x, f_slopes, f_before), _refresh(g, x, g_slopes, g_before)
    if entered:
        first = _value(f, f_before, f_known, 0, 0.0, f_signals)
        second = _value(g, g_before, g_known, 0, 0.0, g_signals)
        current = cost_of(numbers, first, second)
        best[:], best_cost, best_step = x, current, 0
        step = 1
    if not (smallest < largest or 0 < largest < n_order):
        return best, best_cost, best_step
    swaps, accepted = smallest == largest, 0
    while step < steps:
        if swaps or size == largest:
            unit = order[int(rng.random() * size)]
        elif smallest < size:
            unit = order[int(rng.random() * n_order)]
        else:
            unit = order[size + int(rng.random() * (n_order - size))]
        other = order[size + int(rng.random() * (n_order - size))] if swaps else -1
        sign = 1.0 - 2.0 * x[unit]
        if swaps:
            # A swap is two flips: the first is made, and unmade if the swap is refused.
            f_after, g_after = f_known + sign * f_slopes[unit], g_known + sign * g_slopes[unit]
            _move(f, unit, sign, f_slopes, f_before)
            _move(g, unit, sign, g_slopes, g_before)
            f_next, g_next = f_after + f_slopes[other], g_after + g_slopes[other]
            first = _value(f, f_before, f_next, other, 1.0, f_signals)
            second = _value(g, g_before, g_next, other, 1.0, g_signals)
        else:
            f_next, g_next = f_known + sign * f_slopes[unit], g_known + sign * g_slopes[unit]
            first = _value(f, f_before, f_next, unit, sign, f_signals)
            second = _value(g, g_before, g_next, unit, sign, g_signals)
        value = cost_of(numbers, first, second)
        taken = value <= current
        if not taken:
            taken = rng.random() < math.exp((current - value) / _temperature(cooling, step))
        is_best = value < best_cost or best_step < 0 or (keep_last and value == best_cost)
        if taken or is_best:
            x[unit] = 1.0 - x[unit]
            if swaps:
                x[other] = 1.0
            if is_best:
                best[:], best_cost, best_step = x, value, step
            if not taken:
                x[unit] = 1.0 - x[unit]
                if swaps:
                    x[other] = 0.0
        if taken:
            current, f_known, g_known = value, f_next, g_next
            moved, direction = (other, 1.0) if swaps else (unit, sign)
            _move(f, moved, direction, f_slopes, f_before)
            _move(g, moved, direction, g_slopes, g_before)
            for turn in range(2 if swaps else 1):
                flipped = unit if turn == 0 else other
                here = place[flipped]
                if here < size:
                    size -= 1
                    there = size
                else:
                    there = size
                    size += 1
                displaced = order[there]
                order[there], order[here] = flipped, displaced
                place[flipped], place[displaced] = there, here
            accepted += 1
            if accepted % _REFRESH == 0:
                f_known = _refresh(f, x, f_slopes, f_before)
                g_known = _refresh(g, x, g_slopes, g_before)
        elif swaps:
            _move(f, unit, -sign, f_slopes, f_before)
            _move(g, unit, -sign, g_slopes, g_before)
        step += 1
    return best, best_cost, best_step
