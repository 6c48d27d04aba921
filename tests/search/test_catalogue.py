import pytest

from fairmend.errors import InputError
from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.masks import Site, Space
from fairmend.search import (
    Annealing,
    Exhaustive,
    Genetic,
    RandomWalk,
    Searcher,
    SingleInterventions,
    UniformSampling,
    make_searcher,
)
from fairmend.search.names import SEARCH_NAMES

CLASSES = {
    "annealing": Annealing,
    "random-walk": RandomWalk,
    "genetic": Genetic,
    "exhaustive": Exhaustive,
    "dice": SingleInterventions,
    "random": UniformSampling,
}


def make(name: str, **options: object) -> Searcher:
    figures = Figures(Figure("bias", "lower", "toy"), Figure("F1", "higher", "toy"))
    space = Space((Site("hidden", 5),))
    return make_searcher(name, space, make_cost=lambda _: bias, figures=figures, **options)  # type: ignore[arg-type]


def bias(measurement: Measurement) -> float:
    return measurement.bias


@pytest.mark.parametrize("name", SEARCH_NAMES)
def test_every_name_builds_its_searcher(name: str) -> None:
    searcher = make(name, seed=3, states=40)
    assert type(searcher) is CLASSES[name]
    settings = searcher.settings()
    assert settings["name"] == name
    assert settings.get("seed", 3) == 3
    assert settings.get("states", settings.get("samples", 40)) == 40


def test_options_reach_the_searcher() -> None:
    assert make("annealing", states=10, chains=4, schedule="logarithmic").settings()["chains"] == 4
    assert make("random", samples=12, states=10).settings()["samples"] == 12


def test_unknown_names_and_options_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(InputError, match=r"search must be one of 'annealing', 'random-walk'.*got 'tabu'"):
        make("tabu")
    with pytest.raises(InputError, match=r"dice search has no option 'chains'; its options are batch"):
        make("dice", chains=3)
