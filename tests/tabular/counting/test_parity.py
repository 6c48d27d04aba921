"""Parity with the published NeuFair artefacts: same states, same counts, same figures, on both evaluation paths."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairmend.tabular.counting.evaluator import Rows, TabularEvaluator
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.data.layouts import RAW_TABLES
from fairmend.tabular.data.presets import PRESETS, encode_preset
from fairmend.tabular.data.sources import locate
from fairmend.tabular.formats.formats import read_network
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.audit import audit

SETTINGS = ("adult_sex", "adult_race", "compas_sex", "compas_race", "bank_age", "default_sex")
SPLITS = {"validation": "val", "test": "test"}
Load = Callable[[str, int], tuple[Network, Dataset]]


@pytest.fixture(scope="session")
def load(shared_data: Path) -> Load:
    """The published network of a setting and seed with its data, encoded as it was trained."""

    @cache
    def raw(table: str) -> Any:
        path, _ = locate(RAW_TABLES[table], shared_data / "tabular")
        return RAW_TABLES[table].read(path)

    @cache
    def loaded(setting: str, seed: int) -> tuple[Network, Dataset]:
        preset = PRESETS[setting.replace("_", "-")]
        network = read_network(shared_data / "neufair" / "models" / f"{preset.table.name}-{seed}.safetensors")
        return network, encode_preset(preset, raw(preset.table.name), seed)

    return loaded


def rows_of(shared_data: Path, file: str, setting: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((shared_data / "neufair" / file).read_text())[setting]
    return rows


@pytest.mark.parametrize("path", ["incremental", "batched"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_golden_states_have_the_published_figures(setting: str, path: Any, shared_data: Path, load: Load) -> None:
    golden = rows_of(shared_data, "golden_states.json", setting)
    for seed in sorted({row["seed"] for row in golden}):
        states = [row for row in golden if row["seed"] == seed]
        network, data = load(setting, seed)
        space = network.space()
        masks = [space.mask(row["dropped"]) for row in states]
        for split, short in SPLITS.items():
            measured = {}
            for utility in ("f1", "accuracy"):
                evaluator = TabularEvaluator(
                    network,
                    Rows(*data.subset(split), data.group_names),
                    space,
                    utility=utility,
                    drop="weights",
                    path=path,
                )
                assert evaluator.path == path
                measured[utility] = evaluator.measure(masks)
            for row, f1, accuracy in zip(states, measured["f1"], measured["accuracy"], strict=True):
                assert f1.bias == pytest.approx(row[short]["eod"], abs=1e-7)
                assert f1.utility == pytest.approx(row[short]["f1"], abs=1e-7)
                assert accuracy.utility == pytest.approx(row[short]["accuracy"], abs=1e-7)
                n_cells = len(row[f"{short}_counts"])  # of predicted positives; outsiders only where there are any
                assert list(f1.parts[:n_cells]) == row[f"{short}_counts"]
                assert f1.parts == accuracy.parts
                assert not any(f1.parts[n_cells:])


@pytest.mark.parametrize("setting", SETTINGS)
def test_undropped_networks_have_the_published_figures(setting: str, shared_data: Path, load: Load) -> None:
    for row in rows_of(shared_data, "baselines.json", setting):
        network, data = load(setting, row["seed"])
        found = audit(network, data, n_boot=100, n_perm=100)
        for split, short in (("train", "train"), *SPLITS.items()):
            figures = found.splits[split]
            assert figures.n == row[f"{short}_n"]
            assert figures.value.value == pytest.approx(row[f"{short}_eod"], abs=1e-7)
            assert figures.utilities["f1"].value == pytest.approx(row[f"{short}_f1"], abs=1e-7)
            assert figures.utilities["accuracy"].value == pytest.approx(row[f"{short}_acc"], abs=1e-7)
            published = row[f"{short}_groups"]
            for code, group in enumerate(figures.groups):
                people = np.array([published[f"g{code}y0"], published[f"g{code}y1"]])
                assert [group.negatives, group.positives] == people[:, 0].tolist()
                assert group.selected == people[:, 1].sum()
                assert group.false_positive_rate == people[0, 1] / people[0, 0]
                assert group.true_positive_rate == people[1, 1] / people[1, 0]
            outside = sum(count for cell, (count, _) in published.items() if cell.startswith("g-1"))
            assert figures.n - figures.n_compared == outside
