"""A person's own table: how it is encoded, split and grouped, and what is refused."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fairmend.errors import DataError
from fairmend.tabular.data.datasets import (
    OUTSIDE,
    Dataset,
    make_dataset,
    require_people,
    split_rows,
    verified,
)
from fairmend.tabular.data.tables import load_table


def table(n: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": rng.normal(3000, 800, n).round(2),
            "job": rng.choice(["nurse", "baker", "clerk"], n),
            "member": rng.random(n) < 0.5,
            "sex": rng.choice(["F", "M"], n),
            "race": rng.choice(["Black", "White"], n),
            "hired": rng.choice(["no", "yes"], n),
        }
    )


def dataset(**changes: Any) -> Dataset:
    return make_dataset(table(), "hired", ["sex"], **changes)


def write_csv(path: Path, frame: pd.DataFrame, **settings: Any) -> Path:
    frame.to_csv(path, index=False, **settings)
    return path


class TestLoading:
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv"])
    def test_csv_with_any_delimiter_packed_or_not(self, tmp_path: Path, separator: str, ending: str) -> None:
        path = write_csv(tmp_path / f"table{ending}", table(), sep=separator)
        pd.testing.assert_frame_equal(load_table(path), table())

    def test_parquet(self, tmp_path: Path) -> None:
        table().to_parquet(tmp_path / "table.parquet")
        pd.testing.assert_frame_equal(load_table(tmp_path / "table.parquet"), table())

    def test_a_byte_order_mark_and_blanks_do_not_become_part_of_a_name(self, tmp_path: Path) -> None:
        (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbfage, sex\n40, F\n")
        assert list(load_table(tmp_path / "table.csv").columns) == ["age", "sex"]

    def test_the_level_none_is_a_level_not_a_missing_value(self, tmp_path: Path) -> None:
        (tmp_path / "table.csv").write_text("savings,sex\nNone,F\n,M\n")
        assert load_table(tmp_path / "table.csv")["savings"].isna().tolist() == [False, True]

    def test_only_the_columns_of_x_in_an_npz_become_features(self, tmp_path: Path) -> None:
        frame = table()
        X = frame[["age", "income"]].to_numpy(np.float32)
        y = np.array(frame["hired"], dtype="U3")
        np.savez(tmp_path / "table.npz", X=X, y=y, sex=np.array(frame["sex"], dtype="U1"))
        loaded = load_table(tmp_path / "table.npz")
        made = make_dataset(loaded, "y", ["sex"], encode="none")
        assert made.feature_names == ("x0", "x1")
        np.testing.assert_array_equal(made.X, X)
        assert made.group_names == ("sex=F", "sex=M")

    def test_an_npz_may_name_its_features(self, tmp_path: Path) -> None:
        arrays = {"X": np.eye(60)[:, :2], "y": np.arange(60) % 2, "g": np.arange(60) // 30}
        np.savez(tmp_path / "table.npz", feature_names=np.array(["left", "right"]), **arrays)
        assert list(load_table(tmp_path / "table.npz").columns) == ["left", "right", "y", "g"]


def _object_npz(path: Path) -> None:
    np.savez(path, X=np.eye(3), y=np.array([{"a": 1}, 2, 3], dtype=object))


def _npz(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


UNREADABLE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "absent": ("t.csv", lambda path: None, "does not exist"),
    "a folder": ("t.csv", lambda path: path.mkdir(), "not a file"),
    "unknown ending": ("t.xlsx", lambda path: path.write_bytes(b"x"), r"ending '\.xlsx': allowed are \.csv"),
    "a pickle's ending": ("t.pkl", lambda path: path.write_bytes(b"x"), "allowed are"),
    "empty": ("t.csv", lambda path: path.write_bytes(b""), "is empty"),
    "header only": ("t.csv", lambda path: path.write_text("a,b\n"), "no rows"),
    "one column": ("t.csv", lambda path: path.write_text("hello\nworld\n"), "not a table"),
    "binary": ("t.csv", lambda path: path.write_bytes(bytes(range(256))), "text"),
    "too many columns": ("t.csv", lambda path: path.write_text("a,b\n1,2\n1,2,3\n"), "not a table"),
    "every row too long": ("t.csv", lambda path: path.write_text("a,b\n1,2,3\n4,5,6\n"), "not a table"),
    "a line for spreadsheets": (
        "t.csv",
        lambda path: path.write_text("sep=;\na;b\n1;2\n"),
        "'sep=;'.*remove that line",
    ),
    "rows of R": ("t.csv", lambda path: path.write_text('"a","b"\n"1",2,3\n"2",4,5\n'), "name that column too"),
    "duplicate columns": ("t.csv", lambda path: path.write_text("a,b,a\n1,2,3\n"), r"\['a'\] more than once"),
    "cut gzip": ("t.csv.gz", lambda path: path.write_bytes(gzip.compress(b"a,b\n" * 9999)[:40]), "t.csv.gz"),
    "corrupt parquet": ("t.parquet", lambda path: path.write_bytes(b"PAR1 nonsense PAR1"), "Parquet"),
    "not an npz": ("t.npz", lambda path: path.write_bytes(b"\x80\x04K\x01."), "not an .npz"),
    "objects in an npz": ("t.npz", _object_npz, "never loaded"),
    "npz without X": ("t.npz", _npz(a=np.eye(3), y=np.ones(3)), "needs X"),
    "npz with flat X": ("t.npz", _npz(X=np.ones(3), y=np.ones(3)), r"shape \(3,\)"),
    "npz with text X": ("t.npz", _npz(X=np.full((3, 2), "a"), y=np.ones(3)), "numbers"),
    "npz with short y": ("t.npz", _npz(X=np.eye(3), y=np.ones(2)), r"'y' .* needs \(3,\)"),
    "npz with wrong names": ("t.npz", _npz(X=np.eye(3), y=np.ones(3), feature_names=np.array(["a"])), "1 names for 3"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, case: str) -> None:
    name, write, message = UNREADABLE[case]
    write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        load_table(tmp_path / name)


class TestEncoding:
    def test_it_is_scikit_learns_one_hot_and_standard_scaler_fitted_on_train(self) -> None:
        made, frame = dataset(), table()
        train = made.splits["train"]
        for column in ("age", "income"):
            values = frame[[column]].to_numpy(np.float64)
            expected = StandardScaler().fit(values[train]).transform(values)[:, 0]
            np.testing.assert_allclose(made.X[:, made.feature_names.index(column)], expected, rtol=1e-6, atol=1e-6)
        hot = OneHotEncoder(drop="first", sparse_output=False).fit(frame[["job"]].iloc[train])
        columns = [made.feature_names.index(f"job={level}") for level in ("clerk", "nurse")]
        np.testing.assert_array_equal(made.X[:, columns], hot.transform(frame[["job"]]))
        np.testing.assert_array_equal(made.X[:, made.feature_names.index("member")], frame["member"])
        assert made.X.dtype == np.float32

    def test_a_level_that_train_lacks_becomes_all_zeros(self) -> None:
        frame = table()
        last = int(split_rows(len(frame), 42)["test"][-1])
        frame.loc[last, "job"] = "pilot"
        made = make_dataset(frame, "hired", ["sex"])
        jobs = [i for i, name in enumerate(made.feature_names) if name.startswith("job=")]
        assert [made.feature_names[i] for i in jobs] == ["job=clerk", "job=nurse"]
        assert not made.X[last, jobs].any()

    def test_without_encoding_the_numbers_stay_as_they_are_in_file_order(self) -> None:
        made = dataset(encode="none", features=["income", "age", "member"])
        np.testing.assert_array_equal(made.X, table()[["income", "age", "member"]].to_numpy(np.float32))
        assert made.feature_names == ("income", "age", "member")

    def test_sensitive_columns_can_be_kept_from_the_network(self) -> None:
        assert "sex=M" in dataset().feature_names
        assert "sex=M" not in dataset(drop_sensitive=True).feature_names
        assert "hired=yes" not in dataset().feature_names

    def test_a_column_constant_on_train_becomes_zero_not_nan(self) -> None:
        made = make_dataset(table().assign(always=7.0), "hired", ["sex"])
        assert not made.X[:, made.feature_names.index("always")].any()

    @pytest.mark.parametrize(
        ("values", "positive", "classes"),
        [
            (("yes", "no"), None, ("no", "yes")),
            ((True, False), None, ("False", "True")),
            ((1.0, 0.0), None, ("0", "1")),
            ((1, 2), None, ("1", "2")),
            ((-1, 1), None, ("-1", "1")),
            ((1, 2), 1, ("2", "1")),
            (("good", "bad"), "good", ("bad", "good")),
            (("low", "mid", "high"), "high", ("not high", "high")),
            ((10, 9, 2), None, ("2", "9", "10")),
        ],
    )
    def test_the_positive_class_is_code_one(self, values: tuple, positive: Any, classes: tuple[str, ...]) -> None:
        frame = table().assign(hired=[values[i % len(values)] for i in range(400)])
        made = make_dataset(frame, "hired", ["sex"], positive=positive)
        assert made.classes == classes
        shown = frame["hired"].map(lambda value: str(int(value) if isinstance(value, float) else value))
        assert [made.classes[code] for code in made.y] == [value if value in classes else classes[0] for value in shown]

    def test_several_sensitive_columns_are_crossed(self) -> None:
        made = make_dataset(table(), "hired", ["sex", "race"])
        assert made.group_names == (
            *("sex=F & race=Black", "sex=F & race=White"),
            *("sex=M & race=Black", "sex=M & race=White"),
        )
        frame = table()
        expected = [f"sex={sex} & race={race}" for sex, race in zip(frame["sex"], frame["race"], strict=True)]
        assert [made.group_names[code] for code in made.groups] == expected

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 2**32 - 2))
    def test_same_table_and_seed_give_the_same_data_set(self, seed: int) -> None:
        first, second = dataset(split_seed=seed), dataset(split_seed=seed)
        assert first.fingerprint() == second.fingerprint()


class TestSplits:
    @settings(max_examples=20, deadline=None)
    @given(n=st.integers(50, 3000), seed=st.integers(0, 2**32 - 2))
    def test_they_are_the_published_two_calls(self, n: int, seed: int) -> None:
        rest, test = train_test_split(np.arange(n), test_size=0.2, random_state=seed)
        train, validation = train_test_split(rest, test_size=0.25, random_state=seed + 1)
        splits = split_rows(n, seed)
        for name, rows in (("train", train), ("validation", validation), ("test", test)):
            np.testing.assert_array_equal(splits[name], np.sort(rows))
        assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(n))

    def test_a_split_column_is_obeyed_and_is_no_feature(self) -> None:
        part = np.array(["train", "validation", "test", "train"] * 100)
        made = make_dataset(table().assign(part=part), "hired", ["sex"], split_column="part")
        for name in ("train", "validation", "test"):
            np.testing.assert_array_equal(made.splits[name], np.flatnonzero(part == name))
        assert not any(name.startswith("part") for name in made.feature_names)

    def test_subsets_join_splits_and_are_copies(self) -> None:
        made = dataset()
        X, y, groups = made.subset("train", "validation")
        rows = np.concatenate([made.splits["train"], made.splits["validation"]])
        np.testing.assert_array_equal(X, made.X[rows])
        np.testing.assert_array_equal(y, made.y[rows])
        np.testing.assert_array_equal(groups, made.groups[rows])
        X[:] = 0
        assert made.X[rows].any()
        with pytest.raises(DataError, match="no split"):
            made.subset("valid")

    def test_group_counts_are_a_cross_table(self) -> None:
        made, frame = dataset(), table()
        rows = made.splits["test"]
        expected = pd.crosstab(frame["sex"].iloc[rows], frame["hired"].iloc[rows]).to_numpy()
        np.testing.assert_array_equal(made.group_counts("test"), expected)

    def test_rows_outside_every_group_are_in_no_count(self) -> None:
        made = dataset()
        groups = made.groups.copy()
        groups[::2] = OUTSIDE
        half = verified(replace(made, groups=groups))
        inside = groups[half.splits["test"]] != OUTSIDE
        assert half.group_counts("test").sum() == inside.sum()

    def test_tiny_groups_are_named_with_their_counts(self) -> None:
        made = make_dataset(table(), "hired", ["sex", "race"])
        assert any("sex=F & race=Black is tiny in the test split" in note for note in made.notes)
        assert make_dataset(table(4000), "hired", ["sex"]).notes == ()

    def test_a_fingerprint_follows_the_content_not_the_path(self) -> None:
        assert dataset(source="here").fingerprint() == dataset(source="there").fingerprint()
        assert dataset(split_seed=1).fingerprint() != dataset(split_seed=2).fingerprint()


def _spoilt(column: str, rows: int, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def spoil(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object}) if isinstance(value, str) else frame
        frame.loc[: rows - 1, column] = value
        return frame

    return spoil


def _without_test_positives(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[split_rows(len(frame), 42)["test"], "hired"] = "no"
    return frame


def _assign(**columns: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(**columns)


def _same(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


PARTS = ["train", "validation", "test", "train"] * 100

REFUSED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], dict[str, Any], str]] = {
    "unknown label": (_same, {"label": "hire"}, "no column 'hire': did you mean hired"),
    "unknown sensitive": (_same, {"sensitive": ["zip"]}, "no column 'zip': the table has age, income"),
    "unknown split column": (_same, {"split_column": "part"}, "no column 'part'"),
    "unknown feature": (_same, {"features": ["agee"]}, "no column 'agee': did you mean age"),
    "no sensitive": (_same, {"sensitive": []}, "name at least one"),
    "label as sensitive": (_same, {"sensitive": ["hired"]}, "other than the label"),
    "sensitive twice": (_same, {"sensitive": ["sex", "sex"]}, "each once"),
    "label as feature": (_same, {"features": ["age", "hired"]}, "must not see it"),
    "no features left": (_same, {"features": ["sex"], "drop_sensitive": True}, "no feature columns are left"),
    "unknown encoding": (_same, {"encode": "onehot"}, "'standard' or 'none', got 'onehot'"),
    "text without encoding": (_same, {"encode": "none"}, "column 'job' holds text"),
    "missing numbers": (_spoilt("income", 3, np.nan), {}, "column 'income' has 3 values that are not finite"),
    "numbers beyond floats": (
        _assign(income=pd.Series([3, 10**400] * 200, dtype=object)),
        {},
        "column 'income' has 200 values.*first: 1000",
    ),
    "infinite numbers": (_spoilt("income", 2, np.inf), {}, "column 'income' has 2 values.*inf"),
    "missing text": (_spoilt("job", 4, None), {}, "column 'job' has 4 missing"),
    "missing labels": (_spoilt("hired", 5, None), {}, "column 'hired' has 5 missing"),
    "missing groups": (_spoilt("sex", 6, None), {}, "column 'sex' has 6 missing"),
    "dates": (_assign(born=pd.Timestamp("1990-01-01")), {}, "column 'born' holds dates"),
    "free text": (_assign(name=[f"person {i}" for i in range(400)]), {}, "'name' has 240 levels"),
    "constant label": (_assign(hired="yes"), {}, "label 'hired' is constant"),
    "continuous label": (_assign(hired=np.arange(400)), {}, "400 different values"),
    "one number twice": (_assign(hired=["1", "01"] * 200), {}, "say which one is positive"),
    "no number as a label": (_assign(hired=["nan", "1"] * 200), {}, "say which one is positive"),
    "no rows": (lambda frame: frame.iloc[:0], {}, "the table has no rows"),
    "unclear positive": (_assign(hired=["good", "bad"] * 200), {}, "say which one is positive"),
    "absent positive": (_same, {"positive": "Yes"}, "'Yes' does not occur.*did you mean 'yes'"),
    "constant group": (_assign(sex="F"), {}, "'sex' is constant"),
    "continuous group": (_same, {"sensitive": ["age"]}, "'age' is a number with .* bin it"),
    "too many groups": (_assign(sex=[f"s{i % 300}" for i in range(400)]), {}, "300 groups, at most 256"),
    "one class in a split": (_without_test_positives, {}, "every row of the test split is 'no'"),
    "too few rows": (lambda frame: frame.head(49), {}, "49 rows are too few"),
    "seed too large": (_same, {"split_seed": 2**32 - 1}, "outside 0 to"),
    "negative seed": (_same, {"split_seed": -1}, "outside 0 to"),
    "other split values": (_assign(part=["train", "valid"] * 200), {"split_column": "part"}, "needs train, validation"),
    "a split missing": (_assign(part=["train", "test"] * 200), {"split_column": "part"}, "all three"),
    "a split too small": (
        _assign(part=["train"] * 385 + ["validation"] * 6 + ["test"] * 9),
        {"split_column": "part"},
        "'validation' has 6 rows",
    ),
    "duplicate columns": (lambda frame: pd.concat([frame, frame[["age"]]], axis=1), {}, r"\['age'\] more than once"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_cannot_work_is_refused_by_name(case: str) -> None:
    change, options, message = REFUSED[case]
    options = {"label": "hired", "sensitive": ["sex"], **options}
    with pytest.raises(DataError, match=message):
        make_dataset(change(table()), options.pop("label"), options.pop("sensitive"), **options)


class TestPeople:
    """Whoever a figure needs is asked for by figure: a group without positives has a selection rate all the same."""

    def test_rates_that_a_figure_is_made_of_must_exist(self) -> None:
        frame = table()
        made = make_dataset(frame.assign(hired=frame["hired"].where(frame["sex"] == "M", "no")), "hired", "sex")
        for objective in ("equalized_odds_difference", "equal_opportunity_ratio"):
            with pytest.raises(DataError, match=r"sex=F has no positives in the data \(0 positives, \d+ negatives\)"):
                require_people(made, objective)
        for objective in ("demographic_parity_difference", "worst_group_accuracy"):
            require_people(made, objective)

    def test_negatives_are_asked_for_where_false_positives_count(self) -> None:
        frame = table()
        made = make_dataset(frame.assign(hired=frame["hired"].where(frame["sex"] == "M", "yes")), "hired", "sex")
        with pytest.raises(DataError, match="sex=F has no negatives in the data"):
            require_people(made, "equalized_odds_ratio")
        require_people(made, "equal_opportunity_difference")

    def test_every_split_and_every_group_is_looked_at(self) -> None:
        frame = table()
        test = split_rows(len(frame), 42)["test"]
        rows = [row for row in test if frame.loc[row, "race"] == "White"]
        frame.loc[rows, "hired"] = "no"
        made = make_dataset(frame, "hired", ["sex", "race"])
        with pytest.raises(DataError, match=r"in the test split .*so do 1 more: sex=M & race=White"):
            require_people(made, "equalized_odds_difference")

    def test_a_group_without_people_has_no_rate_at_all(self) -> None:
        frame = table()
        frame.loc[split_rows(len(frame), 42)["test"], "sex"] = "M"
        with pytest.raises(DataError, match="sex=F has no people in the test split"):
            require_people(make_dataset(frame, "hired", "sex"), "demographic_parity_difference")

    def test_256_groups_are_compared_and_tiny_ones_named_together(self) -> None:
        n = 256 * 60
        frame = table(n).assign(sex=[f"s{i % 256}" for i in range(n)], hired=np.arange(n) // 256 % 2)
        made = make_dataset(frame, "hired", "sex", drop_sensitive=True)
        assert len(made.group_names) == 256
        np.testing.assert_array_equal(np.bincount(made.groups), np.full(256, 60))
        assert [made.group_names[code] for code in made.groups[:3]] == ["sex=s0", "sex=s1", "sex=s2"]
        (note,) = [note for note in made.notes if "test split" in note]
        assert note.startswith("256 groups are tiny in the test split")
        assert all(f"{name} (" in note for name in made.group_names)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    made = dataset()
    with pytest.raises(DataError, match="need the shapes"):
        Dataset("broken", made.X, made.y[:-1], made.classes, made.groups, ("a",), made.feature_names, made.splits)
    with pytest.raises(DataError, match="names for"):
        Dataset("broken", made.X, made.y, made.classes, made.groups, ("a",), ("x",), made.splits)
