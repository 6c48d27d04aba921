"""Repair a language model: rank its heads, measure sets of them, choose, judge on what the search never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fairmend.costs import UtilityFloor
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
from fairmend.language.repair.finalists import Finalist, choose, sets_of, within_floor
from fairmend.language.repair.front import RepairFront, front_of
from fairmend.language.repair.head_ranking import HeadRanking, given_ranking, rank_heads
from fairmend.language.repair.objectives import MeasuredObjective, Objective, begin_objectives, measure_objectives
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.repair.subset_search import find_subsets, require_searchable
from fairmend.language.scores.head_scores import HeadScores
from fairmend.masks import Mask, Space
from fairmend.runs.context import Context
from fairmend.runs.progress import Progress
from fairmend.runs.runner import RunSummary
from fairmend.runs.store import Section, Store
from fairmend.search import PruningRule


@dataclass(frozen=True)
class Repair:
    """What a repair found, with everything needed to judge it.

    Attributes:
        mask: the dropped heads; untouched if nothing better was found.
        space: the masks that were searched.
        figures, before, after: the untouched and the chosen mask on the search half: too rosy for the chosen one,
            because it was chosen there.
        floor: the utility floor on the search half.
        ranking: the scores of every head.
        finalists: the sets that were measured on the search half.
        held_out: before against after on the judging half and the other axes; None if it was not asked for.
        front: the trade-offs between bias and perplexity, if they were asked for and judged.
        examples: held-out continuations before and after, those whose toxicity changed most.
        search_prompts, judge_prompts: the two halves of the repaired axis.
        texts: the text searched with and the one judged on.
        run: how the measuring of the finalists went.
        settings: how it was set.
        objectives: further figures of the finalists, which kept some from being chosen.
    """

    mask: Mask
    space: Space
    figures: Figures
    before: Measurement
    after: Measurement
    floor: UtilityFloor
    ranking: HeadRanking
    finalists: tuple[Finalist, ...]
    held_out: Judgement | None
    front: RepairFront | None
    examples: tuple[Pair, ...]
    search_prompts: PromptSet
    judge_prompts: PromptSet
    texts: tuple[Text, Text]
    run: RunSummary
    settings: RepairSettings
    objectives: tuple[MeasuredObjective, ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether the chosen mask keeps the utility floor on the search half."""
        return self.floor.admits(self.after)

    @property
    def improved(self) -> bool:
        """Whether anything was changed at all."""
        return not self.mask.is_untouched


def repair_model(
    subject: Subject,
    settings: RepairSettings | None = None,
    *,
    scores: HeadScores | None = None,
    subsets: Context | None = None,
    objectives: Sequence[Objective] = (),
    store: Store | Section | None = None,
    progress: Progress | None = None,
    held_out: bool = True,
) -> Repair:
    """Find the attention heads to drop so that continuations about all groups are about as toxic as each other.

    FASP (Zayed et al., AAAI 2024) with `RepairSettings.fasp()`. The model itself is left as it is; `fold` writes the
    mask into a copy.

    Args:
        subject: the model, and what it is repaired for and judged on.
        settings: how to repair.
        scores: the heads' scores, if they are known already. They must be of this model, and of prompts and text that
            are searched with: scores that `lm score` wrote say so, see `HeadScores.origin`.
        subsets: measured subsets of heads for a method that searches subsets, see `collecting`.
        objectives: further figures, lower is better. Every set that is measured on the search half is measured by them
            too, and not chosen if it has more than `settings.objective_limit` times the untouched model's; the rule's
            one set is, when the choice is "rule".
        store: where measurements are kept; a store with an interrupted run is gone on with.
        progress: where to show how far it is.
        held_out: whether to judge on the other half and the other axes.

    Raises:
        ModelError: heads that cannot be found, a broken model, prompts that do not fit, out of memory.
        DataError: groups or texts that are too small.
        InputError: settings that cannot work.
        RunError: a store that belongs to another run, or cannot be written.
        KeyboardInterrupt: Ctrl-C while heads were scored or the choice was judged. While sets are measured, it ends the
            measuring: the choice is then made among those measured, and not judged.
    """
    settings, log = settings or RepairSettings(), Logbook(store, progress)
    further = begin_objectives(subject.lm, objectives)
    searched, judged = subject.halves(settings)
    search = subject.searching(settings)
    require_searchable(search, settings, subsets)
    judges = subject.judging(settings) if held_out else []  # what cannot be judged on is refused before the search
    runner = log.runner("search", search)
    ranking = given_ranking(subject, scores, settings)  # refused before anything is measured
    before = _whole(runner.measure([search.space.untouched()])[0], subject.lm)
    ranking = ranking or rank_heads(subject.scoring(settings), settings, log)
    floor = settings.floor(search.figures, before)

    sets = _sets(search, ranking, floor, settings, subsets, log)
    # Without the further objectives of all of them nothing can be chosen.
    run = (runner.finish if further else runner.run)(*in_turn(search, list(sets)))
    measured = runner.collection
    finalists = tuple(Finalist(mask, rule, measured[mask]) for mask, rule in sets.items() if measured.get(mask))
    objected = measure_objectives(further, [each.mask for each in finalists], settings.objective_limit, log)
    admitted = [each for each in finalists if all(objective.admits(each.mask) for objective in objected)]
    mask = _chosen(search, before, finalists if settings.choice == "rule" else admitted, floor, settings)

    finished = run.stopped != "interrupted"
    points = front_of(search.space.untouched(), before, admitted, floor) if settings.front and finished else ()
    judgements, examples = _judged(judges if finished else [], mask, [point.mask for point in points], settings, log)
    points = tuple(replace(point, judgement=judgements.get(point.mask)) for point in points)
    return Repair(
        mask=mask,
        space=search.space,
        figures=search.figures,
        before=before,
        after=measured[mask],
        floor=floor,
        ranking=ranking,
        finalists=finalists,
        held_out=judgements.get(mask),
        front=RepairFront.of(points, mask, search.space, search.figures, len(judged)) if points else None,
        examples=examples,
        search_prompts=searched,
        judge_prompts=judged,
        texts=subject.texts,
        run=run,
        settings=settings,
        objectives=objected,
    )


def _sets(
    search: LanguageEvaluator,
    ranking: HeadRanking,
    floor: UtilityFloor,
    settings: RepairSettings,
    given: Context | None,
    log: Logbook,
) -> Mapping[Mask, PruningRule | None]:
    """The sets of heads to measure on the whole search half, with the rule that made each, if a rule did."""
    if settings.searches_subsets:
        return dict.fromkeys(find_subsets(search, ranking, floor, settings, given, log))
    sets = sets_of(settings.finalists(), ranking.scores, search.space)
    if settings.choice == "rule":
        return sets
    return within_floor(search, sets, floor, log.progress, settings.subsets.finalists if settings.front else 0)


def _chosen(
    search: LanguageEvaluator,
    before: Measurement,
    finalists: Sequence[Finalist],
    floor: UtilityFloor,
    settings: RepairSettings,
) -> Mask:
    if settings.choice == "rule":
        chosen = finalists[0] if finalists else None
    else:
        chosen = choose(search, before, finalists, floor)
    return search.space.untouched() if chosen is None else chosen.mask


def _judged(
    judges: Sequence[LanguageEvaluator], mask: Mask, others: Sequence[Mask], settings: RepairSettings, log: Logbook
) -> tuple[dict[Mask, Judgement], tuple[Pair, ...]]:
    """What the chosen mask and others do on held-out data, and what it does to single continuations."""
    if not judges:
        return {}, ()
    wanted = [mask, *others]
    measured = measure_held_out(judges, wanted, log)
    judgements = judge_measured(measured, wanted, settings.seed)
    held = measured[judges[0]]
    return judgements, largest_changes(judges[0], held[judges[0].space.untouched()], held[mask], mask)


def _whole(untouched: Measurement, lm: LanguageModel) -> Measurement:
    if not untouched.is_finite:
        raise ModelError(
            f"{lm.name} has bias {untouched.bias} and perplexity {untouched.utility} without any mask: its logits are "
            f"not finite; {why_not_finite(lm.model)}"
        )
    return untouched
