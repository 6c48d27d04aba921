"""Records: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from fairmend.errors import InputError, RunError
from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.masks import Dial, Mask, Site, Space
from fairmend.records import Kind, built, derived, document, plain, read, session, versions, write

KIND = Kind("test result", 2, "result.json", "saved test", "test")


@dataclass(frozen=True)
class Inner:
    value: float
    better: Literal["lower", "higher"] = "lower"


@derived("double")
@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    count: int
    limit: float | None
    inner: Inner
    many: tuple[Inner, ...]
    pair: tuple[int, str]
    by_name: Mapping[str, Inner]
    choice: Literal["a", "b"] | Literal["c"]
    cell: str | int | float | bool | None
    array: npt.NDArray[np.float64]
    path: Path
    space: Space
    mask: Mask
    made: Measurement
    names: frozenset[int] = frozenset()
    free: Any = None
    sure: bool = True
    resolved: int = field(init=False, default=3)

    @property
    def double(self) -> float:
        return 2.0 * self.count


def outer(**changes: Any) -> Outer:
    space = Space(
        (Site("one", 3), Site("two", 2)), max_drop=4, frozen=frozenset({1}), dials=(Dial("shift", -1, 1, 0.1),)
    )
    entries: dict[str, Any] = {
        "name": "x",
        "count": 3,
        "limit": None,
        "inner": Inner(math.nan),
        "many": (Inner(1.0), Inner(2.0, "higher")),
        "pair": (1, "one"),
        "by_name": {"a": Inner(0.5)},
        "choice": "c",
        "cell": 2,
        "array": np.array([1.0, math.nan]),
        "path": Path("/tmp/x"),
        "space": space,
        "mask": space.mask([0, 4], [0.25]),
        "made": Measurement(0.1, math.nan, (1.0, 2.0), 7),
        "names": frozenset({2, 1}),
    }
    return Outer(**entries | changes)


def test_a_record_is_read_back_from_strict_json():
    text = json.dumps(plain(outer()), allow_nan=False)
    found = built(json.loads(text), Outer)
    expected = outer()
    for name in (
        "name",
        "count",
        "limit",
        "many",
        "pair",
        "by_name",
        "choice",
        "cell",
        "path",
        "space",
        "mask",
        "made",
    ):
        assert getattr(found, name) == getattr(expected, name), name
    assert math.isnan(found.inner.value)
    np.testing.assert_array_equal(found.array, expected.array)
    assert (found.names, found.double, type(found.many)) == ({1, 2}, 6.0, tuple)


def test_what_json_does_not_know_is_written_as_null_and_the_rest_plainly():
    found = plain(
        {
            1: np.float32(0.5),
            "n": np.int64(3),
            "bad": [math.inf, np.nan],
            "b": np.bool_(True),
            "t": (1,),
            "p": Path("a"),
        }
    )
    assert found == {"1": 0.5, "n": 3, "bad": [None, None], "b": True, "t": [1], "p": "a"}
    assert plain(outer())["mask"] == {"units": 5, "dropped": [0, 4], "dials": [0.25]}
    assert plain(outer())["double"] == 6.0
    assert "resolved" not in plain(outer())
    figures = Figures(Figure("b", "lower", "p"), Figure("u", "higher", "q"), ("x",))
    assert built(plain(figures), Figures) == figures


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("count", "3", "count"),
        ("count", True, "count"),
        ("count", 3.0, "count"),
        ("count", None, "count"),
        ("name", 3, "name"),
        ("limit", "3", "limit"),
        ("inner", {"value": "x"}, "inner.value"),
        ("inner", {"value": 1.0, "better": "sideways"}, "inner.better"),
        ("inner", {"value": 1.0, "other": 1}, "other"),
        ("inner", {}, "value"),
        ("inner", [], "inner"),
        ("many", "ab", "many"),
        ("many", {"a": 1}, "many"),
        ("pair", [1, "one", 2], "pair"),
        ("by_name", [], "by_name"),
        ("choice", "d", "choice"),
        ("choice", [], "choice"),
        ("cell", [], "cell"),
        ("array", "x", "array"),
        ("array", ["x"], "array"),
        ("path", 3, "path"),
        ("space", {"sites": []}, "space"),
        ("space", {"sites": [], "min_drop": 0, "max_drop": 0, "frozen": [], "dials": []}, "at least one site"),
        ("mask", {"units": 3, "dropped": ["0"], "dials": []}, "mask"),
        ("sure", 1, "sure"),
    ],
)
def test_an_entry_of_another_type_is_named(entry: str, value: Any, said: str):
    with pytest.raises(ValueError, match=said) as caught:
        built(plain(outer()) | {entry: value}, Outer)
    assert "\n" not in str(caught.value)


def test_what_the_record_itself_refuses_is_said():
    @dataclass(frozen=True)
    class Limited:
        size: int

        def __post_init__(self) -> None:
            if self.size < 1:
                raise InputError(f"size must be at least 1, got {self.size}")

    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        built({"size": 0}, Limited)
    with pytest.raises(ValueError, match="Limited"):
        built([], Limited)


def test_a_file_says_what_it_is_and_is_read_as_that_only(tmp_path: Path):
    path = tmp_path / KIND.file
    write(path, KIND, {"value": math.nan, "versions": versions("numpy"), "session": session({"x": 1}, "fairmend x")})
    content = read(path, Kind("other"), KIND)
    assert list(content)[:3] == ["schema", "schema_version", "value"]
    assert (content["schema"], content["value"]) == ("fairmend test result", None)
    assert {"fairmend", "python", "numpy"} == set(content["versions"])
    with pytest.raises(RunError, match="is not the result of a fairmend other"):
        read(path, Kind("other"))
    with pytest.raises(RunError, match="has schema version 2, this fairmend reads 3"):
        read(path, Kind("test result", 3))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "cannot be read .* test again"),
        (b"[]", "is not the result of"),
        (b'{"schema": 3}', "is not the result of"),
        (b'{"kind": "tabular compare"}', "written by fairmend 0.1.0"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(RunError, match=said):
        read(tmp_path / "result.json", KIND)


def test_a_missing_file_is_explained(tmp_path: Path):
    with pytest.raises(RunError, match="holds no saved test"):
        read(tmp_path / "result.json", KIND)
    (tmp_path / "run.sqlite").touch()
    with pytest.raises(RunError, match=r"has not finished .*fairmend resume"):
        read(tmp_path / "result.json", KIND)


def test_a_document_ends_in_a_newline():
    assert document({"a": "é"}) == '{\n  "a": "é"\n}\n'.encode()
