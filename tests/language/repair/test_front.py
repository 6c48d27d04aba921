"""Fronts of repairs: trade-offs between bias and perplexity on the tiny organism, and one of them as a model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_organism as organism
from subset_cases import SETTINGS as SUBSETS
from subset_cases import TEXTS, rude, subject
from tiny_lm import tiny_lm
from transformers import AutoModelForCausalLM

from fairmend.costs import UtilityFloor
from fairmend.errors import InputError, ModelError, RunError
from fairmend.evaluation import Measurement
from fairmend.language import Repair, RepairSettings, load_model, repair_model, save_repair
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.judging import Judgement
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.records.cards import point_card
from fairmend.language.records.checkpoints import read_mask
from fairmend.language.records.fronts import load_front, load_point, mask_at, save_point
from fairmend.language.repair.finalists import Finalist
from fairmend.language.repair.front import RepairFront, front_of
from fairmend.language.repair.settings import SUBSET_METHODS
from fairmend.masks import Site, Space
from fairmend.records import built, plain
from fairmend.report.card import render_card

RANKED = replace(
    SUBSETS, method="fasp", alpha=0.5, gamma=0.25, front=True, subsets=replace(SUBSETS.subsets, finalists=8)
)
SPACE = Space((Site("layer", 8),))


def repaired(settings: RepairSettings, **changes: Any) -> Repair:
    return repair_model(subject(), settings, **changes)


@pytest.fixture(scope="module")
def ranked() -> Repair:
    return repaired(RANKED)


def require_front(repair: Repair) -> RepairFront:
    front = repair.front
    assert front is not None
    points = front.points
    assert points[0].mask.is_untouched
    measured = [(point.measurement.utility, point.measurement.bias) for point in points]
    assert measured[1:] == sorted(measured[1:])
    assert [bias for _, bias in measured] == sorted((bias for _, bias in measured), reverse=True)
    assert all(repair.floor.admits(point.measurement) for point in points)
    assert front.saved is not None
    assert points[front.saved].mask == repair.mask
    return front


@pytest.mark.parametrize("method", SUBSET_METHODS)
def test_every_search_over_subsets_finds_a_front(method: str) -> None:
    subsets = replace(SUBSETS.subsets, samples=40, max_drop=4)
    front = require_front(repaired(replace(SUBSETS, method=method, front=True, subsets=subsets)))
    assert len(front.points) >= 2
    change = front.points[-1].judgement.main.change  # type: ignore[union-attr]
    assert change is not None
    assert change.interval.high < 0


def test_rankings_find_one_among_their_finalists(ranked: Repair) -> None:
    front = require_front(ranked)
    assert len(front.points) >= 2
    assert {point.mask for point in front.points[1:]} <= {finalist.mask for finalist in ranked.finalists}


def test_rankings_measure_sets_in_between_as_well(ranked: Repair) -> None:
    plain = repaired(replace(RANKED, front=False), held_out=False)
    assert plain.front is None
    few, more = ([finalist.mask for finalist in repair.finalists] for repair in (plain, ranked))
    assert set(few) < set(more)
    assert len(more) <= max(len(few), RANKED.subsets.finalists)


def test_points_have_the_held_out_figures_of_their_masks(ranked: Repair) -> None:
    """Measured anew on the judging half, by the mask alone."""
    front = require_front(ranked)
    lm = organism.tiny_organism()
    reading = Reading(lm, TEXTS[1], RANKED.reading)
    evaluator = LanguageEvaluator(lm, ranked.judge_prompts, reading, rude(), sampling=RANKED.sampling)
    for point, made in zip(front.points, evaluator.measure([point.mask for point in front.points]), strict=True):
        assert point.judgement is not None
        assert point.judgement.main.change is not None
        assert point.judgement.main.change.after.value == pytest.approx(made.bias)
        assert point.judgement.perplexity.after == pytest.approx(made.utility)
    assert ranked.held_out == front.points[front.saved].judgement  # type: ignore[index]


def test_a_front_that_is_not_judged_has_figures_of_the_search_half_only(tmp_path: Path) -> None:
    repair = repaired(RANKED, held_out=False)
    assert not require_front(repair).is_judged
    files = save_repair(repair, organism.tiny_organism(), tmp_path)
    assert "front.csv" in files
    assert "front.png" not in files
    assert all(point["held_out"] is None for point in load_front(tmp_path)["points"])


def finalist(units: tuple[int, ...], bias: float, perplexity: float) -> Finalist:
    return Finalist(SPACE.mask(units), None, Measurement(bias, perplexity))


def test_only_sets_within_the_floor_that_no_other_beats_are_points() -> None:
    finalists = [
        finalist((1,), 0.5, 12.0),
        finalist((2,), 0.6, 12.5),  # beaten
        finalist((3,), 0.2, 14.0),
        finalist((4,), 0.1, 16.0),  # beyond the floor
        finalist((5,), 1.1, 9.0),  # reads better, but is more biased than the untouched model
        finalist((7,), 1.0, 9.5),
        finalist((6,), math.nan, 10.0),
    ]
    points = front_of(SPACE.untouched(), Measurement(1.0, 10.0), finalists, UtilityFloor(15.0, "lower"))
    assert [point.mask.units() for point in points] == [(), (7,), (1,), (3,)]


def test_the_untouched_model_is_a_point_even_if_a_set_beats_it() -> None:
    better = finalist((1,), 0.5, 9.0)
    points = front_of(SPACE.untouched(), Measurement(1.0, 10.0), [better], UtilityFloor(15.0, "lower"))
    assert [point.mask.units() for point in points] == [(), (1,)]


def test_a_front_of_one_set_taken_unseen_is_refused() -> None:
    with pytest.raises(InputError, match="choose 'measured', or leave out the front"):
        RepairSettings(front=True, choice="rule")


def test_settings_survive_json() -> None:
    assert RepairSettings.from_json(json.loads(json.dumps(RANKED.to_json()))) == RANKED


def test_files_hold_every_point(tmp_path: Path, ranked: Repair) -> None:
    files = save_repair(ranked, organism.tiny_organism(), tmp_path)
    assert {"front.json", "front.csv", "front.png", "front.svg"} <= set(files)
    front, found = load_front(tmp_path), require_front(ranked)
    assert [point["dropped"] for point in front["points"]] == [list(point.mask.units()) for point in found.points]
    assert front["saved"] == found.saved
    for point, described in zip(found.points, front["points"], strict=True):
        assert point.judgement is not None
        assert plain(built(described["held_out"], Judgement)) == described["held_out"]
        assert built(described["held_out"], Judgement).main.change == point.judgement.main.change
    rows = files["front.csv"].read_text().splitlines()
    assert len(rows) == 1 + len(found.points)
    assert "are in front.json" in files["README.md"].read_text()


def test_a_point_becomes_a_model_of_its_own(tmp_path: Path, ranked: Repair) -> None:
    lm = organism.tiny_organism()
    save_repair(ranked, lm, tmp_path / "repaired")
    front = load_front(tmp_path / "repaired")
    number = len(front["points"]) - 1
    save_point(front, number, lm, tmp_path / "picked")
    saved = load_point(tmp_path / "picked")
    assert saved["point"] == front["points"][number]
    assert json.loads((tmp_path / "picked/mask.json").read_text())["dropped"] == front["points"][number]["dropped"]
    card = (tmp_path / "picked/README.md").read_text()
    assert card.startswith("---\n")
    assert f"point {number} of a front" in card
    assert "## Held-out figures" in card
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "picked")).__name__ == "GPT2LMHeadModel"

    # The saved model, with nothing masked, has the figures of the point.
    again = load_model(str(tmp_path / "picked"), device="cpu")
    reading = Reading(again, TEXTS[1], RANKED.reading)
    evaluator = LanguageEvaluator(again, ranked.judge_prompts, reading, rude(), sampling=RANKED.sampling)
    (made,) = evaluator.measure([again.head_map.space().untouched()])
    held_out = built(saved["point"]["held_out"], Judgement)
    assert held_out.main.change is not None
    assert held_out.main.change.after.value == pytest.approx(made.bias)
    assert held_out.perplexity.after == pytest.approx(made.utility)


def test_what_cannot_be_picked_is_refused(tmp_path: Path, ranked: Repair) -> None:
    lm = organism.tiny_organism()
    save_repair(ranked, lm, tmp_path / "repaired")
    front = load_front(tmp_path / "repaired")
    last = len(front["points"]) - 1
    for number in (-1, last + 1):
        with pytest.raises(InputError, match=rf"no point {number}: .* 0 \(the untouched model\) to {last}"):
            save_point(front, number, lm, tmp_path / "picked")
    with pytest.raises(ModelError, match="was made for tiny organism"):
        save_point(front, 1, tiny_lm("llama-mha"), tmp_path / "picked")
    with pytest.raises(RunError, match="is not empty"):
        save_point(front, 1, lm, tmp_path / "repaired")
    with pytest.raises(RunError, match="holds no front"):
        load_front(tmp_path)
    with pytest.raises(RunError, match="holds no saved point"):
        load_point(tmp_path)
    for content, words in (("{}", "is not the result of a fairmend language front"), ("{", "cannot be read")):
        (tmp_path / "repaired/front.json").write_text(content)
        with pytest.raises(RunError, match=words):
            load_front(tmp_path / "repaired")


def test_gains_of_repairs_and_points_are_saved_said_and_put_on_again(tmp_path: Path, ranked: Repair) -> None:
    lm, front = organism.tiny_organism(), require_front(ranked)
    space, gains = lm.head_map.space(gains=True), [0.5, 1.0, 1.0, 0.0, *[1.25] * (lm.head_map.n_heads - 4)]
    mask = lm.head_map.mask(gains)
    turned = RepairFront.of(
        [replace(front.points[0], mask=space.untouched()), replace(front.points[-1], mask=mask)],
        mask,
        space,
        front.figures,
        front.n_judged,
    )
    save_repair(replace(ranked, mask=mask, space=space, front=turned), lm, tmp_path / "out")
    outcome = json.loads((tmp_path / "out/result.json").read_text())["outcome"]
    up = lm.head_map.n_heads - 4
    assert [outcome[name] for name in ("dropped", "turned_down", "turned_up")] == [1, 1, up]
    words = f"1 of {up + 4} attention heads are switched off, 1 turned down, {up} turned up, so that"
    assert words in (tmp_path / "out/README.md").read_text()
    assert "gains" in (tmp_path / "out/head_map.svg").read_text()
    saved = load_front(tmp_path / "out")
    assert [each.mask for each in turned.points] == [mask_at(saved, number, lm) for number in range(2)]
    assert turned.table().rows[1]["heads"] == up + 2
    save_point(saved, 1, lm, tmp_path / "picked")
    assert read_mask(tmp_path / "picked", lm) == read_mask(tmp_path / "out", lm) == mask
    assert words in (tmp_path / "picked/README.md").read_text()
    assert "The model is unchanged" in render_card(point_card(saved, saved["points"][0], lm))
