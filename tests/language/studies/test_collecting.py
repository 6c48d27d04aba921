"""Collections of measured subsets: stopped and continued, longer ones begin like shorter ones, noise is learned."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from subset_cases import SETTINGS as SMALL
from subset_cases import Stopping, rude, subject

from fairmend.errors import InputError, RunError
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subset_search import CONTEXT
from fairmend.language.studies.collecting import REPEATS, Collected, collect, measured_noise, open_collection
from fairmend.language.toxicity.scorer import Scorer
from fairmend.runs import Store

SETTINGS = replace(SMALL, subsets=replace(SMALL.subsets, max_drop=7))  # with enough subsets for a block


def collected(
    out: Path, settings: RepairSettings = SETTINGS, scorer: Scorer | None = None, **budget: float
) -> tuple[Collected, dict[str, list]]:
    with open_collection(out, subject(scorer), settings) as store:
        found = collect(subject(scorer), settings, store, **budget)
        return found, {name: list(store.context(name)) for name in store.contexts()}


def test_a_stopped_collection_goes_on_as_if_it_had_not_stopped(tmp_path):
    whole, rows = collected(tmp_path / "whole", samples=30)
    assert 25 < whole.samples <= 30  # of eight heads a few subsets come twice, and are measured once
    assert (whole.stopped, whole.new) == ("evaluations", whole.samples + whole.repeats)
    stopped, _ = collected(tmp_path / "parts", scorer=Stopping(rude(), after=400), samples=30)
    assert stopped.stopped == "interrupted"
    assert 0 < stopped.new < whole.new
    rest, again = collected(tmp_path / "parts", samples=30)
    assert stopped.new + rest.new == whole.new
    for name in (CONTEXT, REPEATS):
        assert [mask for mask, _ in again[name]] == [mask for mask, _ in rows[name]]
        assert all(a == b for (_, a), (_, b) in zip(again[name], rows[name], strict=True))


def test_a_longer_collection_begins_like_a_shorter_one(tmp_path):
    collected(tmp_path, samples=12)
    _, rows = collected(tmp_path, samples=20)
    _, other = collected(tmp_path / "other", samples=20)
    assert {mask for mask, _ in rows[CONTEXT]} == {mask for mask, _ in other[CONTEXT]}


def test_time_ends_it_too(tmp_path):
    found, rows = collected(tmp_path, seconds=0.0)
    assert found.stopped == "seconds"
    assert rows[CONTEXT] == []


def test_noise_is_learned_from_subsets_measured_twice(tmp_path):
    _, rows = collected(tmp_path, samples=60)
    pairs = [(dict(rows[CONTEXT])[mask], again) for mask, again in rows[REPEATS]]
    assert any(first != again for first, again in pairs)
    with Store.open(tmp_path / "run.sqlite", read_only=True) as store:
        noise = measured_noise(store)
    differences = np.array([again.bias - first.bias for first, again in pairs])
    assert noise.bias == pytest.approx(differences.std(ddof=1) / np.sqrt(2))
    assert noise.n == len(pairs)


def test_budgets_of_the_repair_do_not_make_another_collection(tmp_path):
    collected(tmp_path, samples=5)
    subsets = replace(SETTINGS.subsets, samples=99, epsilon=0.9, finalists=2)
    found, _ = collected(tmp_path, replace(SETTINGS, method="genetic", subsets=subsets), samples=5)
    assert found.new == 0


def test_another_collection_is_refused(tmp_path):
    collected(tmp_path, samples=3)
    with pytest.raises(RunError, match="eta"):
        collected(tmp_path, replace(SETTINGS, subsets=replace(SETTINGS.subsets, eta=0.9)), samples=3)


def test_an_end_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="needs an end"):
        collected(tmp_path)


def test_a_store_without_subsets_has_no_noise(tmp_path):
    with Store.create(tmp_path / "run.sqlite", {"kind": "toy"}) as store, pytest.raises(RunError, match="lm collect"):
        measured_noise(store)
