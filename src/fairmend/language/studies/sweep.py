"""The design questions of Attention Pruning, answered from one collection of measured subsets.

How does the weight of the bias move the result, how many measured subsets does it take, and what does one surrogate
alone lead to? For every number of subsets the surrogates are fitted once; for every weight they are annealed on, and
the winner, which the published algorithm never measures, is judged on prompts and text that no subset was measured on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fairmend.errors import DataError, InputError
from fairmend.evaluation import Measurement
from fairmend.language.measurement.judging import judge_sets, spot_of
from fairmend.language.measurement.logbook import Logbook
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.repair.subset_search import (
    PUBLISHED_SURROGATE,
    SubsetEvaluator,
    collecting_evaluator,
    require_searchable,
)
from fairmend.language.studies.study import NOT_CHOSEN, UNTOUCHED, JudgedSet, JudgedStudy
from fairmend.masks import Mask
from fairmend.report import figures as pictures
from fairmend.report.figures import Panel, Point, Series
from fairmend.report.study import study_kind
from fairmend.report.tables import Cell, Column, fixed
from fairmend.runs.context import Context
from fairmend.runs.progress import Progress
from fairmend.runs.store import Store
from fairmend.runs.workers import Workers
from fairmend.search.base import require_count, require_number
from fairmend.surrogates.attention_pruning import anneal_pair, published_cost
from fairmend.surrogates.fitting import fit_pair, make_surrogate
from fairmend.surrogates.objectives import FlooredSum
from fairmend.surrogates.samples import Samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPSILONS = (0.0, 0.25, 0.5, 0.75, 1.0)
_ALONE = {0.0: " (perplexity only)", 1.0: " (bias only)"}


@dataclass(frozen=True)
class SweepSettings:
    """What is swept.

    Attributes:
        epsilons: weights of the bias; the rest weighs the perplexity.
        budgets: numbers of subsets to learn from, the empty one included: the first ones of the collection.
        shared: everything else: how subsets were measured, the surrogate, the perplexity floor, prompts, text, seed.

    Raises:
        InputError: a list that is empty or repeats itself, or a value outside its range.
    """

    kind: ClassVar[str] = "language sweep"

    budgets: tuple[int, ...]
    epsilons: tuple[float, ...] = EPSILONS
    shared: RepairSettings = field(default_factory=lambda: RepairSettings(method="attention-pruning"))

    def __post_init__(self) -> None:
        for name in ("budgets", "epsilons"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name} needs one or more different values, got {values!r}")
        for budget in self.budgets:
            require_count("budgets", budget, 2)
        for epsilon in self.epsilons:
            require_number("epsilons", epsilon, 0, 1)

    @property
    def cases(self) -> tuple[tuple[float, bool], ...]:
        """(epsilon, whether the perplexity floor is kept): each one surrogate alone is shown without the floor too."""
        if self.shared.max_perplexity is None:
            return tuple((epsilon, False) for epsilon in self.epsilons)
        alone = [(epsilon, False) for epsilon in self.epsilons if epsilon in (0.0, 1.0)]
        return (*((epsilon, True) for epsilon in self.epsilons), *alone)


@dataclass(frozen=True, slots=True)
class Winner:
    """What annealing on surrogates ends with.

    Attributes:
        subsets: that the surrogates learned from.
        epsilon: weight of the bias.
        floored: whether the perplexity floor was kept on the surrogates.
        predicted_bias, predicted_perplexity: what the surrogates believe of it.
        tokens: generated to measure the subsets, continuations counted at their full length.
        seconds: that measuring them took.
    """

    subsets: int
    epsilon: float
    floored: bool
    predicted_bias: float
    predicted_perplexity: float
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class JudgedWinner(JudgedSet):
    """A winner with its held-out figures."""

    winner: Winner

    def cells(self) -> dict[str, Cell]:
        """The winner, and the number of its heads."""
        return asdict(self.winner) | {"heads": self.mask.size}


@dataclass(frozen=True, kw_only=True)
class SubsetSweep(JudgedStudy[JudgedWinner]):
    """Winners for every budget, weight and floor, side by side.

    Attributes:
        surrogate: what learned from the subsets.
        max_perplexity: the floor, as a multiple of the untouched model's perplexity; None for none.
    """

    surrogate: str
    max_perplexity: float | None

    kind = study_kind(SweepSettings.kind, "sweep")
    caveat = f"{NOT_CHOSEN}. Figures that surrogates predict for their own winner are too good: it was chosen by them"
    before: ClassVar[Mapping[str, Cell]] = {**dict.fromkeys(each.name for each in fields(Winner)), "heads": 0}

    def columns(self) -> tuple[Column, ...]:
        """What the winner was found with, and what was predicted of it."""
        return (
            Column("subsets", "subsets", "{:,}".format, undefined=UNTOUCHED),
            Column("epsilon", "epsilon", lambda weight: f"{weight:g}{_ALONE.get(weight, '')}", undefined=""),
            Column("floored", "floor", lambda kept: f"{self.max_perplexity:g} x" if kept else "none", undefined=""),
            Column("heads", "heads"),
            Column("predicted_bias", "predicted bias", fixed(4), undefined=""),
        )

    def facts(self) -> dict[str, Any]:
        """What the subsets taught, and the floor."""
        return {"surrogate": self.surrogate, "max_perplexity": self.max_perplexity}

    def remarks(self) -> list[str]:
        """What learned from the subsets, and what they cost."""
        costs = {row.winner.subsets: row.winner for row in self.rows}
        cost = "; ".join(
            f"{count:,} subsets {made.tokens:,} tokens, {made.seconds / 3600:.2g} hours"
            for count, made in costs.items()
        )
        return [f"Surrogate: {self.surrogate}. Generated to measure the subsets: {cost}."]

    def draw(self) -> Figure:
        """Bias and perplexity against the weight of the bias, one line per budget.

        Winners without the floor are left out where there are others: their perplexities would dwarf the rest.
        """
        drawn = [row for row in self.rows if row.winner.floored] or list(self.rows)
        spots = [(row.winner, spot_of("", row.judgement)) for row in drawn]
        start = spot_of(UNTOUCHED, self.untouched)

        def panel(y_label: str, points: list[tuple[Winner, Point]], untouched: Point) -> Panel:
            levels = list(dict.fromkeys(f"{winner.epsilon:g}" for winner, _ in points))
            by_budget = [
                Series(
                    f"{budget:,} subsets",
                    {
                        f"{winner.epsilon:g}": point
                        for winner, point in points
                        if winner.subsets == budget and math.isfinite(point.value)
                    },
                )
                for budget in dict.fromkeys(winner.subsets for winner, _ in points)
            ]
            before = Series(UNTOUCHED, {level: Point(untouched.value) for level in levels}, hollow=True)
            return Panel("", "epsilon: weight of the bias", y_label, [before, *by_budget])

        rows = [
            [panel(f"{self.judge.figures.bias.name}", [(winner, spot.y) for winner, spot in spots], start.y)],
            [panel("perplexity", [(winner, spot.x) for winner, spot in spots], start.x)],
        ]
        return pictures.draw_panels(rows, title=f"{len(self.judge.prompts):,} held-out prompts, 95 % intervals")


def sweep_subsets(
    subject: Subject,
    settings: SweepSettings,
    collected: Context,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> SubsetSweep:
    """Repair a model from measured subsets with every weight and budget, and judge every winner on held-out data.

    Nothing is chosen among the lines: whoever then picks the best of them has chosen on the judging half.

    Args:
        subject: the model, and what it is repaired for and judged on.
        settings: what is swept.
        collected: measured subsets, see `fairmend.language.studies.collecting`.
        store: where the winners' measurements are kept; a store with an interrupted sweep is gone on with.
        progress: where to show how far it is.
        workers: who measures the winners; None is this process.

    Raises:
        InputError: settings that cannot work, among them more subsets than were collected, or subsets that were
            measured otherwise.
        RunError: a store of another run.
        DataError: surrogates cannot learn from so few subsets.
        ModelError: see `repair_model`.
        KeyboardInterrupt: Ctrl-C; with a store everything measured is kept.
    """
    shared = settings.shared
    search = subject.searching(shared)
    require_searchable(search, shared, collected)
    evaluator = collecting_evaluator(search, shared)
    judges = subject.judging(shared)
    winners = list(find_winners(collected, evaluator, settings))
    masks = list(dict.fromkeys(mask for _, mask in winners))
    judgements = judge_sets(judges, masks, Logbook(store, progress, workers), shared.seed)
    return SubsetSweep(
        rows=tuple(JudgedWinner(winner=winner, mask=mask, judgement=judgements[mask]) for winner, mask in winners),
        untouched=judgements[search.space.untouched()],
        subject=subject,
        search_prompts=search.prompts,
        judge=judges[0],
        surrogate=surrogate_name(shared),
        max_perplexity=shared.max_perplexity,
    )


def surrogate_name(settings: RepairSettings) -> str:
    """The surrogate that is fitted: the published pair of networks unless told otherwise."""
    return PUBLISHED_SURROGATE if settings.subsets.surrogate == "auto" else settings.subsets.surrogate


def find_winners(
    collected: Context, evaluator: SubsetEvaluator, settings: SweepSettings
) -> Iterator[tuple[Winner, Mask]]:
    """What annealing ends with for every budget and case, as `AttentionPruning` finds it.

    Raises:
        InputError: more subsets asked for than there are.
        DataError: surrogates cannot learn from so few.
    """
    shared, space, figures = settings.shared, evaluator.space, evaluator.figures
    pairs = [(mask, made) for mask, made in collected if mask.is_untouched or space.admits(mask)]
    if max(settings.budgets) > len(pairs):
        raise InputError(
            f"{max(settings.budgets)} subsets asked for, but {collected.store.path} has {len(pairs)} within the "
            "limits: ask for fewer, or collect more"
        )
    reference = collected[space.untouched()]
    floor = shared.floor(figures, reference)
    for budget in settings.budgets:
        first = pairs[:budget]
        try:
            samples = Samples.of(first, figures)
            surrogate = make_surrogate(surrogate_name(shared))
            fitted = fit_pair(samples, figures, surrogate, log_loss=False, seed=shared.seed)
        except InputError as error:
            raise DataError(f"nothing can be learned from the first {budget} subsets: {error}") from error
        tokens, seconds = _cost([made for _, made in first], shared)
        for epsilon, floored in settings.cases:
            weighted = published_cost(samples, figures, epsilon)
            cost = FlooredSum(weighted, floor) if floored else weighted
            (mask, *_) = anneal_pair(fitted, space, cost, rng=np.random.default_rng(shared.seed))
            bias, loss = fitted.predict(mask.dropped()[None].astype(np.float64))
            yield Winner(budget, epsilon, floored, float(bias[0]), float(loss[0]), tokens, seconds), mask


def _cost(measured: Sequence[Measurement], settings: RepairSettings) -> tuple[int, float]:
    each = settings.sampling.n_samples * settings.sampling.new_tokens
    return each * sum(made.n for made in measured), sum(made.seconds for made in measured)
