import numpy as np
import pytest

from fairmend.errors import InputError
from fairmend.masks import Dial, Site, Space
from fairmend.search import SpreadSampling, drawn_fraction

SPACE = Space((Site("heads", 60),), max_drop=12)


def test_every_unit_is_dropped_about_equally_often_after_any_number_of_masks() -> None:
    masks = SpreadSampling(SPACE, seed=0, samples=201).masks()
    for n in (40, 100, 200):
        counts = np.sum([mask.dropped() for mask in masks[:n]], axis=0)
        assert np.ptp(counts) <= 2
    uniform = [mask.dropped() for mask in (SPACE.sample(np.random.default_rng(seed)) for seed in range(200))]
    assert np.ptp(np.sum(uniform, axis=0)) > 5


def test_sizes_are_spread_and_a_share_of_the_masks_is_small() -> None:
    sizes = np.array([mask.size for mask in SpreadSampling(SPACE, seed=1, samples=401, small_share=0.5).masks()])
    assert set(sizes) == set(range(1, 13))
    assert 0.6 < np.mean(sizes <= 6) < 0.8
    even = np.array([mask.size for mask in SpreadSampling(SPACE, seed=1, samples=401, small_share=0.0).masks()])
    assert np.ptp(np.bincount(even)[2:12]) <= 2


def test_no_mask_comes_twice() -> None:
    masks = SpreadSampling(SPACE, seed=2, samples=300).masks()
    assert len(set(masks)) == len(masks) == 299


def test_a_search_that_ends_early_has_large_and_small_masks() -> None:
    sizes = [mask.size for mask in SpreadSampling(SPACE, seed=3, samples=400).masks()[:30]]
    assert min(sizes) <= 2
    assert max(sizes) >= 10


@pytest.mark.parametrize(
    "space",
    [
        Space((Site("heads", 9),), min_drop=4, max_drop=4),
        Space((Site("heads", 9),)),
        Space((Site("heads", 9),), min_drop=2, max_drop=5, frozen=frozenset({0, 8})),
        Space((Site("heads", 9),), max_drop=3, dials=(Dial("threshold", -1.0, 1.0, 0.1),)),
    ],
)
def test_keeps_the_limits(space: Space) -> None:
    masks = SpreadSampling(space, seed=0, samples=40).masks()
    assert all(space.admits(mask) for mask in masks)
    assert all(not any(mask.dials) for mask in masks)


def test_refuses_shares_outside_their_range() -> None:
    with pytest.raises(InputError, match=r"small_share must be a number within \[0, 1\]"):
        SpreadSampling(SPACE, seed=0, samples=10, small_share=1.5)


def test_a_mask_s_fraction_is_its_own_and_always_the_same() -> None:
    one, two = SPACE.mask([3, 5]), SPACE.mask([3, 6])
    first = drawn_fraction(one, 500, 0.2, seed=1)
    assert np.array_equal(first, drawn_fraction(one, 500, 0.2, seed=1))
    assert not np.array_equal(first, drawn_fraction(two, 500, 0.2, seed=1))
    assert not np.array_equal(first, drawn_fraction(one, 500, 0.2, seed=2))
    assert len(first) == len(set(first.tolist())) == 100
    assert np.all(np.diff(first) > 0)


def test_fractions_cover_all_samples_evenly() -> None:
    counts = np.zeros(50)
    for mask in SpreadSampling(SPACE, seed=0, samples=800).masks():
        counts[drawn_fraction(mask, 50, 0.1, seed=0)] += 1
    assert counts.sum() == 799 * 5
    assert np.abs(counts - 79.9).max() < 4 * np.sqrt(79.9)


def test_at_least_one_sample_is_drawn_and_at_most_all() -> None:
    mask = SPACE.mask([1])
    assert len(drawn_fraction(mask, 10, 0.001, seed=0)) == 1
    assert drawn_fraction(mask, 10, 1.0, seed=0).tolist() == list(range(10))
    with pytest.raises(InputError, match="fraction must be a positive number"):
        drawn_fraction(mask, 10, 0.0, seed=0)
