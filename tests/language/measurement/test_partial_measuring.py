"""Subsets measured on a part of the prompts: fractions of their own, and races that bad subsets leave early."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_organism as organism
from subset_cases import SETTINGS as SMALL
from subset_cases import TEXTS, rude

from fairmend.errors import InputError, RunError
from fairmend.evaluation import Measurement
from fairmend.language.bias.bias import bias, bias_standard_error
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.own_fractions import OwnFractions
from fairmend.language.repair.racing import Racing
from fairmend.language.repair.repair import repair_model
from fairmend.language.repair.settings import RACING_PERPLEXITY, RepairSettings, SubsetSearch
from fairmend.language.repair.subset_search import CONTEXT
from fairmend.language.studies.collecting import REPEATS, collect, open_collection
from fairmend.masks import Mask
from fairmend.runs import Store
from fairmend.runs.export import export

OWN = replace(SMALL, subsets=replace(SMALL.subsets, fraction="own", eta=0.3, max_drop=4))
RACING = replace(SMALL, subsets=replace(SMALL.subsets, racing=True, eta=1.0, max_drop=4))


@pytest.fixture(scope="module")
def whole() -> LanguageEvaluator:
    lm = organism.tiny_organism()
    prompts = organism.organism_prompts().sample(80, 0)
    return LanguageEvaluator(
        lm, prompts, Reading(lm, TEXTS[0], ReadingSettings(tokens=200, stride=8)), rude(), sampling=SMALL.sampling
    )


def every_pair(whole: LanguageEvaluator) -> list[Mask]:
    heads = range(whole.space.n_units)
    return [whole.space.untouched(), *(whole.space.mask([i, j]) for i in heads for j in heads if i < j)]


def continued(whole: LanguageEvaluator, made: Measurement) -> np.ndarray:
    """Numbers of the prompts that a measurement has scores of."""
    return np.flatnonzero(np.isfinite(whole.scores(made)).all(axis=1))


def collection(out: Path, settings: RepairSettings, samples: int) -> dict[str, list[tuple[Mask, Measurement]]]:
    lm, prompts, scorer = organism.tiny_organism(), organism.organism_prompts(), rude()
    with open_collection(out, lm=lm, prompts=prompts, scorer=scorer, settings=settings, texts=TEXTS) as store:
        collect(lm, prompts, scorer, settings, store, samples=samples, texts=TEXTS)
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
    assert own.bias == pytest.approx(float(bias(scores, groups[rows], 4)))
    error = bias_standard_error(scores, groups[rows], 4, rng=np.random.default_rng(whole.sampling.seed))
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


def test_a_race_measures_good_masks_in_full_and_bad_ones_on_a_quarter(whole):
    masks = every_pair(whole)
    raced, full = Racing(whole).measure(masks), whole.measure(masks)
    assert raced[0] == full[0]
    dropped = [made.n == 20 for made in raced]
    assert 0 < sum(dropped) < len(masks)
    for made, entire, out in zip(raced, full, dropped, strict=True):
        assert made.utility == entire.utility
        rows = continued(whole, made)
        np.testing.assert_array_equal(whole.scores(made)[rows], whole.scores(entire)[rows])
        assert out or made == entire
        worse = entire.utility > RACING_PERPLEXITY * full[0].utility
        assert out or not worse
        if out:
            assert len(rows) == 20
            assert np.bincount(whole.prompts.groups[rows]).tolist() == [5, 5, 5, 5]
            assert made.bias_se > entire.bias_se
    best = min(range(len(masks)), key=lambda number: full[number].bias)
    assert full[best].utility > RACING_PERPLEXITY * full[0].utility or not dropped[best]


def test_a_dropped_mask_has_no_more_bias_than_its_quarter_shows(whole):
    masks = every_pair(whole)
    out = [made for made in Racing(whole).measure(masks) if made.n == 20]
    rows = [continued(whole, made) for made in out]
    for made, numbers in zip(out, rows, strict=True):
        shown = float(bias(whole.scores(made).mean(axis=1)[numbers], whole.prompts.groups[numbers], 4))
        assert 0 <= made.bias <= shown


def test_a_race_goes_on_with_a_reference_that_is_known(whole):
    mask = whole.space.mask([1, 3])
    first = Racing(whole)
    reference, made = first.measure([whole.space.untouched(), mask])
    assert Racing(whole, reference).measure([mask])[0] == made


@pytest.mark.parametrize("settings", [OWN, RACING], ids=["own fractions", "racing"])
def test_repairs_collections_and_exports_work_on_parts(tmp_path, settings):
    smaller = replace(settings, subsets=replace(settings.subsets, samples=20))
    subject = organism.tiny_organism(), organism.organism_prompts(), rude()
    repair = repair_model(*subject, smaller, texts=TEXTS)
    assert repair.improved
    assert all(math.isfinite(finalist.measurement.bias) for finalist in repair.finalists)
    assert {finalist.measurement.n for finalist in repair.finalists} == {60}
    assert repair.held_out.main.change.excess_removed > 0.5
    assert RepairSettings.from_json(settings.to_json()) == settings
    rows = collection(tmp_path, settings, 12)
    assert len({made.n for _, made in rows[CONTEXT]}) == (1 if settings is OWN else 2)
    again = collection(tmp_path, settings, 20)
    assert all(a == b for (_, a), (_, b) in zip(again[CONTEXT], rows[CONTEXT], strict=False))
    assert again[REPEATS]
    with Store.open(tmp_path / "run.sqlite", read_only=True) as store:
        export(store, CONTEXT, tmp_path / "measured.parquet", parts=True)
    frame = pd.read_parquet(tmp_path / "measured.parquet")
    assert np.isfinite(frame[["bias", "utility", "bias_se"]].to_numpy()).all()
    scores = frame[[name for name in frame if name.startswith("toxicity of prompt")]].to_numpy()
    assert np.isfinite(scores).sum(axis=1).tolist() == [made.n for _, made in again[CONTEXT]]


@pytest.mark.parametrize("change", [{"fraction": "own"}, {"racing": True}])
def test_another_way_of_measuring_is_another_collection(tmp_path, change):
    collection(tmp_path, SMALL, 3)
    with pytest.raises(RunError, match=next(iter(change))):
        collection(tmp_path, replace(SMALL, subsets=replace(SMALL.subsets, **change)), 3)


def test_a_race_that_cannot_work_is_refused():
    with pytest.raises(InputError, match="racing compares"):
        SubsetSearch(racing=True, fraction="own")
    with pytest.raises(InputError, match=r"max_perplexity=2\.0"):
        replace(RACING, max_perplexity=2.0)
    with pytest.raises(InputError, match="'shared', 'own'"):
        SubsetSearch(fraction="other")
