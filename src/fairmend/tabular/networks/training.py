"""Train a small, plain network, so that presets and the demo have something to repair.

Full training on one CPU thread; the same data, settings and seed give bit-identical weights on the same machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError, InputError
from fairmend.tabular.fairness.confusion import codes, confusion_counts
from fairmend.tabular.fairness.metrics import find_utility, log_loss
from fairmend.threads import one_thread

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int, float], None]
ClassWeight = Literal["balanced"] | Sequence[float] | None
StopOn = Literal["f1", "log_loss"]
Table = tuple[npt.ArrayLike, npt.ArrayLike]


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Args:
        hidden: widths of the hidden layers.
        n_classes: 2 gives one logit (class 1 if positive), more give one logit per class.
        seed: owns the initial weights, the order of the rows and the dropout.
        epochs: passes over the data, at most.
        batch_size, learning_rate: of the steps of Adam.
        dropout: share of the hidden neurons switched off in each training step, in [0, 1).
        class_weight: "balanced" weighs classes by the inverse of their frequency; or one weight per class.
        stop_on: what is judged where there is a validation set: "f1" (macro for more than two classes) or "log_loss".
        patience: epochs without a better one after which training then ends.

    Raises:
        InputError: a setting out of range.
    """

    hidden: Sequence[int] = (64, 32)
    n_classes: int = 2
    seed: int = 0
    epochs: int = 40
    batch_size: int = 256
    learning_rate: float = 1e-3
    dropout: float = 0.0
    class_weight: ClassWeight = None
    stop_on: StopOn = "f1"
    patience: int = 10

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"hidden needs at least one layer of at least one neuron, got {tuple(self.hidden)}")
        if self.n_classes < 2:
            raise InputError(f"n_classes must be at least 2, got {self.n_classes!r}")
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be positive, got {self.learning_rate!r}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must lie in [0, 1), got {self.dropout!r}")
        if self.stop_on not in ("f1", "log_loss"):
            raise InputError(f"stop_on must be 'f1' or 'log_loss', got {self.stop_on!r}")


def train_network(
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    validation: Table | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> torch.nn.Sequential:
    """Train a ReLU network with Adam on mini-batches.

    Args:
        X: inputs of shape (n_rows, n_features), scaled by the caller.
        y: classes 0 to n_classes - 1, shape (n_rows,).
        validation: (X, y) to judge every epoch on. The weights of the best epoch are returned, and training ends after
            `patience` epochs without a better one. None trains all epochs and returns the last weights.
        progress: called after each epoch with (epochs done, epochs, validation figure or training loss).
        settings: any of `Training`: hidden=(64, 32), n_classes=2, seed=0, epochs=40, batch_size=256,
            learning_rate=1e-3, dropout=0.0, class_weight=None, stop_on="f1", patience=10.

    Returns:
        Linear, ReLU (and Dropout) layers ending in a Linear one; on the CPU, float32, in evaluation mode.

    Raises:
        DataError: values that are not finite, shapes that do not fit, or a class without rows.
        InputError: a setting out of range.
    """
    import torch

    training = Training(**settings)
    n_classes, epochs = training.n_classes, training.epochs
    features, labels = _table("training", X, y, n_classes)
    rows_per_class = np.bincount(labels, minlength=n_classes)
    if not rows_per_class.all():
        raise DataError(
            f"training needs rows of all {n_classes} classes, got {rows_per_class.tolist()} rows per class: "
            "check the label column and its positive value"
        )
    held_out = None if validation is None else _table("validation", *validation, n_classes)
    if held_out is not None and held_out[0].shape[1] != features.shape[1]:
        raise DataError(f"validation rows have {held_out[0].shape[1]} features, training rows {features.shape[1]}")

    order = np.random.default_rng(training.seed)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = _build(features.shape[1], training)
        criterion = _criterion(n_classes, _class_weights(training.class_weight, rows_per_class))
        optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate, fused=True)
        inputs = torch.from_numpy(features)
        targets = torch.from_numpy(labels.astype(np.float32) if n_classes == 2 else labels)
        best, best_weights, best_epoch = -np.inf, None, 0
        for epoch in range(1, epochs + 1):
            network.train()
            shuffled = torch.from_numpy(order.permutation(len(labels)))
            total = 0.0
            for start in range(0, len(labels), training.batch_size):
                batch = shuffled[start : start + training.batch_size]
                optimizer.zero_grad()
                loss = criterion(network(inputs[batch]).squeeze(-1), targets[batch])
                torch.autograd.backward(loss)
                optimizer.step()
                total += loss.item() * len(batch)
            figure = total / len(labels)
            if held_out is not None:
                figure = _judge(network, *held_out, training)
                score = figure if training.stop_on == "f1" else -figure
                if score > best:
                    best, best_weights, best_epoch = score, copy.deepcopy(network.state_dict()), epoch
            if progress is not None:
                progress(epoch, epochs, figure)
            if held_out is not None and epoch - best_epoch >= training.patience:
                break
        if best_weights is not None:
            network.load_state_dict(best_weights)
    return network.eval()


def _build(n_features: int, training: Training) -> torch.nn.Sequential:
    import torch

    layers: list[torch.nn.Module] = []
    width = n_features
    for units in training.hidden:
        layers += [torch.nn.Linear(width, units), torch.nn.ReLU()]
        if training.dropout > 0:
            layers.append(torch.nn.Dropout(training.dropout))
        width = units
    layers.append(torch.nn.Linear(width, 1 if training.n_classes == 2 else training.n_classes))
    return torch.nn.Sequential(*layers)


def _criterion(n_classes: int, weights: npt.NDArray[np.float64]) -> Callable[..., torch.Tensor]:
    import torch

    per_class = torch.tensor(weights, dtype=torch.float32)
    if n_classes > 2:
        return torch.nn.CrossEntropyLoss(weight=per_class)

    def weighted(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weight = per_class[targets.long()]
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, weight=weight, reduction="sum")
        return losses / weight.sum()

    return weighted


def _class_weights(wanted: ClassWeight, rows_per_class: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    n_classes = len(rows_per_class)
    if wanted is None:
        return np.ones(n_classes)
    if isinstance(wanted, str):
        if wanted != "balanced":
            raise InputError(f"class_weight must be None, 'balanced' or one weight per class, got {wanted!r}")
        balanced: npt.NDArray[np.float64] = rows_per_class.sum() / (n_classes * rows_per_class)
        return balanced
    weights = np.asarray(wanted, dtype=np.float64)
    if weights.shape != (n_classes,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise InputError(f"class_weight needs {n_classes} positive weights, one per class, got {list(wanted)}")
    return weights


def _judge(
    network: torch.nn.Sequential,
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    training: Training,
) -> float:
    import torch

    n_classes = training.n_classes
    network.eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(features)).double()
    if training.stop_on == "log_loss":
        likely = torch.sigmoid(logits[:, 0]) if n_classes == 2 else torch.softmax(logits, dim=1)
        return log_loss(labels, np.clip(likely.numpy(), 0.0, 1.0))
    predicted = (logits[:, 0] > 0).numpy() if n_classes == 2 else logits.argmax(dim=1).numpy()
    everyone_outside = np.full(len(labels), -1)
    return float(find_utility("f1").value(confusion_counts(labels, predicted, everyone_outside, 0, n_classes)))


def _table(
    what: str, X: npt.ArrayLike, y: npt.ArrayLike, n_classes: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    features = np.ascontiguousarray(X, dtype=np.float32)
    if features.ndim != 2 or features.size == 0:
        raise DataError(f"{what} inputs must have shape (n_rows, n_features), got {features.shape}")
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise DataError(
            f"{what} inputs must be finite, got {features[row, column]} in row {row}, column {column}: "
            "fill or drop missing values first"
        )
    labels = codes(f"{what} labels", y, 0, n_classes)
    if labels.shape != (len(features),):
        raise DataError(f"{what} needs one label per row, got shape {labels.shape} for {len(features)} rows")
    return features, labels
