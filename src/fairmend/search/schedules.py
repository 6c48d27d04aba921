"""How an annealer's temperature falls with the number of told states, and where it starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError

Schedule = Literal["geometric", "logarithmic", "exponential"]
SCHEDULES: tuple[Schedule, ...] = ("geometric", "logarithmic", "exponential")
Cooling: TypeAlias = Callable[[int], float]
"""Temperature at step i = 0, 1, ... of one restart."""


def cooling(schedule: Schedule, start: float, end: float, steps: int, rate: float) -> Cooling:
    """The temperature as a function of the step.

    Args:
        schedule: one of `SCHEDULES`.
        start: temperature of step 0 (the numerator, if logarithmic).
        end: temperature of the last step, if geometric; the least temperature, if exponential.
        steps: number of steps of the restart.
        rate: factor per step, if exponential.
    """
    if schedule == "geometric":
        return geometric(start, end, steps)
    if schedule == "logarithmic":
        return logarithmic(start)
    return exponential(start, rate, end)


def geometric(start: float, end: float, steps: int) -> Cooling:
    """From `start` to `end` by the same factor at each of `steps` steps: T_i = start * (end / start)^(i / (steps - 1)).

    The default: fitted to the budget, so that a short search also ends cold.
    """
    ratio = (end / start) ** (1 / max(1, steps - 1))
    return lambda step: start * ratio**step


def logarithmic(start: float) -> Cooling:
    """T_i = start / ln(2 + i): the published NeuFair schedule (Dasu et al., ISSTA 2024), after Hajek (1988)."""
    log = math.log
    return lambda step: start / log(2 + step)


def exponential(start: float, rate: float, end: float) -> Cooling:
    """T_i = max(start * rate^i, end): exponential cooling after Kirkpatrick et al. (1983), with a floor.

    The factor is given, not fitted to the number of steps as in `geometric`; the floor keeps T positive.
    """
    return lambda step: max(start * rate**step, end)


def initial_temperature(
    before: Sequence[float] | npt.NDArray[np.float64],
    after: Sequence[float] | npt.NDArray[np.float64],
    acceptance: float,
    tolerance: float = 1e-4,
) -> float:
    """The temperature at which a share `acceptance` of the given uphill moves is accepted.

    Ben-Ameur, "Computing the initial temperature of simulated annealing" (2004): with
    chi(T) = sum exp(-after / T) / sum exp(-before / T), iterate T <- T * (ln chi(T) / ln acceptance)^(1 / p) until
    chi(T) meets `acceptance`. p starts at 1 and is doubled whenever an iteration overshoots, as the paper advises.

    Args:
        before, after: finite costs of shape (n_moves,) before and after each move, with after > before.
        acceptance: the wanted chi, strictly between 0 and 1.
        tolerance: largest accepted difference between chi(T) and `acceptance`.

    Raises:
        InputError: no moves, or a move that is not uphill.
    """
    low, high = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if low.size == 0 or low.shape != high.shape or not bool(np.all(np.isfinite(high) & (high > low))):
        raise InputError(f"Ben-Ameur's temperature needs at least one move, all of them uphill; got {low.size} moves")
    goal = math.log(acceptance)
    temperature, power, above = float(np.mean(high - low)) / -goal, 1.0, None
    for _ in range(1000):
        log_chi = _log_sum_exp(-high / temperature) - _log_sum_exp(-low / temperature)
        if abs(math.exp(log_chi) - acceptance) <= tolerance:
            break
        if above is not None and above != (log_chi > goal):
            power *= 2
        above = log_chi > goal
        temperature *= float((log_chi / goal) ** (1 / power))
    return temperature


def _log_sum_exp(values: npt.NDArray[np.float64]) -> float:
    largest = float(values.max())
    return largest + math.log(float(np.exp(values - largest).sum()))
