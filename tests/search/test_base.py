import math

import pytest

from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.masks import Site, Space
from fairmend.search.base import Incumbent, require_choice, require_count, require_number

SPACE = Space((Site("hidden", 4),))
ONE, TWO, THREE = (SPACE.mask([unit]) for unit in (1, 2, 3))
ANY = Measurement(0.1, 0.9)


def test_incumbent_keeps_the_cheapest() -> None:
    best = Incumbent()
    taken = [best.offer(mask, ANY, cost) for mask, cost in ((ONE, 0.3), (TWO, 0.1), (THREE, 0.2))]
    assert taken == [True, True, False]
    assert (best.mask, best.cost) == (TWO, 0.1)


@pytest.mark.parametrize(("ties", "winner"), [("first", ONE), ("last", TWO)])
def test_incumbent_breaks_ties_as_told(ties: str, winner: object) -> None:
    best = Incumbent(ties)  # type: ignore[arg-type]
    best.offer(ONE, ANY, 0.1)
    best.offer(TWO, ANY, 0.1)
    assert best.mask == winner


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("ties", ["first", "last"])
def test_incumbent_leaves_a_broken_mask_for_any_other(broken: float, ties: str) -> None:
    best = Incumbent(ties)  # type: ignore[arg-type]
    best.offer(ONE, ANY, broken)
    assert (best.mask, best.cost) == (ONE, math.inf)
    best.offer(TWO, ANY, 5.0)
    best.offer(THREE, ANY, broken)
    assert (best.mask, best.cost) == (TWO, 5.0)


@pytest.mark.parametrize("value", [0, -3, 1.5, "many", None])
def test_counts_must_be_whole_and_large_enough(value: object) -> None:
    with pytest.raises(InputError, match=r"states must be .*at least 1.*got"):
        require_count("states", value, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, "half"])
def test_numbers_must_be_finite_and_within_limits(value: object) -> None:
    with pytest.raises(InputError, match=r"dial_share must be a number within \[0, 1\], got"):
        require_number("dial_share", value, 0, 1)  # type: ignore[arg-type]


def test_positive_numbers_exclude_zero() -> None:
    with pytest.raises(InputError, match="rate must be a positive number, got 0"):
        require_number("rate", 0, 0, positive=True)


def test_choices_name_what_is_allowed() -> None:
    with pytest.raises(InputError, match="ties must be one of 'first', 'last', got 'newest'"):
        require_choice("ties", "newest", ("first", "last"))
