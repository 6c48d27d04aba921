"""Drift: the divergence of plain transformers' distributions, folded against original."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from architectures import ARCHITECTURES
from tiny_lm import tiny_lm

from fairmend.errors import DataError, ModelError
from fairmend.language.heads.folding import fold
from fairmend.language.heads.gates import masked
from fairmend.language.measurement.drift import drift_curvature, drift_of, mean_drift
from fairmend.language.measurement.perplexity import PerplexityProtocol, Window
from fairmend.language.models.models import LanguageModel, weights_digest
from fairmend.masks import Mask

TOKENS = torch.from_numpy(np.random.default_rng(0).integers(4, 96, 75))
WINDOWS = PerplexityProtocol("standard", 32, 20).windows(len(TOKENS))


def some_mask(lm: LanguageModel) -> Mask:
    gains = np.random.default_rng(3).uniform(0, 1.5, lm.head_map.n_heads)
    gains[2] = 0
    return lm.head_map.mask(gains)


@torch.no_grad()
def by_hand(before: Any, after: Any, windows: Sequence[Window] = WINDOWS) -> npt.NDArray[np.float64]:
    """Sums over windows, position by position and in float64, of two models of plain transformers."""
    sums = []
    for window in windows:
        ids = TOKENS[None, window.start : window.stop]
        p, q = (model(input_ids=ids).logits[0].double().softmax(-1) for model in (before, after))
        place = range(window.first - window.start - 1, window.stop - window.start - 1)
        sums.append(sum(float((p[i] * (p[i] / q[i]).log()).sum()) for i in place))
    return np.array(sums)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_drift_is_the_divergence_of_the_folded_model(name: str) -> None:
    lm = tiny_lm(name)
    mask = some_mask(lm)
    expected = by_hand(lm.model, fold(lm.model, mask, lm.head_map))
    found = drift_of(lm, TOKENS, WINDOWS, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert (found > 0).all()


def test_the_batch_size_changes_nothing_and_progress_is_told() -> None:
    lm, told = tiny_lm(), list[tuple[int, int]]()
    mask, before = some_mask(lm), weights_digest(lm.model)
    whole = drift_of(lm, TOKENS, WINDOWS, mask)
    single = drift_of(lm.with_batch_size(1), TOKENS, WINDOWS, mask, lambda done, total: told.append((done, total)))
    np.testing.assert_allclose(single, whole, rtol=1e-4)
    assert told == [(number, len(WINDOWS)) for number in range(1, len(WINDOWS) + 1)]
    assert weights_digest(lm.model) == before
    assert not any(module._forward_pre_hooks for module in lm.model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_untouched_does_not_drift(dtype: torch.dtype) -> None:
    lm = tiny_lm()
    lm.model.to(dtype)
    for space in (lm.head_map.space(), lm.head_map.space(gains=True)):
        found = drift_of(lm, TOKENS, WINDOWS, space.untouched())
        assert not found.any()
        assert mean_drift(WINDOWS, found).value == 0


def test_masks_that_are_on_the_model_belong_to_the_original() -> None:
    lm = tiny_lm()
    mask, on = some_mask(lm), lm.head_map.space().mask([5])
    with masked(lm.model, on):
        found = drift_of(lm, TOKENS, WINDOWS, mask)
    original = fold(lm.model, on, lm.head_map)
    np.testing.assert_allclose(found, by_hand(original, fold(original, mask, lm.head_map)), rtol=1e-3, atol=1e-5)


def test_the_mean_is_over_tokens_and_its_error_over_windows() -> None:
    lm = tiny_lm()
    sums = drift_of(lm, TOKENS, WINDOWS, some_mask(lm))
    counts = np.array([window.stop - window.first for window in WINDOWS])
    found = mean_drift(WINDOWS, sums)
    assert found.value == pytest.approx(sums.sum() / counts.sum())
    assert found.n_tokens == counts.sum() == len(TOKENS) - 1
    n = len(WINDOWS)
    spread = np.sqrt(n / (n - 1) * ((sums - found.value * counts) ** 2).sum()) / counts.sum()
    assert found.standard_error == pytest.approx(spread)
    assert math.isnan(mean_drift(WINDOWS[:1], sums[:1]).standard_error)


@pytest.mark.parametrize("name", ["llama-gqa", "gpt2"])
def test_curvature_is_what_small_changes_of_gains_drift_by(name: str) -> None:
    lm = tiny_lm(name)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(4, 96, 32 * 40))
    draws = [drift_curvature(lm, tokens, seed) for seed in range(12)]
    curvature, error = np.mean(draws, axis=0), np.std(draws, axis=0, ddof=1) / np.sqrt(len(draws))
    windows = PerplexityProtocol("standard", 32, 32).windows(len(tokens))
    for head in (0, 5):
        moved = np.ones(lm.head_map.n_heads)
        moved[head] = 0.8
        found = mean_drift(windows, drift_of(lm, tokens, windows, lm.head_map.mask(moved))).value
        sampling = 4 * error[head, head] / curvature[head, head]
        assert found == pytest.approx(curvature[head, head] * 0.2**2 / 2, rel=0.25 + sampling)


def test_curvature_does_not_depend_on_the_batch_size_and_needs_a_window() -> None:
    lm = tiny_lm()
    whole = drift_curvature(lm, TOKENS, 1)
    np.testing.assert_allclose(drift_curvature(lm.with_batch_size(1), TOKENS, 1), whole, rtol=1e-3, atol=1e-6)
    assert not np.array_equal(drift_curvature(lm, TOKENS, 2), whole)
    assert np.allclose(whole, whole.T)
    with pytest.raises(DataError, match="takes 32 at least"):
        drift_curvature(lm, TOKENS[:31])


def test_tokens_that_never_come_add_nothing_and_a_broken_model_has_none() -> None:
    lm = tiny_lm()
    mask = some_mask(lm)
    lm.model.lm_head.register_forward_hook(lambda *args: args[2].index_fill(-1, torch.tensor([7]), -torch.inf))
    assert (drift_of(lm, TOKENS, WINDOWS, mask) > 0).all()
    projection = lm.head_map.modules(lm.model)[-1]
    projection.register_forward_hook(lambda _, args, out: out * torch.nan if (args[0] == 0).any() else out)
    sums = drift_of(lm, TOKENS, WINDOWS, lm.head_map.space().mask([7]))
    assert np.isnan(sums).all()
    assert math.isnan(mean_drift(WINDOWS, sums).value)


def test_a_mask_of_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="the mask has 9 units"):
        drift_of(tiny_lm(), TOKENS, WINDOWS, Mask(1, 9))
