"""Preferences equal what plain transformers gives sequence by sequence, under masks and gains, with exact gradients."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from choice_cases import MIXED, by_hand, choices_of, preference_by_hand
from tiny_lm import tiny_lm

from fairmend.errors import ModelError
from fairmend.language.backend.forward import last_logits
from fairmend.language.choices import likelihoods
from fairmend.language.choices.encoding import encode_choices
from fairmend.language.choices.likelihoods import (
    log_likelihoods,
    preference_gradients,
    preferences,
)
from fairmend.language.heads.folding import fold
from fairmend.language.heads.gates import HeadGates
from fairmend.masks import Mask
from fairmend.runs.parts import Arrays

LM = tiny_lm()
ENCODED = encode_choices(LM, choices_of(MIXED))
ALL = np.arange(len(MIXED))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_likelihoods_and_preferences_are_those_of_plain_transformers(name: str) -> None:
    lm = tiny_lm(name)
    encoded = encode_choices(lm, choices_of(MIXED))
    mask = lm.head_map.space().sample(np.random.default_rng(0), 3)
    turned = lm.head_map.mask(np.linspace(0, 1.5, lm.head_map.n_heads))
    for chosen in (None, mask, turned):
        model = lm.model if chosen is None else fold(lm.model, chosen, lm.head_map)
        (found,) = log_likelihoods(lm, encoded, [(chosen, ALL)])
        (d,) = preferences(lm, encoded, [(chosen, ALL)])
        for row in range(len(MIXED)):
            np.testing.assert_allclose(found[row], by_hand(model, encoded, row), atol=1e-4, rtol=0)
            assert d[row] == pytest.approx(preference_by_hand(model, encoded, row), abs=1e-4)


def test_masks_in_one_batch_are_as_if_alone() -> None:
    space = LM.head_map.space()
    masks = [None, *(space.sample(np.random.default_rng(seed), 3) for seed in range(3)), space.mask([])]
    rows = [ALL, ALL[::-1].copy(), np.array([3]), np.array([5, 5, 2]), ALL]
    together = preferences(LM, ENCODED, list(zip(masks, rows, strict=True)))
    for mask, chosen, found in zip(masks, rows, together, strict=True):
        for row, value in zip(chosen, found, strict=True):
            (alone,) = preferences(LM, ENCODED, [(mask, np.array([row]))])
            assert value == pytest.approx(alone[0], abs=1e-5)
    np.testing.assert_array_equal(together[0], together[4])


@pytest.mark.parametrize("rows", [1, 3])
def test_the_batch_size_changes_nothing_but_rounding(rows: int) -> None:
    small = LM.with_batch_size(rows)
    np.testing.assert_allclose(
        preferences(small, ENCODED, [(None, ALL)])[0], preferences(LM, ENCODED, [(None, ALL)])[0], atol=1e-5
    )
    for found, expected in zip(preference_gradients(small, ENCODED), preference_gradients(LM, ENCODED), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batches_that_do_not_fit_the_memory_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = (*preferences(LM, ENCODED, [(None, ALL)]), *preference_gradients(LM, ENCODED))

    most = 3  # inputs of one length; an item has two

    def small(model: Any, inputs: torch.Tensor, n_positions: int) -> torch.Tensor:
        if len(inputs) > most:
            raise torch.OutOfMemoryError("made")
        return last_logits(model, inputs, n_positions)

    monkeypatch.setattr(likelihoods, "last_logits", small)
    found = (*preferences(LM, ENCODED, [(None, ALL)]), *preference_gradients(LM, ENCODED, ALL))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    most = 1
    with pytest.raises(ModelError, match="out of memory with 1 rows"):
        preference_gradients(LM, ENCODED, ALL)


def test_a_mask_that_breaks_the_model_makes_preferences_nan() -> None:
    lm = tiny_lm()
    encoded = encode_choices(lm, choices_of(MIXED))
    with torch.no_grad():
        lm.model.lm_head.weight[9] = torch.nan
    assert np.isnan(preferences(lm, encoded, [(None, ALL)])[0]).all()
    assert all(np.isnan(values).all() for values in log_likelihoods(lm, encoded, [(None, ALL)])[0])


def test_a_mask_of_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="use a mask that was made for this model"):
        preferences(LM, ENCODED, [(Mask(1, 5), ALL)])


@pytest.fixture(name="exact", scope="module")
def exact_lm() -> Any:
    lm = tiny_lm("gpt2")  # nothing in it computes in float32 when the weights are float64
    proven = lm.head_map  # in float32: a LanguageModel is made of no wider weights
    other = replace(lm, model=lm.model.double())
    other.__dict__["_heads"] = proven
    return other


def test_gradients_are_those_of_finite_differences(exact: Any) -> None:
    encoded = encode_choices(exact, choices_of(MIXED))
    d, gradients = preference_gradients(exact, encoded)
    np.testing.assert_allclose(d, [preference_by_hand(exact.model, encoded, row) for row in ALL], atol=1e-10)
    step, n_heads = 1e-5, exact.head_map.n_heads
    for head in range(n_heads):
        moved = []
        for sign in (1, -1):
            gates = torch.ones(n_heads, dtype=torch.float64)
            gates[head] += sign * step
            with HeadGates(exact.model, exact.head_map) as hooks:
                hooks.set(gates)
                moved.append([preference_by_hand(exact.model, encoded, row) for row in ALL])
        slopes = (np.array(moved[0]) - np.array(moved[1])) / (2 * step)
        np.testing.assert_allclose(gradients[:, head], slopes, atol=1e-7, rtol=1e-6)


def test_gradients_at_other_gains_are_those_of_gates_on_top_of_them(exact: Any) -> None:
    encoded = encode_choices(exact, choices_of(MIXED))
    gains = np.linspace(0, 1.5, exact.head_map.n_heads)
    d, gradients = preference_gradients(exact, encoded, gates=gains)
    with HeadGates(exact.model, exact.head_map) as hooks:
        hooks.set(torch.from_numpy(gains))
        expected = [preference_by_hand(exact.model, encoded, row) for row in ALL]
        _, beyond = preference_gradients(exact, encoded)
    np.testing.assert_allclose(d, expected, atol=1e-10)
    np.testing.assert_allclose(gains * gradients, beyond, atol=1e-9)


def test_gradients_are_kept_in_parts_and_progress_is_told() -> None:
    kept: dict[str, Arrays] = {}
    told: list[tuple[int, int]] = []

    def keep(name: str, make: Callable[[], Arrays]) -> Arrays:
        return kept.setdefault(name, kept.get(name) or make())

    rows = np.array([6, 0, 3])
    first = preference_gradients(LM, ENCODED, rows, keep=keep, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (3, 3)
    assert len(kept) == 1
    told.clear()
    again = preference_gradients(LM, ENCODED, rows, keep=keep, progress=lambda done, total: told.append((done, total)))
    assert not told
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(first[0], preferences(LM, ENCODED, [(None, rows)])[0], atol=1e-5)
