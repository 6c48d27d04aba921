"""The design questions of Attention Pruning, answered from one collection of measured subsets.

How does the weight of the bias move the result, how many measured subsets does it take, and what does one surrogate
alone lead to? For every number of subsets the surrogates are fitted once; for every weight they are annealed on, and
the winner, which the published algorithm never measures, is judged on prompts and text that no subset was measured on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fairmend.errors import DataError, InputError
from fairmend.evaluation import Measurement
from fairmend.language.measurement.judging import judge_sets
from fairmend.language.measurement.logbook import Logbook
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.repair.subset_search import (
    PUBLISHED_SURROGATE,
    SubsetEvaluator,
    collecting_evaluator,
    require_searchable,
)
from fairmend.language.studies.sweep_report import JudgedWinner, SubsetSweep, Winner
from fairmend.runs.context import Context
from fairmend.runs.progress import Progress
from fairmend.runs.store import Store
from fairmend.search.base import require_count, require_number
from fairmend.surrogates.attention_pruning import anneal_pair, published_cost
from fairmend.surrogates.fitting import fit_pair, make_surrogate
from fairmend.surrogates.objectives import FlooredSum
from fairmend.surrogates.samples import Samples

EPSILONS = (0.0, 0.25, 0.5, 0.75, 1.0)


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

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> SweepSettings:
        """The settings that `to_json` described."""
        lists = {name: tuple(payload[name]) for name in ("budgets", "epsilons")}
        return cls(**lists, shared=RepairSettings.from_json(payload["shared"]))


def sweep_subsets(
    subject: Subject,
    settings: SweepSettings,
    collected: Context,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> SubsetSweep:
    """Repair a model from measured subsets with every weight and budget, and judge every winner on held-out data.

    Nothing is chosen among the lines: whoever then picks the best of them has chosen on the judging half.

    Args:
        subject: the model, and what it is repaired for and judged on.
        settings: what is swept.
        collected: measured subsets, see `fairmend.language.studies.collecting`.
        store: where the winners' measurements are kept; a store with an interrupted sweep is gone on with.
        progress: where to show how far it is.

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
    masks = list(dict.fromkeys(winner.mask for winner in winners))
    judgements = judge_sets(judges, masks, Logbook(store, progress), shared.seed)
    return SubsetSweep(
        untouched=judgements[search.space.untouched()],
        rows=tuple(JudgedWinner(winner, judgements[winner.mask]) for winner in winners),
        space=search.space,
        figures=judges[0].figures,
        surrogate=surrogate_name(shared),
        max_perplexity=shared.max_perplexity,
        search_prompts=search.prompts,
        judge_prompts=judges[0].prompts,
        texts=subject.texts,
    )


def surrogate_name(settings: RepairSettings) -> str:
    """The surrogate that is fitted: the published pair of networks unless told otherwise."""
    return PUBLISHED_SURROGATE if settings.subsets.surrogate == "auto" else settings.subsets.surrogate


def find_winners(collected: Context, evaluator: SubsetEvaluator, settings: SweepSettings) -> Iterator[Winner]:
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
            (mask, *_) = anneal_pair(fitted, space, figures, cost, rng=np.random.default_rng(shared.seed))
            bias, loss = fitted.predict(mask.dropped()[None].astype(np.float64))
            yield Winner(budget, epsilon, floored, mask, float(bias[0]), float(loss[0]), tokens, seconds)


def _cost(measured: Sequence[Measurement], settings: RepairSettings) -> tuple[int, float]:
    each = settings.sampling.n_samples * settings.sampling.new_tokens
    return each * sum(made.n for made in measured), sum(made.seconds for made in measured)
