"""Sweeping settings: every combination, search rows beside test rows."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from study_cases import QUICK, people, unfair_network

from fairmend.errors import InputError
from fairmend.report.study import save_study
from fairmend.tabular.studies.sweep import AXES, sweep_settings
from fairmend.tabular.studies.trials import Session

GRID = {"keep": (0.9, 1.0), "schedule": ("geometric", "logarithmic"), "max_drop": (4,)}


@pytest.fixture(scope="module")
def swept():
    return sweep_settings(unfair_network(), people(), GRID, QUICK, seeds=2)


def test_every_combination_has_a_row(swept):
    assert [tuple(row.levels.values()) for row in swept.rows] == [
        (0.9, "geometric", 4),
        (0.9, "logarithmic", 4),
        (1.0, "geometric", 4),
        (1.0, "logarithmic", 4),
    ]
    assert all(row.repairs == 2 and row.infeasible == 0 for row in swept.rows)
    assert all(row.test_unfairness.n == 2 for row in swept.rows)


def test_the_levels_reach_the_repairs(swept):
    for outcome in swept.outcomes:
        if outcome.procedure == "annealing":
            assert f"keep {outcome.settings['keep']}" in outcome.trial
            assert f"schedule {outcome.settings['options']['schedule']}" in outcome.trial
            assert outcome.settings["max_drop"] == 4
            assert outcome.dropped <= 4
            assert outcome.search.utility_ratio >= outcome.settings["keep"]


def test_no_setting_does_worse_than_nothing_on_the_search_rows(swept):
    untouched = swept.rival.search.bias_before
    assert all(row.search_unfairness.mean <= untouched for row in swept.rows)


def test_effects_are_means_over_the_other_axes_first_within_seeds(swept):
    assert set(swept.effects) == {"keep", "schedule"}  # max_drop has one level
    loose = swept.effects["keep"][0]
    own = [o for o in swept.outcomes if o.procedure == "annealing" and o.settings["keep"] == 0.9]
    per_seed = [np.mean([o.test.after.unfairness for o in own if o.seed == seed]) for seed in (0, 1)]
    assert loose.test_unfairness.mean == pytest.approx(np.mean(per_seed))
    assert loose.test_unfairness.n == 2
    assert loose.repairs == 4


def test_the_rivals_stand_beside_it(swept):
    assert swept.rival is not None
    assert any(note.startswith("Untouched: ") and "Threshold only: " in note for note in swept.notes())


def test_the_files_hold_the_grid(swept, tmp_path):
    written = save_study(swept, tmp_path)
    assert set(written) == {"sweep.json", "sweep.csv", "sweep.png", "sweep.svg"}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "sweep.csv").read_text())))
    assert [row["schedule"] for row in rows] == ["geometric", "logarithmic"] * 2
    assert float(rows[0]["search_utility"]) == swept.rows[0].search_utility.mean
    assert json.loads((tmp_path / "sweep.json").read_bytes())["grid"]["keep"] == [0.9, 1.0]


def test_a_single_point_can_be_drawn(tmp_path):
    found = sweep_settings(unfair_network(), people(), {"penalty": (3.0,)}, QUICK, seeds=1)
    assert save_study(found, tmp_path)["sweep.png"].stat().st_size > 0


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ({}, {}, "nothing to vary"),
        ({"colour": (1,)}, {}, "a sweep varies some of keep"),
        ({"keep": ()}, {}, "needs at least one level"),
        ({"keep": (0.9, 0.9)}, {}, "each once"),
        ({"keep": (0.9, 1.5)}, {}, "keep must lie in"),
        ({"schedule": ("sudden",)}, {}, "schedule must be one of"),
        ({"schedule": ("geometric",)}, {"settings": replace(QUICK, search="genetic")}, "cannot be swept with"),
        ({"max_drop": (500,)}, {}, "max_drop=500"),
        ({"states": tuple(range(1, 102)), "penalty": tuple(range(100))}, {"seeds": 1}, "10,100 repairs, at most"),
        ({"keep": (0.9,)}, {"seeds": 0}, "seeds must be at least 1"),
    ],
)
def test_grids_that_cannot_work_are_refused_before_work_starts(grid, options, message, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=message):
        sweep_settings(unfair_network(), people(), grid, **{"settings": QUICK, "session": Session(out)} | options)
    assert not out.exists()


def test_the_axes_are_the_published_design_questions():
    assert AXES == ("keep", "penalty", "max_drop", "states", "schedule")
