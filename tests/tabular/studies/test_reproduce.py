"""The published table beside ours, from a folder of networks."""

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fairmend.errors import InputError
from fairmend.report.study import save_study
from fairmend.tabular.repair.settings import RepairSettings
from fairmend.tabular.studies.reproduce import find_networks, reproduce_published
from fairmend.tabular.studies.reproduction import PUBLISHED
from fairmend.tabular.studies.trials import Session

QUICK = RepairSettings(states=120)
SETTINGS = ("compas-sex", "compas-race", "meps16-race")


@pytest.fixture(scope="module")
def two_networks(shared_data, tmp_path_factory):
    """A folder like the published one with two of its networks, and the folder of tables."""
    folder = tmp_path_factory.mktemp("published")
    listed = json.loads((shared_data / "neufair" / "models.json").read_bytes())
    kept = [entry for entry in listed if entry["dataset"] == "compas"][:2]
    (folder / "models").mkdir()
    for entry in kept:
        shutil.copy(shared_data / "neufair" / entry["file"], folder / entry["file"])
    (folder / "models.json").write_text(json.dumps(kept))
    return folder, shared_data


@pytest.fixture(scope="module")
def reproduced(two_networks):
    folder, data = two_networks
    return reproduce_published(folder, data, QUICK, thresholds=("joint", "fixed"), only=SETTINGS)


def test_one_row_per_setting_and_threshold(reproduced):
    rows = [(row.published.setting, row.threshold, row.eod.n) for row in reproduced.rows]
    assert rows == [
        ("compas-sex", "joint", 2),
        ("compas-sex", "fixed", 2),
        ("compas-race", "joint", 2),
        ("compas-race", "fixed", 2),
    ]
    assert all(row.infeasible == row.worse_than_untouched == 0 for row in reproduced.rows)
    assert all(row.least_f1_ratio_search >= QUICK.keep for row in reproduced.rows)


def test_the_missing_setting_is_named_with_the_reason(reproduced):
    assert set(reproduced.missing) == {"meps16-race"}
    assert "lists no network of the data set 'meps16'" in reproduced.missing["meps16-race"]
    assert any(note.startswith("meps16-race is missing") for note in reproduced.notes())
    last = reproduced.tables()[0].texts()[-1]
    assert last[:3] == ("meps16-race", "missing", "0")
    assert last[4] == "0.0843"
    assert last[9] == "-"


def test_the_fixed_threshold_is_not_moved(reproduced):
    fixed = [outcome for outcome in reproduced.outcomes if outcome.settings["threshold"] == "fixed"]
    assert len(fixed) == 4
    assert all(not any(outcome.shift) for outcome in fixed)


def test_untouched_figures_are_the_measured_ones(reproduced, shared_data):
    baselines = json.loads((shared_data / "neufair" / "baselines.json").read_bytes())
    for row in reproduced.rows:
        seeds = {int(o.subject.split()[1]) for o in reproduced.outcomes}
        known = [each for each in baselines[row.published.setting.replace("-", "_")] if each["seed"] in seeds]
        assert row.eod_untouched.mean == pytest.approx(np.mean([each["test_eod"] for each in known]), abs=1e-7)
        assert row.f1_before.mean == pytest.approx(np.mean([each["test_f1"] for each in known]), abs=1e-7)


def test_the_noise_floor_is_where_it_was_measured(reproduced):
    known = {"compas-sex": 0.0156, "compas-race": 0.0134}
    for row in reproduced.rows:
        assert row.noise_floor == pytest.approx(known[row.published.setting], abs=0.003)
        assert row.excess == row.eod.mean - row.noise_floor


def test_the_files_hold_settings_and_networks(reproduced, tmp_path):
    written = save_study(reproduced, tmp_path)
    assert set(written) == {"reproduce.json", "settings.csv", "networks.csv", "reproduce.png", "reproduce.svg"}
    settings = list(csv.DictReader(io.StringIO((tmp_path / "settings.csv").read_text())))
    assert [row["threshold"] for row in settings] == ["joint", "fixed", "joint", "fixed", "missing"]
    assert settings[-1]["eod"] == ""
    networks = list(csv.DictReader(io.StringIO((tmp_path / "networks.csv").read_text())))
    assert len(networks) == 2 * 2 * 3  # networks, settings; joint, fixed and the rival
    plain = json.loads((tmp_path / "reproduce.json").read_bytes())
    assert plain["missing"].keys() == {"meps16-race"}
    assert plain["rows"][0]["eod"] == float(settings[0]["eod"])


def test_what_is_on_record_is_not_repaired_again(two_networks, tmp_path):
    folder, data = two_networks
    first = reproduce_published(folder, data, QUICK, only=["compas-sex"], session=Session(tmp_path))
    second = reproduce_published(folder, data, QUICK, only=["compas-sex", "compas-race"], session=Session(tmp_path))
    assert (first.finished.planned, second.finished.kept, second.finished.planned) == (4, 4, 8)
    assert second.rows[0] == first.rows[0]


def test_the_network_that_the_paper_leaves_out_is_left_out(tmp_path):
    entries = [{"dataset": "default", "seed": seed, "file": "net.safetensors"} for seed in (1, 1210912848)]
    (tmp_path / "models.json").write_text(json.dumps(entries))
    (tmp_path / "net.safetensors").touch()
    (tmp_path / "default.csv.gz").touch()
    found, missing = find_networks(tmp_path, tmp_path, ["default-sex"])
    assert [network.seed for network in found] == [1]
    assert not missing


def test_data_that_is_not_there_is_a_missing_setting(two_networks, tmp_path):
    folder, _ = two_networks
    with pytest.raises(InputError, match=r"no published network to repair: compas-sex: folder .* holds none of"):
        reproduce_published(folder, tmp_path, QUICK, only=["compas-sex"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ('{"a": 1}', "has the entry"),
        ('[{"dataset": "adult", "seed": 1}]', "has the entry"),
        ('[{"dataset": "adult", "seed": "one", "file": "models.json"}]', "seed must be a whole number"),
        ('[{"dataset": "adult", "seed": 1, "file": "gone.safetensors"}]', "must be in the folder"),
        ('[{"dataset": "adult", "seed": 1, "file": "../net.safetensors"}]', "must be in the folder"),
        ('[{"dataset": "adult", "seed": 1, "file": "link.safetensors"}]', "must be in the folder"),
        ('[{"dataset": "adult", "seed": 1, "file": "/etc/hostname"}]', "must be in the folder"),
        (f'[{{"dataset": "adult", "seed": 1, "file": "{"x" * 5000}"}}]', "must be in the folder"),
        ('[{"dataset": "adult", "seed": true, "file": "models.json"}]', "seed must be a whole number"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_folder_without_a_proper_list_is_refused(tmp_path, content, message):
    folder = tmp_path / "published"
    folder.mkdir()
    (tmp_path / "net.safetensors").touch()
    (folder / "link.safetensors").symlink_to(tmp_path / "net.safetensors")
    if content is not None:
        (folder / "models.json").write_text(content)
    with pytest.raises(InputError, match=message):
        reproduce_published(folder, tmp_path, QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["adult-age"]}, "no published setting 'adult-age'"),
        ({"thresholds": ()}, "thresholds must be"),
        ({"thresholds": ("joint", "joint")}, "thresholds must be"),
        ({"settings": replace(QUICK, objective="demographic_parity_difference")}, "published are figures of"),
    ],
)
def test_bad_requests_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        reproduce_published(tmp_path, tmp_path, **{"settings": QUICK} | options)


def test_the_bar_is_the_published_annealing_or_doing_nothing():
    assert PUBLISHED["adult-sex"].bar == 0.07259
    assert PUBLISHED["compas-sex"].bar == 0.02522
    assert len(PUBLISHED) == 7
