"""What searches have in common that learn surrogates from their measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.costs import Cost, UtilityFloor
from fairmend.errors import InputError
from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask, Space
from fairmend.search.base import Incumbent, MakeCost, SteppedSearcher, require_finite
from fairmend.search.front import Front
from fairmend.search.genetic import MakeFloor
from fairmend.surrogates.base import Surrogate
from fairmend.surrogates.evaluator import SurrogateEvaluator
from fairmend.surrogates.fitting import FittedPair, fit_pair, make_surrogate
from fairmend.surrogates.objectives import terms_of
from fairmend.surrogates.samples import Samples

_MARGIN = 1.64  # standard errors between a chosen mask and the utility floor


class LearningSearcher(SteppedSearcher):
    """A search that fits surrogates to what it was told. Dials stay at 0.

    Args:
        space: what may be dropped.
        figures: what the measurements mean.
        make_cost: builds the cost to minimise from the untouched mask's measurement: a `PenalisedBias`, `WeightedSum`
            or `FlooredSum`.
        make_floor: builds the utility floor likewise; None sets none beside the cost's own.
        surrogate: of either figure, or its name.
        prior, log_loss: see `fit_pair`.

    Attributes:
        incumbent: the mask of the least measured cost. With noisy measurements it owes part of that to luck: see
            `finalists`.
        front: the non-dominated (mask, measurement) of everything told that keeps the utility floor.
        pair: the surrogates fitted last; None before.
        trouble: why the last fit was not possible; empty if it was.
    """

    def __init__(
        self,
        space: Space,
        figures: Figures,
        make_cost: MakeCost | None,
        make_floor: MakeFloor | None,
        surrogate: str | Surrogate,
        prior: Mapping[str, npt.ArrayLike] | None,
        log_loss: bool | None = None,
    ) -> None:
        super().__init__(space)
        self.figures, self.make_cost, self.make_floor = figures, make_cost, make_floor
        self.surrogate = make_surrogate(surrogate) if isinstance(surrogate, str) else surrogate
        self.prior = {name: np.asarray(values, dtype=np.float64) for name, values in (prior or {}).items()}
        self.log_loss = log_loss
        self.incumbent = Incumbent()
        self.front: Front[tuple[Mask, Measurement]] = Front()
        self.pair: FittedPair | None = None
        self.trouble = ""
        self._told: dict[Mask, Measurement] = {}
        self._cost: Cost | None = None
        self._floor: UtilityFloor | None = None

    def finalists(self, count: int) -> list[Mask]:
        """The most promising measured masks by the surrogates' figures, in which the luck of measuring averages out.

        Most promising first. A mask whose utility keeps the floor only within its error counts as breaking it. The
        untouched mask comes last if it is not among them. Measure them again on data that
        the search did not see.

        Args:
            count: how many masks, a last untouched one not counted.
        """
        if self._cost is None:
            return []
        masks = [mask for mask, made in self._told.items() if made.is_finite]
        limit, penalty = (terms := terms_of(self._cost)).limit, terms.penalty
        costs = np.zeros(len(masks))
        for index, belief in enumerate(self.believed(masks)):
            costs[index] = self._cost(belief)
            loss, error = self.figures.loss(belief), belief.utility_se
            # Of many masks near the floor the luckiest look admissible: a margin keeps the chosen ones above it.
            if masks[index].bits and loss <= limit < loss + _MARGIN * error:
                costs[index] += penalty
        chosen = [masks[index] for index in np.argsort(costs, kind="stable")[:count].tolist()]
        untouched = self.space.untouched()
        return chosen if untouched in chosen else [*chosen, untouched]

    def believed(self, masks: Sequence[Mask]) -> list[Measurement]:
        """What is believed of measured masks: their measurements, drawn to the surrogates' figures by their noise.

        What a surrogate leaves unexplained is partly noise and partly the mask's own. Where the measurements come with
        standard errors, that part is known, and the figures are weighed by their variances.
        """
        told = [self._told[mask] for mask in masks]
        if self.pair is None:
            return told
        predicted = SurrogateEvaluator(self.pair, self.space, self.figures).measure(masks)
        found = []
        for made, guess in zip(told, predicted, strict=True):
            if not guess.is_finite:
                found.append(made)
                continue
            noises = (
                self.pair.bias.noise * self.pair.bias_scale.width,
                self.pair.loss.noise * self.pair.loss_scale.width * (made.utility if self.pair.loss_scale.log else 1.0),
            )
            bias, bias_se = _between(guess.bias, guess.bias_se, made.bias, made.bias_se, noises[0])
            utility, utility_se = _between(guess.utility, guess.utility_se, made.utility, made.utility_se, noises[1])
            found.append(Measurement(bias, utility, (), made.n, bias_se, utility_se))
        return found

    def _common_settings(self) -> dict[str, Any]:
        """Surrogate and prior, JSON-ready."""
        prior = {name: values.tolist() for name, values in self.prior.items()}
        return {"surrogate": dict(self.surrogate.settings()), "prior": prior}

    def _begin(self, reference: Measurement) -> None:
        """Set the floor, and the cost if it is relative to the untouched model, and learn that model's figures.

        Raises:
            InputError: the untouched model has no finite figures, or a cost that surrogates cannot be searched for.
        """
        require_finite(reference)
        self._floor = None if self.make_floor is None else self.make_floor(reference)
        if self.make_cost is not None:
            self._cost = self.make_cost(reference)
            terms_of(self._cost)
        self._learn([self.space.untouched()], [reference])

    def _adopt(self, cost: Cost) -> None:
        """Set a cost that became known only now, and compare what was told by it."""
        self._cost = cost
        for mask, made in self._told.items():
            self.incumbent.offer(mask, made, cost(made))

    def _learn(self, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
        """Take note of what was measured."""
        for mask, made in zip(masks, measurements, strict=True):
            self._told.setdefault(mask, made)
            if self._cost is not None:
                self.incumbent.offer(mask, made, self._cost(made))
            if made.is_finite and (self._floor is None or self._floor.admits(made)):
                self.front.offer((mask, made), made.bias, self.figures.loss(made))

    def _fit(self, seed: int) -> FittedPair | None:
        """The surrogates fitted to everything told; None, and the trouble noted, if that is not possible yet."""
        try:
            samples = Samples.of(self._told.items(), self.figures)
            self.pair = fit_pair(
                samples, self.figures, self.surrogate, log_loss=self.log_loss, prior=self.prior or None, seed=seed
            )
        except InputError as error:
            self.trouble = str(error)
            return None
        self.trouble = ""
        return self.pair


def _between(guess: float, spread: float, made: float, error: float, noise: float) -> tuple[float, float]:
    """A figure between prediction and measurement, by their variances, and its standard error.

    Args:
        guess, spread: the prediction.
        made, error: the measurement; an error that is not finite is taken to be the noise.
        noise: what the surrogate takes for noise: where the error is known and smaller, the rest is the mask's own.
    """
    error = error if math.isfinite(error) else noise
    own = spread**2 + max(0.0, noise**2 - error**2)
    trust = own / (own + error**2) if own + error**2 > 0 else 1.0
    return guess + trust * (made - guess), math.sqrt(trust) * error
