import numpy as np
import pytest

from fairmend.costs import UtilityFloor
from fairmend.errors import InputError
from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.masks import Dial, Mask, Site, Space
from fairmend.search import Genetic

HIGHER = Figures(Figure("bias", "lower", "toy"), Figure("F1", "higher", "toy"))
LOWER = Figures(Figure("bias", "lower", "toy"), Figure("perplexity", "lower", "toy"))
SPACE = Space((Site("hidden", 40),), max_drop=30)


def trade_off(mask: Mask) -> Measurement:
    """The first 20 units lower the bias at a price, the others only cost utility: the front has 21 points."""
    useful = (mask.bits & (2**20 - 1)).bit_count()
    return Measurement(1 - useful / 20, 1 - useful / 100 - (mask.size - useful) / 20)


def drive(searcher: Genetic, measure: object = trade_off) -> list[tuple[Mask, ...]]:
    batches = []
    while masks := tuple(searcher.ask()):
        searcher.tell(masks, [measure(mask) for mask in masks])  # type: ignore[operator]
        batches.append(masks)
    return batches


def test_first_population_spreads_sizes_from_one_to_the_largest() -> None:
    first = drive(Genetic(SPACE, HIGHER, seed=0, states=65, population=64))[1]
    sizes = [mask.size for mask in first]
    assert len(first) == 64
    assert (min(sizes), max(sizes)) == (1, 30)
    assert np.median(sizes) < 10


def test_never_asks_a_mask_twice_while_new_ones_abound() -> None:
    asked = [mask for batch in drive(Genetic(SPACE, HIGHER, seed=0, states=1000)) for mask in batch]
    assert len(set(asked)) == len(asked) == 1000


def test_asks_by_populations_and_stops_at_its_states() -> None:
    batches = drive(Genetic(SPACE, HIGHER, seed=0, states=100, population=32))
    assert [len(batch) for batch in batches] == [1, 32, 32, 32, 3]


def test_front_approaches_the_known_trade_off() -> None:
    searcher = Genetic(SPACE, HIGHER, seed=0, states=4000)
    drive(searcher)
    exact = [mask for mask, _ in searcher.front if mask.bits < 2**20]
    assert len(exact) >= 19
    biases = [measurement.bias for _, measurement in searcher.front]
    assert biases == sorted(biases)


def test_front_keeps_the_utility_floor() -> None:
    searcher = Genetic(SPACE, HIGHER, lambda m: UtilityFloor.relative(HIGHER, m, 0.9), seed=0, states=2000)
    drive(searcher)
    utilities = [measurement.utility for _, measurement in searcher.front]
    assert min(utilities) >= 0.9
    assert len(utilities) >= 9


def test_minimises_a_utility_that_is_better_lower() -> None:
    searcher = Genetic(SPACE, LOWER, lambda m: UtilityFloor.relative(LOWER, m, 1.25), seed=0, states=2000)
    drive(searcher, lambda mask: Measurement(trade_off(mask).bias, 20 + 20 * (1 - trade_off(mask).utility)))
    figures = [(m.bias, m.utility) for _, m in searcher.front]
    assert figures[0][0] <= 0.25
    assert max(utility for _, utility in figures) <= 25
    assert figures[-1] == (1.0, 20.0)


def test_turns_dials_within_their_limits_to_the_best_setting() -> None:
    space = Space((Site("hidden", 8),), dials=(Dial("shift", -1.0, 1.0, 0.2),))
    searcher = Genetic(space, HIGHER, seed=0, states=1500, population=32)
    asked = drive(searcher, lambda mask: Measurement((mask.dials[0] - 0.7) ** 2, 1 - mask.size / 8))
    assert all(-1 <= mask.dials[0] <= 1 for batch in asked for mask in batch)
    best, _ = next(iter(searcher.front))
    assert best.dials[0] == pytest.approx(0.7, abs=0.02)


def test_repeats_itself_rather_than_stalling_in_a_tiny_space() -> None:
    asked = [mask for batch in drive(Genetic(Space((Site("hidden", 3),)), HIGHER, seed=0, states=60)) for mask in batch]
    assert len(asked) == 60
    assert len(set(asked)) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 3}, "population must be at least 4"),
        ({"crossover": 1.5}, "crossover must be a number within"),
        ({"flips": -1}, "flips must be at least 0"),
        ({"flips": 1000}, "flips must be a number within"),
        ({"turns": 2}, "turns must be a number within"),
    ],
)
def test_refuses_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Genetic(SPACE, HIGHER, seed=0, states=10, **options)  # type: ignore[arg-type]
