"""Preferences without each head: measured as a folded model shows them, and to first order as differences say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from choice_cases import MIXED, choices_of, preference_by_hand
from scipy.stats import spearmanr
from tiny_lm import tiny_lm

from fairmend.errors import InputError
from fairmend.language.choices.likelihoods import preferences
from fairmend.language.heads.folding import fold
from fairmend.language.measurement.answers import Preferences
from fairmend.language.scores.preferences_by_mask import first_order_validity, preferences_by_mask
from fairmend.runs.parts import Parts
from fairmend.runs.store import Store

LM = tiny_lm()
ITEMS = choices_of(MIXED)
N_HEADS = LM.head_map.n_heads


def test_measured_preferences_are_those_of_plain_models_without_the_head() -> None:
    answers = Preferences(LM, ITEMS)
    found = preferences_by_mask(answers, "generated")
    assert found.without.shape == (N_HEADS, len(ITEMS))
    assert set(found.methods) == {"exact"}
    for unit in range(N_HEADS):
        folded = fold(LM.model, LM.head_map.space().mask([unit]), LM.head_map)
        by_hand = [preference_by_hand(folded, answers.encoded, row) for row in range(len(ITEMS))]
        np.testing.assert_allclose(found.without[unit], by_hand, atol=1e-4)


def test_first_order_preferences_follow_differences_of_the_gates() -> None:
    """A head turned down by a little moves every preference by that share of its first-order effect."""
    answers, step, rows = Preferences(LM, ITEMS), 0.01, np.arange(len(ITEMS))
    found = preferences_by_mask(answers, "first-order")
    np.testing.assert_allclose(found.before, answers.plainly()[:, 0], atol=1e-5)
    for unit in range(N_HEADS):
        turned = [np.where(np.arange(N_HEADS) == unit, 1 + sign * step, 1.0) for sign in (-1, 1)]
        down, up = preferences(LM, answers.encoded, [(LM.head_map.mask(gains), rows) for gains in turned])
        np.testing.assert_allclose(found.before - found.without[unit], (up - down) / (2 * step), atol=1e-3, rtol=2e-3)


def test_an_interrupted_measuring_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_at_a_time = LM.with_batch_size(len(ITEMS))
    whole = preferences_by_mask(Preferences(one_at_a_time, ITEMS), "generated").without
    answers = Preferences(one_at_a_time, ITEMS)
    under, asked = answers.under, list[int]()

    def stopping(parts: Any) -> Any:
        asked.append(len(parts))
        if len(asked) == 5:
            raise KeyboardInterrupt
        return under(parts)

    monkeypatch.setattr(answers, "under", stopping)
    path = tmp_path / "run.sqlite"
    with Store.create(path, {}) as store, pytest.raises(KeyboardInterrupt):
        preferences_by_mask(answers, "generated", keep=Parts(store, {}))
    with Store.open(path) as store:
        again = preferences_by_mask(answers, "generated", keep=Parts(store, {}))
    assert sum(asked) == 1 + N_HEADS + 1 + 1  # the model as it is twice, every head once, and the one that was stopped
    np.testing.assert_array_equal(again.without, whole)


def test_nothing_is_sampled_that_could_be_reweighted() -> None:
    with pytest.raises(InputError, match="choose first-order or generated"):
        preferences_by_mask(Preferences(LM, ITEMS), "reweighted")


def test_validity_is_the_correlation_with_the_biases_of_plain_models_without_the_head() -> None:
    answers = Preferences(LM, ITEMS)
    table = preferences_by_mask(answers, "first-order")

    def gap(d: Any) -> float:
        means = [np.mean([d[row] for row in range(len(ITEMS)) if ITEMS.groups[row] == group]) for group in (0, 1)]
        return float(abs(means[0] - means[1]))  # twice the distance of either from their mean

    by_hand = []
    for unit in range(N_HEADS):
        folded = fold(LM.model, LM.head_map.space().mask([unit]), LM.head_map)
        by_hand.append(gap([preference_by_hand(folded, answers.encoded, row) for row in range(len(ITEMS))]))
    found = first_order_validity(answers, table, table.without.mean(axis=1), "unweighted", 0)
    assert found.value == pytest.approx(spearmanr([gap(d) for d in table.without], by_hand).statistic)
    assert str(found).startswith(f"first-order any bias against exact ablation of {N_HEADS} heads: ")


def test_few_heads_and_items_are_ablated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many, both are the same for equal seeds, and no item is asked of a head that is not tried."""
    deep = tiny_lm(num_hidden_layers=8)
    answers = Preferences(deep, choices_of([(f"w{5 + row} w6", (" w8",), (" w9",)) for row in range(40)]))
    table = preferences_by_mask(answers, "first-order")
    under, asked = answers.under, list[tuple[int, int]]()

    def counted(parts: Any) -> Any:
        asked.extend((unit, int(row)) for mask, rows in parts for unit in mask.units() for row in rows)
        return under(parts)

    monkeypatch.setattr(answers, "under", counted)
    effect = np.random.default_rng(0).normal(size=deep.head_map.n_heads)
    first, again = (first_order_validity(answers, table, effect, "unweighted", 3) for _ in range(2))
    assert first == again
    assert str(first).startswith("first-order any bias against exact ablation (half of them extremes) of 20 heads: ")
    assert len(asked) == 2 * len(set(asked)) == 2 * 20 * 12
    assert {int(effect.argmin()), int(effect.argmax())} < {unit for unit, _ in asked}
    rows = np.array(sorted({row for _, row in asked}))
    assert np.bincount(answers.prompts.groups[rows]).tolist() == [6, 6]
