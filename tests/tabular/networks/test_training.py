"""Training is repeatable to the bit, leaves torch as it found it, and gives networks worth repairing."""

import gzip
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

from fairmend.errors import DataError, InputError
from fairmend.tabular.networks.training import train_network


def blobs(n=600, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    centres = 3 * rng.normal(size=(n_classes, 5))
    return centres[y] + rng.normal(size=(n, 5)), y


def predict(network, X):
    with torch.no_grad():
        logits = network(torch.as_tensor(X, dtype=torch.float32))
    return (logits[:, 0] > 0).long().numpy() if logits.shape[1] == 1 else logits.argmax(dim=1).numpy()


def weights(network):
    return b"".join(parameter.detach().numpy().tobytes() for parameter in network.parameters())


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_separable_classes_are_learnt(n_classes, dropout):
    X, y = blobs(n_classes=n_classes)
    network = train_network(X, y, hidden=(16,), n_classes=n_classes, epochs=20, batch_size=32, dropout=dropout)
    assert np.mean(predict(network, X) == y) > 0.95
    assert network[-1].out_features == (1 if n_classes == 2 else n_classes)
    assert not network.training


@pytest.mark.parametrize("settings", [{}, {"dropout": 0.3}, {"validation": blobs(seed=1), "stop_on": "log_loss"}])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(settings):
    X, y = blobs(200)
    first, second, other = (train_network(X, y, epochs=3, seed=seed, **settings) for seed in (1, 1, 2))
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


def test_torch_is_left_as_it_was():
    X, y = blobs(100)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        train_network(X, y, epochs=1)
        assert torch.equal(torch.rand(3), expected)
        assert torch.get_num_threads() == 2

        def fail(*_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_network(X, y, epochs=1, progress=fail)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("stop_on", ["f1", "log_loss"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_best_epoch_on_validation_is_returned_and_training_stops_after_it(stop_on, n_classes):
    X, y = blobs(200, n_classes)
    noise = np.random.default_rng(1)
    validation = (noise.normal(size=(200, 5)), noise.integers(n_classes, size=200))  # soon overfitted
    seen = []
    settings = {"n_classes": n_classes, "batch_size": 20, "learning_rate": 0.01, "seed": 0}
    network = train_network(
        X, y, epochs=60, patience=5, validation=validation, stop_on=stop_on,
        progress=lambda *step: seen.append(step), **settings,
    )  # fmt: skip
    figures = [figure for _, _, figure in seen]
    best = int(np.argmax(figures) if stop_on == "f1" else np.argmin(figures)) + 1
    assert [epoch for epoch, _, _ in seen] == list(range(1, len(seen) + 1))
    assert len(seen) == best + 5 < 60
    assert weights(network) == weights(train_network(X, y, epochs=best, **settings))
    if stop_on == "f1":
        average = "binary" if n_classes == 2 else "macro"
        assert figures[best - 1] == pytest.approx(
            f1_score(validation[1], predict(network, validation[0]), average=average)
        )


def test_progress_tells_the_training_loss_without_validation():
    X, y = blobs(200)
    seen = []
    train_network(X, y, epochs=4, progress=lambda *step: seen.append(step))
    assert [(epoch, total) for epoch, total, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen[0][2] > seen[-1][2] > 0


def test_balanced_class_weights_find_more_of_a_rare_class():
    rng = np.random.default_rng(0)
    y = (rng.random(3000) < 0.05).astype(int)
    X = rng.normal(size=(3000, 3)) + 1.2 * y[:, None]
    plain, balanced, chosen = (
        predict(train_network(X, y, hidden=(8,), epochs=8, class_weight=weight), X).mean()
        for weight in (None, "balanced", [1.0, 100.0])
    )
    assert plain < balanced < chosen


def test_compas_is_learnt_as_well_as_published(shared_data):
    with gzip.open(shared_data / "tabular" / "compas.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1)
    X, y = table[:, :-1], table[:, -1].astype(int)
    X = (X - X.min(axis=0)) / np.ptp(X, axis=0)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, random_state=42)
    X, X_valid, y, y_valid = train_test_split(X, y, test_size=0.25, random_state=43)
    network = train_network(X, y, hidden=(32, 32), epochs=15, validation=(X_valid, y_valid))
    assert f1_score(y_test, predict(network, X_test)) > 0.955


def test_importing_the_module_does_not_import_torch():
    code = "import sys, fairmend.tabular.networks.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X": np.array([[0.0, math.nan]] * 4)}, "nan in row 0, column 1"),
        ({"X": np.array([[0.0, math.inf]] * 4)}, "inf in row 0"),
        ({"X": np.zeros(4)}, r"\(4,\)"),
        ({"y": [1, 1, 1, 1]}, r"\[0, 4\] rows per class"),
        ({"y": [0, 1, 2, 1]}, "labels must lie in 0 to 1"),
        ({"y": [0, 1]}, "one label per row"),
        ({"validation": (np.zeros((4, 3)), [0, 1, 0, 1])}, "3 features"),
        ({"validation": (np.full((4, 2), math.nan), [0, 1, 0, 1])}, "validation inputs must be finite"),
    ],
)
def test_unusable_data_is_refused(changed, message):
    settings = {"X": np.arange(8.0).reshape(4, 2), "y": [0, 1, 0, 1]} | changed
    with pytest.raises(DataError, match=message):
        train_network(settings.pop("X"), settings.pop("y"), epochs=1, **settings)


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden": ()},
        {"hidden": (4, 0)},
        {"n_classes": 1},
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"dropout": 1.0},
        {"patience": 0},
        {"stop_on": "accuracy"},
        {"class_weight": "even"},
        {"class_weight": [1.0]},
        {"class_weight": [1.0, -1.0]},
    ],
)
def test_unusable_settings_are_refused_by_name(changed):
    X, y = blobs(20)
    with pytest.raises(InputError, match=next(iter(changed))):
        train_network(X, y, **changed)
