"""Which masks are worth measuring next, given what surrogates believe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairmend.costs import Cost, UtilityFloor
from fairmend.errors import InputError
from fairmend.masks import Mask, Space
from fairmend.search.front import crowding_distances
from fairmend.search.genetic import Genetic, MakeFloor
from fairmend.surrogates.annealing import anneal
from fairmend.surrogates.evaluator import SurrogateEvaluator
from fairmend.threads import one_thread


@dataclass(frozen=True, slots=True)
class ProposalSettings:
    """How a batch is put together.

    Args:
        exploration: how far the functions of the bias that annealing works on stray from the surrogate's mean, in
            posterior draws: 1 is Thompson sampling, which explores more than a few hundred noisy measurements can pay
            for; 0 only exploits.
        loss_exploration: the same of the loss. Of many masks that a draw finds just within the utility floor most break
            it: with the mean instead, more proposals are masks that can be chosen.
        genetic_share: share of the batch taken from NSGA-II's front; the rest comes from annealing.
        boldness: spreads taken off the predictions that NSGA-II minimises: how much uncertainty is a promise.
        moves: of each annealing.
        start_temperature, end_temperature: of annealing, in units of the cost.
        genetic_states: masks that NSGA-II looks at.
        distance: least number of units in which two masks of a batch differ.

    Raises:
        InputError: an option outside its range.
    """

    exploration: float = 0.3
    loss_exploration: float = 0.0
    genetic_share: float = 0.0
    boldness: float = 1.0
    moves: int = 20_000
    start_temperature: float = 0.05
    end_temperature: float = 0.0005
    genetic_states: int = 1500
    distance: int = 2

    def __post_init__(self) -> None:
        if not (
            0 <= self.genetic_share <= 1
            and 0 <= self.exploration <= 1
            and 0 <= self.loss_exploration <= 1
            and self.moves >= 1
            and self.genetic_states >= 1
            and self.distance >= 1
            and 0 < self.end_temperature <= self.start_temperature
        ):
            raise InputError(
                "proposals need genetic_share and both explorations within [0, 1], moves, genetic_states and distance "
                f"of at least 1, and 0 < end_temperature <= start_temperature, got {self}"
            )


def propose(
    predicted: SurrogateEvaluator,
    costs: Sequence[Cost],
    *,
    count: int,
    known: Iterable[Mask],
    rng: np.random.Generator,
    floor: UtilityFloor | None = None,
    settings: ProposalSettings | None = None,
) -> list[Mask]:
    """A batch of different masks that were not measured yet, most promising first.

    Annealing works on one function after another that the truth might be, drawn from the surrogates and moved part of
    the way back to their mean, by default all of it for the loss (Thompson sampling, tempered: Thompson 1933): masks
    that are good under many such functions, or very good under some, are proposed. NSGA-II works on figures that are
    better than the mean by the spread, and gives the masks of its front that lie furthest apart.

    Args:
        predicted: the surrogates and the masks that may be proposed.
        costs: what annealing minimises, in turns; several weights of the bias lead along the front.
        count: size of the batch; smaller only if the space has no further masks at hand.
        known: masks that were measured.
        rng: of all random numbers.
        floor: the utility floor of NSGA-II.
        settings: how the batch is put together.
    """
    settings = settings or ProposalSettings()
    batch = _Batch(predicted.space, known, settings.distance)
    wanted = min(count, round(settings.genetic_share * count))
    with one_thread():
        for mask in _spread_along_the_front(predicted, floor, rng, settings) if wanted else ():
            if len(batch.masks) >= wanted:
                break
            batch.offer(mask)
        for turn in range(3 * count):
            if len(batch.masks) >= count:
                break
            found = anneal(
                predicted.pair.draw(rng, settings.exploration, settings.loss_exploration),
                predicted.space,
                costs[turn % len(costs)],
                seed=rng,
                states=settings.moves + 1,
                start_temperature=settings.start_temperature,
                end_temperature=settings.end_temperature,
            )
            batch.offer_near(found.mask, rng)
        while len(batch.masks) < count and batch.offer_random(rng):
            pass
    return batch.masks


def _spread_along_the_front(
    predicted: SurrogateEvaluator, floor: UtilityFloor | None, rng: np.random.Generator, settings: ProposalSettings
) -> list[Mask]:
    """Masks of NSGA-II's front on bold predictions, those with the widest gaps around them first."""
    still = replace(predicted.space, dials=())
    bold = SurrogateEvaluator(predicted.pair, still, predicted.figures, boldness=settings.boldness)
    make_floor: MakeFloor | None = None if floor is None else lambda reference: floor
    genetic = Genetic(still, bold.figures, make_floor, seed=int(rng.integers(2**31)), states=settings.genetic_states)
    while asked := genetic.ask():  # a runner would keep Ctrl-C to itself
        genetic.tell(asked, bold.measure(asked))
    points = genetic.front.points()
    if not len(points):
        return []
    widths = np.ptp(points, axis=0)
    gaps = crowding_distances(points / np.where(widths > 0, widths, 1.0))
    masks = [predicted.space.mask(mask.units()) for mask, _ in genetic.front]
    return [masks[index] for index in np.argsort(-gaps, kind="stable").tolist()]


class _Batch:
    """Masks that differ from the measured ones, and from each other in a few units at least."""

    def __init__(self, space: Space, known: Iterable[Mask], distance: int) -> None:
        self._space, self._distance = space, distance
        self._taken = set(known)
        self.masks: list[Mask] = []

    def offer(self, mask: Mask, distance: int | None = None) -> bool:
        """Take the mask unless it is known or too near to one of the batch."""
        least = self._distance if distance is None else distance
        if mask in self._taken or not self._space.admits(mask):
            return False
        if any((mask.bits ^ other.bits).bit_count() < least for other in self.masks):
            return False
        self._taken.add(mask)
        self.masks.append(mask)
        return True

    def offer_near(self, mask: Mask, rng: np.random.Generator, tries: int = 8) -> bool:
        """Take the mask or, where that is not possible, one that differs from it in one to three units."""
        if self.offer(mask):
            return True
        units = np.asarray(self._space.droppable)
        for attempt in range(tries if units.size else 0):
            near = mask
            for unit in rng.choice(units, size=min(1 + attempt // 3, units.size), replace=False).tolist():
                near = near.flip(unit)
            if self.offer(near, 1):
                return True
        return False

    def offer_random(self, rng: np.random.Generator, tries: int = 200) -> bool:
        """Take a uniform random mask; False if a number of tries found none that is new."""
        return any(self.offer(self._space.sample(rng), 1) for _ in range(tries))
