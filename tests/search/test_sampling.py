import math
from collections import Counter
from itertools import combinations

import pytest

from fairmend.costs import PenalisedBias, UtilityFloor
from fairmend.errors import InputError
from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.masks import Dial, Mask, Site, Space
from fairmend.search import Candidates, Exhaustive, SingleInterventions, UniformSampling
from fairmend.search.base import SteppedSearcher


def drive(searcher: SteppedSearcher) -> list[tuple[Mask, ...]]:
    batches = []
    while masks := tuple(searcher.ask()):
        searcher.tell(masks, [Measurement(0.1 * mask.size, 1.0) for mask in masks])
        batches.append(masks)
    return batches


def test_exhaustive_asks_every_admissible_mask_once_in_order() -> None:
    space = Space((Site("hidden", 7),), min_drop=2, max_drop=4, frozen=frozenset({3}), dials=(Dial("d", -1, 1, 0.1),))
    batches = drive(Exhaustive(space, batch=10))
    asked = [mask.units() for batch in batches for mask in batch]
    droppable = [0, 1, 2, 4, 5, 6]
    assert asked == [(), *(units for size in (2, 3, 4) for units in combinations(droppable, size))]
    assert len(asked) == 1 + space.n_masks()
    assert [len(batch) for batch in batches] == [1, 10, 10, 10, 10, 10]
    assert {mask.dials for batch in batches for mask in batch} == {(0.0,)}


def test_exhaustive_refusal_names_the_count_and_the_limit() -> None:
    with pytest.raises(InputError, match=r"would measure 37 masks, more than the limit of 36: lower max_drop"):
        Exhaustive(Space((Site("hidden", 8),), max_drop=2), limit=36)
    assert Exhaustive(Space((Site("hidden", 8),), max_drop=2), limit=37)


def test_exhaustive_refuses_a_count_too_long_to_print() -> None:
    with pytest.raises(InputError, match=r"about 10\^6021 masks"):
        Exhaustive(Space((Site("hidden", 20_000),)))


def test_without_a_cost_there_is_no_incumbent() -> None:
    searcher = UniformSampling(Space((Site("hidden", 8),)), seed=0, samples=20)
    searcher.tell(searcher.ask(), [Measurement(math.nan, math.nan)])
    drive(searcher)
    assert searcher.incumbent.mask is None


def test_uniform_sampling_spreads_sizes_units_and_dials_evenly() -> None:
    space = Space((Site("hidden", 6),), min_drop=1, max_drop=3, frozen=frozenset({5}), dials=(Dial("d", -1, 3, 0.1),))
    masks = [mask for batch in drive(UniformSampling(space, seed=0, samples=3001))[1:] for mask in batch]
    sizes = Counter(mask.size for mask in masks)
    units = Counter(unit for mask in masks for unit in mask.units())
    assert set(sizes) == {1, 2, 3}
    assert all(abs(count - 1000) < 4 * math.sqrt(1000) for count in sizes.values())
    assert set(units) == {0, 1, 2, 3, 4}
    assert all(abs(count - 1200) < 4 * math.sqrt(1200) for count in units.values())
    values = sorted(mask.dials[0] for mask in masks)
    assert values[0] >= -1
    assert values[-1] <= 3
    assert values[len(values) // 2] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(("options", "message"), [({"samples": 0}, "samples"), ({"batch": 0}, "batch")])
def test_refuses_counts_below_one(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=f"{message} must be at least 1, got 0"):
        UniformSampling(Space((Site("hidden", 8),)), **({"seed": 0, "samples": 5} | options))


# --- single interventions and finalists

FIGURES = Figures(Figure("bias", "lower", "table"), Figure("F1", "higher", "table"))


def penalised(reference: Measurement) -> PenalisedBias:
    return PenalisedBias(UtilityFloor.relative(FIGURES, reference, 0.98), reference.bias)


def test_asks_every_droppable_unit_once_and_keeps_the_best_above_the_floor() -> None:
    space = Space((Site("hidden", 5),), frozen=frozenset({1}), dials=(Dial("d", -1, 1, 0.1),))
    table = {0: (0.08, 0.80), 2: (0.01, 0.70), 3: (0.05, 0.79), 4: (0.09, 0.80)}
    searcher = SingleInterventions(space, penalised)
    searcher.tell(searcher.ask(), [Measurement(0.10, 0.80)])
    asked = searcher.ask()
    searcher.tell(asked, [Measurement(*table[mask.units()[0]]) for mask in asked])
    assert [mask.units() for mask in asked] == [(0,), (2,), (3,), (4,)]
    assert searcher.ask() == ()
    assert searcher.incumbent.mask == space.mask([3])  # unit 2 is fairer, but below 98 % of F1


def test_the_untouched_network_wins_when_no_unit_helps() -> None:
    space = Space((Site("hidden", 3),))
    searcher = SingleInterventions(space, penalised)
    while masks := searcher.ask():
        searcher.tell(masks, [Measurement(0.1 + 0.1 * mask.size, 0.8) for mask in masks])
    assert searcher.incumbent.mask == space.untouched()


@pytest.mark.parametrize(("smallest", "largest"), [(2, 3), (0, 0)])
def test_refuses_limits_that_admit_no_single_unit(smallest: int, largest: int) -> None:
    with pytest.raises(InputError, match=f"exactly one unit, but the space admits {smallest} to {largest}"):
        SingleInterventions(Space((Site("hidden", 4),), smallest, largest), penalised)


def test_candidates_are_asked_once_each_after_the_untouched_mask() -> None:
    space = Space((Site("layer", 4),))
    asked = drive(Candidates(space, [space.mask([1]), space.mask([0, 2]), space.mask([1])]))
    assert [[mask.units() for mask in turn] for turn in asked] == [[()], [(1,), (0, 2)]]
