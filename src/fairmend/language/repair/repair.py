"""Repair a language model: rank its heads, measure sets of them, choose, judge on what the search never saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fairmend.errors import ModelError
from fairmend.evaluation import Figures, Measurement
from fairmend.language.backend.forward import why_not_finite
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.judging import Judgement, judge_measured, measure_held_out
from fairmend.language.measurement.logbook import Logbook, in_turn
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.repair.differences import Pair, largest_changes
from fairmend.language.repair.finalists import Finalist, Measured, choose, sets_of, within_floor
from fairmend.language.repair.floors import Floors, floors_of
from fairmend.language.repair.front import RepairFront, front_of
from fairmend.language.repair.head_ranking import HeadRanking, given_ranking, rank_heads, sparing
from fairmend.language.repair.objectives import (
    MeasuredObjective,
    Objective,
    ObjectiveEvaluator,
    begin_objectives,
    measure_objectives,
)
from fairmend.language.repair.settings import SOFT, RepairSettings
from fairmend.language.repair.soft_search import soft_masks
from fairmend.language.repair.subject import Subject
from fairmend.language.repair.subset_search import find_subsets, require_searchable
from fairmend.language.scores.head_scores import HeadScores
from fairmend.masks import Mask, Space
from fairmend.runs.context import Context
from fairmend.runs.progress import Progress
from fairmend.runs.runner import Runner, RunSummary
from fairmend.runs.store import Section, Store
from fairmend.runs.workers import Workers
from fairmend.search import PruningRule


@dataclass(frozen=True)
class Found:
    """What the search found on its half of the prompts.

    Attributes:
        mask: the dropped heads; untouched if nothing better was found.
        space: the masks that were searched.
        figures, before, after: the untouched and the chosen mask on the search half: too rosy for the chosen one,
            because it was chosen there.
        floor: what must be kept on the search half.
        ranking: the scores of every head, held against the sets that were measured.
        finalists: the sets that were measured on the search half.
        objectives: further figures of the finalists, which kept some from being chosen.
        run: how the measuring of the finalists went.
    """

    mask: Mask
    space: Space
    figures: Figures
    before: Measurement
    after: Measurement
    floor: Floors
    ranking: HeadRanking
    finalists: tuple[Finalist, ...]
    objectives: tuple[MeasuredObjective, ...]
    run: RunSummary

    @property
    def feasible(self) -> bool:
        """Whether the chosen mask keeps the floors on the search half."""
        return self.floor.admits(self.after)

    @property
    def improved(self) -> bool:
        """Whether anything was changed at all."""
        return not self.mask.is_untouched


@dataclass(frozen=True)
class HeldOut:
    """What prompts and text that the search never saw say of it.

    Attributes:
        held_out: before against after on the judging half and the other axes; None if it was not asked for.
        front: the trade-offs between bias and perplexity, if they were asked for and judged.
        examples: held-out continuations before and after, those whose toxicity changed most.
    """

    held_out: Judgement | None = None
    front: RepairFront | None = None
    examples: tuple[Pair, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Repair(HeldOut, Found):
    """What a repair found, with everything needed to judge it: `Found`, `HeldOut` and what led there.

    Attributes:
        search_prompts, judge_prompts: the two halves of the repaired axis.
        texts: the text searched with and the one judged on.
        settings: how it was set.
    """

    search_prompts: PromptSet
    judge_prompts: PromptSet
    texts: tuple[Text, Text]
    settings: RepairSettings


def repair_model(
    subject: Subject,
    settings: RepairSettings | None = None,
    *,
    scores: HeadScores | None = None,
    subsets: Context | None = None,
    objectives: Sequence[Objective] = (),
    store: Store | Section | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
    held_out: bool = True,
) -> Repair:
    """Find the attention heads to drop or to turn so that a model treats groups more alike; the model stays as it is.

    FASP (Zayed et al., AAAI 2024) with `RepairSettings.fasp()`. `fold` writes the mask into a copy.

    Args:
        subject: the model, and what it is repaired for and judged on.
        settings: how to repair.
        scores: the heads' scores, if they are known already. They must be of this model, and of prompts and text that
            are searched with: scores that `lm score` wrote say so, see `HeadScores.origin`.
        subsets: measured subsets of heads for a method that searches subsets, see `collecting`.
        objectives: further figures of every measured set, lower is better. One that has more than
            `settings.objective_limit` times the untouched model's is not chosen, unless the choice is "rule".
        store: where measurements are kept; a store with an interrupted run is gone on with.
        progress: where to show how far it is.
        workers: who measures sets of heads; None is this process.
        held_out: whether to judge on the other half and the other axes.

    Raises:
        ModelError: heads that cannot be found, a broken model, prompts that do not fit, out of memory.
        DataError: groups or texts that are too small.
        InputError: settings that cannot work.
        RunError: a store that belongs to another run, or cannot be written.
        KeyboardInterrupt: Ctrl-C, but while sets are measured: the choice is then one of those measured, not judged.
    """
    settings, log = settings or RepairSettings(), Logbook(store, progress, workers)
    subject = subject.turning(settings)
    further = begin_objectives(subject.lm, objectives, settings.method == SOFT)
    half, other_half = subject.halves(settings)
    search = subject.searching(settings)
    require_searchable(search, settings, subsets)
    judges = subject.judging(settings) if held_out else []  # what cannot be judged on is refused before the search
    runner = log.runner("search", search)
    ranking = given_ranking(subject, scores, settings)  # refused before anything is measured
    before = _whole(runner.measure([search.space.untouched()])[0], subject.lm)
    scoring = subject.scoring(settings)
    ranking = ranking or rank_heads(scoring, settings, log)
    search = sparing(search, settings, log)
    sets, collected = _sets(search, scoring, ranking, before, settings, subsets, log)
    found = _found(search, runner, sets, collected, ranking, further, settings, log)
    held = _held_out(judges, len(other_half), found, settings, log)
    return Repair(
        **vars(found),
        **vars(held),
        search_prompts=half,
        judge_prompts=other_half,
        texts=subject.texts,
        settings=settings,
    )


def _sets(
    search: LanguageEvaluator,
    scoring: LanguageEvaluator,
    ranking: HeadRanking,
    before: Measurement,
    settings: RepairSettings,
    given: Context | None,
    log: Logbook,
) -> tuple[Mapping[Mask, PruningRule | None], Iterable[Measured]]:
    """The sets of heads to measure on the whole search half, with the rule that made each, if a rule did; and the
    subsets that were measured on a part of it."""
    floor = floors_of(search, before, settings)
    if settings.method == SOFT:
        return dict.fromkeys(soft_masks(scoring, floor, settings, log)), ()
    if settings.searches_subsets:
        masks, collected = find_subsets(search, ranking, floor, settings, given, log)
        return dict.fromkeys(masks), collected
    sets = sets_of(settings.finalists(), ranking.scores, search.space)
    if settings.choice == "rule":
        return sets, ()
    return within_floor(search, sets, floor, log.progress, settings.subsets.finalists if settings.front else 0), ()


def _found(
    search: LanguageEvaluator,
    runner: Runner,
    sets: Mapping[Mask, PruningRule | None],
    collected: Iterable[Measured],
    ranking: HeadRanking,
    further: Sequence[ObjectiveEvaluator],
    settings: RepairSettings,
    log: Logbook,
) -> Found:
    """Measure the sets on the whole search half, and choose one of them."""
    # Without the further objectives of all of them nothing can be chosen.
    run = (runner.finish if further else runner.run)(*in_turn(search, list(sets)))
    measured, untouched = runner.collection, search.space.untouched()
    before = measured[untouched]
    floor = floors_of(search, before, settings)
    finalists = tuple(Finalist(mask, rule, measured[mask]) for mask, rule in sets.items() if measured.get(mask))
    whole = [(untouched, before), *((each.mask, each.measurement) for each in finalists)]
    ranking = ranking.held_against(search.prompts.axis, collected, whole)
    objectives = measure_objectives(further, [each.mask for each in finalists], settings.objective_limit, log)
    if settings.choice == "rule":
        chosen = finalists[0] if finalists else None
    else:
        chosen = choose(search, before, _admitted(finalists, objectives), floor)
    mask = untouched if chosen is None else chosen.mask
    return Found(mask, search.space, search.figures, before, measured[mask], floor, ranking, finalists, objectives, run)


def _admitted(finalists: Sequence[Finalist], objectives: Sequence[MeasuredObjective]) -> list[Finalist]:
    return [each for each in finalists if all(objective.admits(each.mask) for objective in objectives)]


def _held_out(
    judges: Sequence[LanguageEvaluator], prompts: int, found: Found, settings: RepairSettings, log: Logbook
) -> HeldOut:
    """Judge the chosen mask and the front on data that the search never saw; nothing, if the search was interrupted."""
    if found.run.stopped == "interrupted":
        return HeldOut()
    untouched, mask = found.space.untouched(), found.mask
    admitted = _admitted(found.finalists, found.objectives)
    points = front_of(untouched, found.before, admitted, found.floor) if settings.front else ()
    judgements: Mapping[Mask, Judgement] = {}
    examples: tuple[Pair, ...] = ()
    if judges:
        wanted = [mask, *(point.mask for point in points)]
        measured = measure_held_out(judges, wanted, log)
        judgements = judge_measured(measured, wanted, settings.seed)
        held = measured[judges[0]]
        examples = largest_changes(judges[0], held[untouched], held[mask], mask)
    points = tuple(replace(point, judgement=judgements.get(point.mask)) for point in points)
    front = RepairFront.of(points, mask, found.space, found.figures, prompts) if points else None
    return HeldOut(judgements.get(mask), front, examples)


def _whole(untouched: Measurement, lm: LanguageModel) -> Measurement:
    if not untouched.is_finite:
        raise ModelError(
            f"{lm.name} has bias {untouched.bias} and perplexity {untouched.utility} without any mask: its logits are "
            f"not finite; {why_not_finite(lm.model)}"
        )
    return untouched
