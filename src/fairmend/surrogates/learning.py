"""What searches have in common that learn surrogates from their measurements."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fairmend.costs import Cost, UtilityFloor
from fairmend.errors import InputError
from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask, Space
from fairmend.search.base import Incumbent, MakeCost, Options, SteppedSearcher, require_finite
from fairmend.search.front import Front, along_front
from fairmend.search.genetic import MakeFloor
from fairmend.settings import documented, setting
from fairmend.surrogates.families.base import Predictor
from fairmend.surrogates.families.forms import Floats
from fairmend.surrogates.fitting import FittedPair, fit_pair, make_surrogate
from fairmend.surrogates.objectives import terms_of
from fairmend.surrogates.samples import Samples, Scale
from fairmend.threads import one_thread

_MARGIN = 2.33  # standard errors between a chosen mask and the utility floor: the best of many is a lucky one


@documented
@dataclass(frozen=True, kw_only=True)
class LearningOptions(Options):
    """Options of searches that learn surrogates."""

    seed: int = setting(0, "of all random numbers.", least=0)
    states: int = setting(300, "masks to measure in all, the untouched one included.", least=1)
    surrogate: Any = setting("pairwise", "of either figure: a `Surrogate`, or its name or settings.")
    prior: Any = setting(None, "believed effects of every unit by figure, see `fit_pair`.")
    known: Sequence[Mask | Sequence[int]] = setting(
        (), "masks to begin with in place of random ones, such as those that a collection has measured already."
    )
    whole_front: bool = setting(
        False,
        "whether annealing also looks for other weights of bias and loss than the cost's own, for a search whose "
        "result is the front; a cost without weights is used as it is.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.surrogate, str | Mapping):
            object.__setattr__(self, "surrogate", make_surrogate(self.surrogate))
        prior = {name: np.asarray(values, dtype=np.float64) for name, values in (self.prior or {}).items()}
        object.__setattr__(self, "prior", prior)


class LearningSearcher(SteppedSearcher):
    """A search that fits surrogates to what it was told. Dials stay at 0.

    Args:
        space: what may be dropped.
        figures: what the measurements mean.
        make_cost: builds the cost to minimise from the untouched mask's measurement: a `PenalisedBias`, `WeightedSum`
            or `FlooredSum`.
        make_floor: builds the utility floor likewise; None sets none beside the cost's own.
        options: of the dataclass `accepts`.

    Attributes:
        incumbent: the mask of the least measured cost. With noisy measurements it owes part of that to luck: see
            `finalists`.
        front: the non-dominated (mask, measurement) of everything told that keeps the utility floor.
        pair: the surrogates fitted last; None before.
        trouble: why the last fit was not possible; empty if it was.
    """

    log_loss: bool | None = None

    def __init__(
        self,
        space: Space,
        figures: Figures,
        make_cost: MakeCost | None = None,
        make_floor: MakeFloor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, **options)
        self.figures, self.make_cost, self.make_floor = figures, make_cost, make_floor
        masks = (mask if isinstance(mask, Mask) else space.mask(mask) for mask in self.options.known)
        self.known = tuple(dict.fromkeys(mask for mask in masks if not mask.is_untouched))
        self.incumbent = Incumbent()
        self.front: Front[tuple[Mask, Measurement]] = Front()
        self.pair: FittedPair | None = None
        self.trouble = ""
        self._told: dict[Mask, Measurement] = {}
        self._cost: Cost | None = None
        self._floor: UtilityFloor | None = None

    def settings(self) -> dict[str, Any]:
        """The name and every option with the seed, JSON-ready: enough to build an equal searcher."""
        return {
            "name": self.name,
            **{option.name: getattr(self.options, option.name) for option in fields(self.options)},
            "surrogate": dict(self.options.surrogate.settings()),
            "prior": {name: values.tolist() for name, values in self.options.prior.items()},
            "known": [list(mask.units()) for mask in self.known],
        }

    def finalists(self, count: int, among: Container[Mask] | None = None) -> list[Mask]:
        """The most promising measured masks by the surrogates' figures, in which the luck of measuring averages out.

        Most promising first. A mask whose utility keeps the floor only within its error counts as breaking it. The
        untouched mask comes last if it is not among them. Measure them again on data that the search did not see.

        Args:
            count: how many masks, a last untouched one not counted.
            among: only of these; by default of all that were measured.
        """
        if self._cost is None:
            return []
        told = ((mask, made) for mask, made in self._told.items() if among is None or mask in among)
        masks = [mask for mask, made in told if made.is_finite]
        limit, penalty = (terms := terms_of(self._cost)).limit, terms.penalty
        costs = np.zeros(len(masks))
        for index, belief in enumerate(self.believed(masks)):
            costs[index] = self._cost(belief)
            if masks[index].bits and self.figures.loss(belief) <= limit and not self._keeps(limit, belief):
                costs[index] += penalty
        chosen = [masks[index] for index in np.argsort(costs, kind="stable")[:count].tolist()]
        untouched = self.space.untouched()
        return chosen if untouched in chosen else [*chosen, untouched]

    def front_finalists(self, count: int) -> list[Mask]:
        """Measured masks spread along the front of bias and loss, by the surrogates' figures; the untouched one is not.

        A mask whose utility keeps the floor only within its error is left out. Where the front has too few masks, those
        right behind it follow. Measure them again on data that the search did not see.

        Args:
            count: how many masks at most.
        """
        if self._cost is None:
            return []
        masks = [mask for mask, made in self._told.items() if made.is_finite and not mask.is_untouched]
        limit = terms_of(self._cost).limit
        pairs = zip(masks, self.believed(masks), strict=True)
        kept = [(mask, belief) for mask, belief in pairs if self._keeps(limit, belief)]
        chosen = along_front([(belief.bias, self.figures.loss(belief)) for _, belief in kept], count)
        return [kept[index][0] for index in chosen]

    def _keeps(self, limit: float, belief: Measurement) -> bool:
        """Whether a mask keeps the floor with a margin: of many masks near it the luckiest look admissible."""
        loss, error = self.figures.loss(belief), belief.utility_se
        return loss <= limit and not limit < loss + _MARGIN * error

    def believed(self, masks: Sequence[Mask]) -> list[Measurement]:
        """What is believed of measured masks whose figures are finite: measurements and predictions, weighed.

        What a surrogate leaves unexplained is partly noise and partly the mask's own. Where the measurements come with
        standard errors, that part is known, and the figures are weighed by their variances.
        """
        told = [self._told[mask] for mask in masks]
        if self.pair is None or not told:
            return told
        samples = Samples.of(zip(masks, told, strict=True), self.figures)
        pair, lower = self.pair, self.figures.utility.better == "lower"
        with one_thread():
            biases, bias_errors = _weighed(pair.bias, pair.bias_scale, samples, "bias")
            losses, loss_errors = _weighed(pair.loss, pair.loss_scale, samples, "loss")
        columns = np.column_stack((biases, losses if lower else -losses, bias_errors, loss_errors)).tolist()
        return [
            Measurement(bias, utility, (), made.n, bias_error, utility_error)
            for (bias, utility, bias_error, utility_error), made in zip(columns, told, strict=True)
        ]

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
                samples,
                self.figures,
                self.options.surrogate,
                log_loss=self.log_loss,
                prior=self.options.prior or None,
                seed=seed,
            )
        except InputError as error:
            self.trouble = str(error)
            return None
        self.trouble = ""
        return self.pair


def _weighed(predictor: Predictor, scale: Scale, samples: Samples, name: str) -> tuple[Floats, Floats]:
    """Figures between prediction and measurement by their variances, and bounds of their errors, each (n_masks,).

    Weighed on the surrogates' scale, where the noise is the same for all masks. A measurement without a standard error
    has the surrogate's noise. Where the error is known and smaller than that noise, the rest is the mask's own. The
    standard errors are those of the measurements: what is believed is more exact, if the surrogate is right.
    """
    values = samples.target(name)
    mean, spread = predictor.predict(samples.dropped)
    error = scale.error(samples.noise(name), values)
    error = np.where(np.isfinite(error), error, predictor.noise)
    # Standard errors contain what all masks share, such as their prompts; residuals do not.
    luck = np.minimum(error, predictor.noise) if predictor.noise > 0 else error
    own = spread**2 + np.maximum(0.0, predictor.noise**2 - luck**2)
    unsure = own + luck**2
    trust = np.where(unsure > 0, own / np.where(unsure > 0, unsure, 1.0), 1.0)
    figure = scale.figure(mean + trust * (scale.unit(values) - mean))
    slope = figure if scale.log else np.ones(len(figure))
    return figure, error * scale.width * slope
