import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymoo.indicators.hv import HV
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from fairmend.errors import InputError
from fairmend.search.front import Front, along_front, crowding_distances, domination_ranks, hypervolume

points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40)


def dominates(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a != b


@given(points)
def test_front_keeps_exactly_the_non_dominated(offered: list[tuple[int, int]]) -> None:
    front: Front[int] = Front()
    for index, point in enumerate(offered):
        front.offer(index, *map(float, point))
    expected = sorted({p for p in offered if not any(dominates(q, p) for q in offered)})
    assert [tuple(point) for point in front.points().astype(int).tolist()] == expected
    assert [offered[index] for index in front] == expected
    assert list(front) == [offered.index(point) for point in expected], "the first of equals stays"
    assert len(front) == len(expected)


def test_front_ignores_what_is_not_finite() -> None:
    front: Front[str] = Front()
    taken = [front.offer("a", math.nan, 0.0), front.offer("b", 0.0, math.inf), front.offer("c", 1.0, 1.0)]
    assert taken == [False, False, True]
    assert list(front) == ["c"]
    assert Front().points().shape == (0, 2)


@given(points)
def test_hypervolume_equals_pymoos(offered: list[tuple[int, int]]) -> None:
    expected = HV(ref_point=np.array([7.0, 8.0]))(np.array(offered, dtype=float))
    assert hypervolume(offered, (7.0, 8.0)) == pytest.approx(expected)


def test_hypervolume_of_nothing_is_0_and_of_three_objectives_refused() -> None:
    assert hypervolume([], (1.0, 1.0)) == 0.0
    assert hypervolume([(2.0, 2.0)], (1.0, 1.0)) == 0.0
    with pytest.raises(InputError, match=r"shape \(n_points, 2\), got \(1, 3\)"):
        hypervolume([(1.0, 2.0, 3.0)], (4.0, 4.0))


@given(points)
def test_ranks_equal_pymoos_non_dominated_sorting(offered: list[tuple[int, int]]) -> None:
    array = np.array(offered, dtype=float)
    ranks = domination_ranks(array)
    for rank, front in enumerate(NonDominatedSorting().do(array)):
        assert sorted(np.flatnonzero(ranks == rank)) == sorted(front)


def test_feasible_points_come_first_and_then_the_less_violating() -> None:
    objectives = np.array([[0.0, 0.0], [5.0, 5.0], [1.0, 1.0], [math.inf, math.inf], [6.0, 4.0]])
    violations = np.array([2.0, 0.0, 1.0, math.inf, 0.0])
    assert domination_ranks(objectives, violations).tolist() == [2, 0, 1, 3, 0]


@pytest.mark.parametrize("seed", range(5))
def test_crowding_distances_equal_pymoos(seed: int) -> None:
    front = np.sort(np.random.default_rng(seed).random((12, 2)), axis=0)
    front[:, 1] = front[::-1, 1]
    ours = crowding_distances(front)
    theirs = calc_crowding_distance(front)  # pymoo divides by the number of objectives
    np.testing.assert_allclose(ours / 2, theirs)


def test_points_all_equal_are_all_at_an_end_or_crowded() -> None:
    assert crowding_distances(np.ones((4, 2))).tolist() == [math.inf, 0.0, 0.0, math.inf]
    assert crowding_distances(np.ones((1, 2))).tolist() == [math.inf]


@given(points, st.integers(0, 40))
def test_points_along_the_front_come_before_those_behind_it(offered: list[tuple[int, int]], count: int) -> None:
    chosen = along_front(offered, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(offered))
    front = {p for p in offered if not any(dominates(q, p) for q in offered)}
    on_front = [offered[index] in front for index in chosen]
    assert sum(on_front[: len(front)]) == min(count, len(front)), "no point behind the front while there are others"


def test_points_along_the_front_are_spread_out() -> None:
    corners = [(0.0, 10.0), (5.0, 5.0), (10.0, 0.0)]
    crowd = [(4.9 - step / 100, 5.1 + step / 100) for step in range(20)]
    offered = [*crowd, *corners]
    first, between, last = [offered[index] for index in along_front(offered, 3)]
    assert [first, last] == corners[::2]
    assert 4.7 <= between[0] <= 5.0
    assert along_front([(math.nan, 1.0), (1.0, math.inf), (2.0, 2.0)], 3) == [2]
    assert along_front([], 3) == []
    with pytest.raises(InputError, match=r"shape \(n_points, 2\), got \(1, 3\)"):
        along_front([(1.0, 2.0, 3.0)], 2)
