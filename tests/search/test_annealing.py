import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.masks import Dial, Mask, Site, Space
from fairmend.search import Annealing, RandomWalk
from fairmend.search.annealing import split_evenly

SPACE = Space((Site("hidden", 20),))
Energy = Callable[[Mask], float]


def bias_itself(reference: Measurement) -> Callable[[Measurement], float]:
    return lambda measurement: measurement.bias


def rugged(mask: Mask) -> float:
    """A cost with a random-looking value for every mask, better in the middle sizes."""
    return (hash((mask.bits * 2654435761) % 1009) % 97) / 970 + 0.01 * abs(mask.size - 8)


def drive(searcher: Annealing, energy: Energy) -> list[Mask]:
    """Every mask asked, in order."""
    asked: list[Mask] = []
    while masks := searcher.ask():
        searcher.tell(masks, [Measurement(energy(mask), 1.0) for mask in masks])
        asked.extend(masks)
    return asked


def textbook(seed: int, states: int, energy: Energy, temperature: Callable[[int], float], n: int) -> list[int]:
    """Simulated annealing as in any textbook, on a list of units of which the first `size` are dropped."""
    rng = np.random.default_rng(seed).spawn(1)[0]
    order, size = list(range(n)), 0
    current, visited = energy(Mask(0, n)), [0]
    for step in range(states - 1):
        place = int(rng.random() * n)
        candidate = set(order[:size]) ^ {order[place]}
        bits = sum(1 << unit for unit in candidate)
        visited.append(bits)
        value = energy(Mask(bits, n))
        if value <= current or rng.random() < math.exp(-(value - current) / temperature(step)):
            current = value
            boundary = size - 1 if place < size else size
            order[place], order[boundary] = order[boundary], order[place]
            size = len(candidate)
    return visited


@pytest.mark.parametrize(
    ("options", "temperature"),
    [
        ({}, lambda i: 0.01 * (0.0003 / 0.01) ** (i / 1498)),
        ({"schedule": "logarithmic", "start_temperature": 0.2}, lambda i: 0.2 / math.log(2 + i)),
        ({"schedule": "exponential", "rate": 0.99}, lambda i: max(0.01 * 0.99**i, 0.0003)),
    ],
)
def test_visits_what_textbook_annealing_visits(options: dict[str, Any], temperature: Callable[[int], float]) -> None:
    asked = drive(Annealing(SPACE, bias_itself, seed=5, states=1500, **options), rugged)
    assert [mask.bits for mask in asked] == textbook(5, 1500, rugged, temperature, 20)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 2.5])
def test_accepts_an_increase_as_often_as_metropolis_says(ratio: float) -> None:
    """One unit, dropped costs more: from untouched the drop is proposed until accepted, then at once undone."""
    temperature = 0.01
    space = Space((Site("hidden", 1),))
    searcher = Annealing(
        space, bias_itself, seed=1, states=20_000, start_temperature=temperature, end_temperature=temperature
    )
    asked = drive(searcher, lambda mask: 0.1 + ratio * temperature * mask.size)
    uphill = [i for i in range(1, len(asked) - 1) if asked[i].size == 1]
    accepted = sum(asked[i + 1].size == 0 for i in uphill)
    p = math.exp(-ratio)
    assert accepted == pytest.approx(len(uphill) * p, abs=4 * math.sqrt(len(uphill) * p * (1 - p)))


def test_random_walk_accepts_everything() -> None:
    asked = drive(RandomWalk(SPACE, bias_itself, seed=0, states=500), rugged)
    assert all((a.bits ^ b.bits).bit_count() == 1 for a, b in pairwise(asked))
    assert RandomWalk(SPACE, bias_itself, seed=0, states=1).settings()["name"] == "random-walk"


def test_chains_do_not_depend_on_each_other() -> None:
    def asks_of_first(others: float) -> list[Mask]:
        searcher = Annealing(SPACE, bias_itself, seed=2, states=301, chains=3, restarts=2, restart_from="best")
        searcher.tell(searcher.ask(), [Measurement(0.3, 1.0)])
        first = []
        while masks := searcher.ask():
            searcher.tell(masks, [Measurement(rugged(masks[0]), 1.0), *(Measurement(others, 1.0) for _ in masks[1:])])
            first.append(masks[0])
        return first

    assert len(asks_of_first(0.0)) == 100
    assert asks_of_first(0.0) == asks_of_first(0.9)


def test_lockstep_asks_hold_one_mask_per_chain() -> None:
    searcher = Annealing(SPACE, bias_itself, seed=2, states=1 + 11, chains=3)
    widths = []
    while masks := searcher.ask():
        widths.append(len(masks))
        searcher.tell(masks, [Measurement(rugged(mask), 1.0) for mask in masks])
    assert widths == [1, 3, 3, 3, 2]


def test_restarts_begin_at_the_untouched_mask_or_at_the_best() -> None:
    def second_start(restart_from: str) -> tuple[Mask, Mask]:
        searcher = Annealing(SPACE, bias_itself, seed=4, states=401, restarts=2, restart_from=restart_from)  # type: ignore[arg-type]
        asked = drive(searcher, rugged)
        return min(asked[:201], key=rugged), asked[201]

    best, from_untouched = second_start("untouched")
    assert best.size > 1
    assert from_untouched.size == 1
    best, from_best = second_start("best")
    assert (best.bits ^ from_best.bits).bit_count() == 1


def test_a_chain_below_the_least_size_jumps_in_and_stays_in() -> None:
    space = Space((Site("hidden", 20),), min_drop=5, max_drop=9)
    asked = drive(Annealing(space, bias_itself, seed=0, states=300), lambda mask: 0.1 + mask.size)
    assert asked[0].size == 0
    assert asked[1].size == 5
    assert {mask.size for mask in asked[2:]} <= {5, 6}  # the entry was accepted although it costs more
    assert asked[2].size == 6


def test_a_random_start_is_taken_whatever_it_costs() -> None:
    asked = drive(
        Annealing(SPACE, bias_itself, seed=3, states=50, initial="random"), lambda m: 0.0 if m.is_untouched else 9.0
    )
    assert asked[1].size > 1
    assert (asked[1].bits ^ asked[2].bits).bit_count() == 1


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (Space((Site("hidden", 3),), max_drop=0), 1),
        (Space((Site("hidden", 3),), min_drop=3), 2),
        (Space((Site("hidden", 3),), max_drop=0, dials=(Dial("shift", -1, 1, 0.1),)), 100),
        (Space((Site("hidden", 3),), min_drop=3, dials=(Dial("shift", -1, 1, 0.1),)), 100),
    ],
)
def test_finishes_early_only_where_there_is_no_move(space: Space, expected: int) -> None:
    assert len(drive(Annealing(space, bias_itself, seed=0, states=100), rugged)) == expected


def test_leaves_broken_masks_at_once() -> None:
    """Only the untouched mask and those of 3 or more units work: a walk must cross broken ones."""

    def energy(mask: Mask) -> float:
        return math.nan if mask.size in (1, 2) else 0.1

    asked = drive(Annealing(SPACE, bias_itself, seed=0, states=400, initial="random"), energy)
    assert sum(mask.size > 2 for mask in asked) > 200
    walked = drive(RandomWalk(SPACE, bias_itself, seed=0, states=400), energy)
    assert max(mask.size for mask in walked) > 5


def test_nan_costs_of_a_careless_cost_count_as_infinite() -> None:
    searcher = Annealing(SPACE, lambda _: lambda m: math.nan if m.bias > 0.2 else m.bias, seed=0, states=200)
    drive(searcher, lambda mask: 0.1 + 0.02 * mask.size)
    assert searcher.incumbent.cost == 0.1


def test_measured_start_temperature_precedes_annealing_from_untouched() -> None:
    def masks(states: int, moves: int) -> list[Mask]:
        searcher = Annealing(
            SPACE, bias_itself, seed=6, states=states, start_temperature="ben-ameur", initial_moves=moves
        )
        return drive(searcher, lambda mask: 0.1 * mask.size)

    short = masks(400, 10)
    walk = [0.1 * mask.size for mask in short]
    uphill = np.flatnonzero(np.diff(walk) > 0)
    end_of_walk = int(uphill[9]) + 1
    assert all((a.bits ^ b.bits).bit_count() == 1 for a, b in pairwise(short[: end_of_walk + 1]))
    assert short[end_of_walk + 1].size == 1  # back to untouched, one unit added
    assert len(masks(400, 1_000_000)) == 400  # the walk ends at half of the states


def test_measured_start_temperature_accepts_the_asked_share() -> None:
    """Every uphill move costs the same, so Ben-Ameur's T accepts exactly chi0 of them at the first steps."""
    searcher = Annealing(
        Space((Site("hidden", 1),)),
        bias_itself,
        seed=8,
        states=20_000,
        start_temperature="ben-ameur",
        end_temperature=1000.0,
        initial_moves=10,
        acceptance=0.6,
    )
    asked = drive(searcher, lambda mask: 50.0 * mask.size)[25:]
    uphill = [i for i in range(len(asked) - 1) if asked[i].size == 1]
    accepted = sum(asked[i + 1].size == 0 for i in uphill)
    assert accepted / len(uphill) == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": 0}, "states must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"chains": 0}, "chains must be at least 1"),
        ({"restarts": 2.5}, "restarts must be a whole number"),
        ({"schedule": "linear"}, "schedule must be one of 'geometric', 'logarithmic', 'exponential', got 'linear'"),
        ({"start_temperature": 0}, "start_temperature must be a positive number, got 0"),
        ({"start_temperature": "warm"}, "start_temperature must be a positive number, 'ben-ameur' or None"),
        ({"start_temperature": 1e-4}, "start_temperature 0.0001 is below end_temperature 0.0003"),
        ({"end_temperature": math.nan}, "end_temperature must be a positive number, got nan"),
        ({"rate": 1.5}, "rate must lie in"),
        ({"acceptance": 1.0}, "acceptance must be a number within"),
        ({"dial_share": 2}, "dial_share must be a number within"),
        ({"accept": "never"}, "accept must be one of 'metropolis', 'always'"),
        ({"initial": "best"}, "initial must be one of"),
        ({"restart_from": "random"}, "restart_from must be one of"),
        ({"ties": "newest"}, "ties must be one of"),
    ],
)
def test_refuses_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Annealing(SPACE, bias_itself, **({"seed": 0, "states": 10} | options))


@pytest.mark.parametrize(("total", "parts", "expected"), [(10, 3, [4, 3, 3]), (2, 4, [1, 1, 0, 0]), (0, 2, [0, 0])])
def test_even_splits(total: int, parts: int, expected: Sequence[int]) -> None:
    assert split_evenly(total, parts) == expected
