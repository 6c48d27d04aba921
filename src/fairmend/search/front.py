"""Trade-offs between two things to minimise: domination, the front, and the area it dominates."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError

Item = TypeVar("Item")


class Front(Generic[Item]):
    """The non-dominated points of everything offered, by ascending first objective.

    A point dominates another if it is no worse in both objectives and better in one. Of equal points the first
    offered stays; points that are not finite are ignored.
    """

    def __init__(self) -> None:
        self._first: list[float] = []
        self._second: list[float] = []
        self._items: list[Item] = []

    def offer(self, item: Item, first: float, second: float) -> bool:
        """Take the point unless another dominates or equals it, and say whether it was taken."""
        if not (math.isfinite(first) and math.isfinite(second)):
            return False
        # Along a front the second objective strictly falls, so only the left neighbour can dominate the new point,
        # and the points that it dominates are consecutive.
        left = bisect_right(self._first, first)
        if left and self._second[left - 1] <= second:
            return False
        start = stop = bisect_left(self._first, first)
        while stop < len(self._first) and self._second[stop] >= second:
            stop += 1
        self._first[start:stop], self._second[start:stop], self._items[start:stop] = [first], [second], [item]
        return True

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def points(self) -> npt.NDArray[np.float64]:
        """The objectives, of shape (n_points, 2)."""
        return np.column_stack((self._first, self._second)).astype(np.float64).reshape(-1, 2)


def hypervolume(points: npt.ArrayLike, reference: tuple[float, float]) -> float:
    """The area dominated by points of shape (n_points, 2) and bounded by a reference point; larger is better.

    Raises:
        InputError: the points do not have two objectives each.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        return 0.0
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"hypervolume needs points of shape (n_points, 2), got {array.shape}")
    front: Front[None] = Front()
    for first, second in array[(array < reference).all(axis=1)].tolist():
        front.offer(None, first, second)
    kept = front.points()
    widths = np.diff(np.append(kept[:, 0], reference[0]))
    return float((widths * (reference[1] - kept[:, 1])).sum())


def along_front(points: npt.ArrayLike, count: int) -> list[int]:
    """Choose points spread along the front; where it has too few, those spread along the front behind it follow.

    Args:
        points: shape (n_points, 2), both to minimise; those that are not finite are never chosen.
        count: how many at most.

    Returns:
        Their indices: within a front by ascending first objective.

    Raises:
        InputError: the points do not have two objectives each.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.size and (array.ndim != 2 or array.shape[1] != 2):
        raise InputError(f"a front needs points of shape (n_points, 2), got {array.shape}")
    left = list(range(len(array)))
    chosen: list[int] = []
    while len(chosen) < count:
        front: Front[int] = Front()
        for index in left:
            front.offer(index, float(array[index, 0]), float(array[index, 1]))
        if not len(front):
            break
        layer = list(front)
        chosen += [layer[place] for place in _spread(front.points(), count - len(chosen))]
        left = [index for index in left if index not in set(layer)]
    return chosen


def _spread(points: npt.NDArray[np.float64], count: int) -> list[int]:
    """Places in a front of both ends, and then always of the point farthest from those taken; in order."""
    span = np.ptp(points, axis=0)
    scaled = points / np.where(span > 0, span, 1.0)
    taken = [0, len(points) - 1][: min(count, len(points))]
    while len(taken) < min(count, len(points)):
        away = np.abs(scaled[:, None] - scaled[taken]).sum(axis=-1).min(axis=1)
        away[taken] = -1.0
        taken.append(int(away.argmax()))
    return sorted(set(taken))


def domination_ranks(
    objectives: npt.NDArray[np.float64], violations: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.int64]:
    """The rank of each point's front, 0 for the non-dominated (Deb et al., NSGA-II, 2002, section III).

    With violations, a feasible point (violation 0) dominates every infeasible one, and of two infeasible points the
    less violating dominates (section VI).

    Args:
        objectives: shape (n_points, n_objectives), all to minimise.
        violations: shape (n_points,), 0 where feasible, larger is worse, may be infinite.

    Returns:
        Shape (n_points,).
    """
    count = len(objectives)
    no_worse, better = np.ones((count, count), dtype=np.bool_), np.zeros((count, count), dtype=np.bool_)
    for values in objectives.T:
        no_worse &= values[:, None] <= values
        better |= values[:, None] < values
    dominates = no_worse & better
    if violations is not None:
        feasible = violations == 0
        dominates &= feasible[:, None] & feasible
        dominates |= violations[:, None] < violations
    ranks = np.full(count, -1, dtype=np.int64)
    dominators = dominates.sum(axis=0)
    rank, front = 0, np.flatnonzero(dominators == 0)
    while front.size:
        ranks[front] = rank
        dominators = dominators - dominates[front].sum(axis=0)
        rank, front = rank + 1, np.flatnonzero((dominators == 0) & (ranks < 0))
    return ranks


def crowding_distances(objectives: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How lonely each point of one front is (Deb et al., NSGA-II, 2002, section III.B); infinite at its ends.

    Args:
        objectives: shape (n_points, n_objectives), finite.

    Returns:
        Shape (n_points,).
    """
    distances = np.zeros(len(objectives))
    for values in objectives.T:
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        span = ordered[-1] - ordered[0]
        if span > 0:
            distances[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
        distances[order[[0, -1]]] = math.inf
    return distances
