"""The file of a run: what goes in comes out, and what cannot work is refused with a remedy."""

import json
import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_runs import DIALLED, FIGURES, SPACE, ToyEvaluator

from fairmend.errors import InputError, RunError
from fairmend.evaluation import Measurement
from fairmend.masks import Mask, Site, Space
from fairmend.runs.store import Store

HEADER = {"kind": "toy", "settings": {"seed": 1}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def measured(store: Store, *unit_sets: list[int], name: str = "search") -> None:
    evaluator = ToyEvaluator()
    masks = [SPACE.mask(units) for units in unit_sets]
    store.context(name, evaluator).put(masks, evaluator.measure(masks))


numbers = st.floats(width=64)
measurements = st.builds(
    Measurement,
    bias=numbers,
    utility=numbers,
    parts=st.tuples(numbers, numbers),
    n=st.integers(0, 2**40),
    bias_se=numbers,
    utility_se=numbers,
    seconds=st.floats(0, 1e6),
)
dialled_masks = st.builds(
    lambda bits, dial: Mask(bits, DIALLED.n_units, (dial,)), st.integers(0, 2**16 - 1), st.floats(-1, 1)
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(dialled_masks, measurements, max_size=8))
def test_every_figure_comes_back_as_it_went_in(tmp_path: Path, made: dict[Mask, Measurement]) -> None:
    path = tmp_path / f"{os.urandom(8).hex()}.sqlite"
    evaluator = ToyEvaluator(DIALLED)
    with Store.create(path, HEADER) as store:
        store.context("search", evaluator).put(list(made), list(made.values()))
    with Store.open(path) as store:
        back = list(store.context("search", evaluator))
    assert [mask for mask, _ in back] == list(made)
    for (_, found), expected in zip(back, made.values(), strict=True):
        assert found == expected
        assert found.seconds == expected.seconds


def test_numpy_numbers_are_kept_as_plain_ones(path: Path) -> None:
    odd = Measurement(np.float32(0.5), np.float64(0.25), (np.float32(1), np.int64(2)), np.int64(3))  # type: ignore[arg-type]
    with Store.create(path, HEADER) as store:
        store.context("search", ToyEvaluator()).put([SPACE.mask([1])], [odd])
    with Store.open(path) as store:
        assert store.context("search")[SPACE.mask([1])] == Measurement(0.5, 0.25, (1.0, 2.0), 3)


def test_a_mask_keeps_its_first_measurement(path: Path) -> None:
    mask = SPACE.mask([3])
    with Store.create(path, HEADER) as store:
        context = store.context("search", ToyEvaluator())
        context.put([mask, mask], [Measurement(1.0, 1.0, (0.0, 0.0)), Measurement(2.0, 2.0, (0.0, 0.0))])
        context.put([mask], [Measurement(3.0, 3.0, (0.0, 0.0))])
        assert (len(context), context[mask].bias) == (1, 1.0)
    with Store.open(path) as store:
        assert [m.bias for _, m in store.context("search")] == [1.0]


def test_contexts_keep_their_measurements_apart_and_their_order(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [5], [2])
        measured(store, [7], name="held-out")
        measured(store, [1])
    with Store.open(path) as store:
        assert store.contexts() == ("search", "held-out")
        assert [mask.units() for mask, _ in store.context("search")] == [(5,), (2,), (1,)]
        assert [mask.units() for mask, _ in store.context("held-out")] == [(7,)]
        assert store.context("search").get(SPACE.mask([7])) is None
        assert store.context("search").figures == FIGURES


def test_an_empty_context_is_opened_once(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        assert store.context("search", ToyEvaluator()) is store.context("search", ToyEvaluator())


def test_events_and_header_come_back(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        first = store.record("calibrated", {"noise": math.inf, "rows": [1, 2]})
        store.record("stopped", {})
        store.amend(first, {"noise": 0.5})
    with Store.open(path) as store:
        assert store.header == HEADER
        assert [(event.kind, event.payload) for event in store.events()] == [
            ("calibrated", {"noise": 0.5}),
            ("stopped", {}),
        ]
        assert [event.kind for event in store.events("stopped")] == ["stopped"]


def test_another_fingerprint_is_refused_and_each_difference_named(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [1])
    with Store.open(path) as store, pytest.raises(RunError, match=r"toy.seed: was 0, is 9.*--out") as caught:
        store.context("search", ToyEvaluator(seed=9))
    assert "scale" not in str(caught.value)


def test_other_units_are_refused_but_other_size_limits_are_not(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [1])
    with Store.open(path) as store:
        assert len(store.context("search", ToyEvaluator(Space(SPACE.sites, max_drop=3)))) == 1
        with pytest.raises(RunError, match="sites"):
            store.context("search", ToyEvaluator(Space((Site("first", 16),))))


def test_an_unknown_context_is_named_with_those_that_exist(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [1])
        with pytest.raises(RunError, match=r"'validation'; it has \['search'\]"):
            store.context("validation")


def test_parts_that_do_not_fit_the_figures_are_refused(path: Path) -> None:
    with Store.create(path, HEADER) as store, pytest.raises(RunError, match="parts"):
        store.context("search", ToyEvaluator()).put([SPACE.mask([1])], [Measurement(0.0, 0.0, (1.0,))])


def corrupt_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[16384:] = b"\xff" * (len(content) - 16384)
    path.write_bytes(content)


def other_program(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()


def other_version(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def short_blob(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE measurements SET mask = x'00'")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b""), "stopped before it began"),
        (lambda path: path.write_text("label,sex\n" * 5000), "not an SQLite file"),
        (lambda path: path.write_bytes(path.read_bytes()[:20000]), "damaged"),
        (corrupt_the_middle, "damaged"),
        (short_blob, "damaged"),
        (other_program, "another program"),
        (other_version, "version 99"),
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_an_unusable_file_is_refused_with_the_reason(path: Path, damage, message: str, read_only: bool) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [1], [2])
    damage(path)

    def read() -> None:
        with Store.open(path, read_only=read_only) as store:
            len(store.context("search"))
            store.events()

    with pytest.raises(RunError, match=message) as caught:
        read()
    assert str(path) in str(caught.value)
    assert sorted(p.name for p in path.parent.iterdir()) in ([], ["run.sqlite"])


def test_an_existing_run_is_never_overwritten(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [1])
    before = path.read_bytes()
    with pytest.raises(RunError, match="already exists"):
        Store.create(path, HEADER)
    assert path.read_bytes() == before


def test_a_file_left_by_a_run_killed_at_birth_is_taken_over(path: Path) -> None:
    path.touch()
    with Store.create(path, HEADER) as store:
        assert store.header == HEADER


def test_what_json_cannot_hold_is_refused_before_a_file_exists(path: Path) -> None:
    with pytest.raises(InputError, match="header"):
        Store.create(path, {"model": object()})
    assert not path.parent.exists() or not list(path.parent.iterdir())


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file.*--out"):
        Store.create(tmp_path / "file" / "out" / "run.sqlite", HEADER)


def test_a_second_writer_is_refused_and_a_reader_is_welcome(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [1])
        store.flush()
        with pytest.raises(RunError, match=f"process {os.getpid()}"):
            Store.open(path)
        with Store.open(path, read_only=True) as reader:
            assert len(reader.context("search")) == 1
            with pytest.raises(RunError, match="cannot be written"):
                reader.record("note", {})
        measured(store, [2])
    with Store.open(path) as store:
        assert len(store.context("search")) == 2


def test_the_lock_dies_with_its_process(path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from fairmend.runs.store import Store\n"
        "store = Store.create(Path(sys.argv[1]), {}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -9
    assert path.with_name("run.sqlite-lock").exists()
    with Store.open(path) as store:
        assert store.header == {}


def test_a_closed_run_is_one_whole_file(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [1])
    assert [entry.name for entry in path.parent.iterdir()] == ["run.sqlite"]
    assert path.read_bytes()[18:20] == b"\x01\x01"  # no write-ahead log needed to read it


def test_a_full_disk_is_reported_and_nothing_is_lost_or_half_written(path: Path) -> None:
    evaluator = ToyEvaluator()
    masks = [Mask(bits, 16) for bits in range(4, 5000, 4)]
    with Store.create(path, HEADER) as store:
        context = store.context("search", evaluator)
        context.put(masks[:10], evaluator.measure(masks[:10]))
        store.flush()
        store._connection.execute("PRAGMA max_page_count = 6")  # SQLite then fails as it does on a full disk
        context.put(masks, evaluator.measure(masks))
        with pytest.raises(RunError, match="disk is full"):
            store.flush()
        with Store.open(path, read_only=True) as reader:
            assert len(reader.context("search")) == 10
        assert len(context) == len(masks)
        store._connection.execute("PRAGMA max_page_count = 100000")  # space was freed
    with Store.open(path) as store:
        assert [mask for mask, _ in store.context("search")] == masks


class Interrupting:
    """A connection on which Ctrl-C strikes before or after the n-th statement."""

    def __init__(self, connection: sqlite3.Connection, strike_at: int, after: bool) -> None:
        self._connection, self._left, self._after = connection, strike_at, after

    def __getattr__(self, name: str):
        attribute = getattr(self._connection, name)
        if name not in ("execute", "executemany"):
            return attribute

        def struck(*arguments):
            self._left -= 1
            if self._left == 0 and not self._after:
                raise KeyboardInterrupt
            result = attribute(*arguments)
            if self._left == 0:
                raise KeyboardInterrupt
            return result

        return struck


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("strike_at", [1, 2, 3, 4])
def test_ctrl_c_during_a_commit_neither_loses_nor_repeats_anything(path: Path, strike_at: int, after: bool) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [1], [2])
        connection = store._connection
        store._connection = Interrupting(connection, strike_at, after)  # type: ignore[assignment]
        try:
            store.flush()
        except KeyboardInterrupt:
            measured(store, [3])
        store._connection = connection
    with Store.open(path) as store:
        expected = [(1,), (2,), (3,)] if strike_at <= 3 else [(1,), (2,)]  # a flush has three statements
        assert [mask.units() for mask, _ in store.context("search")] == expected
        ids = connection_ids(path)
        assert ids == list(range(1, len(expected) + 1))


def connection_ids(path: Path) -> list[int]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return [number for (number,) in connection.execute("SELECT id FROM measurements ORDER BY id")]
    finally:
        connection.close()


def test_ctrl_c_within_put_loses_at_most_the_mask_at_hand(path: Path) -> None:
    class Struck(dict):
        def __setitem__(self, key, value):
            raise KeyboardInterrupt

    with Store.create(path, HEADER) as store:
        context = store.context("search", ToyEvaluator())
        context.__dict__["_known"] = Struck()
        with pytest.raises(KeyboardInterrupt):
            measured(store, [1])
        context.__dict__["_known"] = {}
        measured(store, [2])  # takes over the id of the mask that was cut off
    with Store.open(path) as store:
        assert [mask.units() for mask, _ in store.context("search")] == [(2,)]


def test_measurements_are_committed_while_the_run_goes_on(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [1])
        store.commit_due = 0.0  # half a second later
        measured(store, [2])
        assert connection_ids(path) == [1, 2]


def test_the_file_is_plain_sqlite_for_other_tools(path: Path) -> None:
    with Store.create(path, HEADER) as store:
        measured(store, [0, 1], [4])
    connection = sqlite3.connect(path)
    bias, mask = connection.execute("SELECT bias, mask FROM measurements").fetchone()
    fingerprint = connection.execute("SELECT fingerprint FROM contexts").fetchone()[0]
    connection.close()
    assert bias is None  # NaN: the toy model breaks without units 0 and 1
    assert mask == b"\x03\x00"
    assert json.loads(fingerprint)["toy"] == {"seed": 0, "scale": 1.0}
