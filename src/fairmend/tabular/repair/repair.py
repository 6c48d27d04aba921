"""Repair a trained tabular network: search, choose, judge on data the search never saw, bake."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from fairmend.costs import UtilityFloor
from fairmend.errors import DataError, RunError
from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask, Space
from fairmend.runs.budgets import Budget
from fairmend.runs.collection import Collection
from fairmend.runs.progress import Progress
from fairmend.runs.runner import Runner, RunSummary
from fairmend.runs.store import Store
from fairmend.runs.workers import Workers
from fairmend.search import Front, Searcher, make_searcher
from fairmend.tabular.counting.evaluator import Rows, TabularEvaluator
from fairmend.tabular.data.datasets import Dataset, require_people
from fairmend.tabular.fairness.findings import Comparison
from fairmend.tabular.fairness.metrics import LOG_LOSS
from fairmend.tabular.names import DropName
from fairmend.tabular.networks.baking import bake
from fairmend.tabular.networks.networks import NOT_FINITE, Network, emitted
from fairmend.tabular.repair.choice import Choice, choose
from fairmend.tabular.repair.judging import judge_splits
from fairmend.tabular.repair.settings import RepairSettings

_CALIBRATION_SECONDS = 0.3
_PLANNED_SHARE = 0.9  # of a time limit: the rest is for what the calibration did not see


@dataclass(frozen=True)
class Repair:
    """What a repair found, with everything needed to judge it.

    Attributes:
        mask: the dropped neurons and the shift of the threshold; untouched if nothing fairer was found.
        space: the masks that were searched.
        network: the repaired network, in the original shape.
        drop: what dropping means; "clamp" only if the single intervention of DICE that clamps won.
        figures, before, after: the untouched and the chosen mask, on all rows that the search may see: too rosy for the
            chosen one, because it was chosen on them.
        floor: the utility floor on these rows.
        splits: before against after on every split that has rows, with intervals; "test" was never searched on.
        front: the non-dominated (mask, measurement) pairs of everything that the search measured, by ascending bias.
        measured: number of distinct masks measured.
        run: how the search went.
        settings: how it was set, the planned number of states filled in.
    """

    mask: Mask
    space: Space
    network: Network
    drop: DropName
    figures: Figures
    before: Measurement
    after: Measurement
    floor: UtilityFloor
    splits: dict[str, Comparison]
    front: tuple[tuple[Mask, Measurement], ...]
    measured: int
    run: RunSummary
    settings: RepairSettings

    @property
    def feasible(self) -> bool:
        """Whether the chosen mask keeps the utility floor on the search rows."""
        return self.floor.admits(self.after)

    @property
    def improved(self) -> bool:
        """Whether anything was changed at all."""
        return not self.mask.is_untouched


def repair_network(
    network: Network,
    dataset: Dataset,
    settings: RepairSettings | None = None,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
    judge: bool = True,
    threads: int = 1,
) -> Repair:
    """Find the dropped neurons (and threshold) that make a network fairer at nearly the same utility.

    NeuFair (Dasu et al., ISSTA 2024) with `RepairSettings(search_on="validation", threshold="fixed", finalists=1)`.
    The network itself is left as it is.

    Args:
        network: a trained network.
        dataset: rows with groups and splits. Only the search sees the groups; the repaired network needs none.
        settings: how to repair.
        store: where measurements are kept; a store with an interrupted run is gone on with.
        progress: where to show how far the search is.
        workers: who measures the masks that a search asks for together; None is this process.
        judge: whether to compare before and after on every split, with intervals.
        threads: threads of the linear algebra.

    Raises:
        DataError: a data set that does not fit the network.
        InputError: settings that cannot work.
        RunError: a store that belongs to another run, or cannot be written.
    """
    settings = settings or RepairSettings()
    require_fit(network, dataset)
    require_people(dataset, settings.objective)
    with threadpool_limits(threads):
        settings = _planned(network, dataset, settings, store)
        best = _search(network, dataset, settings, settings.drop, store, progress, workers)
        if settings.search == "dice" and settings.drop == "output" and best.run.stopped != "interrupted":
            # DICE intervenes in two ways: a neuron is switched off, or held at its maximum.
            clamped = _search(network, dataset, settings, "clamp", store, progress, workers)
            if clamped.choice.chosen.bias < best.choice.chosen.bias:
                best = clamped
            elif clamped.run.stopped == "interrupted":
                best = replace(best, run=clamped.run)
        choice = best.choice
        mask = choice.mask if best.space.dials else choice.mask.turn(())  # the choice looks at thresholds in any case
        constants = emitted_on(network, best.drop, dataset, settings)

        def repaired(X: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
            return network.logits(X, mask, constants)

        return Repair(
            mask=mask,
            space=best.space,
            network=bake(network, mask, best.drop if best.drop == "weights" else constants),
            drop=best.drop,
            figures=best.figures,
            before=choice.reference,
            after=choice.chosen,
            floor=choice.floor,
            splits=judge_splits(dataset, settings, network.logits, repaired) if judge else {},
            front=tuple(best.front),
            measured=best.measured,
            run=best.run,
            settings=settings,
        )


def require_fit(network: Network, dataset: Dataset) -> None:
    """Make sure that a network can predict a data set's classes from its features.

    Raises:
        DataError: another number of features or classes, the same classes in another order, or features too large for
            the network's weights.
    """
    if dataset.n_features != network.n_features:
        raise DataError(
            f"the network takes {network.n_features} features, {dataset.name} has {dataset.n_features}: encode the "
            "data as the network was trained, or use the preset that it was trained with"
        )
    if len(dataset.classes) != network.n_classes:
        raise DataError(
            f"the network tells {network.n_classes} classes apart, the labels of {dataset.name} have "
            f"{len(dataset.classes)}: {', '.join(map(str, dataset.classes))}"
        )
    if network.classes != dataset.classes and set(network.classes) == set(dataset.classes):
        way = f"say that {network.classes[1]!r} is positive (positive=...)" if dataset.positive else "arrange them so"
        raise DataError(
            f"the network's file names its classes in the order {', '.join(network.classes)}, and {dataset.name} has "
            f"them in the order {', '.join(dataset.classes)}, so that every prediction would be taken for another "
            f"class: {way}"
        )
    largest = np.maximum(dataset.X.max(axis=0, initial=0), -dataset.X.min(axis=0, initial=0))
    if not network.stays_finite(largest):
        name = dataset.feature_names[int(largest.argmax())]
        raise DataError(f"{NOT_FINITE}. Column {name!r} has the largest values, up to {largest.max():.3g}")


@dataclass(frozen=True)
class _Outcome:
    """One search under one meaning of "drop", and what it led to on all rows that it may see."""

    drop: DropName
    space: Space
    figures: Figures
    run: RunSummary
    choice: Choice
    front: Front[tuple[Mask, Measurement]]
    measured: int


def emitted_on(network: Network, drop: DropName, dataset: Dataset, settings: RepairSettings) -> npt.NDArray[np.float64]:
    """What a dropped neuron emits, shape (n_units,); only "clamp" looks at the rows that the search may see."""
    return emitted(network, drop, dataset.subset(*settings.splits)[0] if drop == "clamp" else None)


def evaluator_for(
    network: Network,
    dataset: Dataset,
    settings: RepairSettings,
    space: Space,
    *,
    drop: DropName | None = None,
    rows_per_cell: int | None = None,
    few: bool = False,
) -> TabularEvaluator:
    """The evaluator of the rows that the search may see, all of them or a sample; `few` masks are asked together."""
    streamed = few and network.n_outputs == 1 and settings.utility != LOG_LOSS and space.n_units > 0
    rows = Rows(
        *dataset.subset(*settings.splits), dataset.group_names, settings.search_on, rows_per_cell, settings.seed
    )
    evaluator = TabularEvaluator(
        network,
        rows,
        space,
        objective=settings.objective,
        utility=settings.utility,
        drop=drop or settings.drop,
        path="streamed" if streamed else "auto",
    )
    options: dict[str, Any] = {"drop": drop, "rows_per_cell": rows_per_cell, "few": few}
    evaluator.rebuild = partial(evaluator_for, network, dataset, settings, space, **options)
    return evaluator


def _planned(network: Network, dataset: Dataset, settings: RepairSettings, store: Store | None) -> RepairSettings:
    """The settings with a number of states: a schedule cools on states, never on the clock.

    A time limit alone is turned into states once, from the measured speed; a resumed run takes the plan on record.
    """
    if isinstance(settings.states, int):
        return settings
    if settings.seconds is None:
        return replace(settings, states=settings.budget)
    earlier = store.events("plan") if store is not None else []
    if earlier:
        states = earlier[-1].payload.get("states")
        if type(states) is not int or states < 1:
            raise RunError(
                f"the run was planned for {states!r} states, which is no plan: start again with another --out"
            )
        return replace(settings, states=states)
    space = settings.space(network)
    evaluator = evaluator_for(network, dataset, settings, space, rows_per_cell=settings.rows_per_cell)
    reference = evaluator.measure([space.untouched()])[0]
    walk = make_searcher(
        "random-walk",
        space,
        make_cost=lambda measurement: settings.cost(evaluator.figures, measurement),
        figures=evaluator.figures,
        seed=settings.seed,
        states=1_000_000,
    )
    measured, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < _CALIBRATION_SECONDS or measured < 3:
        masks = walk.ask()
        if not masks:  # a space without moves
            return replace(settings, states=10)
        walk.tell(masks, [reference] if masks[0].is_untouched else evaluator.measure(masks))
        measured += len(masks)
    states = max(10, int(_PLANNED_SHARE * settings.seconds * measured / spent))
    if store is not None:
        store.record("plan", {"states": states, "seconds": settings.seconds, "states_per_second": measured / spent})
    return replace(settings, states=states)


def _search(
    network: Network,
    dataset: Dataset,
    settings: RepairSettings,
    drop: DropName,
    store: Store | None,
    progress: Progress | None,
    workers: Workers | None,
) -> _Outcome:
    space = settings.space(network)
    if settings.search in ("dice", "exhaustive"):
        space = replace(space, dials=())  # both go through dropped sets one by one: nothing turns a dial
    evaluator = evaluator_for(network, dataset, settings, space, drop=drop, rows_per_cell=settings.rows_per_cell)
    collection = Collection(space, evaluator.figures) if store is None else store.context(f"search {drop}", evaluator)
    runner = Runner(evaluator, collection, workers=workers, progress=progress)
    searcher = _searcher(space, evaluator.figures, settings)  # refuses options before anything is measured
    (reference,) = runner.measure([space.untouched()])
    run = runner.run(searcher, Budget(evaluations=settings.budget, seconds=settings.seconds))
    measured = list(collection)
    floor = settings.floor(evaluator.figures, reference)
    front: Front[tuple[Mask, Measurement]] = Front()
    for mask, measurement in measured:
        if floor.admits(measurement):
            front.offer((mask, measurement), measurement.bias, evaluator.figures.loss(measurement))
    wide = network.space(dials=network.threshold_dials())
    everything = evaluator_for(network, dataset, settings, wide, drop=drop, few=True)
    # Stopped by hand: no time for a long choice, and a resumed run will make it.
    haste = replace(settings, finalists=1)
    try:
        choice = choose(measured, evaluator.figures, everything, haste if run.stopped == "interrupted" else settings)
    except KeyboardInterrupt:
        run = replace(run, stopped="interrupted")
        choice = choose(measured, evaluator.figures, everything, haste)
    return _Outcome(drop, space, everything.figures, run, choice, front, len(measured))


def _searcher(space: Space, figures: Figures, settings: RepairSettings) -> Searcher:
    walks = settings.search in ("annealing", "random-walk")
    options = {"restarts": settings.restarts, "chains": settings.chains} if walks else {}
    return make_searcher(
        settings.search,
        space,
        make_cost=lambda reference: settings.cost(figures, reference),
        make_floor=lambda reference: settings.floor(figures, reference),
        figures=figures,
        seed=settings.seed,
        states=settings.budget,
        **options,
        **settings.options,
    )
