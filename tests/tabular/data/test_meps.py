"""MEPS rows made up for the test: the selection and encoding of the public benchmark."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairmend.errors import ArtifactError, DataError
from fairmend.tabular.data.layouts import RAW_TABLES
from fairmend.tabular.data.presets import encoded, load_preset
from fairmend.tabular.data.sheets import Sheet

MEPS = RAW_TABLES["meps16"]
RENAMED = {"FTSTU": "FTSTU53X", "MARRY": "MARRY53X", "POVCAT": "POVCAT16", "INSCOV": "INSCOV16"}
ROUND = (
    *("ACTDTY", "HONRDC", "RTHLTH", "MNHLTH", "CHBRON", "JTPAIN", "PREGNT", "WLKLIM", "ACTLIM", "SOCLIM", "COGLIM"),
    *("EMPST", "REGION"),
)
YES_NO = (
    *("HIBPDX", "CHDDX", "ANGIDX", "MIDX", "OHRTDX", "STRKDX", "EMPHDX", "CHOLDX", "CANCERDX", "DIABDX", "ARTHDX"),
    *("ADHDADDX", "DFHEAR42", "DFSEE42", "ADSMOK42"),
)


def people(n: int = 2000) -> pd.DataFrame:
    """A file as AHRQ would give it, all answers usable."""
    rng = np.random.default_rng(0)
    columns: dict[str, np.ndarray] = {
        "DUPERSID": np.arange(n),
        "PANEL": np.full(n, 21),
        "RACEV2X": rng.integers(1, 7, n),
        "HISPANX": rng.integers(1, 3, n),
        "AGE53X": rng.integers(0, 86, n),
        "SEX": rng.integers(1, 3, n),
        "EDUCYR": rng.integers(-1, 18, n),
        "HIDEG": rng.integers(-1, 9, n),
        "ARTHTYPE": rng.choice([-1, 1, 2, 3], n),
        "ASTHDX": rng.integers(1, 3, n),
        "PCS42": rng.normal(50, 10, n).round(2),
        "MCS42": rng.normal(50, 10, n).round(2),
        "K6SUM42": rng.integers(-9, 25, n),
        "PHQ242": rng.integers(-1, 7, n),
        "PERWT16F": rng.random(n) * 9999,
    }
    for name in YES_NO:
        columns[name] = rng.choice([-1, 1, 2], n)
    for name in ROUND:
        columns[f"{name}53"] = rng.choice([1, 2], n)
    for name, ahrq in RENAMED.items():
        columns[ahrq] = rng.integers(1, 11 if name == "MARRY" else 4, n)
    for name in ("OBTOTV16", "OPTOTV16", "ERTOT16", "IPNGTD16", "HHTOTD16"):
        columns[name] = rng.integers(0, 5, n)
    return pd.DataFrame(columns)


def saved(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path / "h192.csv", index=False)
    return path / "h192.csv"


def test_there_are_the_138_features_in_the_benchmarks_order(tmp_path: Path) -> None:
    data = load_preset("meps16-race", saved(tmp_path, people()))
    assert data.n_features == 138
    assert data.feature_names[:9] == (
        *("AGE", "RACE", "PCS42", "MCS42", "K6SUM42"),
        *("REGION=1", "REGION=2", "REGION=3", "REGION=4"),
    )
    assert data.feature_names[-3:] == ("INSCOV=1", "INSCOV=2", "INSCOV=3")
    train = data.X[data.splits["train"]].astype(np.float64)
    spread = train.std(axis=0)
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
    assert (np.isclose(spread, 1, atol=1e-4) | (spread == 0)).all()


def test_labels_and_groups_follow_visits_and_origin(tmp_path: Path) -> None:
    raw = people()
    data = load_preset("meps16-race", saved(tmp_path, raw))
    visits = raw[["OBTOTV16", "OPTOTV16", "ERTOT16", "IPNGTD16", "HHTOTD16"]].sum(axis=1)
    np.testing.assert_array_equal(data.y, visits >= 10)
    np.testing.assert_array_equal(data.groups, (raw["RACEV2X"] == 1) & (raw["HISPANX"] == 2))
    assert data.group_names == ("not White", "White")


def test_one_hot_columns_are_those_of_pandas(tmp_path: Path) -> None:
    raw = people()
    frame = MEPS.read(saved(tmp_path, raw))
    everyone = np.arange(len(frame))
    columns = encoded(MEPS, Sheet(frame), everyone)
    for name, ahrq in {"MARRY": "MARRY53X", "PHQ242": "PHQ242", "REGION": "REGION53"}.items():
        for level, dummy in pd.get_dummies(raw[ahrq]).items():
            np.testing.assert_array_equal(columns[f"{name}={level}"] > 0, dummy)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("PANEL", 20),
        ("AGE53X", -1),
        ("REGION53", -1),
        ("MARRY53X", -7),
        ("ASTHDX", -1),
        ("RTHLTH53", -8),
        ("EDUCYR", -9),
        ("HIDEG", -7),
        ("POVCAT16", -9),
        ("PCS42", np.nan),
    ],
)
def test_rows_without_usable_answers_are_removed(tmp_path: Path, column: str, value: float) -> None:
    raw = people(100).astype({column: float})
    raw.loc[10:19, column] = value
    kept = MEPS.read(saved(tmp_path, raw))
    expected = raw.drop(index=range(10, 20))
    np.testing.assert_array_equal(kept["MCS42"], expected["MCS42"])


@pytest.mark.parametrize("value", [-1, -9])
def test_scores_without_an_answer_are_kept_as_in_the_benchmark(tmp_path: Path, value: int) -> None:
    raw = people(100)
    raw.loc[5, "K6SUM42"] = value
    assert MEPS.read(saved(tmp_path, raw))["K6SUM42"].iloc[5] == value


def test_stata_gives_what_csv_gives(tmp_path: Path) -> None:
    raw = people(200)
    raw.rename(columns=str.lower).to_stata(tmp_path / "h192.dta", write_index=False)
    pd.testing.assert_frame_equal(
        MEPS.read(tmp_path / "h192.dta"), MEPS.read(saved(tmp_path, raw)), check_dtype=False, atol=1e-5
    )


def test_zeros_of_a_sas_transport_file_are_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = people(200)
    as_pandas_reads = raw.astype(float).replace(0.0, 5.397605346934028e-79)
    monkeypatch.setattr(pd, "read_sas", lambda path, format: as_pandas_reads)
    (tmp_path / "h192.ssp").touch()
    expected = MEPS.read(saved(tmp_path, raw))
    pd.testing.assert_frame_equal(MEPS.read(tmp_path / "h192.ssp"), expected, check_dtype=False)


def test_without_the_file_the_error_says_where_to_get_it_and_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path))
    with pytest.raises(ArtifactError) as caught:
        load_preset("meps16-race")
    for part in ("AHRQ", "HC-192", "h192.ssp", "h192.csv", str(tmp_path / "tabular")):
        assert part in str(caught.value)


def test_a_copy_in_the_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path))
    (tmp_path / "tabular").mkdir()
    saved(tmp_path / "tabular", people())
    assert load_preset("meps16-race").n_features == 138


def test_a_file_of_another_year_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable rows of panel 21"):
        MEPS.read(saved(tmp_path, people(50).assign(PANEL=19)))
    with pytest.raises(DataError, match=r"lacks the MEPS columns \['OBTOTV16'\]"):
        MEPS.read(saved(tmp_path, people(50).rename(columns={"OBTOTV16": "OBTOTV15"})))


@pytest.mark.parametrize("name", ["h192.ssp", "h192.dta", "h192.csv"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x00\x01 nonsense")
    with pytest.raises(DataError, match="h192"):
        MEPS.read(tmp_path / name)


def test_an_answer_that_the_benchmark_does_not_know_is_named(tmp_path: Path) -> None:
    raw = people()
    raw.loc[3, "REGION53"] = 7
    with pytest.raises(DataError, match="column 'REGION' has the values '7'"):
        load_preset("meps16-race", saved(tmp_path, raw))
