"""The parts of a long computation: made once, given back bit for bit."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairmend.runs.parts import Arrays, Keep, Parts, keep_nothing, within
from fairmend.runs.store import Store

ANY_ARRAY = arrays.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.bool_]), arrays.array_shapes(min_dims=0, min_side=0)
)


class Maker:
    """Makes a part and counts how often."""

    def __init__(self, array: npt.ArrayLike = 1.0) -> None:
        self.array = np.asarray(array)
        self.made = 0

    def __call__(self) -> Arrays:
        self.made += 1
        return {"array": self.array}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(array=ANY_ARRAY)
def test_a_part_comes_back_bit_for_bit(tmp_path: Path, array: npt.NDArray[np.float64]) -> None:
    path = tmp_path / "run.sqlite"
    path.unlink(missing_ok=True)
    maker = Maker(array)
    with Store.create(path, {}) as store:
        assert Parts(store, {})("one", maker)["array"] is array
    with Store.open(path) as store:
        found = Parts(store, {})("one", maker)["array"]
    assert maker.made == 1
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == np.ascontiguousarray(array).tobytes()
    found[...] = 0  # is the caller's own


def test_only_parts_of_equal_work_and_name_are_taken(tmp_path: Path) -> None:
    maker = Maker()
    with Store.create(tmp_path / "run.sqlite", {}) as store:
        assert not store.holds_results
        Parts(store, {"seed": 1})("one", maker)
        assert store.holds_results
        Parts(store, {"seed": 2})("one", maker)
        Parts(store.section("other"), {"seed": 1})("two", maker)
        assert maker.made == 3
        Parts(store.section("other"), {"seed": 1})("one", maker)
        assert maker.made == 3


def test_stages_may_name_their_parts_alike(tmp_path: Path) -> None:
    maker = Maker()
    with Store.create(tmp_path / "run.sqlite", {}) as store:
        keep = Parts(store, {})
        for stage in ("first", "second"):
            within(keep, stage)("one", maker)
    assert maker.made == 2


@pytest.mark.parametrize("keep", [keep_nothing, within(keep_nothing, "stage")])
def test_without_a_store_every_part_is_made(keep: Keep) -> None:
    maker = Maker()
    for _ in range(2):
        assert keep("one", maker)["array"] == 1.0
    assert maker.made == 2
