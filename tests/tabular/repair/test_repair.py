"""Repair: never worse on the searched rows, feasible, repeatable, resumable, and nothing for nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairmend.errors import DataError, InputError
from fairmend.runs.store import Store
from fairmend.search.names import SEARCH_NAMES
from fairmend.tabular.counting.evaluator import Rows, TabularEvaluator
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.formats.torch_networks import read_torch
from fairmend.tabular.networks.activations import Activation
from fairmend.tabular.networks.networks import Layer, Network, decide, emitted
from fairmend.tabular.networks.training import train_network
from fairmend.tabular.repair.repair import Repair, repair_network
from fairmend.tabular.repair.settings import RepairSettings

SPLITS = ("train", "validation", "test")


def make_dataset(n: int = 900, n_classes: int = 2, n_groups: int = 2, seed: int = 0) -> Dataset:
    """People whose label leans on their group, which the network sees among its features."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, n_groups, n)
    X = rng.normal(size=(n, 5)).astype(np.float32)
    X[:, 0] = groups
    score = X[:, 1] + 0.6 * X[:, 2] + 0.8 * groups + rng.normal(size=n) * 0.7
    y = np.digitize(score, np.quantile(score, np.arange(1, n_classes) / n_classes))
    return Dataset(
        name="made",
        X=X,
        y=y.astype(np.int64),
        classes=tuple(f"class {label}" for label in range(n_classes)),
        groups=groups,
        group_names=tuple(f"group {code}" for code in range(n_groups)),
        feature_names=("group", "a", "b", "c", "d"),
        splits=dict(zip(SPLITS, np.array_split(np.arange(n), [n // 2, 3 * n // 4]), strict=True)),
    )


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="module")
def network(dataset: Dataset) -> Network:
    X, y, _ = dataset.subset("train")
    return read_torch(train_network(X, y, hidden=(8, 6), epochs=12, learning_rate=0.01))


def signature(repair: Repair) -> tuple[Any, ...]:
    """Everything that the same seed must give again."""
    front = tuple((mask, made.bias, made.utility) for mask, made in repair.front)
    return repair.mask, repair.after.bias, repair.after.utility, repair.measured, front, repair.network.digest()


@pytest.mark.parametrize("threshold", ["joint", "fixed"])
@pytest.mark.parametrize("search", SEARCH_NAMES)
def test_no_search_makes_things_worse_on_the_rows_it_saw(
    search: Any, threshold: Any, network: Network, dataset: Dataset
) -> None:
    digest = network.digest()
    settings = RepairSettings(search=search, threshold=threshold, states=150, min_drop=0, max_drop=2, finalists=10)
    repair = repair_network(network, dataset, settings)
    assert repair.after.bias <= repair.before.bias
    assert repair.feasible
    assert repair.after.utility >= 0.98 * repair.before.utility
    assert repair.mask.size <= 2
    assert repair.mask.is_untouched or repair.space.admits(repair.mask)
    assert len(repair.mask.dials) == len(repair.space.dials)
    assert network.digest() == digest
    if threshold == "fixed":
        assert not any(repair.mask.dials)
    constants = emitted(network, repair.drop, dataset.subset("train", "validation")[0])
    for split in SPLITS:
        X, _, _ = dataset.subset(split)
        expected = network.logits(X, repair.mask, constants)
        sure = np.abs(expected[:, 0]) > 1e-5
        assert (decide(expected) == repair.network.predict(X))[sure].all()


def test_a_real_difference_becomes_smaller(network: Network, dataset: Dataset) -> None:
    repair = repair_network(network, dataset, RepairSettings(states=600, finalists=1))
    assert repair.improved
    assert repair.after.bias < 0.5 * repair.before.bias
    assert repair.splits.keys() == set(SPLITS)
    searched = [repair.splits[split].before.n for split in ("train", "validation")]
    assert repair.after.n == sum(searched)
    biases = [made.bias for _, made in repair.front]
    assert biases == sorted(biases)


def test_the_same_seed_gives_the_same_repair(network: Network, dataset: Dataset) -> None:
    first, again = (repair_network(network, dataset, RepairSettings(states=200, seed=3)) for _ in range(2))
    assert signature(first) == signature(again)
    assert first.splits == again.splits
    other = repair_network(network, dataset, RepairSettings(states=200, seed=4))
    assert signature(other) != signature(first)


def test_the_search_sees_only_its_rows(network: Network, dataset: Dataset) -> None:
    rng = np.random.default_rng(0)
    groups = dataset.groups.copy()
    unseen = dataset.rows("train", "test")
    groups[unseen] = rng.permutation(groups[unseen])
    settings = RepairSettings(states=150, search_on="validation")
    first, second = (
        repair_network(network, data, settings, judge=False) for data in (dataset, replace(dataset, groups=groups))
    )
    assert signature(first) == signature(second)
    assert first.splits == {}
    assert first.after.n == len(dataset.rows("validation"))
    both = repair_network(network, dataset, RepairSettings(states=150), judge=False)
    assert both.after.n == len(dataset.rows("train", "validation"))


def test_a_search_on_a_sample_reports_figures_of_every_row(network: Network, dataset: Dataset) -> None:
    repair = repair_network(network, dataset, RepairSettings(states=200, rows_per_cell=20), judge=False)
    X, y, groups = dataset.subset("train", "validation")
    whole = TabularEvaluator(network, Rows(X, y, groups, dataset.group_names), repair.space)
    before, after = whole.measure([repair.space.untouched(), repair.mask])
    assert (repair.before.bias, repair.before.utility) == (before.bias, before.utility)
    assert (repair.after.bias, repair.after.utility) == (after.bias, after.utility)


def interrupting(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let Ctrl-C strike in the middle of the measurement numbered `after`."""
    measure, calls = TabularEvaluator.measure, iter(range(after))

    def struck(evaluator: TabularEvaluator, masks: Any) -> Any:
        if next(calls, None) is None:
            monkeypatch.undo()
            raise KeyboardInterrupt
        return measure(evaluator, masks)

    monkeypatch.setattr(TabularEvaluator, "measure", struck)


@pytest.mark.parametrize(("search", "after"), [("annealing", 40), ("genetic", 2), ("dice", 1)])
def test_an_interrupted_repair_goes_on_to_the_same_end(
    search: Any, after: int, network: Network, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RepairSettings(search=search, states=300, chains=2 if search == "annealing" else 1)
    whole = repair_network(network, dataset, settings, judge=False)
    with Store.create(tmp_path / "run.sqlite", {}) as store:
        interrupting(monkeypatch, after)
        cut = repair_network(network, dataset, settings, store=store, judge=False)
    assert cut.run.stopped == "interrupted"
    assert cut.feasible
    assert cut.after.bias <= cut.before.bias
    with Store.open(tmp_path / "run.sqlite") as store:
        resumed = repair_network(network, dataset, settings, store=store, judge=False)
    assert resumed.run.replayed > 0
    assert signature(resumed) == signature(whole)


class ImpatientProgress:
    """Presses Ctrl-C at the first update after the start."""

    def __init__(self) -> None:
        self.updates = 0

    def start(self, total: int | None, title: str) -> None: ...

    def update(self, done: int, total: int | None, rate: float, eta_seconds: float | None, note: str) -> None:
        self.updates += 1
        if self.updates == 2:
            raise KeyboardInterrupt

    def close(self) -> None: ...


def test_ctrl_c_during_the_progress_display_keeps_the_best_so_far(
    network: Network, dataset: Dataset, tmp_path: Path
) -> None:
    settings = RepairSettings(states=1_000_000)
    with Store.create(tmp_path / "run.sqlite", {}) as store:
        repair = repair_network(network, dataset, settings, store=store, progress=ImpatientProgress(), judge=False)
    assert repair.run.stopped == "interrupted"
    assert repair.feasible
    assert repair.measured > 1


def test_seconds_are_planned_as_states_and_the_plan_is_kept(network: Network, dataset: Dataset, tmp_path: Path) -> None:
    settings = RepairSettings(seconds=0.4)
    with Store.create(tmp_path / "run.sqlite", {}) as store:
        repair = repair_network(network, dataset, settings, store=store, judge=False)
        (plan,) = store.events("plan")
    assert repair.settings.states == plan.payload["states"]
    assert repair.settings.states >= 10
    assert repair.run.asked <= repair.settings.states
    with Store.open(tmp_path / "run.sqlite") as store:
        again = repair_network(network, dataset, settings, store=store, judge=False)
    assert again.settings.states == repair.settings.states
    assert again.run.measured == 0
    assert signature(again) == signature(repair)


def made_for_clamping() -> tuple[Network, Dataset]:
    """Unit 1 fires for group 1 only and lowers its logit to where the truth is: group 0 would need it too."""
    rng = np.random.default_rng(0)
    n = 400
    groups = rng.integers(0, 2, n)
    X = np.column_stack([rng.uniform(0, 1, n), groups]).astype(np.float32)
    first = Layer(np.eye(2), np.zeros(2), Activation("relu"))
    network = Network((first, Layer(np.array([[1.0, -0.5]]), np.array([-0.3]))))
    data = Dataset(
        name="made for clamping",
        X=X,
        y=(X[:, 0] > 0.8).astype(np.int64),
        classes=("no", "yes"),
        groups=groups,
        group_names=("without", "with"),
        feature_names=("score", "group"),
        splits=dict(zip(SPLITS, np.array_split(np.arange(n), 3), strict=True)),
    )
    return network, data


def test_dice_clamps_a_neuron_where_that_is_the_better_intervention() -> None:
    network, data = made_for_clamping()
    repair = repair_network(network, data, RepairSettings(search="dice"))
    assert repair.drop == "clamp"
    assert repair.mask.units() == (1,)
    assert repair.after.bias == 0.0
    assert repair.splits["test"].after.utilities["accuracy"].value == 1.0
    X, y, _ = data.subset("test")
    assert (repair.network.predict(X) == y).all()


def test_without_any_difference_the_network_stays_untouched(network: Network) -> None:
    """Everybody has a twin in the other group, so that no mask can be fairer."""
    once = make_dataset(300)
    X = np.repeat(once.X, 2, axis=0)
    twins = Dataset(
        name="twins",
        X=X,
        y=np.repeat(once.y, 2),
        classes=once.classes,
        groups=np.tile([0, 1], len(once.X)),
        group_names=once.group_names,
        feature_names=once.feature_names,
        splits=dict(zip(SPLITS, np.split(np.arange(600), [200, 400]), strict=True)),
    )
    for threshold in ("joint", "fixed"):
        repair = repair_network(network, twins, RepairSettings(states=100, threshold=threshold))
        assert repair.before.bias == repair.after.bias == 0.0
        assert not repair.improved
        assert repair.network.digest() == network.digest()
        assert repair.splits["test"].change.value == 0.0


@pytest.mark.parametrize("utility", ["f1", "balanced_accuracy", "log_loss"])
def test_several_classes_and_crossed_groups_are_repaired(utility: str) -> None:
    data = make_dataset(900, n_classes=3, n_groups=4)
    X, y, _ = data.subset("train")
    network = read_torch(train_network(X, y, hidden=(8,), n_classes=3, epochs=10, learning_rate=0.01))
    repair = repair_network(network, data, RepairSettings(states=120, utility=utility))
    assert repair.feasible
    assert repair.after.bias <= repair.before.bias
    assert len(repair.mask.dials) == 2
    assert len(repair.splits["test"].before.groups) == 4 * 3


@pytest.mark.parametrize("objective", ["demographic_parity_difference", "equalized_odds_ratio", "worst_group_accuracy"])
def test_other_objectives_are_minimised_too(objective: str, network: Network, dataset: Dataset) -> None:
    repair = repair_network(network, dataset, RepairSettings(states=300, objective=objective, utility="accuracy"))
    assert repair.after.bias < repair.before.bias
    assert repair.splits["validation"].before.objective == objective


def test_published_settings_take_the_cheapest_mask_of_the_validation_rows(network: Network, dataset: Dataset) -> None:
    settings = RepairSettings(
        states=300, search_on="validation", threshold="fixed", finalists=1, drop="weights", rows_per_cell=None
    )
    repair = repair_network(network, dataset, settings)
    assert repair.drop == "weights"
    feasible = [made.bias for _, made in repair.front]
    assert repair.after.bias == min(feasible)


def test_size_limits_are_kept(network: Network, dataset: Dataset) -> None:
    repair = repair_network(network, dataset, RepairSettings(states=200, min_drop=2, max_drop=3), judge=False)
    assert repair.mask.is_untouched or 2 <= repair.mask.size <= 3
    with pytest.raises(InputError, match="size limits leave no mask"):
        repair_network(network, dataset, RepairSettings(min_drop=20, max_drop=30))


def test_what_does_not_fit_is_refused_before_the_search(network: Network, dataset: Dataset) -> None:
    wide = replace(dataset, X=dataset.X[:, :4], feature_names=dataset.feature_names[:4])
    with pytest.raises(DataError, match="takes 5 features, made has 4"):
        repair_network(network, wide)
    with pytest.raises(DataError, match="2 classes apart"):
        repair_network(network, replace(dataset, classes=("a", "b", "c")))
    y = np.where(dataset.groups == 0, 0, dataset.y)
    with pytest.raises(DataError, match="group 0"):
        repair_network(network, replace(dataset, y=y))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("search", "greedy", "search must be one of 'annealing'"),
        ("search_on", "test", "search_on must be one of"),
        ("threshold", "free", "threshold must be one of 'joint', 'fixed'"),
        ("drop", "delete", "drop must be one of 'output'"),
        ("objective", "fairness", "objective must be one of"),
        ("utility", "auc", "utility must be one of"),
        ("states", 0, "states must be at least 1"),
        ("finalists", 0, "finalists must be at least 1"),
        ("rows_per_cell", 0, "rows_per_cell must be at least 1"),
        ("seconds", float("nan"), "seconds must be a positive number"),
        ("keep", 1.5, "keep must lie in"),
        ("penalty", -1.0, "penalty must be"),
        ("seed", -1, "seed must be at least 0"),
    ],
)
def test_settings_that_cannot_work_are_named(option: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RepairSettings(**{option: value})


def test_settings_survive_json() -> None:
    settings = RepairSettings(states=10, options={"schedule": "logarithmic"})
    assert RepairSettings(**settings.to_json()) == settings
