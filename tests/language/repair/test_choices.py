"""Repairs of choices by every kind of method, on a tiny model whose heads are known, interrupted and gone on with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_pronouns import pronoun_organism

from fairmend.errors import InputError
from fairmend.language import RepairSettings, open_run, repair_model
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair import soft_search
from fairmend.language.repair.settings import SoftGates, SubsetSearch
from fairmend.language.repair.subject import Subject

SETTINGS = RepairSettings(
    alpha=0.25,
    max_perplexity=1.5,
    reading=ReadingSettings(tokens=300, window=16, stride=8),
    scoring_tokens=None,
    loss_scores="first-order",
    prompts=None,
    spare_knowledge=0.0,
    subsets=SubsetSearch(samples=12, eta=0.5, max_drop=2, finalists=3),
    soft=SoftGates(steps=5, tokens=256),
    seed=1,
)
METHODS = ("fasp", "magnitude", "soft", "genetic", "active", "attention-pruning")


def subject(**changes: Any) -> Subject:
    found = pronoun_organism("separate")
    return Subject(
        **{"lm": found.lm, "prompts": found.bias, "knowledge": found.knowledge, "texts": found.texts} | changes
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_repairs_choices_and_is_judged_by_what_must_stay(method: Any) -> None:
    found = repair_model(subject(), replace(SETTINGS, method=method))
    held = found.held_out
    assert found.feasible
    assert held is not None
    assert held.knowledge is not None
    assert held.main.change is not None
    assert np.isfinite([held.drift.value, held.knowledge.kept, held.main.change.change]).all()
    assert found.mask.is_untouched or held.drift.value > 0


@pytest.mark.parametrize(("units", "strikes"), [("heads", 6), ("all", 2)])  # two a step
def test_an_interrupted_soft_repair_goes_on_to_the_same_gains(
    tmp_path: Path, monkeypatch: Any, units: Any, strikes: int
) -> None:
    settings = replace(SETTINGS, method="soft", soft=replace(SETTINGS.soft, units=units))
    whole = repair_model(subject(), settings, held_out=False)
    taken, gradients = [], soft_search.preference_gradients

    def struck(*given: Any, **options: Any) -> Any:
        taken.append(given)
        if len(taken) == strikes:
            raise KeyboardInterrupt
        return gradients(*given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(soft_search, "preference_gradients", struck)
        with open_run(tmp_path / "out", subject(), settings) as store, pytest.raises(KeyboardInterrupt):
            repair_model(subject(), settings, store=store, held_out=False)
    with open_run(tmp_path / "out", subject(), settings) as store:
        again = repair_model(subject(), settings, store=store, held_out=False)
    assert again.mask == whole.mask
    assert [each.mask for each in again.finalists] == [each.mask for each in whole.finalists]
    assert (again.after.bias, again.after.parts) == (whole.after.bias, whole.after.parts)


def test_soft_steps_end_where_the_perplexity_does(monkeypatch: Any) -> None:
    taken, gradients = [], soft_search.preference_gradients
    monkeypatch.setattr(soft_search, "preference_gradients", lambda *a, **k: taken.append(a) or gradients(*a, **k))
    settings = replace(SETTINGS, method="soft", max_perplexity=1.0, soft=replace(SETTINGS.soft, units="heads"))
    found = repair_model(subject(), settings, held_out=False)
    assert len(taken) == 2 * (len(found.finalists) + 1) < 2 * settings.soft.steps  # of bias and of knowledge
    assert all(each.measurement.utility <= found.before.utility for each in found.finalists)


def test_halves_share_no_word_and_no_template() -> None:
    for seed in (1, 2):
        settings = replace(SETTINGS, seed=seed)
        for first, second in (subject().halves(settings), subject().known()):
            assert first is not None
            assert second is not None
            assert first.group_names == second.group_names
            for column in ("word", "template"):
                assert not set(first.columns[column]) & set(second.columns[column])


def test_drift_is_measured_where_it_has_a_floor() -> None:
    found = repair_model(subject(), replace(SETTINGS, max_drift=1e-9, spare_knowledge=0.2), held_out=False)
    assert not found.improved
    assert found.feasible


def test_the_same_axis_with_toxicity_needs_a_scorer() -> None:
    from toy_scorer import two_groups

    with pytest.raises(InputError, match="need a scorer of toxicity"):
        repair_model(subject(prompts=two_groups(20), knowledge=None), SETTINGS)
