"""Boosted regression trees on the dropped units (scikit-learn): interactions of any order, found where they matter."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.surrogates.families.base import Dropped, Prediction, examples, one_thread, sample_weights, typical_noise
from fairmend.surrogates.families.forms import Floats

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor


@dataclass(frozen=True, slots=True)
class BoostedTrees:
    """Histogram gradient boosting on the bits, their sum and, if given, the prior's sum over the dropped units.

    Args:
        trees: number of trees.
        learning_rate: how much of each tree is added.
        leaves: most leaves of a tree.
        least: fewest masks in a leaf.
        held_back: share of the masks whose error gives the spread; the trees are then fitted to all masks.

    Raises:
        InputError: an option outside its range.
    """

    trees: int = 200
    learning_rate: float = 0.05
    leaves: int = 8
    least: int = 5
    held_back: float = 0.2

    def __post_init__(self) -> None:
        if self.trees < 1 or self.leaves < 2 or self.least < 1 or not (self.learning_rate > 0 < self.held_back < 1):
            raise InputError(
                "boosted trees need trees >= 1, leaves >= 2, least >= 1, learning_rate > 0 and 0 < held_back < 1, "
                f"got {asdict(self)}"
            )

    def settings(self) -> dict[str, Any]:
        """The name and every option, JSON-ready."""
        return {"name": "trees", **asdict(self)}

    def fit(
        self,
        dropped: Dropped,
        targets: npt.ArrayLike,
        noise: npt.ArrayLike | None = None,
        prior: npt.ArrayLike | None = None,
        *,
        seed: int = 0,
    ) -> TreePredictor:
        """Learn from measured masks; see `Surrogate.fit`."""
        given = examples(dropped, targets, noise, prior)
        trial, model = self._trees(seed), self._trees(seed)
        weights, known = sample_weights(given.noise), typical_noise(given.noise)
        order = np.random.default_rng(seed).permutation(len(given.y))
        n_back = max(1, round(self.held_back * len(order)))
        back, train = order[:n_back], order[n_back:]
        with one_thread():
            table = _features(given.x, given.prior)
            trial.fit(table[train], given.y[train], sample_weight=weights[train])
            errors = trial.predict(table[back]) - given.y[back]
            variance = float(np.average(errors**2, weights=weights[back]))
            model.fit(table, given.y, sample_weight=weights)
        spread = math.sqrt(max(variance - known**2, 0.01 * variance))
        return TreePredictor(model, given.prior, spread, known)

    def _trees(self, seed: int) -> HistGradientBoostingRegressor:
        from sklearn.ensemble import HistGradientBoostingRegressor  # takes seconds to import

        return HistGradientBoostingRegressor(
            max_iter=self.trees,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=self.least,
            early_stopping=False,
            random_state=seed,
        )


@dataclass(frozen=True, slots=True)
class TreePredictor:
    """Fitted trees. Their spread is the same everywhere: their error on masks held back, without its noise."""

    model: HistGradientBoostingRegressor
    prior: Floats | None
    spread: float
    noise: float

    def predict(self, dropped: Dropped) -> Prediction:
        """The trees' values of masks of shape (n_masks, n_units)."""
        x = np.asarray(dropped, dtype=np.float64)
        with one_thread():  # threads that wait for each other cost more than they bring, and most of all on few masks
            mean = np.asarray(self.model.predict(_features(x, self.prior)), dtype=np.float64)
        return Prediction(mean, np.full(len(mean), self.spread))

    def form(self) -> None:
        """Trees are not written out as a formula of the bits."""
        return

    def draw(self, rng: np.random.Generator) -> TreePredictor:
        """Itself: one set of trees knows no alternatives; an ensemble does."""
        return self


def _features(x: Floats, prior: Floats | None) -> Floats:
    columns = [x, x.sum(axis=1)] if prior is None else [x, x.sum(axis=1), x @ prior]
    return np.column_stack(columns)
