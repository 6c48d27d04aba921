"""Studies: what is saved is what was shown, and it is shown again from its folder alone."""

import csv
import json
import math
from dataclasses import dataclass

import pytest

from fairmend.errors import RunError
from fairmend.records import Kind
from fairmend.report import figures
from fairmend.report.figures import Point, Spot
from fairmend.report.study import Study, load_study, save_study, tables_of
from fairmend.report.tables import Column, Table, fixed

COLUMNS = (
    Column("method", "method"),
    Column("bias", "bias [95 %]", fixed(3), interval=True, undefined="broken"),
)


@dataclass(frozen=True)
class Found(Study):
    """Two methods side by side."""

    kind = Kind("test compare", file="compare.json")
    rows: tuple[dict, ...]

    def tables(self):
        return (Table("Methods", COLUMNS, self.rows, ("A note.",)),)

    def to_json(self):
        return {"rows": list(self.rows)}

    def draw(self):
        spots = [Spot(row["method"], Point(1.0), Point(row["bias"])) for row in self.rows[:1]]
        return figures.draw_trade_off({"": spots}, x_label="x", y_label="y") if spots else None


ROWS = (
    {"method": "fasp", "bias": 0.12345, "bias_low": 0.1, "bias_high": 0.25},
    {"method": "random", "bias": math.nan, "bias_low": math.nan, "bias_high": math.nan},
    {"method": "alone", "bias": 0.5, "bias_low": None, "bias_high": None},
)


def test_the_folder_holds_one_table_one_picture_and_one_saved_form(tmp_path):
    written = save_study(Found(ROWS), tmp_path, {"model": "tiny"})
    assert list(written) == ["compare.csv", "compare.png", "compare.svg", "compare.json"]  # the result comes last
    assert all(path.stat().st_size for path in written.values())
    with open(tmp_path / "compare.csv", newline="") as stream:
        assert [row["method"] for row in csv.DictReader(stream)] == ["fasp", "random", "alone"]
    saved = json.loads((tmp_path / "compare.json").read_bytes())
    assert (saved["schema"], saved["schema_version"], saved["model"]) == ("fairmend test compare", 1, "tiny")
    assert saved["rows"][1]["bias"] is None


def test_a_folder_is_shown_as_the_study_was(tmp_path):
    found = Found(ROWS)
    save_study(found, tmp_path)
    (table,) = tables_of(load_study(tmp_path, Found))
    (before,) = found.tables()
    assert table == before.shown()
    assert table.rows == (("fasp", "0.123 [0.100, 0.250]"), ("random", "broken"), ("alone", "0.500"))


def test_without_rows_there_is_no_picture(tmp_path):
    assert list(save_study(Found(()), tmp_path)) == ["compare.csv", "compare.json"]


def test_a_column_with_an_interval_needs_its_limits():
    with pytest.raises(ValueError, match="lacks"):
        Table("x", COLUMNS, ({"method": "fasp", "bias": 1.0, "bias_low": 1.0},))


@pytest.mark.parametrize(
    "tables", [None, 3, [3], [{"title": "x"}], [{"title": "x", "headings": ["a"], "rows": [[1]], "notes": []}]]
)
def test_a_saved_form_without_tables_is_named(tables):
    with pytest.raises(RunError, match="no tables that can be read"):
        tables_of({"tables": tables} if tables else {})
