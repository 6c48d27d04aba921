"""Every collection of measurements, in memory, in a run's file or read back from it, behaves the same."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.masks import Dial, Mask, Site, Space
from fairmend.runs.collection import Collection
from fairmend.runs.export import measurement_frame
from fairmend.runs.store import Store

SPACE = Space((Site("layer", 300),), dials=(Dial("shift", -1.0, 1.0, 0.1),))
MASKS = [SPACE.mask(units, [dial]) for units, dial in (([299], 0.0), ([], 0.5), ([0, 8, 17], -0.25), ([], 0.0))]
MADE = [
    Measurement(0.125, 0.875, (1.0, math.nan), 40, 0.5, math.nan, 0.25),
    Measurement(math.nan, math.inf, (-0.0, 1e300), 0),
    Measurement(1 / 3, -math.inf, (math.inf, 5e-324), 2**40),
    Measurement(0.0, 1.0, (0.0, 0.0)),
]


class Unmeasurable:
    """An evaluator that is never asked."""

    space = SPACE
    figures = Figures(Figure("bias", "lower", "none"), Figure("utility", "higher", "none"), ("first", "second"))

    def fingerprint(self) -> dict[str, object]:
        return {}

    def measure(self, masks: object) -> list[Measurement]:
        raise AssertionError


def in_memory(path: Path) -> Iterator[Collection]:
    collection = Collection(SPACE, Unmeasurable.figures)
    collection.put(MASKS, MADE)
    yield collection


def in_a_file(path: Path) -> Iterator[Collection]:
    with Store.create(path, {}) as store:
        context = store.context("search", Unmeasurable())
        context.put(MASKS, MADE)
        yield context


def read_back(path: Path) -> Iterator[Collection]:
    for _ in in_a_file(path):
        pass
    with Store.open(path) as store:
        yield store.context("search", Unmeasurable())


def read_only(path: Path) -> Iterator[Collection]:
    for _ in in_a_file(path):
        pass
    with Store.open(path, read_only=True) as store:
        yield store.context("search")


@pytest.fixture(params=[in_memory, in_a_file, read_back, read_only])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    make: Callable[[Path], Iterator[Collection]] = request.param
    yield from make(tmp_path / "run.sqlite")


def test_what_was_put_is_found_exactly(collection: Collection) -> None:
    for mask, made in zip(MASKS, MADE, strict=True):
        found = collection.get(mask)
        assert found is not None
        assert found == made
        assert found.seconds == made.seconds
        assert collection[mask] is found
    assert collection.get(Mask(1, 300, (0.0,))) is None


def test_order_is_the_order_of_measuring(collection: Collection) -> None:
    assert len(collection) == 4
    assert [mask for mask, _ in collection] == MASKS


def test_a_table_holds_the_same_figures(collection: Collection) -> None:
    frame = measurement_frame(collection, parts=True)
    assert frame["dropped"].tolist() == [list(mask.units()) for mask in MASKS]
    dials = [dial.name for dial in collection.space.dials]
    np.testing.assert_array_equal(frame[dials], [mask.dials for mask in MASKS])
    for name in ("bias", "utility", "bias_se", "utility_se", "n", "seconds"):
        np.testing.assert_array_equal(frame[name], [getattr(made, name) for made in MADE])
    np.testing.assert_array_equal(frame.iloc[:, -len(MADE[0].parts) :], [made.parts for made in MADE])
