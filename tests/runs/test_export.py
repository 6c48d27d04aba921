"""Measurements leave a run as Parquet and CSV."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_runs import DIALLED, FIGURES, ToyEvaluator

from fairmend.errors import InputError, RunError
from fairmend.runs.collection import Collection
from fairmend.runs.export import export, measurement_frame
from fairmend.runs.store import Store


@pytest.fixture
def store(tmp_path: Path):
    rng = np.random.default_rng(5)
    masks = [DIALLED.sample(rng).turn((float(rng.uniform(-1, 1)),)) for _ in range(12)]
    evaluator = ToyEvaluator(DIALLED)
    with Store.create(tmp_path / "run.sqlite", {"kind": "toy"}) as opened:
        opened.context("search", evaluator).put(masks, evaluator.measure(masks))
        yield opened


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_every_measurement_is_a_row(store, tmp_path, suffix):
    file = tmp_path / f"measured{suffix}"
    assert export(store, "search", file, parts=True) == 12
    read = pd.read_parquet(file) if suffix == ".parquet" else pd.read_csv(file)
    pairs = list(store.context("search"))
    units = read["dropped"] if suffix == ".parquet" else [str(text).split() for text in read["dropped"].fillna("")]
    assert [tuple(map(int, row)) for row in units] == [mask.units() for mask, _ in pairs]
    for name in ("bias", "utility", "n"):
        np.testing.assert_allclose(read[name], [getattr(made, name) for _, made in pairs])
    parts = read.iloc[:, -len(pairs[0][1].parts) :]
    np.testing.assert_allclose(parts, [made.parts for _, made in pairs])
    assert list(read.columns)[1] == DIALLED.dials[0].name


def test_names_in_a_csv_are_no_formulas(tmp_path, monkeypatch):
    named = replace(FIGURES, parts=("=cmd|' /C calc'!A0", "@café\nx"))
    monkeypatch.setattr("toy_runs.FIGURES", named)
    evaluator = ToyEvaluator(DIALLED)
    with Store.create(tmp_path / "run.sqlite", {"kind": "toy"}) as store:
        masks = [DIALLED.untouched()]
        store.context("search", evaluator).put(masks, evaluator.measure(masks))
        export(store, "search", tmp_path / "measured.csv", parts=True)
    assert list(pd.read_csv(tmp_path / "measured.csv").columns)[-2:] == ["'=cmd|' /C calc'!A0", "'@café\nx"]


def test_an_empty_collection_is_a_table_without_rows():
    frame = measurement_frame(Collection(DIALLED, FIGURES), parts=True)
    assert frame.shape == (0, 8 + len(FIGURES.parts))
    assert frame["n"].dtype == np.int64


def test_parts_are_left_out_unless_asked_for(store):
    assert "n" in measurement_frame(store.context("search"))
    assert len(measurement_frame(store.context("search")).columns) == 8


def test_a_file_that_exists_is_written_over_only_when_told(store, tmp_path):
    file = tmp_path / "measured.csv"
    file.write_text("my own")
    with pytest.raises(InputError, match=r"measured\.csv exists.*--force"):
        export(store, "search", file)
    assert file.read_text() == "my own"
    assert export(store, "search", file, overwrite=True) == 12


def test_what_cannot_be_written_is_said(store, tmp_path):
    with pytest.raises(InputError, match=r"measured.xlsx.*\.parquet or \.csv"):
        export(store, "search", tmp_path / "measured.xlsx")
    with pytest.raises(RunError, match="no measurements named 'held-out'"):
        export(store, "held-out", tmp_path / "measured.csv")
