"""Subsets measured on a part of the prompts: fractions of their own."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_organism as organism
from subset_cases import SETTINGS as SMALL
from subset_cases import TEXTS, rude, subject

from fairmend.errors import InputError, RunError
from fairmend.evaluation import Measurement
from fairmend.language.bias.bias import Design, bias, bias_standard_error
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.own_fractions import OwnFractions
from fairmend.language.repair.repair import repair_model
from fairmend.language.repair.settings import RepairSettings, SubsetSearch
from fairmend.language.repair.subset_search import CONTEXT
from fairmend.language.studies.collecting import REPEATS, collect, open_collection
from fairmend.masks import Mask
from fairmend.runs import Store
from fairmend.runs.export import export

OWN = replace(SMALL, subsets=replace(SMALL.subsets, fraction="own", eta=0.3, max_drop=4))


@pytest.fixture(scope="module")
def whole() -> LanguageEvaluator:
    lm = organism.tiny_organism()
    prompts = organism.organism_prompts().sample(80, 0)
    return LanguageEvaluator(
        lm, prompts, Reading(lm, TEXTS[0], ReadingSettings(tokens=200, stride=8)), rude(), sampling=SMALL.sampling
    )


def continued(whole: LanguageEvaluator, made: Measurement) -> np.ndarray:
    """Numbers of the prompts that a measurement has scores of."""
    return np.flatnonzero(np.isfinite(whole.scores(made)).all(axis=1))


def collection(out: Path, settings: RepairSettings, samples: int) -> dict[str, list[tuple[Mask, Measurement]]]:
    with open_collection(out, subject(), settings) as store:
        collect(subject(), settings, store, samples=samples)
        return {name: list(store.context(name)) for name in store.contexts()}


def test_every_mask_draws_its_own_prompts_of_every_group_and_its_own_windows(whole):
    own = OwnFractions(whole, eta=0.3, seed=1)
    one, two = own.measure([whole.space.mask([0]), whole.space.mask([1])])
    drawn = [continued(whole, made) for made in (one, two)]
    assert not np.array_equal(*drawn)
    for made, rows in zip((one, two), drawn, strict=True):
        assert made.n == len(rows)
        assert np.bincount(whole.prompts.groups[rows]).tolist() == [6, 6, 6, 6]  # 0.3 of 20
        read = np.isfinite(whole.window_sums(made))
        assert read.mean() == pytest.approx(0.3, abs=0.02)
    assert not np.array_equal(np.isfinite(whole.window_sums(one)), np.isfinite(whole.window_sums(two)))


def test_its_figures_are_those_of_what_was_drawn(whole):
    mask = whole.space.mask([2, 5])
    (full,) = whole.measure([mask])
    (own,) = OwnFractions(whole, eta=0.3, seed=1).measure([mask])
    rows, groups = continued(whole, own), whole.prompts.groups
    scores = whole.scores(full).mean(axis=1)[rows]
    assert own.bias == pytest.approx(float(bias(scores, Design(groups[rows], "abcd"))))
    error = bias_standard_error(scores, Design(groups[rows], "abcd"), rng=np.random.default_rng(whole.sampling.seed))
    assert own.bias_se == pytest.approx(float(error))
    read = np.isfinite(whole.window_sums(own))
    sizes = np.array([window.stop - window.first for window in whole.reading.windows])
    assert own.utility == pytest.approx(math.exp(-whole.window_sums(full)[read].sum() / sizes[read].sum()), rel=1e-5)


def test_the_untouched_model_reads_the_whole_text_and_draws_prompts_like_any_mask(whole):
    (made,) = OwnFractions(whole, eta=0.3, seed=1).measure([whole.space.untouched()])
    (full,) = whole.measure([whole.space.untouched()])
    assert made.utility == pytest.approx(full.utility)
    assert made.n == 24


def test_tiny_fractions_leave_two_prompts_of_every_group_and_two_windows(whole):
    (made,) = OwnFractions(whole, eta=0.001, seed=1).measure([whole.space.mask([0])])
    assert np.bincount(whole.prompts.groups[continued(whole, made)]).tolist() == [2, 2, 2, 2]
    assert np.isfinite(whole.window_sums(made)).sum() == 2
    assert math.isfinite(made.bias_se)
    assert math.isfinite(made.utility_se)


def test_repairs_collections_and_exports_work_on_parts(tmp_path):
    smaller = replace(OWN, subsets=replace(OWN.subsets, samples=20))
    repair = repair_model(subject(), smaller)
    assert repair.improved
    assert all(math.isfinite(finalist.measurement.bias) for finalist in repair.finalists)
    assert {finalist.measurement.n for finalist in repair.finalists} == {60}
    assert repair.held_out.main.change.excess_removed > 0.5
    assert RepairSettings.from_json(OWN.to_json()) == OWN
    rows = collection(tmp_path, OWN, 12)
    assert len({made.n for _, made in rows[CONTEXT]}) == 1
    again = collection(tmp_path, OWN, 20)
    assert all(a == b for (_, a), (_, b) in zip(again[CONTEXT], rows[CONTEXT], strict=False))
    assert again[REPEATS]
    with Store.open(tmp_path / "run.sqlite", read_only=True) as store:
        export(store, CONTEXT, tmp_path / "measured.parquet", parts=True)
    frame = pd.read_parquet(tmp_path / "measured.parquet")
    assert np.isfinite(frame[["bias", "utility", "bias_se"]].to_numpy()).all()
    scores = frame[[name for name in frame if name.startswith("toxicity of prompt")]].to_numpy()
    assert np.isfinite(scores).sum(axis=1).tolist() == [made.n for _, made in again[CONTEXT]]


def test_another_way_of_measuring_is_another_collection(tmp_path):
    collection(tmp_path, SMALL, 3)
    with pytest.raises(RunError, match="fraction"):
        collection(tmp_path, replace(SMALL, subsets=replace(SMALL.subsets, fraction="own")), 3)
    with pytest.raises(InputError, match="'shared', 'own'"):
        SubsetSearch(fraction="other")
