import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairmend.masks import Dial, Mask, Site, Space
from fairmend.search.moves import Walker, normals, reflect, uniforms


def walker(space: Space, seed: int = 0, dial_share: float = 0.15) -> Walker:
    return Walker(space, uniforms(np.random.default_rng(seed)), normals(np.random.default_rng(seed + 1)), dial_share)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    units = draw(st.integers(1, 12))
    frozen = draw(st.frozensets(st.integers(0, units - 1)))
    smallest, largest = sorted(draw(st.lists(st.integers(0, units - len(frozen)), min_size=2, max_size=2)))
    dials = draw(st.sampled_from([(), (Dial("shift", -0.5, 1.0, 0.7),)]))
    return Space((Site("hidden", units),), smallest, largest, frozen, dials)


def test_uniforms_are_the_generators_own_numbers_beyond_one_block() -> None:
    stream, rng = uniforms(np.random.default_rng(3)), np.random.default_rng(3)
    assert [stream() for _ in range(5000)] == [rng.random() for _ in range(5000)]


@given(spaces(), st.integers(0, 100))
def test_walks_stay_in_the_space_one_move_at_a_time(space: Space, seed: int) -> None:
    walk = walker(space, seed)
    walk.stand(walk.entry())
    rng = np.random.default_rng(seed)
    for _ in range(40 if walk.can_move else 0):
        here, proposed = walk.mask, walk.propose()
        assert space.admits(proposed)
        changed = (here.bits ^ proposed.bits).bit_count()
        if here.dials == proposed.dials:
            assert changed == (2 if space.min_drop == space.largest else 1)
        else:
            assert changed == 0
        if rng.random() < 0.6:
            walk.accept()
            assert walk.mask is proposed
        else:
            assert walk.mask is here


@pytest.mark.parametrize(
    ("dropped", "allowed"),
    [
        pytest.param([1, 3], {0, 1, 2, 3, 5}, id="between the limits: any droppable unit"),
        pytest.param([0, 1, 3], {0, 1, 3}, id="at the largest size: removals only"),
        pytest.param([5], {0, 1, 2, 3}, id="at the smallest size: additions only"),
    ],
)
def test_flips_are_uniform_over_what_the_limits_allow(dropped: list[int], allowed: set[int]) -> None:
    space = Space((Site("hidden", 6),), min_drop=1, max_drop=3, frozen=frozenset({4}))
    walk = walker(space)
    walk.stand(space.mask(dropped))
    n = 6000
    flipped = Counter((walk.propose().bits ^ walk.mask.bits).bit_length() - 1 for _ in range(n))
    assert set(flipped) == allowed
    share = 1 / len(allowed)
    bound = 4 * math.sqrt(n * share * (1 - share))
    assert all(abs(count - n * share) < bound for count in flipped.values())


def test_dials_turn_as_often_as_asked_by_gaussian_steps() -> None:
    space = Space((Site("hidden", 6),), dials=(Dial("shift", -100.0, 100.0, 2.0),))
    walk = walker(space, dial_share=0.25)
    steps = [mask.dials[0] for mask in (walk.propose() for _ in range(8000)) if mask.bits == 0]
    assert len(steps) == pytest.approx(2000, abs=160)
    assert np.mean(steps) == pytest.approx(0, abs=0.2)
    assert np.std(steps) == pytest.approx(2.0, rel=0.1)


def test_dials_without_room_are_left_alone() -> None:
    space = Space((Site("hidden", 3),), dials=(Dial("stuck", 0.0, 0.0, 1.0), Dial("free", 0.0, 1.0, 1.0)))
    walk = walker(space, dial_share=1.0)
    assert {walk.propose().dials[0] for _ in range(50)} == {0.0}
    stuck = walker(Space((Site("hidden", 3),), max_drop=0, dials=(Dial("stuck", 0.0, 0.0, 1.0),)))
    assert not stuck.can_move


def bounce(value: float, low: float, high: float) -> float:
    while not low <= value <= high:
        value = 2 * low - value if value < low else 2 * high - value
    return value


@given(st.floats(-50, 50), st.floats(-3, 0), st.floats(0.1, 3))
def test_reflection_bounces_between_the_limits(value: float, low: float, high: float) -> None:
    dial = Dial("shift", low, high, 1.0)
    assert low <= reflect(value, dial) <= high
    assert reflect(value, dial) == pytest.approx(bounce(value, low, high), abs=1e-9)


def test_entries_are_uniform_subsets() -> None:
    space = Space((Site("hidden", 5),), min_drop=2, max_drop=4, frozen=frozenset({2}))
    walk = walker(space)
    seen: Counter[Mask] = Counter(walk.entry() for _ in range(6000))
    assert len(seen) == 6
    assert all(abs(count - 1000) < 4 * math.sqrt(1000) for count in seen.values())
    sizes = Counter(walk.anywhere().size for _ in range(3000))
    assert all(abs(sizes[size] - 1000) < 4 * math.sqrt(1000) for size in (2, 3, 4))
