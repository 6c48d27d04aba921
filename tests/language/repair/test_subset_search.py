"""Repairs that measure subsets of heads: on the tiny organism, whose bias is known."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulation import FIGURES, SimulatedModel
from subset_cases import SETTINGS, Constant, Stopping, rude, subject

from fairmend.errors import DataError, InputError
from fairmend.language import RepairSettings, open_run, repair_model
from fairmend.language.repair.finalists import sets_of
from fairmend.language.repair.repair import Repair
from fairmend.language.repair.settings import SUBSET_METHODS, SubsetSearch
from fairmend.language.repair.subset_search import CONTEXT, promising
from fairmend.language.toxicity.scorer import Scorer
from fairmend.masks import Site, Space
from fairmend.runs import Runner, Store
from fairmend.surrogates import Active, floored_sum


def repaired(settings: RepairSettings, store: Store | None = None, scorer: Scorer | None = None) -> Repair:
    return repair_model(subject(scorer), settings, store=store)


def start(out: Path, settings: RepairSettings) -> Store:
    return open_run(out, subject(), settings)


@pytest.mark.parametrize("method", SUBSET_METHODS)
def test_the_heads_that_carry_the_bias_are_found(method):
    repair = repaired(replace(SETTINGS, method=method))
    assert repair.improved
    assert repair.feasible
    assert 1 <= repair.mask.size <= 3
    assert all(finalist.rule is None and finalist.mask.size for finalist in repair.finalists)
    change = repair.held_out.main.change
    assert change.excess_removed > 0.5
    assert change.interval.high < 0
    assert repair.held_out.perplexity.ratio < 1.6


@pytest.mark.parametrize("method", SUBSET_METHODS)
def test_a_stopped_search_goes_on_with_the_same_answer_and_measures_nothing_twice(tmp_path, method):
    settings = replace(SETTINGS, method=method)
    with start(tmp_path / "whole", settings) as store:
        whole = repaired(settings, store)
        rows = [mask for mask, _ in store.context(CONTEXT)]
    scorer = Stopping(rude(), after=700)
    with start(tmp_path / "stopped", settings) as store, contextlib.suppress(KeyboardInterrupt):
        repaired(settings, store, scorer)
    with start(tmp_path / "stopped", settings) as store:
        found = repaired(settings, store)
        again = [mask for mask, _ in store.context(CONTEXT)]
    assert found.mask == whole.mask
    assert found.after == whole.after
    assert again == rows
    assert len(set(again)) == len(again)


def test_subsets_are_measured_on_a_part_of_the_search_half(tmp_path):
    with start(tmp_path / "run", SETTINGS) as store:
        repaired(SETTINGS, store)
        part, whole = store.context(CONTEXT), store.context("search")
        assert part.figures.utility.protocol == whole.figures.utility.protocol
        samples = {name: sum("toxicity" in p for p in c.figures.parts) for name, c in (("part", part), ("all", whole))}
    assert samples == {"part": 30, "all": 60}


def test_an_active_search_begins_with_the_sets_of_a_ranking(tmp_path):
    with start(tmp_path / "run", SETTINGS) as store:
        repair = repaired(SETTINGS, store)
        measured = [mask for mask, _ in store.context(CONTEXT)]
    rules = SETTINGS.starting_rules(repair.space)
    assert {rule.method for rule in rules} == {"fasp"}
    assert max(rule.count(repair.space.n_units) for rule in rules) == 3
    ranked = sets_of(rules, repair.ranking.scores, repair.space)
    assert measured[0].is_untouched
    assert all(mask in ranked for mask in measured[1:4])


def test_half_of_what_is_measured_in_full_are_the_best_of_the_sets_that_a_search_began_with():
    rng = np.random.default_rng(0)
    model = SimulatedModel(rng.normal(0.0, 0.02, 20), rng.uniform(0.0, 0.02, 20), bias_noise=0.01)
    cost = floored_sum(FIGURES, 0.5, 1.25)
    starts = [[1, 2], [3], [4, 5, 6]]
    searcher = Active(model.space, FIGURES, cost, seed=0, states=30, starts=starts, patience=0)
    Runner(model).run(searcher)
    named = promising(searcher, 4)
    best = searcher.finalists(2, searcher.starts)
    assert named[:2] == best[:2]
    assert set(best[:2]) < set(searcher.starts)
    assert named[2:] == [mask for mask in searcher.finalists(9) if mask not in best and mask.size][:2]
    assert promising(searcher, 1) == searcher.finalists(1)[:1]
    assert promising(searcher, 4, front=True) == searcher.front_finalists(4)


@pytest.mark.parametrize("method", SUBSET_METHODS)
def test_when_no_subset_keeps_the_floor_nothing_is_changed(method):
    subsets = replace(SETTINGS.subsets, samples=20, surrogate="additive")
    repair = repaired(replace(SETTINGS, method=method, max_perplexity=1.0, subsets=subsets))
    assert all(finalist.measurement.utility > repair.before.utility for finalist in repair.finalists)
    assert not repair.improved
    assert repair.feasible
    assert repair.after == repair.before
    assert repair.held_out.main.change.change == 0


@pytest.mark.parametrize(("method", "samples"), [("active", 7), ("attention-pruning", 8)])
def test_too_few_subsets_to_learn_from_are_refused_before_anything_is_measured(method, samples):
    scorer = Stopping(rude(), after=0)
    settings = replace(SETTINGS, method=method, subsets=replace(SETTINGS.subsets, samples=samples))
    with pytest.raises(InputError, match=f"{method} learns from at least 8 measured subsets, and would have 7"):
        repaired(settings, scorer=scorer)


def test_settings_survive_json():
    assert RepairSettings.from_json(SETTINGS.to_json()) == SETTINGS


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": 1}, "samples"),
        ({"eta": 0.0}, "eta"),
        ({"eta": 1.5}, "eta"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"finalists": 0}, "finalists"),
        ({"surrogate": "oracle"}, "surrogate"),
    ],
)
def test_options_outside_their_range_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        SubsetSearch(**changes)


def test_the_largest_subset_is_a_share_of_the_heads_unless_told():
    whole = Space((Site("layer", 100),))
    assert SubsetSearch().space(whole).largest == 15
    assert SubsetSearch(max_drop=4).space(whole).largest == 4
    with pytest.raises(InputError, match="size limits"):
        SubsetSearch(max_drop=101).space(whole)


def test_a_method_without_rule_says_so():
    with pytest.raises(InputError, match="method must be one of"):
        SETTINGS.rule  # noqa: B018 - the property refuses


def test_a_prior_may_be_of_generated_scores():
    settings = replace(SETTINGS, bias_scores="generated", prompts=20, subsets=replace(SETTINGS.subsets, samples=20))
    assert repaired(settings).ranking.table is not None


@pytest.mark.parametrize("method", ["attention-pruning", "active"])
def test_surrogates_that_cannot_learn_are_said(method):
    with pytest.raises(DataError, match=r"nothing can be learned from the \d+ measured subsets: .*constant"):
        repaired(replace(SETTINGS, method=method), scorer=Constant())
