"""What every searcher keeps to, over every kind of space."""

import json
import math
from collections.abc import Sequence

import pytest
from known_landscapes import FIGURES, SITES, SPACES, Landscape, floor, masks_of, penalised, run
from known_searchers import LEARNED, SEARCHES, finalists, searcher_classes
from known_searchers import build as build_search

from fairmend.errors import InputError
from fairmend.evaluation import Evaluator, Measurement, digest
from fairmend.masks import Mask, Space
from fairmend.search import (
    Annealing,
    Exhaustive,
    Incumbent,
    Searcher,
    hypervolume,
    make_searcher,
)

STATES = 90

CASES = [
    pytest.param(search, space, id=f"{search} / {space}")
    for search, (name, _) in SEARCHES.items()
    for space, limits in SPACES.items()
    if name != "dice" or limits.min_drop <= 1 <= limits.largest
]
every_case = pytest.mark.parametrize(("search", "space"), CASES)
every_search = pytest.mark.parametrize("search", SEARCHES)


def build(search: str, space: str, seed: int = 7, states: int = STATES) -> Searcher:
    return build_search(search, SPACES[space], seed, states)


def is_random(search: str) -> bool:
    return SEARCHES[search][0] not in ("exhaustive", "dice")


def test_every_searcher_of_the_package_is_under_contract() -> None:
    space = SPACES["plain"]
    covered = {type(build(search, "plain")) for search in SEARCHES}
    covered |= {type(finalists(space))} | {type(make(space, 40)) for make in LEARNED.values()}
    assert searcher_classes() == covered


def test_landscape_is_an_evaluator() -> None:
    evaluator = Landscape(SPACES["all of it"])
    assert isinstance(evaluator, Evaluator)
    assert digest(evaluator.fingerprint())


@every_case
def test_asks_the_untouched_mask_first_and_alone(search: str, space: str) -> None:
    searcher = build(search, space)
    assert isinstance(searcher, Searcher)
    assert list(searcher.ask()) == [SPACES[space].untouched()]


@every_case
def test_keeps_size_limits_frozen_units_and_dial_limits(search: str, space: str) -> None:
    limits = SPACES[space]
    turns = run(build(search, space), Landscape(limits).measure)
    outside = [mask for mask in masks_of(turns) if not (mask.is_untouched or limits.admits(mask))]
    assert outside == []


@every_case
def test_same_seed_same_asks(search: str, space: str) -> None:
    measure = Landscape(SPACES[space]).measure
    assert run(build(search, space), measure) == run(build(search, space), measure)


@pytest.mark.parametrize(("search", "space"), [case for case in CASES if is_random(str(case.values[0]))])
def test_different_seed_different_asks(search: str, space: str) -> None:
    measure = Landscape(SPACES[space]).measure
    assert masks_of(run(build(search, space, seed=1), measure)) != masks_of(run(build(search, space, seed=2), measure))


@every_case
def test_finishes_after_exactly_its_states_and_stays_finished(search: str, space: str) -> None:
    searcher, limits = build(search, space), SPACES[space]
    asked = masks_of(run(searcher, Landscape(limits).measure))
    if is_random(search):
        assert len(asked) == STATES
    assert list(searcher.ask()) == []
    assert list(searcher.ask()) == []


@every_case
def test_resume_by_replay_equals_the_uninterrupted_search(search: str, space: str) -> None:
    measure = Landscape(SPACES[space]).measure
    whole = run(build(search, space), measure)
    for n_told in {0, 1, len(whole) // 2, len(whole)}:
        resumed = build(search, space)
        for masks, measurements in whole[:n_told]:
            resumed.ask()
            resumed.tell(list(masks), measurements)
        assert whole[:n_told] + run(resumed, measure) == whole


@every_case
def test_the_best_is_never_worse_than_untouched(search: str, space: str) -> None:
    searcher = build(search, space)
    turns = run(searcher, Landscape(SPACES[space]).measure)
    cost = penalised(turns[0][1][0])
    best = Incumbent()
    for masks, measurements in turns:
        for mask, measurement in zip(masks, measurements, strict=True):
            best.offer(mask, measurement, cost(measurement))
    assert best.cost <= cost(turns[0][1][0])
    assert best.measurement is not None
    assert floor(turns[0][1][0]).admits(best.measurement)
    incumbent = getattr(searcher, "incumbent", None)
    if incumbent is not None:
        assert incumbent.cost == best.cost
        assert cost(incumbent.measurement) == best.cost


@every_case
def test_survives_broken_measurements(search: str, space: str) -> None:
    landscape = Landscape(SPACES[space])

    def measure(masks: Sequence[Mask]) -> list[Measurement]:
        broken = Measurement(math.nan, math.nan)
        return [m if mask.bits % 3 == 0 else broken for mask, m in zip(masks, landscape.measure(masks), strict=True)]

    searcher = build(search, space)
    turns = run(searcher, measure)
    if is_random(search):
        assert len(masks_of(turns)) == STATES
    if hasattr(searcher, "incumbent"):
        assert searcher.incumbent.measurement.is_finite


@every_case
def test_survives_when_everything_but_the_untouched_mask_is_broken(search: str, space: str) -> None:
    def measure(masks: Sequence[Mask]) -> list[Measurement]:
        return [Measurement(0.2, 0.8) if mask.is_untouched else Measurement(math.nan, 0.8) for mask in masks]

    turns = run(build(search, space), measure)
    assert len(masks_of(turns)) == STATES or not is_random(search)


@every_search
def test_refuses_an_untouched_model_that_cannot_be_measured(search: str) -> None:
    searcher = build(search, "plain")
    with pytest.raises(InputError, match="untouched model measures bias nan"):
        searcher.tell(searcher.ask(), [Measurement(math.nan, 0.8)])


@every_search
def test_refuses_calls_out_of_turn(search: str) -> None:
    space = SPACES["plain"]
    searcher = build(search, "plain")
    untouched, measurement = space.untouched(), Measurement(0.2, 0.8)
    with pytest.raises(InputError, match="nothing asked"):
        searcher.tell([untouched], [measurement])
    searcher.ask()
    with pytest.raises(InputError, match="ask was called twice"):
        searcher.ask()
    with pytest.raises(InputError, match="not the 1 asked"):
        searcher.tell([space.mask([1])], [measurement])
    with pytest.raises(InputError, match="not the 1 asked"):
        searcher.tell([untouched, untouched], [measurement, measurement])
    with pytest.raises(InputError, match="0 measurements for 1 masks"):
        searcher.tell([untouched], [])
    searcher.tell([untouched], [measurement])
    with pytest.raises(InputError, match="nothing asked"):
        searcher.tell([untouched], [measurement])


@every_case
def test_settings_survive_json_and_build_an_equal_searcher(search: str, space: str) -> None:
    searcher = build(search, space)
    settings = json.loads(json.dumps(searcher.settings(), allow_nan=False))
    assert settings == searcher.settings()
    assert settings["name"] == SEARCHES[search][0]
    again = make_searcher(**settings, space=SPACES[space], make_cost=penalised, figures=FIGURES, make_floor=floor)
    measure = Landscape(SPACES[space]).measure
    assert run(again, measure) == run(searcher, measure)


@pytest.mark.parametrize("space", ["plain", "frozen", "at least 2", "exactly 3"])
@pytest.mark.parametrize("seed", range(3))
def test_annealing_finds_the_brute_force_optimum(space: str, seed: int) -> None:
    landscape = Landscape(SPACES[space], seed)
    everything = Exhaustive(landscape.space, penalised)
    run(everything, landscape.measure)
    annealing = Annealing(landscape.space, penalised, seed=seed, states=3000, restarts=3)
    run(annealing, landscape.measure)
    assert annealing.incumbent.cost == pytest.approx(everything.incumbent.cost)


@pytest.mark.parametrize("seed", range(3))
def test_genetic_search_finds_the_front(seed: int) -> None:
    space = Space(SITES, max_drop=6)
    landscape = Landscape(space, seed)
    every = Exhaustive(space, penalised)
    points = [(m.bias, -m.utility) for _, told in run(every, landscape.measure) for m in told]
    reference = landscape.figures_of(space.untouched())
    corner = (reference.bias * 1.01, -floor(reference).limit)
    genetic = make_searcher(
        "genetic", space, make_cost=penalised, figures=FIGURES, make_floor=floor, seed=seed, states=800, population=32
    )
    found = [(m.bias, -m.utility) for _, told in run(genetic, landscape.measure) for m in told]
    assert hypervolume(found, corner) >= 0.99 * hypervolume(points, corner)


# --- finalists

every_candidates_space = pytest.mark.parametrize("space", ["plain", "dials", "frozen"])


@every_candidates_space
def test_candidates_ask_the_untouched_mask_first_and_keep_the_limits(space: str) -> None:
    limits = SPACES[space]
    searcher = finalists(limits)
    assert isinstance(searcher, Searcher)
    masks = masks_of(run(searcher, Landscape(limits).measure))
    assert masks[0] == limits.untouched()
    assert all(limits.admits(mask) for mask in masks)
    assert len(set(masks)) == len(masks)
    assert list(searcher.ask()) == []


@every_candidates_space
def test_candidates_resume_by_replay_and_say_their_settings(space: str) -> None:
    limits = SPACES[space]
    measure = Landscape(limits).measure
    whole = run(finalists(limits), measure)
    for n_told in range(len(whole) + 1):
        resumed = finalists(limits)
        for masks, measurements in whole[:n_told]:
            resumed.ask()
            resumed.tell(list(masks), measurements)
        assert whole[:n_told] + run(resumed, measure) == whole
    settings = json.loads(json.dumps(finalists(limits).settings(), allow_nan=False))
    assert settings["name"] == "candidates"


def test_candidates_survive_broken_masks_and_refuse_a_broken_model() -> None:
    def measure(masks: Sequence[Mask]) -> list[Measurement]:
        return [Measurement(0.2, 0.8) if mask.is_untouched else Measurement(math.nan, math.nan) for mask in masks]

    space = SPACES["plain"]
    run(finalists(space), measure)
    searcher = finalists(space)
    with pytest.raises(InputError, match="untouched model measures bias nan"):
        searcher.tell(searcher.ask(), [Measurement(math.nan, 0.8)])
