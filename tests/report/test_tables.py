"""Tables: what people read and what programs read come from the same rows."""

import csv
import io
import json
import math

import pytest

from fairmend.errors import InputError
from fairmend.records import document, plain
from fairmend.report.tables import Column, Table, fixed, spread
from fairmend.statistics import t_interval

ROWS = ({"name": "a|b", "value": 1234.5678, "extra": 1}, {"name": "c", "value": math.nan, "extra": None})
TABLE = Table("Values", (Column("name", "Name"), Column("value", "Value", fixed(2))), ROWS, ("A note.",))


def test_people_see_rounded_values_and_dashes():
    assert TABLE.headings == ("Name", "Value")
    assert TABLE.texts() == [("a|b", "1,234.57"), ("c", "-")]


def test_csv_holds_every_raw_value():
    rows = list(csv.DictReader(io.StringIO(TABLE.csv().decode())))
    assert float(rows[0]["value"]) == 1234.5678
    assert rows[1] == {"name": "c", "value": "", "extra": ""}
    assert Table("empty", (), ()).csv() == b""


def test_markdown_keeps_its_columns():
    lines = TABLE.markdown().splitlines()
    assert lines[2:6] == ["| Name | Value |", "| --- | --- |", "| a\\|b | 1,234.57 |", "| c | - |"]
    assert lines[-1] == "* A note."


def test_names_are_neither_formulas_nor_markup_nor_further_cells():
    hostile = "=cmd|' /C calc'!A0\n<img src=x onerror=1>"
    rows = ({"name": hostile, "-value": -1.5}, {"name": "-0.5", "-value": 2}, {"name": "caf\udce9", "-value": math.nan})
    table = Table(hostile, (Column("name", hostile), Column("-value", "Value")), rows, (hostile,))

    read = list(csv.reader(io.StringIO(table.csv().decode(), newline="")))
    assert read == [["name", "'-value"], [f"'{hostile}", "-1.5"], ["-0.5", "2"], [r"caf\udce9", ""]]
    lines = table.markdown().splitlines()
    assert len(lines) == 9
    assert "<img" not in table.markdown()
    assert lines[4] == "| =cmd\\|' /C calc'!A0 &lt;img src=x onerror=1> | -1.5 |"


def test_a_row_without_a_column_is_refused():
    with pytest.raises(InputError, match=r"lacks \['value'\]"):
        Table("x", TABLE.columns, ({"name": "a"},))


def test_json_has_null_for_what_is_no_number():
    payload = {"a": [1.5, math.nan, (math.inf,)], "b": {"c": "nan", 3: None}}
    assert json.loads(document(payload)) == {"a": [1.5, None, [None]], "b": {"c": "nan", "3": None}}
    assert plain("text") == "text"


def test_a_mean_becomes_three_columns():
    mean = t_interval([1.0, 2.0, 3.0])
    cells = spread("eod", mean)
    assert cells == {"eod": 2.0, "eod_half_width": mean.half_width, "eod_n": 3}
