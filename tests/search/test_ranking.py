import pytest

from fairmend.costs import PenalisedBias, UtilityFloor
from fairmend.errors import InputError
from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.masks import Dial, Site, Space
from fairmend.search import SingleInterventions

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
