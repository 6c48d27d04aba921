"""Other people's tables at the command line: the positive class, names with commas, figures that do not exist."""

import json
from pathlib import Path

import numpy as np
import pytest

from ..conftest import OWN, REPAIR, arguments, small_table

AUDIT = ("tabular", "audit", "--draws", "100")


def audited(run, *more, **options):
    return run(
        *AUDIT, *arguments(OWN | {f"--{name.replace('_', '-')}": value for name, value in options.items()}), *more
    )


class TestPositive:
    @pytest.fixture
    def one_two(self, desk: Path) -> None:
        """1 is a good and 2 a bad credit, as in German credit: what the network says yes to is 1."""
        small_table().assign(hired=lambda frame: np.where(frame["hired"] == "yes", 1, 2)).to_csv(
            "people.csv", index=False
        )

    def test_is_said_wherever_it_was_chosen(self, run, desk):
        shown = audited(run)
        assert "Positive class: 'yes'." in shown.out
        assert "Warning" not in shown.err
        assert audited(run, "--json").document["positive"] == "yes"
        run("tabular", "repair", *arguments(REPAIR))
        assert json.loads(Path("out/result.json").read_text())["positive"] == "yes"
        assert "of which yes is the positive one" in Path("out/README.md").read_text()
        assert "Positive class: 'yes'." in run("show", "out").out

    @pytest.mark.usefixtures("one_two")
    def test_a_network_that_does_worse_than_the_opposite_is_called_so(self, run):
        outcome = audited(run, "--json")
        (warning,) = outcome.document["warnings"]
        assert outcome.document["positive"] == "2"
        assert "worse than saying the opposite" in warning
        assert "'2' was taken as the positive class" in warning
        assert "if that is '1', say so (--positive VALUE)" in outcome.message
        assert "Warning" not in audited(run, positive="1").err

    @pytest.mark.usefixtures("one_two")
    def test_and_so_are_result_and_card_of_a_repair(self, run):
        outcome = run("tabular", "repair", *arguments(REPAIR), "--quiet")
        assert "worse than saying the opposite" in outcome.err
        assert "worse than saying the opposite" in outcome.out
        assert "worse than saying the opposite" in json.loads(Path("out/result.json").read_text())["warnings"][0]
        assert "**Warning**: the network does worse than saying the opposite" in Path("out/README.md").read_text()

    def test_is_asked_for_by_the_name_of_the_option(self, run, desk):
        small_table().replace({"hired": {"yes": "accept", "no": "reject"}}).to_csv("people.csv", index=False)
        outcome = audited(run)
        assert outcome.code == 2
        assert "say which one is positive (--positive VALUE)" in outcome.message
        assert audited(run, positive="accept").code == 0


class TestNames:
    @pytest.fixture
    def commas(self, desk: Path) -> None:
        names = {"sex": "sex, gender", "score": "score, first", "years": "(0, 10]"}
        small_table().rename(columns=names).to_csv("people.csv", index=False)

    @pytest.mark.usefixtures("commas")
    def test_with_commas_are_taken_alone_as_they_are_and_in_lists_in_quotes(self, run):
        features = '"score, first","(0, 10]",test'
        alone = audited(run, "--json", sensitive="sex, gender").document
        listed = audited(run, "--json", sensitive='"sex, gender"', features=features, drop_sensitive=False).document
        assert alone["splits"] == listed["splits"]
        assert [group["group"] for group in alone["splits"]["test"]["groups"]] == ["sex, gender=F", "sex, gender=M"]

    @pytest.mark.usefixtures("commas")
    def test_a_quote_that_is_not_closed_is_explained(self, run):
        outcome = audited(run, sensitive='"sex, gender')
        assert outcome.code == 2
        assert "put a name with a comma in double quotes" in outcome.message
        assert (
            "in double quotes, as CSV does"
            in run("tabular", "audit", "--help").message + run("tabular", "audit", "--help").out
        )

    def test_a_list_of_plain_names_is_what_it_was(self, run, desk):
        plain = audited(run, "--json", features="score, years ,test").document
        assert plain["splits"] == audited(run, "--json").document["splits"]


def test_advice_names_the_options_of_the_command_line(run, desk):
    outcome = audited(run, drop_sensitive=False)
    assert outcome.code == 2
    for option in ("--features", "--drop-sensitive", "--encode standard"):
        assert option in outcome.message


def test_a_group_without_positives_is_audited_and_repaired_where_no_rate_needs_them(run, desk):
    frame = small_table()
    frame.loc[frame["sex"] == "F", "hired"] = "no"
    frame.to_csv("people.csv", index=False)
    parity = {"objective": "demographic_parity_difference"}
    found = audited(run, "--json", **parity).document
    women = found["splits"]["test"]["groups"][0]
    assert (women["positives"], women["true_positive_rate"]) == (0, None)
    assert "n/a" in audited(run, **parity).out
    assert run("tabular", "repair", *arguments(REPAIR | {"--objective": "demographic_parity_difference"})).code == 0
    for command in (AUDIT, ("tabular", "repair")):
        outcome = run(*command, *arguments(OWN))
        assert outcome.code == 2
        assert "sex=F has no positives in the data" in outcome.message


def test_named_index_levels_of_parquet_can_be_sensitive_and_are_no_features(run, desk):
    small_table().set_index("sex").to_parquet("people.parquet")
    outcome = audited(run, data="people.parquet", drop_sensitive=False)
    assert outcome.code == 0
    assert "index level 'sex' is a column, but no feature unless you name it in --features" in outcome.err
    plain = audited(run, "--json").document["splits"]
    assert audited(run, "--json", data="people.parquet", drop_sensitive=False).document["splits"] == plain


def test_values_too_large_for_float32_are_refused_in_every_kind_of_file(run, desk):
    frame = small_table()
    frame.loc[7, "years"] = 1.7e308
    frame.to_csv("people.csv", index=False)
    frame.to_parquet("people.parquet")
    np.savez(
        "people.npz",
        X=frame[["score", "years", "test"]],
        y=frame["hired"].to_numpy("U3"),
        sex=frame["sex"].to_numpy("U1"),
    )
    for data, label, name in (("csv", "hired", "years"), ("parquet", "hired", "years"), ("npz", "y", "x1")):
        outcome = audited(run, data=f"people.{data}", label=label)
        assert outcome.code == 2
        assert f"column '{name}' has 1 values that are too large for float32" in outcome.message
        assert "in data row 8" in outcome.message


def test_values_whose_products_overflow_in_the_network_are_refused(run, desk):
    frame = small_table()
    frame.loc[7, "years"] = 3.3e38
    frame.to_csv("people.csv", index=False)
    outcome = audited(run)
    assert outcome.code == 2
    assert "logits are not finite" in outcome.message
    assert "Column 'years' has the largest values, up to 3.3e+38" in outcome.message
