"""From logits to exact counts, and from counts to figures: compiled, because it runs once per measured state.

float32 logits within a tolerance of the threshold are decided again in float64 from the inputs. That makes the counts
a function of the mask alone: neither rounding nor the path of a search to a mask can change them.

Cells are ordered by group, then label: cell 2g holds the negatives of group g, 2g + 1 its positives; the last two
cells hold everybody outside the compared groups.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from fairmend.tabular.counting.kernels import RELU, Bool, Float32, Float64, Int64, NetworkArrays, smooth

OBJECTIVE_CODES = {
    "equalized_odds_difference": 0,
    "equal_opportunity_difference": 1,
    "demographic_parity_difference": 2,
    "equalized_odds_ratio": 3,
    "equal_opportunity_ratio": 4,
    "demographic_parity_ratio": 5,
    "worst_group_accuracy": 6,
}
UTILITY_CODES = {"f1": 0, "balanced_accuracy": 1, "accuracy": 2}

# No fastmath here: a decision must not depend on how the compiler reorders a sum.
_exact = njit(cache=True, nogil=True)


class ExactNetwork(NamedTuple):
    """A network in float64, with the (n_rows, n_first) pre-activations of its first hidden layer."""

    net: NetworkArrays
    first: Float64


@_exact
def exact_logit(exact: ExactNetwork, alive: Bool, row: int) -> float:
    """The float64 logit of one row."""
    net = exact.net
    n_layers = net.offsets.shape[0] - 1
    current = exact.first[row].copy()
    for m in range(n_layers):
        here = net.offsets[m]
        for k in range(current.shape[0]):
            if not alive[here + k]:
                current[k] = net.emitted[here + k]
            elif net.codes[m] == RELU:
                current[k] = max(current[k], 0.0)
            else:
                current[k] = smooth(current[k], net.codes[m], net.parameters[m])
        if m + 1 < n_layers:
            above = net.offsets[m + 1]
            following = net.biases[above : net.offsets[m + 2]].copy()
            start = net.starts[m + 1]
            for k in range(following.shape[0]):
                for h in range(current.shape[0]):
                    following[k] += net.weights[start + h * following.shape[0] + k] * current[h]
            current = following
    total = net.output_bias
    for k in range(current.shape[0]):
        total += net.output[k] * current[k]
    return total


@_exact
def _ratio(rates: Float64) -> float:
    """Smallest over largest rate; NaN for 0 / 0."""
    largest = rates.max()
    return rates.min() / largest if largest > 0.0 else math.nan


@_exact
def unfairness(positives: Float64, totals: Int64, n_groups: int, objective: int) -> float:
    """What a repair minimises, as `metrics.Objective.unfairness` defines it, for one binary prediction.

    Args:
        positives: predicted positives per cell, (n_cells,); estimates where cells were sampled.
        totals: people per cell, (n_cells,).
        n_groups: number of compared groups.
        objective: one of `OBJECTIVE_CODES`.
    """
    tpr, fpr = np.empty(n_groups), np.empty(n_groups)
    selection, accuracy = np.empty(n_groups), np.empty(n_groups)
    for g in range(n_groups):
        negative, positive = totals[2 * g], totals[2 * g + 1]
        tpr[g] = positives[2 * g + 1] / positive if positive > 0 else math.nan
        fpr[g] = positives[2 * g] / negative if negative > 0 else math.nan
        selection[g] = (positives[2 * g] + positives[2 * g + 1]) / (negative + positive)
        accuracy[g] = (negative - positives[2 * g] + positives[2 * g + 1]) / (negative + positive)
    if objective == 0:
        return max(tpr.max() - tpr.min(), fpr.max() - fpr.min())
    if objective == 1:
        return tpr.max() - tpr.min()
    if objective == 2:
        return selection.max() - selection.min()
    if objective == 3:
        hits, alarms = _ratio(tpr), _ratio(fpr)
        if math.isnan(hits):
            return math.nan
        return 1.0 - (hits if math.isnan(alarms) else min(hits, alarms))
    if objective == 4:
        return 1.0 - _ratio(tpr)
    if objective == 5:
        return 1.0 - _ratio(selection)
    return 1.0 - accuracy.min()


@_exact
def usefulness(positives: Float64, totals: Int64, utility: int) -> float:
    """The utility of a binary prediction over all cells, by utility code."""
    tp, fp, n_negative, n_positive = 0.0, 0.0, 0, 0
    for cell in range(0, positives.shape[0], 2):
        fp += positives[cell]
        tp += positives[cell + 1]
        n_negative += totals[cell]
        n_positive += totals[cell + 1]
    if utility == 0:
        wanted = n_positive + tp + fp
        return 2.0 * tp / wanted if wanted > 0 else 0.0
    if utility == 1:
        return 0.5 * (tp / n_positive + (n_negative - fp) / n_negative)
    return (tp + n_negative - fp) / (n_positive + n_negative)


class Task(NamedTuple):
    """What the counts of one evaluator are made into.

    Attributes:
        bounds: (n_cells + 1,) the rows of cell c are bounds[c] to bounds[c + 1] - 1.
        totals: (n_cells,) people per cell, of whom these rows may be a sample.
        scale: (n_cells,) people per row.
        n_groups, objective, utility: number of compared groups, and the codes of the two figures.
    """

    bounds: Int64
    totals: Int64
    scale: Float64
    n_groups: int
    objective: int
    utility: int


@_exact
def measure_logits(
    exact: ExactNetwork,
    alive: Bool,
    logits: Float32,
    task: Task,
    shift: float,
    tolerance: float,
    figures: Float64,
) -> None:
    """Write (unfairness, utility, predicted positives per cell) at logit + shift > 0 into `figures`, (2 + n_cells,)."""
    high, low = np.float32(tolerance - shift), np.float32(-tolerance - shift)
    bounds, estimates = task.bounds, figures[2:]
    for cell in range(bounds.shape[0] - 1):
        sure, candidates = 0, 0
        for i in range(bounds[cell], bounds[cell + 1]):
            sure += logits[i] > high
            candidates += logits[i] > low
        if candidates > sure:
            for i in range(bounds[cell], bounds[cell + 1]):
                if low < logits[i] <= high:
                    sure += exact_logit(exact, alive, i) + shift > 0.0
        estimates[cell] = sure * task.scale[cell]
    figures[0] = unfairness(estimates, task.totals, task.n_groups, task.objective)
    figures[1] = usefulness(estimates, task.totals, task.utility)
