"""What searches keep to that learn surrogates, and the design that they begin with: dials stay at 0."""

import json
import math
from collections.abc import Sequence

import pytest
from known_landscapes import FIGURES, SPACES, Landscape, masks_of, penalised, run
from known_searchers import LEARNED

from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.masks import Mask
from fairmend.search import Searcher
from fairmend.surrogates import Active, AttentionPruning

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
