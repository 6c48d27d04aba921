"""Files that people and programs write: encodings, wide headers, named indices, and files that are made to harm."""

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairmend.errors import DataError
from fairmend.tabular.data import delimited, tables
from fairmend.tabular.data.datasets import make_dataset
from fairmend.tabular.data.tables import load_table

CSV = "größe,b,sex\n" + "1.5,2,Frau\n2,3,Mann\n" * 30


class TestText:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_unicode_with_a_mark_is_read(self, tmp_path: Path, encoding: str, packed: bool) -> None:
        content = CSV.encode(encoding)
        (tmp_path / "t.csv").write_bytes(gzip.compress(content) if packed else content)
        frame = load_table(tmp_path / "t.csv")
        assert list(frame.columns) == ["größe", "b", "sex"]
        assert frame.shape == (60, 3)

    @pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le"])
    def test_other_encodings_are_refused_with_what_to_do(self, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "t.csv").write_bytes(CSV.encode(encoding))
        with pytest.raises(DataError, match=r"not UTF-8.*Save it as UTF-8"):
            load_table(tmp_path / "t.csv")

    @pytest.mark.parametrize("width", [12, 120])
    @pytest.mark.parametrize("mark", [",", ";", "\t"])
    def test_wide_headers_are_read(self, tmp_path: Path, width: int, mark: str) -> None:
        """Headers of 144,000 and 1.3 million characters: beyond csv's largest field, and beyond 1 MiB."""
        names = [f"{number:0{width}}" for number in range(11_000)]
        (tmp_path / "t.csv").write_text(f"{mark.join(names)}\n{mark.join(['1'] * len(names))}\n")
        assert list(load_table(tmp_path / "t.csv").columns) == names

    def test_a_first_line_without_end_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delimited, "_FIRST_LINE", 1000)
        (tmp_path / "t.csv").write_text("a," * 1000)
        with pytest.raises(DataError, match="first line has more than 1,000 characters"):
            load_table(tmp_path / "t.csv")

    @pytest.mark.parametrize("honest", [True, False])
    def test_a_bomb_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest: bool) -> None:
        monkeypatch.setattr(delimited, "UNPACKED", 1 << 20)
        packed = bytearray(gzip.compress(b"a,b\n" + b"1,2\n" * (1 << 21)))
        if not honest:
            packed[-4:] = bytes(4)  # the size that a .gz says it has
        (tmp_path / "t.csv.gz").write_bytes(packed)
        with pytest.raises(DataError, match=r"unpacks to more than .* bytes.*unpack it first"):
            load_table(tmp_path / "t.csv.gz")

    @pytest.mark.parametrize(
        "values",
        [
            ["007"] * 40 + ["x"],
            ["1"] * 30 + ["2.5"] * 10,
            [""] * 40 + ["x"],
            ["True"] * 30 + ["1"] * 30,
            ["1"] * 30 + ["?"] + ["1e3"] * 30,
            ["False", "True"] * 30,
        ],
    )
    def test_reading_in_pieces_gives_what_one_reading_gives(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[str]
    ) -> None:
        (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{value},1\n" for value in values))
        whole = load_table(tmp_path / "t.csv")
        monkeypatch.setattr(delimited, "_PIECE_CELLS", 20)
        pd.testing.assert_frame_equal(load_table(tmp_path / "t.csv"), whole, check_dtype=False)

    def test_a_first_column_without_a_name_is_no_feature_and_said(self, tmp_path: Path) -> None:
        """As DataFrame.to_csv writes row numbers."""
        (tmp_path / "t.csv").write_text(pd.DataFrame({"a": range(60), "sex": ["F", "M"] * 30, "y": YES}).to_csv())
        made = make_dataset(load_table(tmp_path / "t.csv"), "y", "sex", encode="none", drop_sensitive=True)
        assert made.feature_names == ("a",)
        assert "'Unnamed: 0' has no name of its own and is no feature" in made.notes[0]
        named = make_dataset(load_table(tmp_path / "t.csv"), "y", "sex", encode="none", features=["Unnamed: 0", "a"])
        assert named.feature_names == ("Unnamed: 0", "a")


YES = [0, 0, 1, 1] * 15


class Yes(pa.ExtensionType):
    """Yes or no in a byte."""

    def __init__(self) -> None:
        super().__init__(pa.int8(), "fairmend.yes")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "Yes":
        return cls()


class TestParquet:
    @pytest.fixture
    def frame(self) -> pd.DataFrame:
        return pd.DataFrame({"a": np.arange(60.0), "sex": ["F", "M"] * 30, "race": ["x", "x", "y"] * 20, "y": YES})

    def test_named_index_levels_are_columns_but_no_features(self, tmp_path: Path, frame: pd.DataFrame) -> None:
        """AIF360's scikit-learn data sets keep the sensitive columns in the index."""
        frame.set_index(["sex", "race"]).to_parquet(tmp_path / "t.parquet")
        made = make_dataset(load_table(tmp_path / "t.parquet"), "y", ["sex", "race"], encode="none")
        assert made.feature_names == ("a",)
        assert made.group_names[0] == "sex=F & race=x"
        assert "index level 'sex' is a column, but no feature" in made.notes[0]

    def test_a_level_beside_the_same_column_is_that_column(self, tmp_path: Path, frame: pd.DataFrame) -> None:
        frame.set_index("sex", drop=False).to_parquet(tmp_path / "t.parquet")
        made = make_dataset(load_table(tmp_path / "t.parquet"), "y", "sex", features=["a"])
        assert made.group_names == ("sex=F", "sex=M")
        frame.set_index(pd.Index(YES, name="sex")).to_parquet(tmp_path / "t.parquet")
        with pytest.raises(DataError, match="'sex' with different values"):
            make_dataset(load_table(tmp_path / "t.parquet"), "y", "sex")

    def test_columns_of_types_that_pandas_lacks_are_read_as_stored(self, tmp_path: Path, frame: pd.DataFrame) -> None:
        """As JSON is in DuckDB's files, and one-byte booleans in Arrow's."""
        pa.register_extension_type(Yes())
        try:
            table = pa.Table.from_pandas(frame.set_index("sex"))
            table = table.append_column("yes", pa.ExtensionArray.from_storage(Yes(), pa.array([1, 0] * 30, pa.int8())))
            pq.write_table(table, tmp_path / "t.parquet")
            loaded = load_table(tmp_path / "t.parquet")
        finally:
            pa.unregister_extension_type("fairmend.yes")
        assert loaded["yes"].tolist() == [1, 0] * 30
        made = make_dataset(loaded, "y", "sex", features=["yes", "a"], encode="none")
        np.testing.assert_array_equal(made.X[:, 0], [1, 0] * 30)

    def test_periods_and_intervals_of_pandas_stay_what_they_are(self, tmp_path: Path, frame: pd.DataFrame) -> None:
        frame = frame.assign(bin=pd.cut(frame["a"], 3))
        frame["bin"] = pd.arrays.IntervalArray(frame["bin"])
        frame.to_parquet(tmp_path / "t.parquet")
        pd.testing.assert_series_equal(load_table(tmp_path / "t.parquet")["bin"], frame["bin"])

    def test_names_of_rows_are_said_to_be_left_out(self, tmp_path: Path, frame: pd.DataFrame) -> None:
        frame.set_index(pd.Index([f"person {row}" for row in range(60)])).to_parquet(tmp_path / "t.parquet")
        made = make_dataset(load_table(tmp_path / "t.parquet"), "y", "sex", features=["a"])
        assert "index of the table ('person 0' ...) has no name and was left out" in made.notes[0]

    @pytest.mark.parametrize(
        "metadata", [b"[" * 100_000, b'{"index_columns": 3}', b'{"index_columns": ["no"], "columns": [{}]}']
    )
    def test_metadata_that_are_none_are_refused(self, tmp_path: Path, frame: pd.DataFrame, metadata: bytes) -> None:
        table = pa.Table.from_pandas(frame).replace_schema_metadata({b"pandas": metadata})
        pq.write_table(table, tmp_path / "t.parquet")
        with pytest.raises(DataError, match="not a readable Parquet table"):
            load_table(tmp_path / "t.parquet")

    def test_few_bytes_that_are_many_rows_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pq.write_table(pa.table({"a": np.zeros(1 << 20)}), tmp_path / "t.parquet")
        assert len(load_table(tmp_path / "t.parquet")) == 1 << 20
        monkeypatch.setattr("fairmend.tabular.data.tables.UNPACKED", 1 << 20)
        with pytest.raises(DataError, match=r"1,048,576 rows of 1 columns, out of all proportion"):
            load_table(tmp_path / "t.parquet")


def _npy(shape: Any, descr: str = "<f8", content: bytes = bytes(80), version: int = 1) -> bytes:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2, "little") + header + content


def _saved(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


_FINE = {"X.npy": _saved(np.eye(5)), "y.npy": _saved(np.arange(5))}
HOSTILE: dict[str, tuple[dict[str, bytes], str]] = {
    "a member that is text": ({"readme.txt": b"hello"}, "'readme.txt' .* is not an array"),
    "a member that only looks like an array": ({"z.npy": b"hello"}, r"'z.npy' .* is not an array"),
    "names without a dimension": ({"feature_names.npy": _saved(np.array("a"))}, r"has the shape \(\) for 5 columns"),
    "names with two": ({"feature_names.npy": _saved(np.array([["a"] * 5]))}, r"has the shape \(1, 5\)"),
    "labels without a dimension": ({"y.npy": _saved(np.array(1))}, r"'y' .* has shape \(\)"),
    "features without a dimension": ({"X.npy": _saved(np.array(1.0))}, r"X in .* has shape \(\)"),
    "a huge shape": ({"X.npy": _npy((2**60, 5))}, "declares the shape .* it is damaged"),
    "no rows of a huge width": ({"X.npy": _npy((0, 2**62), content=b"")}, "cannot be read|needs shape"),
    "no letters of a huge length": ({"y.npy": _npy((2**60,), "<U0", b"")}, r"'y' .* has shape"),
    "a negative shape": ({"X.npy": _npy((-1, 5))}, "it is damaged"),
    "a shape of no numbers": ({"X.npy": _npy((2.5, 5))}, "shape is not valid"),
    "too many dimensions": ({"X.npy": _npy((1,) * 70)}, "cannot be read"),
    "a header without end": (
        {"X.npy": b"\x93NUMPY\x01\0" + (9000).to_bytes(2, "little") + b"(" * 9000},
        "cannot be read",
    ),
    "an array cut short": ({"X.npy": _FINE["X.npy"][:-9]}, "cannot be read"),
    "Python objects": ({"y.npy": _saved(np.array([{}] * 5, dtype=object))}, "holds Python objects, which are never"),
    "records": ({"y.npy": _saved(np.zeros(5, dtype="i4,f4"))}, "use numbers or fixed-width strings"),
    "another version": ({"X.npy": _npy((2, 5), version=9)}, "version"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_npz_made_to_harm_is_refused_before_memory_is_taken(tmp_path: Path, case: str) -> None:
    members, message = HOSTILE[case]
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        for name, content in (_FINE | members).items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match=message):
        load_table(tmp_path / "t.npz")


def test_an_npz_that_unpacks_out_of_proportion_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "t.npz", X=np.zeros((1 << 18, 1)), y=np.zeros(1 << 18))
    assert load_table(tmp_path / "t.npz").shape == (1 << 18, 2)
    monkeypatch.setattr(tables, "UNPACKED", 1 << 20)
    with pytest.raises(DataError, match="out of all proportion"):
        load_table(tmp_path / "t.npz")
