"""The presets' tables in the layouts in which people get them: every one is the same data set as UCI's file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairmend.errors import DataError
from fairmend.tabular.data.layouts import RAW_TABLES, TWO_YEARS
from fairmend.tabular.data.presets import load_preset

N = 300
RNG = np.random.default_rng(0)
GERMAN = RAW_TABLES["german"]


def categories(table: str) -> dict[str, tuple[str, ...]]:
    """The levels of the columns that are encoded by their levels."""
    return {name: tuple(how) for name, how in RAW_TABLES[table].encoding.items() if not isinstance(how, str)}


def column(name: str, levels: dict[str, tuple[str, ...]]) -> np.ndarray:
    return RNG.choice(levels[name], N) if name in levels else RNG.integers(1, 60, N)


def same(name: str, files: dict[str, pd.DataFrame | str], folder: Path) -> None:
    """All files are read as the same data set."""
    found = set()
    for file, content in files.items():
        path = folder / file
        if isinstance(content, str):
            path.write_text(content)
        elif path.suffix == ".parquet":
            content.to_parquet(path)
        else:
            content.to_csv(path, index=False)
        found.add(str(load_preset(name, path).fingerprint()))
    assert len(found) == 1


@pytest.fixture(scope="module")
def adult() -> pd.DataFrame:
    """As at UCI: "?" for what is missing."""
    levels = categories("adult") | {
        "occupation": tuple(RAW_TABLES["adult"].codes["occupation"]),
        "education": ("HS-grad",),
        "native_country": ("Cuba",),
        "income": ("<=50K", ">50K"),
    }
    frame = pd.DataFrame({name: column(name, levels) for name in RAW_TABLES["adult"].columns})
    return frame.replace("Missing", "?")


def test_adult_of_uci_openml_fairlearn_and_kaggle(adult: pd.DataFrame, tmp_path: Path) -> None:
    hyphens = adult.rename(columns=lambda name: name.replace("_", "-")).rename(columns={"income": "class"})
    missing = hyphens.replace("?", np.nan)
    same(
        "adult-sex",
        {
            "adult.data": adult.to_csv(index=False, header=False),
            "kaggle.csv": adult.rename(columns={"sex": "gender", "education_num": "educational-num"}),
            "dots.csv": adult.rename(columns=lambda name: name.replace("_", ".")),
            "openml.csv": missing,
            "openml.parquet": missing,
            "categories.parquet": missing.astype(dict.fromkeys(missing.select_dtypes(exclude="number"), "category")),
            "uci.csv": missing.rename(columns={"class": "income"}).assign(income=adult["income"] + "."),
        },
        tmp_path,
    )


def test_only_what_has_a_level_for_it_may_be_missing(adult: pd.DataFrame, tmp_path: Path) -> None:
    adult.assign(sex=adult["sex"].where(adult.index > 2)).to_csv(tmp_path / "adult.csv", index=False)
    with pytest.raises(DataError, match="column 'sex' has 3 missing values"):
        load_preset("adult-sex", tmp_path / "adult.csv")


def test_bank_of_uci_its_package_and_openml(tmp_path: Path) -> None:
    plain = ("default", "housing", "loan", "y")
    levels = categories("bank") | dict.fromkeys(plain, ("no", "yes"))
    frame = pd.DataFrame({name: column(name, levels) for name in RAW_TABLES["bank"].columns}).assign(
        age=RNG.integers(18, 90, N)
    )
    anonymous = frame.assign(y=frame["y"].map({"no": 1, "yes": 2}))
    unknown = ["job", "education", "contact", "poutcome"]
    same(
        "bank-age",
        {
            "bank-full.csv": frame.to_csv(index=False, sep=";"),
            "bank.parquet": frame,
            "package.csv": frame.rename(columns={"day": "day_of_week"}).replace(
                {name: {"unknown": None} for name in unknown}
            ),
            "openml.csv": anonymous.set_axis([*(f"V{at}" for at in range(1, 17)), "Class"], axis=1),
        },
        tmp_path,
    )


def test_default_of_uci_its_package_its_spreadsheet_and_openml(tmp_path: Path) -> None:
    levels = {"SEX": (1, 2), "EDUCATION": (1, 2, 3), "MARRIAGE": (1, 2), "label": (0, 1)}
    frame = pd.DataFrame({name: column(name, levels) for name in RAW_TABLES["default"].columns})
    named = frame.rename(columns={"label": "default.payment.next.month"})
    anonymous = [*(f"X{at}" for at in range(1, 24)), "Y"]
    spreadsheet = pd.concat([pd.DataFrame([list(named.columns)]), frame.set_axis(range(24), axis=1)]).astype(str)
    same(
        "default-sex",
        {
            "UCI_Credit_Card.csv": named.assign(ID=range(N)),
            "pay1.csv": named.rename(columns={"PAY_0": "PAY_1"}),
            "package.csv": frame.set_axis(anonymous, axis=1),
            "openml.parquet": frame.set_axis([name.lower() for name in anonymous], axis=1),
            "spreadsheet.csv": spreadsheet.set_axis(anonymous, axis=1),
        },
        tmp_path,
    )


def test_german_credit_of_uci_its_package_and_openml(tmp_path: Path) -> None:
    frame = pd.DataFrame({name: column(name, categories("german") | {"credit": ("1", "2")}) for name in GERMAN.columns})
    theirs = {own: name for name, own in GERMAN.aliases.items()}
    words = {
        theirs.get(own, own): frame[own].map({code: word for word, code in GERMAN.codes[own].items()})
        if own in GERMAN.codes
        else frame[own]
        for own in GERMAN.columns
    }
    quoted = pd.DataFrame(words).replace({"checking_status": {"<0": "'<0'", "no checking": "'no checking'"}})
    same(
        "german-sex",
        {
            "german.data": frame.to_csv(index=False, header=False, sep=" "),
            "package.csv": frame.set_axis([*(f"Attribute{at}" for at in range(1, 21)), "class"], axis=1),
            "german.parquet": frame,
            "credit-g.parquet": pd.DataFrame(words),
            "credit-g.csv": quoted,
        },
        tmp_path,
    )


def test_words_of_openmls_credit_cover_every_code_of_uci() -> None:
    codes = {own: set(words.values()) for own, words in GERMAN.codes.items()}
    assert codes.pop("credit") == {"1", "2"}
    assert {name: set(levels) for name, levels in categories("german").items()} == codes


def test_compas_two_years_from_parquet(tmp_path: Path) -> None:
    ages = ("Less than 25", "25 - 45", "Greater than 45")
    levels = {"sex": ("Male", "Female"), "age_cat": ages, "race": ("Caucasian", "Other"), "c_charge_degree": ("F", "M")}
    levels |= dict.fromkeys(("is_recid", "is_violent_recid", "two_year_recid"), (0, 1))
    frame = pd.DataFrame({name: column(name, levels) for name in dict.fromkeys(TWO_YEARS.values())})
    same("compas-sex", {"two.csv": frame, "two.parquet": frame}, tmp_path)
