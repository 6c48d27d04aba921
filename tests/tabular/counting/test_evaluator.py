"""The evaluator: both paths give the counts of a plain float64 forward, whatever was measured before."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from fairmend.errors import DataError, InputError
from fairmend.evaluation import Evaluator, digest
from fairmend.masks import Mask
from fairmend.tabular.counting import batched, incremental
from fairmend.tabular.counting import evaluator as evaluators
from fairmend.tabular.counting.counting import OBJECTIVE_CODES, UTILITY_CODES, unfairness, usefulness
from fairmend.tabular.counting.evaluator import Rows, TabularEvaluator
from fairmend.tabular.fairness.confusion import confusion_counts
from fairmend.tabular.fairness.metrics import OBJECTIVES, UTILITIES
from fairmend.tabular.networks.activations import NAMES, Activation
from fairmend.tabular.networks.networks import Drop, Layer, Network, probabilities

PARAMETERS = {"leaky_relu": 0.1, "elu": 0.7}
GROUPS = ("a", "b", "c")
Table = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_network(rng: np.random.Generator, widths: Sequence[int], activations: Sequence[str]) -> Network:
    layers = []
    for index, (n_in, n_out) in enumerate(pairwise(widths)):
        is_last = index == len(widths) - 2
        name = "identity" if is_last else activations[index % len(activations)]
        weight = rng.normal(size=(n_out, n_in)) * (2.0 / n_in) ** 0.5
        layers.append(Layer(weight, rng.normal(size=n_out) * 0.3, Activation(name, PARAMETERS.get(name, 0.0))))
    return Network(tuple(layers))


def make_table(rng: np.random.Generator, n: int, n_features: int, n_groups: int = 2, n_classes: int = 2) -> Table:
    """Rows in which every group has every class, and some people are in no group."""
    y, groups = rng.integers(0, n_classes, n), rng.integers(-1, n_groups, n)
    cells = [(label, group) for label in range(n_classes) for group in range(-1, n_groups)]
    y[: len(cells)], groups[: len(cells)] = np.array(cells).T
    return rng.normal(size=(n, n_features)), y, groups


def make_mask(rng: np.random.Generator, network: Network, dials: bool = True) -> Mask:
    dropped = np.flatnonzero(rng.random(network.n_units) < rng.random())
    n_dials = len(network.threshold_dials()) if dials else 0
    return Mask(sum(1 << int(unit) for unit in dropped), network.n_units, tuple(rng.normal(size=n_dials).tolist()))


def build(network: Network, table: Table, *, dials: bool = True, **options: Any) -> TabularEvaluator:
    space = network.space(dials=network.threshold_dials() if dials else ())
    sampling = {name: options.pop(name) for name in ("name", "per_cell", "seed") if name in options}
    rows = Rows(*table, GROUPS[: table[2].max() + 1], **sampling)
    return TabularEvaluator(network, rows, space, **options)


def counts_of(network: Network, table: Table, mask: Mask, drop: Drop = "output") -> np.ndarray:
    """Confusion counts by a plain forward in float64, which remembers nothing."""
    X, y, groups = table
    predicted = network.predict(X, mask, drop)
    return confusion_counts(y, predicted, groups, int(groups.max()) + 1, network.n_classes)


def parts_of(counts: np.ndarray) -> tuple[float, ...]:
    return tuple(counts[..., 1:].ravel().astype(float).tolist())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def network(rng: np.random.Generator) -> Network:
    return make_network(rng, (5, 8, 6, 1), ("relu",))


@pytest.fixture
def table(rng: np.random.Generator) -> Table:
    return make_table(rng, 300, 5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    hidden=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    activations=st.lists(st.sampled_from([name for name in NAMES if name != "identity"]), min_size=1, max_size=4),
    n_groups=st.integers(2, 3),
    drop=st.sampled_from(["output", "weights", "clamp"]),
    objective=st.sampled_from(sorted(OBJECTIVES)),
    utility=st.sampled_from(sorted(UTILITIES)),
)
def test_all_paths_give_the_figures_of_a_plain_forward(
    seed: int, hidden: list[int], activations: list[str], n_groups: int, drop: Any, objective: str, utility: str
) -> None:
    rng = np.random.default_rng(seed)
    network = make_network(rng, (3, *hidden, 1), activations)
    table = make_table(rng, int(rng.integers(10, 90)), 3, n_groups)
    masks = [make_mask(rng, network) for _ in range(4)]
    masks += [masks[-1].flip(int(unit)) for unit in rng.integers(0, network.n_units, 4)]
    constants = np.zeros(network.n_units)
    for path in ("incremental", "streamed", "batched"):
        evaluator = build(network, table, objective=objective, utility=utility, drop=drop, path=path)
        constants = evaluator._emitted
        for mask, measurement in zip(masks, evaluator.measure(masks), strict=True):
            counts = counts_of(network, table, mask, constants)
            assert measurement.parts == parts_of(counts)
            np.testing.assert_allclose(measurement.bias, OBJECTIVES[objective].unfairness(counts), atol=1e-12)
            np.testing.assert_allclose(measurement.utility, UTILITIES[utility].value(counts), atol=1e-12)
            assert measurement.n == len(table[0])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_thousands_of_kept_flips_change_no_count(activation: str, rng: np.random.Generator) -> None:
    """Every proposal is kept, and the threshold stands within 1e-8 of somebody's logit: drift would show at once."""
    network = make_network(rng, (4, 8, 6, 1), (activation,))
    table = make_table(rng, 120, 4)
    evaluator = build(network, table, path="incremental")
    mask = evaluator.space.untouched()
    for step in range(2500):
        logits = network.logits(table[0], mask.turn((0.0,)))[:, 0]
        nearest = float(logits[rng.integers(len(logits))]) + (1e-8 if step % 2 else -1e-8)
        mask = mask.turn((-nearest,))
        (measurement,) = evaluator.measure([mask])
        assert measurement.parts == parts_of(counts_of(network, table, mask)), f"after {step} kept flips"
        mask = mask.flip(int(rng.integers(network.n_units)))


def test_figures_depend_neither_on_order_nor_on_batches(network: Network, table: Table) -> None:
    rng = np.random.default_rng(1)
    masks = [make_mask(rng, network) for _ in range(40)]
    masks += [mask.flip(3) for mask in masks]
    alone = {mask: build(network, table).measure([mask])[0] for mask in masks}
    for path in ("incremental", "streamed", "batched"):
        evaluator = build(network, table, path=path)
        for _ in range(3):
            order = rng.permutation(len(masks))
            batch = [masks[index] for index in order]
            cut = int(rng.integers(1, len(masks)))
            measured = evaluator.measure(batch[:cut]) + evaluator.measure(batch[cut:])
            for mask, measurement in zip(batch, measured, strict=True):
                assert measurement == alone[mask]


def test_no_figure_depends_on_the_order_of_the_rows(network: Network, table: Table, rng: np.random.Generator) -> None:
    order = rng.permutation(len(table[0]))
    shuffled = tuple(part[order] for part in table)
    masks = [make_mask(rng, network) for _ in range(20)]
    first, second = (build(network, rows).measure(masks) for rows in (table, shuffled))
    assert all(one == other for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("path", ["incremental", "streamed", "batched"])
def test_the_network_is_left_bit_for_bit_also_after_an_exception(
    path: Any, network: Network, table: Table, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [array.tobytes() for layer in network.layers for array in (layer.weight, layer.bias)]
    evaluator = build(network, table, path=path)
    mask = make_mask(rng, network)
    evaluator.measure([mask])

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(incremental.workspaces, "measure", interrupted)
        patch.setattr(batched.BatchedForward, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluator.measure([mask.flip(0)])
    for unit in range(network.n_units):  # at thresholds where every remembered number counts
        logits = network.logits(table[0], mask.turn((0.0,)))[:, 0]
        mask = mask.turn((-float(logits[unit]) - 1e-8,))
        assert evaluator.measure([mask])[0].parts == parts_of(counts_of(network, table, mask))
        mask = mask.flip(unit)
    assert [array.tobytes() for layer in network.layers for array in (layer.weight, layer.bias)] == before


def test_measurements_are_those_of_an_evaluator(network: Network, table: Table) -> None:
    evaluator = build(network, table, name="validation")
    assert isinstance(evaluator, Evaluator)
    assert evaluator.figures.bias.better == "lower"
    assert "300 validation rows" in evaluator.figures.bias.protocol
    assert len(evaluator.measure([evaluator.space.untouched()])[0].parts) == len(evaluator.figures.parts)
    assert evaluator.measure([]) == []
    ratio = build(network, table, objective="equalized_odds_ratio").figures.bias
    assert (ratio.name, ratio.better) == ("1 - equalized_odds_ratio", "lower")


def test_people_outside_the_groups_count_for_utility_only(network: Network, table: Table) -> None:
    X, y, groups = table
    flipped = np.where(groups < 0, 1 - y, y)
    masks = [network.space().untouched()]
    (before,), (after,) = (build(network, (X, labels, groups), dials=False).measure(masks) for labels in (y, flipped))
    assert before.bias == after.bias
    assert before.utility != after.utility


def test_the_fingerprint_names_everything_that_figures_depend_on(network: Network, table: Table) -> None:
    X, y, groups = table
    weaker = Network((*network.layers[:-1], Layer(network.layers[-1].weight * 0.5, network.layers[-1].bias)))
    names = ("x", "y")
    space = network.space(dials=network.threshold_dials())
    variants = {
        "as it is": build(network, table),
        "weights": build(weaker, table),
        "features": build(network, (X + 1e-6, y, groups)),
        "labels": build(network, (X, np.roll(y, 1), groups)),
        "groups": build(network, (X, y, np.roll(groups, 1))),
        "names": TabularEvaluator(network, Rows(*table, names), space),
        "rows": build(network, table, name="other"),
        "objective": build(network, table, objective="demographic_parity_difference"),
        "utility": build(network, table, utility="accuracy"),
        "drop": build(network, table, drop="weights"),
        "dials": build(network, table, dials=False),
    }
    digests = {name: digest(evaluator.fingerprint()) for name, evaluator in variants.items()}
    assert len(set(digests.values())) == len(variants)
    assert digest(build(network, table, path="batched").fingerprint()) == digests["as it is"]
    assert digest(build(network, table).fingerprint()) == digests["as it is"]


def test_several_classes_are_measured_as_a_plain_forward_does(rng: np.random.Generator) -> None:
    network = make_network(rng, (4, 6, 5, 3), ("tanh",))
    table = make_table(rng, 200, 4, 3, 3)
    evaluator = build(network, table, utility="balanced_accuracy")
    assert evaluator.path == "batched"
    masks = [make_mask(rng, network) for _ in range(12)]
    for mask, measurement in zip(masks, evaluator.measure(masks), strict=True):
        counts = counts_of(network, table, mask)
        assert measurement.parts == parts_of(counts)
        assert measurement.bias == pytest.approx(float(OBJECTIVES["equalized_odds_difference"].unfairness(counts)))
        assert measurement.utility == pytest.approx(float(UTILITIES["balanced_accuracy"].value(counts)))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_log_loss_is_that_of_scikit_learn(n_classes: int, rng: np.random.Generator) -> None:
    network = make_network(rng, (4, 6, 1 if n_classes == 2 else 3), ("gelu",))
    table = make_table(rng, 150, 4, 2, n_classes)
    evaluator = build(network, table, utility="log_loss")
    assert evaluator.figures.utility.better == "lower"
    masks = [make_mask(rng, network) for _ in range(5)]
    for mask, measurement in zip(masks, evaluator.measure(masks), strict=True):
        assert measurement.utility == pytest.approx(log_loss(table[1], probabilities(network.logits(table[0], mask))))


def test_the_batched_path_gives_the_same_in_slices(
    network: Network, table: Table, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = [make_mask(rng, network) for _ in range(11)]
    whole = build(network, table, path="batched").measure(masks)
    monkeypatch.setattr(batched, "_VALUES", 3 * 300 * 8)
    sliced = build(network, table, path="batched").measure(masks)
    assert all(one == other for one, other in zip(whole, sliced, strict=True))


def test_rows_taken_up_block_by_block_give_the_same(
    network: Network, table: Table, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 rows in blocks of 7: every cell is cut many times, and masks are a flip, several flips or a jump apart."""
    monkeypatch.setattr(incremental, "STREAM_BYTES", 1)
    monkeypatch.setattr(incremental, "_FEWEST_ROWS", 7)
    masks = [make_mask(rng, network) for _ in range(9)]
    masks += [masks[-1].flip(3), masks[-1].flip(3).flip(5)]
    for options in ({}, {"per_cell": 20}):
        whole = build(network, table, path="incremental", **options).measure(masks)
        evaluator = build(network, table, path="streamed", **options)
        for _ in range(2):  # the second time with what is known about the blocks
            assert all(one == other for one, other in zip(whole, evaluator.measure(masks), strict=True))


@pytest.mark.parametrize("utility", ["accuracy", "log_loss"])
def test_the_batched_path_gives_the_same_on_blocks_of_rows(
    utility: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(rng, (4, 6, 5, 3), ("tanh",))
    table = make_table(rng, 200, 4, 3, 3)
    masks = [make_mask(rng, network) for _ in range(5)]
    whole = build(network, table, utility=utility).measure(masks)
    monkeypatch.setattr(evaluators, "_BLOCK_VALUES", 6 * 7)
    for one, other in zip(whole, build(network, table, utility=utility).measure(masks), strict=True):
        assert one.parts == other.parts
        assert one.bias == other.bias
        assert one.utility == pytest.approx(other.utility, rel=1e-12)


@pytest.mark.parametrize(("n_classes", "utility"), [(2, "accuracy"), (2, "log_loss"), (3, "accuracy"), (3, "log_loss")])
def test_a_sample_of_every_cell_estimates_the_figures_of_all_rows(
    n_classes: int, utility: str, rng: np.random.Generator
) -> None:
    """Cells of very different sizes: without weights, a sample would show other base rates than the rows have."""
    network = make_network(rng, (4, 6, 1 if n_classes == 2 else 3), ("relu",))
    X, y, groups = make_table(rng, 1500, 4, 2, n_classes)
    rare = (y != 1) | (np.arange(len(y)) % 7 < 2)
    table = X[rare], y[rare], groups[rare]
    masks = [make_mask(rng, network)]
    whole = build(network, table, utility=utility).measure(masks)[0]
    samples = [build(network, table, utility=utility, per_cell=30, seed=seed).measure(masks)[0] for seed in range(60)]
    assert {sample.n for sample in samples} == {3 * n_classes * 30}
    assert np.mean([sample.utility for sample in samples]) == pytest.approx(whole.utility, rel=0.03)
    np.testing.assert_allclose(np.mean([sample.parts for sample in samples], axis=0), whole.parts, rtol=0.12, atol=2)
    exact = build(network, table, utility=utility, per_cell=len(y)).measure(masks)[0]
    assert exact == whole


def test_what_cannot_be_measured_is_refused(network: Network, table: Table, rng: np.random.Generator) -> None:
    X, y, groups = table
    with pytest.raises(InputError, match="hidden neurons"):
        TabularEvaluator(network, Rows(*table, GROUPS[:2]), make_network(rng, (5, 3, 1), ("relu",)).space())
    with pytest.raises(InputError, match="objective must be one of"):
        build(network, table, objective="parity")
    with pytest.raises(InputError, match="utility must be one of"):
        build(network, table, utility="auc")
    with pytest.raises(DataError, match="class 1"):
        build(network, (X, np.where(groups == 0, 0, y), groups))
    several = make_network(rng, (5, 4, 3), ("relu",))
    with pytest.raises(InputError, match="path='auto'"):
        build(several, make_table(rng, 100, 5, 2, 3), path="incremental")


cells = st.integers(0, 12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(groups=st.lists(st.tuples(cells, cells, cells, cells), min_size=2, max_size=4), outside=st.tuples(cells, cells))
def test_compiled_figures_are_those_of_the_metrics(
    groups: list[tuple[int, int, int, int]], outside: tuple[int, int]
) -> None:
    """Counts as (true negatives, false positives, false negatives, true positives) of each group."""
    counts = np.array([*groups, (outside[0], outside[1], 0, 0)], dtype=np.int64).reshape(-1, 2, 2)
    if (counts[:-1].sum(axis=-1) == 0).any():  # a cell without people has no rate, which the evaluator refuses
        counts[:-1] += 1
    positives = counts[:, :, 1].ravel().copy()
    totals = counts.sum(axis=-1).ravel()
    for name, code in OBJECTIVE_CODES.items():
        ours = unfairness(positives, totals, len(groups), code)
        np.testing.assert_allclose(ours, OBJECTIVES[name].unfairness(counts), atol=1e-12, err_msg=name)
    for name, code in UTILITY_CODES.items():
        np.testing.assert_allclose(usefulness(positives, totals, code), UTILITIES[name].value(counts), err_msg=name)


def test_every_objective_and_utility_is_compiled() -> None:
    assert OBJECTIVE_CODES.keys() == OBJECTIVES.keys()
    assert UTILITY_CODES.keys() == UTILITIES.keys()


@pytest.mark.parametrize("size", [30.0, 1000.0])
def test_large_weights_that_cancel_do_not_change_a_count(size: float, rng: np.random.Generator) -> None:
    first, second = rng.normal(size=(16, 6)), rng.normal(size=(8, 16)) * 0.3
    first[1], second[:, 0], second[:, 1] = first[0], size, -size
    relu = Activation("relu")
    network = Network(
        (
            Layer(first, np.full(16, 0.1), relu),
            Layer(second, np.zeros(8), relu),
            Layer(rng.normal(size=(1, 8)), np.zeros(1)),
        )
    )
    X = rng.normal(size=(300, 6)).astype(np.float32)
    y, groups = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    space = network.space(dials=network.threshold_dials(-1e6, 1e6))
    evaluator = TabularEvaluator(network, Rows(X, y, groups, ["a", "b"]), space)
    mask = space.untouched()
    for _ in range(400):
        mask = mask.flip(int(rng.integers(2, 24)))
        logits = network.logits(X, mask.turn((0.0,)))[:, 0]
        shift = float(-logits[rng.integers(300)] + rng.choice([-1e-8, 1e-8]))
        (measurement,) = evaluator.measure([mask.turn((shift,))])
        assert sum(measurement.parts) == (logits + shift > 0).sum()
