"""What every searcher keeps to, over every kind of space."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fairmend.costs import Cost, PenalisedBias, UtilityFloor
from fairmend.errors import InputError
from fairmend.evaluation import Evaluator, Figure, Figures, Measurement, digest
from fairmend.masks import Dial, Mask, Site, Space
from fairmend.search import (
    METHODS,
    SEARCH_NAMES,
    Annealing,
    Candidates,
    Exhaustive,
    Incumbent,
    PruningRule,
    Ranking,
    Searcher,
    SpreadSampling,
    hypervolume,
    make_searcher,
)
from fairmend.surrogates import Active, AttentionPruning, ProposalSettings, Ridge

FIGURES = Figures(Figure("bias", "lower", "landscape"), Figure("score", "higher", "landscape"))
STATES = 90


class Landscape:
    """An evaluator whose figures are known: single and pairwise effects of dropped units, and a bowl per dial."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        pairs = list(combinations(range(space.n_units), 2))
        self.space, self.figures, self.seed = space, FIGURES, seed
        self.single = rng.normal(-0.01, 0.03, space.n_units)
        self.damage = rng.uniform(0, 0.006, space.n_units)
        self.pairs = {pairs[i]: float(rng.normal(0, 0.03)) for i in rng.choice(len(pairs), space.n_units)}

    def figures_of(self, mask: Mask) -> Measurement:
        units = set(mask.units())
        bias = 0.2 + sum(self.single[unit] for unit in units)
        bias += sum(effect for (a, b), effect in self.pairs.items() if a in units and b in units)
        bias += sum(0.05 * (value - 0.3) ** 2 for value in mask.dials)
        score = 0.8 - sum(self.damage[unit] for unit in units) - 0.01 * sum(abs(value) for value in mask.dials)
        return Measurement(abs(float(bias)), float(score), n=100)

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        return [self.figures_of(mask) for mask in masks]

    def fingerprint(self) -> Mapping[str, Any]:
        return {"landscape": self.seed, "space": self.space.to_json()}


def floor(reference: Measurement) -> UtilityFloor:
    return UtilityFloor.relative(FIGURES, reference, 0.98)


def penalised(reference: Measurement) -> Cost:
    return PenalisedBias(floor(reference), reference.bias)


SEARCHES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in SEARCH_NAMES} | {
    "annealing, 3 chains, 2 restarts": ("annealing", {"chains": 3, "restarts": 2}),
    "annealing from the best": ("annealing", {"restarts": 3, "restart_from": "best", "ties": "last"}),
    "annealing from anywhere": ("annealing", {"initial": "random", "schedule": "logarithmic", "restarts": 2}),
    "annealing as published": (
        "annealing",
        {"start_temperature": "ben-ameur", "schedule": "logarithmic", "initial_moves": 20},
    ),
    "annealing, exponential": ("annealing", {"schedule": "exponential", "rate": 0.97, "chains": 2}),
    "random walk, 4 chains": ("random-walk", {"chains": 4, "initial": "random"}),
    "genetic, small population": ("genetic", {"population": 8, "flips": 3.0}),
    "random, small batches": ("random", {"batch": 7}),
}
DIALS = (Dial("threshold", -1.0, 1.0, 0.2), Dial("scale", 0.0, 0.5, 0.1))
SITES = (Site("first", 6), Site("second", 4))
SPACES = {
    "plain": Space(SITES, max_drop=5),
    "dials": Space(SITES, max_drop=5, dials=DIALS),
    "frozen": Space(SITES, max_drop=5, frozen=frozenset({0, 3, 9})),
    "at least 2": Space(SITES, min_drop=2, max_drop=5),
    "all of it": Space(SITES, min_drop=2, max_drop=4, frozen=frozenset({1, 8}), dials=DIALS[:1]),
    "exactly 3": Space(SITES, min_drop=3, max_drop=3),
    "dials only": Space(SITES, max_drop=0, dials=DIALS[:1]),
}
CASES = [
    pytest.param(search, space, id=f"{search} / {space}")
    for search, (name, _) in SEARCHES.items()
    for space, limits in SPACES.items()
    if name != "dice" or limits.min_drop <= 1 <= limits.largest
]
every_case = pytest.mark.parametrize(("search", "space"), CASES)
every_search = pytest.mark.parametrize("search", SEARCHES)


def build(search: str, space: str, seed: int = 7, states: int = STATES) -> Searcher:
    name, options = SEARCHES[search]
    return make_searcher(
        name, SPACES[space], make_cost=penalised, figures=FIGURES, make_floor=floor, seed=seed, states=states, **options
    )


def is_random(search: str) -> bool:
    return SEARCHES[search][0] not in ("exhaustive", "dice")


Turn = tuple[tuple[Mask, ...], list[Measurement]]


def run(searcher: Searcher, measure: Callable[[Sequence[Mask]], list[Measurement]]) -> list[Turn]:
    """All turns of a search to its end."""
    turns: list[Turn] = []
    while masks := tuple(searcher.ask()):
        measurements = measure(masks)
        searcher.tell(masks, measurements)
        turns.append((masks, measurements))
        assert len(turns) < 10_000, "the search does not finish"
    return turns


def masks_of(turns: list[Turn]) -> list[Mask]:
    return [mask for masks, _ in turns for mask in masks]


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


# --- rankings and finalists: they take a rule or masks instead of a cost, and are built without the catalogue

GIVEN = {name: np.linspace(1, 0, 10) for name in ("magnitude", "gradient")}
RANKED = {method: PruningRule(method, alpha=0.3, gamma=0.2, seed=3) for method in METHODS}
RANKED_SPACES = {name: SPACES[name] for name in ("plain", "dials", "frozen")}
every_ranking = pytest.mark.parametrize("ranking", [*METHODS, "candidates"])
every_ranked_space = pytest.mark.parametrize("space", RANKED_SPACES)


def build_ranking(ranking: str, space: Space) -> Searcher:
    if ranking == "candidates":
        return Candidates(space, [space.mask([4, 5]), space.mask([7])])
    return Ranking(space, FIGURES, RANKED[ranking], scores=GIVEN)


@every_ranking
@every_ranked_space
def test_rankings_ask_the_untouched_mask_first_and_keep_the_limits(ranking: str, space: str) -> None:
    limits = RANKED_SPACES[space]
    searcher = build_ranking(ranking, limits)
    assert isinstance(searcher, Searcher)
    masks = masks_of(run(searcher, Landscape(limits).measure))
    assert masks[0] == limits.untouched()
    assert all(limits.admits(mask) for mask in masks)
    assert len(set(masks)) == len(masks)
    assert list(searcher.ask()) == []


@every_ranking
@every_ranked_space
def test_rankings_resume_by_replay_and_rebuild_from_their_settings(ranking: str, space: str) -> None:
    limits = RANKED_SPACES[space]
    measure = Landscape(limits).measure
    whole = run(build_ranking(ranking, limits), measure)
    for n_told in range(len(whole) + 1):
        resumed = build_ranking(ranking, limits)
        for masks, measurements in whole[:n_told]:
            resumed.ask()
            resumed.tell(list(masks), measurements)
        assert whole[:n_told] + run(resumed, measure) == whole
    settings = json.loads(json.dumps(build_ranking(ranking, limits).settings(), allow_nan=False))
    assert settings["name"] == ranking
    if ranking != "candidates":
        again = Ranking(limits, FIGURES, PruningRule(**settings["rule"]), scores=settings["scores"])
        assert run(again, measure) == whole


@every_ranking
def test_rankings_survive_broken_masks_and_refuse_a_broken_model(ranking: str) -> None:
    def measure(masks: Sequence[Mask]) -> list[Measurement]:
        return [Measurement(0.2, 0.8) if mask.is_untouched else Measurement(math.nan, math.nan) for mask in masks]

    space = SPACES["plain"]
    run(build_ranking(ranking, space), measure)
    searcher = build_ranking(ranking, space)
    with pytest.raises(InputError, match="untouched model measures bias nan"):
        searcher.tell(searcher.ask(), [Measurement(math.nan, 0.8)])


# --- searches that learn surrogates, and the design that they begin with: built without the catalogue, dials stay at 0

QUICK = ProposalSettings(moves=400, genetic_states=60, genetic_share=0.3)
LEARNED: dict[str, Callable[[Space, int], Any]] = {
    "spread": lambda space, states: SpreadSampling(space, penalised, seed=7, samples=states),
    "active": lambda space, states: Active(
        space, FIGURES, penalised, floor, seed=7, states=states, batch=9, patience=0, proposals=QUICK
    ),
    "active, whole front": lambda space, states: Active(
        space, FIGURES, penalised, seed=7, states=states, surrogate="additive", whole_front=True, proposals=QUICK
    ),
    "attention-pruning": lambda space, states: AttentionPruning(
        space, FIGURES, penalised, seed=7, states=states, surrogate=Ridge(), finalists=3, moves=600, chains=4
    ),
    "attention-pruning, own cost": lambda space, states: AttentionPruning(
        space, FIGURES, None, floor, seed=7, states=states, surrogate="additive", moves=600, design="spread"
    ),
}
LEARNED_SPACES = {name: space for name, space in SPACES.items() if name != "dials only"}
every_learned = pytest.mark.parametrize("learned", LEARNED)
every_learned_space = pytest.mark.parametrize("space", LEARNED_SPACES)


@every_learned
@every_learned_space
def test_learned_searches_keep_the_contract(learned: str, space: str) -> None:
    limits = LEARNED_SPACES[space]
    landscape = Landscape(limits)
    searcher = LEARNED[learned](limits, 40)
    assert isinstance(searcher, Searcher)
    turns = run(searcher, landscape.measure)
    asked = masks_of(turns)
    assert turns[0][0] == (limits.untouched(),)
    assert [mask for mask in asked[1:] if not limits.admits(mask)] == []
    assert not any(any(mask.dials) for mask in asked)
    assert len(asked) <= 40
    if learned in ("spread", "active"):
        assert len(asked) == len(set(asked)) == 40
    assert list(searcher.ask()) == list(searcher.ask()) == []
    assert run(LEARNED[learned](limits, 40), landscape.measure) == turns
    if learned != "attention-pruning, own cost":
        cost = penalised(turns[0][1][0])
        assert searcher.incumbent.cost == min(cost(made) for _, told in turns for made in told)


@every_learned
@pytest.mark.parametrize("space", ["plain", "at least 2"])
def test_learned_searches_resume_by_replay(learned: str, space: str) -> None:
    limits = LEARNED_SPACES[space]
    measure = Landscape(limits).measure
    whole = run(LEARNED[learned](limits, 40), measure)
    for n_told in {0, 1, len(whole) // 2, len(whole)}:
        resumed = LEARNED[learned](limits, 40)
        for masks, measurements in whole[:n_told]:
            resumed.ask()
            resumed.tell(list(masks), measurements)
        assert whole[:n_told] + run(resumed, measure) == whole


@every_learned
def test_learned_searches_survive_broken_masks_and_refuse_a_broken_model(learned: str) -> None:
    landscape = Landscape(SPACES["plain"])

    def often(masks: Sequence[Mask]) -> list[Measurement]:
        broken = Measurement(math.nan, math.nan)
        return [m if mask.bits % 3 == 0 else broken for mask, m in zip(masks, landscape.measure(masks), strict=True)]

    def always(masks: Sequence[Mask]) -> list[Measurement]:
        return [Measurement(0.2, 0.8) if mask.is_untouched else Measurement(math.nan, 0.8) for mask in masks]

    for measure in (often, always):
        searcher = LEARNED[learned](SPACES["plain"], 40)
        asked = masks_of(run(searcher, measure))
        assert len(asked) >= 30
        if searcher.incumbent.measurement is not None:
            assert searcher.incumbent.measurement.is_finite
    searcher = LEARNED[learned](SPACES["plain"], 40)
    with pytest.raises(InputError, match="untouched model measures bias nan"):
        searcher.tell(searcher.ask(), [Measurement(math.nan, 0.8)])


@every_learned
def test_learned_searches_have_settings_of_their_own(learned: str) -> None:
    settings = [LEARNED[learned](SPACES["plain"], states).settings() for states in (40, 50)]
    assert [json.loads(json.dumps(each, allow_nan=False)) for each in settings] == settings
    assert settings[0] != settings[1]
    assert settings[0]["name"] == learned.split(",", maxsplit=1)[0]


@pytest.mark.parametrize("learned", [name for name in LEARNED if name != "spread"])
def test_learned_searches_are_built_again_from_their_settings(learned: str) -> None:
    space = SPACES["plain"]
    measure = Landscape(space).measure
    searcher = LEARNED[learned](space, 40)
    settings = json.loads(json.dumps(searcher.settings()))
    kind = {"active": Active, "attention-pruning": AttentionPruning}[settings.pop("name")]
    again = kind(space, FIGURES, searcher.make_cost, searcher.make_floor, **settings)
    assert again.settings() == searcher.settings()
    assert run(again, measure) == run(searcher, measure)
