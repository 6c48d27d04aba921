"""Comparing searches: equal states, honest rivals, honest tests."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from study_cases import QUICK, people, unfair_network

from fairmend.errors import DataError, InputError
from fairmend.report.study import save_study
from fairmend.tabular.data.presets import load_preset
from fairmend.tabular.formats.formats import read_network
from fairmend.tabular.repair.settings import RepairSettings
from fairmend.tabular.studies.compare import compare_searches
from fairmend.tabular.studies.trials import Session

SEARCHES = ("annealing", "random-walk", "dice")


@pytest.fixture(scope="module")
def compared():
    return compare_searches(unfair_network(), people(), QUICK, searches=SEARCHES, seeds=4)


def test_every_search_and_both_rivals_have_a_row(compared):
    assert [row.levels["search"] for row in compared.rows] == [*SEARCHES, "threshold only", "untouched"]
    assert [row.seeds for row in compared.rows] == [4, 4, 1, 1, 1]
    assert all(row.infeasible == row.worse_than_untouched == 0 for row in compared.rows)


def test_random_searches_measure_equally_many_states(compared):
    assert [row.states for row in compared.rows[:2]] == [60, 60]
    assert compared.rows[2].states == 11  # 10 neurons one at a time, and none
    assert compared.rows[0].states_per_second > 0


def test_means_and_intervals_are_over_seeds(compared):
    own = [outcome for outcome in compared.outcomes if outcome.procedure == "annealing"]
    assert [outcome.seed for outcome in own] == [0, 1, 2, 3]
    values = [outcome.test.after.value.value for outcome in own]
    row = compared.rows[0]
    assert row.test_unfairness.mean == pytest.approx(np.mean(values))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (row.test_unfairness.interval.low, row.test_unfairness.interval.high) == pytest.approx((low, high))


def test_paired_tests_are_scipys_adjusted_by_holm(compared):
    base = [outcome.test.after.unfairness for outcome in compared.outcomes if outcome.procedure == "annealing"]
    walk = [outcome.test.after.unfairness for outcome in compared.outcomes if outcome.procedure == "random-walk"]
    untouched = [compared.outcomes[0].test.before.unfairness] * 4
    by_name = {test.name: test for test in compared.tests}
    assert set(by_name) == {"random-walk", "dice", "threshold only", "untouched"}
    assert by_name["random-walk"].p_value == pytest.approx(stats.ttest_rel(walk, base).pvalue)
    assert by_name["untouched"].p_value == pytest.approx(stats.ttest_rel(untouched, base).pvalue)
    raw = sorted(test.p_value for test in compared.tests)
    smallest = min(compared.tests, key=lambda test: test.p_value)
    assert smallest.adjusted == pytest.approx(min(1.0, 4 * raw[0]))
    assert all(test.adjusted >= test.p_value for test in compared.tests)


def test_words_say_no_more_than_the_tests(compared):
    for test in compared.tests:
        told_apart = test.adjusted <= 0.05
        assert ("cannot be told apart" in test.words()) != told_apart
        if told_apart:
            assert test.words().endswith("less unfair." if test.difference.mean < 0 else "more unfair.")


def test_one_seed_makes_no_claim():
    found = compare_searches(unfair_network(), people(), QUICK, searches=("annealing", "random"), seeds=1)
    assert all("one seed cannot tell" in test.words() for test in found.tests)
    assert found.tables()[0].texts()[0][2] == "-"


def test_without_annealing_the_first_search_is_the_reference():
    found = compare_searches(unfair_network(), people(), QUICK, searches=("random", "random-walk"), seeds=2)
    assert {test.reference for test in found.tests} == {"random"}


def test_a_least_number_of_neurons_does_not_shut_dice_out():
    settings = replace(QUICK, min_drop=2)
    found = compare_searches(unfair_network(), people(), settings, searches=("dice",), seeds=1)
    assert found.rows[0].states == 11


def test_the_files_hold_the_table(compared, tmp_path):
    written = save_study(compared, tmp_path)
    assert set(written) == {"compare.json", "compare.csv", "compare.png", "compare.svg"}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "compare.csv").read_text())))
    assert [row["search"] for row in rows] == [row.levels["search"] for row in compared.rows]
    assert float(rows[0]["test_unfairness"]) == compared.rows[0].test_unfairness.mean
    assert rows[-1]["test_unfairness_half_width"] == ""
    plain = json.loads((tmp_path / "compare.json").read_bytes())
    assert plain["rows"][-1]["test_unfairness_half_width"] is None
    assert len(plain["repairs"]) == len(compared.outcomes)
    assert "flatters" in " ".join(plain["notes"])


def test_interrupted_comparisons_say_so(tmp_path):
    class Stop:
        def start(self, total, title): ...
        def close(self): ...
        def update(self, done, *rest):
            if done == 2:
                raise KeyboardInterrupt

    found = compare_searches(
        unfair_network(), people(), QUICK, searches=SEARCHES, seeds=2, session=Session(progress=Stop())
    )
    assert found.interrupted
    assert "2 of 6 repairs are in" in found.notes()[-1]
    assert [row.levels["search"] for row in found.rows] == ["annealing", "untouched"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"searches": ()}, "at least one"),
        ({"searches": ("dice", "dice")}, "each search once"),
        ({"searches": ("hill",)}, "search must be one of"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"settings": RepairSettings(seconds=3)}, "give states instead of seconds"),
    ],
)
def test_bad_requests_are_refused_before_work_starts(options, message, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=message):
        compare_searches(unfair_network(), people(), **{"settings": QUICK, "session": Session(out)} | options)
    assert not out.exists()


def test_exhaustive_search_of_too_many_masks_is_refused_by_count(tmp_path):
    network = unfair_network(n_hidden=60)
    with pytest.raises(InputError, match="exhaustive"):
        compare_searches(network, people(), QUICK, searches=("exhaustive",), seeds=1, session=Session(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_data_of_another_width_is_refused():
    data = people()
    narrow = replace(data, X=data.X[:, :2], feature_names=data.feature_names[:2])
    with pytest.raises(DataError, match="features"):
        compare_searches(unfair_network(), narrow, QUICK)


def test_published_networks_are_compared(shared_data):
    network = read_network(shared_data / "neufair" / "models" / "compas-42.safetensors")
    data = load_preset("compas-race", shared_data / "tabular", 42)
    found = compare_searches(network, data, RepairSettings(states=300), searches=("annealing", "random"), seeds=2)
    annealed, untouched = found.rows[0], found.rows[-1]
    assert annealed.search_unfairness.mean <= untouched.search_unfairness.mean
    assert all(row.infeasible == row.worse_than_untouched == 0 for row in found.rows)
