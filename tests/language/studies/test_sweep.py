"""Sweeps over weights and budgets: the winners of Attention Pruning, judged on held-out data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_organism as organism
from subset_cases import SETTINGS, TEXTS, rude, subject

from fairmend.errors import DataError, InputError
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.repair.subject import halves
from fairmend.language.repair.subset_search import CONTEXT
from fairmend.language.studies.collecting import collect, open_collection
from fairmend.language.studies.sweep import SubsetSweep, SweepSettings, sweep_subsets
from fairmend.records import built
from fairmend.report.study import load_study
from fairmend.runs import Store
from fairmend.runs.context import Context
from fairmend.surrogates import AttentionPruning

SHARED = replace(
    SETTINGS,
    method="attention-pruning",
    subsets=replace(SETTINGS.subsets, max_drop=5, surrogate="additive"),
    max_perplexity=1.15,
)
SWEPT = SweepSettings(budgets=(24, 60), epsilons=(0.0, 0.5, 1.0), shared=SHARED)
SUBJECT = subject()


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    folder = tmp_path_factory.mktemp("collected")
    with open_collection(folder, SUBJECT, SHARED) as store:
        collect(SUBJECT, SHARED, store, samples=70)
    with Store.open(folder / "run.sqlite", read_only=True) as store:
        yield store.context(CONTEXT)


@pytest.fixture(scope="module")
def swept(collected: Context) -> SubsetSweep:
    return sweep_subsets(SUBJECT, SWEPT, collected)


def test_every_budget_meets_every_weight_and_one_surrogate_alone_meets_no_floor_too(swept: SubsetSweep) -> None:
    found = [(row.winner.subsets, row.winner.epsilon, row.winner.floored) for row in swept.rows]
    cases = [(0.0, True), (0.5, True), (1.0, True), (0.0, False), (1.0, False)]
    assert found == [(budget, *case) for budget in SWEPT.budgets for case in cases]


def test_without_a_floor_every_weight_is_shown_once() -> None:
    settings = SweepSettings((20,), (0.0, 0.5), replace(SHARED, max_perplexity=None))
    assert settings.cases == ((0.0, False), (0.5, False))


def test_winners_are_what_attention_pruning_finds_on_the_same_subsets(swept: SubsetSweep, collected: Context) -> None:
    pairs = list(collected)
    measured = dict(pairs)
    for row in swept.rows:
        winner = row.winner
        if not winner.floored:
            continue
        searcher = AttentionPruning(
            SHARED.subsets.space(collected.space),
            collected.figures,
            None,
            lambda reference: SHARED.floor(collected.figures, reference),
            seed=SHARED.seed,
            states=winner.subsets + 1,
            surrogate="additive",
            epsilon=winner.epsilon,
            known=[mask for mask, _ in pairs[: winner.subsets]],
        )
        while (masks := searcher.ask()) and searcher.pair is None:
            searcher.tell(masks, [measured[mask] for mask in masks])
        assert searcher.annealed[0] == row.mask


def test_the_bias_alone_ruins_the_perplexity_and_the_perplexity_alone_keeps_the_bias(swept: SubsetSweep) -> None:
    """The published failure modes, which the floor stops."""
    rows = {(row.winner.epsilon, row.winner.floored): row.judgement for row in swept.rows if row.winner.subsets == 60}
    ratios = {case: judgement.perplexity.ratio for case, judgement in rows.items()}
    assert ratios[1.0, False] > 1.25 > ratios[1.0, True]
    assert ratios[0.0, False] < 1.1
    changes = {case: judgement.main.change for case, judgement in rows.items()}
    assert changes[1.0, False].change < changes[0.0, False].change - 0.5  # type: ignore[union-attr]


def test_figures_are_those_of_the_masks_on_the_judging_half(swept: SubsetSweep) -> None:
    lm = organism.tiny_organism()
    _, judged = halves(SUBJECT.prompts, SHARED)
    reading = Reading(lm, TEXTS[1], SHARED.reading)
    evaluator = LanguageEvaluator(lm, judged, reading, rude(), sampling=SHARED.sampling)
    row = swept.rows[-1]
    (made,) = evaluator.measure([row.mask])
    assert row.judgement.main.change is not None
    assert row.judgement.main.change.after.value == pytest.approx(made.bias)
    assert row.judgement.perplexity.after == pytest.approx(made.utility)


def test_costs_grow_with_the_subsets(swept: SubsetSweep) -> None:
    few, many = swept.rows[0].winner, swept.rows[-1].winner
    assert few.tokens == 24 * 30 * organism.NEW_TOKENS  # half of 60 prompts
    assert many.tokens == 60 * 30 * organism.NEW_TOKENS
    assert 0 < few.seconds < many.seconds
    assert math.isfinite(few.predicted_bias)


def test_a_stopped_sweep_goes_on_and_measures_every_set_once(
    tmp_path: Path, collected: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    settings = replace(SWEPT, budgets=(24,), epsilons=(0.5, 1.0))
    whole = sweep_subsets(SUBJECT, settings, collected)
    with Store.create(tmp_path / "run.sqlite", {"kind": "sweep"}) as store:
        with monkeypatch.context() as pressed:
            pressed.setattr("fairmend.language.measurement.judging.judge", press)
            with pytest.raises(KeyboardInterrupt):
                sweep_subsets(SUBJECT, settings, collected, store=store)
        assert len(store.context("held-out colour")) == len({row.mask.bits for row in whole.rows} | {0})
        monkeypatch.setattr(LanguageEvaluator, "measure", None)
        again = sweep_subsets(SUBJECT, settings, collected, store=store)
    assert [row.judgement for row in again.rows] == [row.judgement for row in whole.rows]


def test_files_hold_every_winner(tmp_path: Path, swept: SubsetSweep) -> None:
    files = swept.save(SWEPT, tmp_path)
    assert set(files) == {"sweep.csv", "sweep.png", "sweep.svg", "sweep.json"}
    saved = load_study(tmp_path, SubsetSweep)
    assert built(saved["settings"], SweepSettings) == SWEPT
    assert [row["dropped"] for row in saved["rows"]] == [list(row.mask.units()) for row in swept.rows]
    assert len(files["sweep.csv"].read_text().splitlines()) == 2 + len(swept.rows)
    assert saved == json.loads(json.dumps(saved, allow_nan=False))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budgets": ()}, "budgets needs one or more different values"),
        ({"epsilons": (0.5, 0.5)}, "epsilons needs one or more different values"),
        ({"epsilons": (1.5,)}, "epsilons"),
        ({"budgets": (1,)}, "budgets must be at least 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(SWEPT, **changes)


def test_more_subsets_than_there_are_and_too_few_to_learn_from_are_refused(collected: Context) -> None:
    with pytest.raises(InputError, match=r"500 subsets asked for, but .* has \d+ within the limits"):
        sweep_subsets(SUBJECT, replace(SWEPT, budgets=(24, 500)), collected)
    with pytest.raises(DataError, match="nothing can be learned from the first 3 subsets"):
        sweep_subsets(SUBJECT, replace(SWEPT, budgets=(3,)), collected)


def test_subsets_that_were_measured_otherwise_are_refused(collected: Context) -> None:
    other = replace(SWEPT, shared=replace(SHARED, seed=5))
    with pytest.raises(InputError, match="measured under other settings"):
        sweep_subsets(SUBJECT, other, collected)
