"""The trivial rival of every repair: shift everybody's decision threshold and drop nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairmend.costs import Cost, UtilityFloor
from fairmend.evaluation import Direction, Figure, Figures, Measurement
from fairmend.masks import Dial, Mask
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.confusion import confusion_counts
from fairmend.tabular.fairness.metrics import check_groups, find_objective, find_utility, log_loss
from fairmend.tabular.networks.networks import Network, decide, probabilities
from fairmend.tabular.repair.repair import require_fit
from fairmend.tabular.repair.settings import RepairSettings

GRID_STEP = 0.005
"""Distance of neighbouring shifts, in log-odds: a thirtieth of the step that a search takes."""

_MAX_ROUNDS = 10
_BLOCK_VALUES = 1 << 22

Shifts = npt.NDArray[np.float64]
_Measure = Callable[[Shifts], list[Measurement]]


@dataclass(frozen=True)
class ThresholdShift:
    """The best shift of the threshold.

    Attributes:
        mask: no dropped units; the shift as dials of `network.threshold_dials()`.
        before, after: the search rows' figures without and with the shift.
        floor: the utility floor on the search rows.
    """

    mask: Mask
    before: Measurement
    after: Measurement
    floor: UtilityFloor


def shift_threshold(network: Network, dataset: Dataset, settings: RepairSettings) -> ThresholdShift:
    """Find the best shift of the decision threshold, for the same cost on the same rows as a repair.

    Every shift of a grid over the dial's range is measured, 0 among them. Of those that keep the utility floor the
    cheapest wins, at ties the smallest. With several logits the dials are searched one after the other until none
    moves.

    Args:
        network: a trained network.
        dataset: rows with groups and splits.
        settings: rows, objective, utility, floor and penalty; what it says about searching is of no account.

    Raises:
        DataError: a data set that does not fit the network, or a group without the people that the objective needs.
    """
    require_fit(network, dataset)
    measure, figures = _measurer(network, dataset, settings)
    dials = network.threshold_dials()
    best = np.zeros(len(dials))
    reference = best_measured = measure(best[None])[0]
    cost, floor = settings.cost(figures, reference), settings.floor(figures, reference)
    for _ in range(_MAX_ROUNDS if len(dials) > 1 else 1):
        before = best
        for position, dial in enumerate(dials):
            grid = _grid(dial)
            shifts = np.repeat(best[None], len(grid), axis=0)
            shifts[:, position] = grid
            measured = measure(shifts)
            chosen = _cheapest(measured, grid, best[position], cost, floor)
            best, best_measured = shifts[chosen], measured[chosen]
        if np.array_equal(before, best):
            break
    mask = Mask(0, network.n_units, tuple(best.tolist()))
    return ThresholdShift(mask, reference, best_measured, floor)


def _grid(dial: Dial) -> Shifts:
    """Multiples of the step within the dial's range, so that 0 is one of them."""
    first, last = math.ceil(dial.low / GRID_STEP), math.floor(dial.high / GRID_STEP)
    return np.arange(first, last + 1, dtype=np.float64) * GRID_STEP


def _cheapest(measurements: list[Measurement], grid: Shifts, present: float, cost: Cost, floor: UtilityFloor) -> int:
    """The cheapest admitted shift; the present one is always a candidate."""
    return min(
        (i for i in range(len(grid)) if floor.admits(measurements[i]) or grid[i] == present),
        key=lambda i: (cost(measurements[i]), abs(grid[i]), grid[i]),
    )


def _measurer(network: Network, dataset: Dataset, settings: RepairSettings) -> tuple[_Measure, Figures]:
    """Measures shifts of shape (n_shifts, n_dials) on the search rows: the logits are computed once."""
    X, y, groups = dataset.subset(*settings.splits)
    objective, n_groups, n_classes = find_objective(settings.objective), len(dataset.group_names), network.n_classes
    check_groups(y, groups, dataset.group_names, objective, n_classes)
    utility = None if settings.utility == "log_loss" else find_utility(settings.utility)
    logits, untouched = network.logits(X), Mask(0, network.n_units)

    def measure(shifts: Shifts) -> list[Measurement]:
        measurements: list[Measurement] = []
        size = max(1, _BLOCK_VALUES // logits.size)
        for start in range(0, len(shifts), size):
            block = shifts[start : start + size].tolist()
            moved = [logits + network.shift(untouched.turn(tuple(shift))) for shift in block]
            counts = confusion_counts(y, np.stack([decide(each) for each in moved]), groups, n_groups, n_classes)
            if utility is None:
                useful = [log_loss(y, probabilities(each)) for each in moved]
            else:
                useful = utility.value(counts).tolist()
            unfair = objective.unfairness(counts).tolist()
            measurements += [Measurement(b, u, n=len(y)) for b, u in zip(unfair, useful, strict=True)]
        return measurements

    protocol = f"{len(y)} {settings.search_on} rows"
    better: Direction = "lower" if utility is None else "higher"
    return measure, Figures(Figure(settings.objective, "lower", protocol), Figure(settings.utility, better, protocol))
