"""Neural surrogates: a small network from the bits of a mask to one figure, trained on the mean squared error.

Attention Pruning fits two such networks, one for the bias and one for the perplexity. Its layers, widths and training
are not published: those here are our own.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.surrogates.families.base import (
    Dropped,
    Examples,
    FixedPredictor,
    examples,
    sample_weights,
    typical_noise,
)
from fairmend.surrogates.families.forms import Floats, Form, Layer
from fairmend.threads import one_thread

if TYPE_CHECKING:
    import torch

_PATIENCE = 50


@dataclass(frozen=True, slots=True)
class NeuralNetwork:
    """A ReLU network trained with Adam on all masks at once, stopped where the masks held back are predicted best.

    Args:
        hidden: widths of the hidden layers.
        epochs: most steps.
        learning_rate, weight_decay: of Adam.
        held_back: share of the masks that decide when to stop, and how wide the spread is.

    Raises:
        InputError: an option outside its range.
    """

    hidden: tuple[int, ...] = (64,)
    epochs: int = 600
    learning_rate: float = 0.01
    weight_decay: float = 0.01
    held_back: float = 0.15

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if not self.hidden or min(self.hidden) < 1 or self.epochs < 1 or not 0 < self.held_back < 1:
            raise InputError(
                "a network needs at least one hidden layer of at least one unit, at least one epoch and "
                f"0 < held_back < 1, got hidden={self.hidden}, epochs={self.epochs}, held_back={self.held_back}"
            )

    def settings(self) -> dict[str, Any]:
        """The name and every option, JSON-ready."""
        return {"name": "network", **asdict(self), "hidden": list(self.hidden)}

    def fit(
        self,
        dropped: Dropped,
        targets: npt.ArrayLike,
        noise: npt.ArrayLike | None = None,
        prior: npt.ArrayLike | None = None,
        *,
        seed: int = 0,
    ) -> FixedPredictor:
        """Learn from measured masks; see `Surrogate.fit`. A prior is a further input: the sum over dropped units.

        Its spread is the same everywhere: its error on the masks held back, without their noise.
        """
        import torch  # noqa: F401  takes seconds, and must be there before its threads are limited

        with one_thread():
            return self._fit(examples(dropped, targets, noise, prior), np.random.default_rng(seed))

    def _fit(self, given: Examples, rng: np.random.Generator) -> FixedPredictor:
        centre, unit = float(given.y.mean()), float(given.y.std())
        inputs, n_units = given.x, given.x.shape[1]
        if given.prior is not None:
            inputs = np.column_stack((inputs, inputs @ given.prior))
        typical = np.sqrt(np.maximum((inputs**2).mean(axis=0), 1e-6)) * math.sqrt(inputs.shape[1])
        layers = self._initial(rng, inputs.shape[1], typical)
        order = rng.permutation(len(inputs))
        n_back = max(1, round(self.held_back * len(inputs)))
        layers, error = self._train(
            layers, inputs, (given.y - centre) / unit, sample_weights(given.noise), order[n_back:], order[:n_back]
        )
        weight, bias = layers[0]
        if given.prior is not None:
            weight = weight[:n_units] + np.outer(given.prior, weight[n_units])
        written = Form.network([(weight, bias), *layers[1:]]).scaled(unit, centre)
        known = typical_noise(given.noise)
        spread = math.sqrt(max((unit * error) ** 2 - known**2, 0.01 * (unit * error) ** 2))
        return FixedPredictor(written, known, spread)

    def _initial(self, rng: np.random.Generator, n_inputs: int, typical: Floats) -> list[Layer]:
        """He's initialisation for inputs of the given root mean squares."""
        widths = [n_inputs, *self.hidden, 1]
        layers: list[Layer] = []
        for level, (n_in, n_out) in enumerate(pairwise(widths)):
            size = (1.0 / typical)[:, None] if level == 0 else math.sqrt(2.0 / n_in)
            layers.append((rng.standard_normal((n_in, n_out)) * size, np.zeros(n_out)))
        return layers

    def _train(
        self,
        layers: list[Layer],
        inputs: Floats,
        y: Floats,
        weights: Floats,
        train: npt.NDArray[np.int64],
        back: npt.NDArray[np.int64],
    ) -> tuple[list[Layer], float]:
        """The trained layers and their root mean squared error on the rows held back."""
        import torch

        tensors = [torch.tensor(array, dtype=torch.float32, requires_grad=True) for layer in layers for array in layer]
        adam = torch.optim.Adam(tensors, lr=self.learning_rate, weight_decay=self.weight_decay)
        parts = [
            tuple(torch.tensor(array[rows], dtype=torch.float32) for array in (inputs, y, weights))
            for rows in (train, back)
        ]
        best, best_error, waited = [tensor.detach().clone() for tensor in tensors], math.inf, 0
        for _ in range(self.epochs):
            adam.zero_grad()
            x, wanted, weight = parts[0]
            loss = (weight * (_forward(tensors, x) - wanted) ** 2).mean()
            torch.autograd.backward(loss)
            adam.step()
            with torch.no_grad():
                x, wanted, weight = parts[1]
                error = float((weight * (_forward(tensors, x) - wanted) ** 2).mean())
            waited += 1
            if error < best_error:
                best, best_error, waited = [tensor.detach().clone() for tensor in tensors], error, 0
            if waited > _PATIENCE:
                break
        arrays = [tensor.numpy().astype(np.float64) for tensor in best]
        return list(zip(arrays[::2], arrays[1::2], strict=True)), math.sqrt(best_error)


def _forward(tensors: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for index in range(0, len(tensors) - 2, 2):
        x = (x @ tensors[index] + tensors[index + 1]).relu()
    return (x @ tensors[-2] + tensors[-1]).squeeze(1)
