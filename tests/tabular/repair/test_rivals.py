"""Shifting everybody's threshold: the best shift of all, by brute force."""

from dataclasses import replace

import numpy as np
import pytest
from fairlearn.metrics import equalized_odds_difference
from sklearn.metrics import f1_score
from study_cases import people, unfair_network

from fairmend.errors import DataError
from fairmend.tabular.networks.baking import bake
from fairmend.tabular.repair.rivals import GRID_STEP, shift_threshold
from fairmend.tabular.repair.settings import RepairSettings

SETTINGS = RepairSettings()


def by_hand(logits, y, groups, shift):
    """(EOD, F1) at a shift, from the definitions."""
    predicted = logits + shift > 0
    gaps = []
    for label in (1, 0):
        rates = [predicted[(y == label) & (groups == group)].mean() for group in (0, 1)]
        gaps.append(abs(rates[0] - rates[1]))
    hits = (predicted & (y == 1)).sum()
    return max(gaps), 2 * hits / (predicted.sum() + (y == 1).sum())


@pytest.mark.parametrize("keep", [0.9, 0.98, 1.0])
@pytest.mark.parametrize("search_on", ["validation", "train+validation"])
def test_no_shift_on_the_grid_is_better(keep, search_on):
    network, data = unfair_network(), people()
    settings = RepairSettings(keep=keep, search_on=search_on)
    X, y, groups = data.subset(*settings.splits)
    logits = network.logits(X)[:, 0]
    grid = np.arange(-400, 401) * GRID_STEP
    figures = np.array([by_hand(logits, y, groups, shift) for shift in grid])
    admitted = figures[:, 1] >= keep * by_hand(logits, y, groups, 0.0)[1]
    least = figures[admitted, 0].min()
    ties = grid[admitted & (figures[:, 0] == least)]

    found = shift_threshold(network, data, settings).mask
    assert found.bits == 0
    assert found.dials[0] == pytest.approx(ties[np.abs(ties).argmin()])
    assert by_hand(logits, y, groups, found.dials[0])[0] == pytest.approx(least)


def test_the_baked_network_has_the_figures_that_were_promised():
    network, data = unfair_network(), people()
    found = shift_threshold(network, data, replace(SETTINGS, keep=0.9))
    X, y, groups = data.subset("train", "validation")
    predicted = bake(network, found.mask).predict(X)
    assert found.after.bias == pytest.approx(equalized_odds_difference(y, predicted, sensitive_features=groups))
    assert found.after.utility == pytest.approx(f1_score(y, predicted))
    assert found.after.bias < found.before.bias
    assert found.floor.admits(found.after)


def test_nothing_to_gain_means_no_shift():
    data = people()
    network = unfair_network()
    settings = replace(SETTINGS, keep=1.0, utility="accuracy")
    found = shift_threshold(network, replace(data, groups=np.arange(len(data.y)) % 2), settings)
    assert found.after.bias <= found.before.bias
    if found.after.bias == found.before.bias:
        assert found.mask.is_untouched


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, objective="demographic_parity_ratio"),
        replace(SETTINGS, objective="worst_group_accuracy", utility="balanced_accuracy"),
        replace(SETTINGS, utility="log_loss"),
    ],
    ids=lambda settings: f"{settings.objective} {settings.utility}",
)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_every_objective_and_number_of_logits_is_served(settings, n_outputs):
    network, data = unfair_network(n_outputs), people(n_classes=max(2, n_outputs))
    found = shift_threshold(network, data, settings)
    assert len(found.mask.dials) == max(1, n_outputs - 1)
    assert found.floor.admits(found.after)
    assert found.after.bias <= found.before.bias


def test_a_network_for_other_data_is_refused():
    with pytest.raises(DataError, match="classes"):
        shift_threshold(unfair_network(3), people(), SETTINGS)
