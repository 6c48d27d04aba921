"""Repair a language model: rank its heads, measure sets of them, choose, judge on what the search never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fairmend.costs import UtilityFloor
from fairmend.errors import DataError, InputError, ModelError
from fairmend.evaluation import Evaluator, Figures, Measurement
from fairmend.language.backend.batching import Rows
from fairmend.language.backend.forward import why_not_finite
from fairmend.language.measurement.differences import Pair
from fairmend.language.measurement.evaluator import LanguageEvaluator, Packed
from fairmend.language.measurement.judged_sets import judge_measured, measure_held_out, measure_sets
from fairmend.language.measurement.judging import Judgement
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.texts import Text, read_text
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.repair.examples import largest_changes
from fairmend.language.repair.finalists import Finalist, choose, sets_of, within_floor
from fairmend.language.repair.front import RepairFront, front_of
from fairmend.language.repair.head_ranking import HeadRanking, rank_heads
from fairmend.language.repair.objective_judging import MeasuredObjective, begin_objectives, measure_objectives
from fairmend.language.repair.objectives import Objective
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subset_search import find_subsets, require_searchable, starting_rules
from fairmend.language.scores.head_scores import HeadScores, origin_of
from fairmend.language.toxicity.scorer import Scorer
from fairmend.masks import Mask, Space
from fairmend.runs.collection import Collection
from fairmend.runs.context import Context
from fairmend.runs.progress import Progress
from fairmend.runs.runner import Runner, RunSummary
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
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    settings: RepairSettings | None = None,
    *,
    texts: tuple[Text, Text] | None = None,
    others: Sequence[PromptSet] = (),
    judge_prompts: PromptSet | None = None,
    scores: HeadScores | None = None,
    subsets: Context | None = None,
    objectives: Sequence[Objective] = (),
    store: Store | Section | None = None,
    progress: Progress | None = None,
    held_out: bool = True,
    batch_size: Rows = "auto",
) -> Repair:
    """Find the attention heads to drop so that continuations about all groups are about as toxic as each other.

    FASP (Zayed et al., AAAI 2024) with `RepairSettings.fasp()`. The model itself is left as it is; `fold` writes the
    mask into a copy.

    Args:
        lm: a causal language model.
        prompts: of the axis to repair, in groups; split here into a half to search with and a half to judge on.
        scorer: of toxicity.
        settings: how to repair.
        texts: to take the perplexity of: one to search with and one to judge on; by default Wikipedia passages.
        others: prompts of other axes, to see whether they moved.
        judge_prompts: prompts to judge on, such as a published test part; `prompts` are then all searched with.
        scores: the heads' scores, if they are known already. They must be of this model, and of prompts and text that
            are searched with: scores that `lm score` wrote say so, see `HeadScores.origin`.
        subsets: measured subsets of heads for a method that searches subsets, see `collecting`.
        objectives: further figures, lower is better. Every set that is measured on the search half is measured by them
            too, and not chosen if it has more than `settings.objective_limit` times the untouched model's; the rule's
            one set is, when the choice is "rule".
        store: where measurements are kept; a store with an interrupted run is gone on with.
        progress: where to show how far it is.
        held_out: whether to judge on the other half and the other axes.
        batch_size: prompts at once.

    Raises:
        ModelError: heads that cannot be found, a broken model, prompts that do not fit, out of memory.
        DataError: groups or texts that are too small.
        InputError: settings that cannot work.
        RunError: a store that belongs to another run, or cannot be written.
        KeyboardInterrupt: Ctrl-C while heads were scored or the choice was judged. While sets are measured, it ends the
            measuring: the choice is then made among those measured, and not judged.
    """
    settings = settings or RepairSettings()
    _require_other_axes(prompts, others)
    further = begin_objectives(lm, objectives)
    searched, judged = halves(prompts, settings, judge_prompts)
    texts = texts or (read_text(None, "search"), read_text(None, "judge"))
    space = lm.head_map.space()

    def evaluator_on(part: PromptSet, reading: Reading) -> LanguageEvaluator:
        return make_evaluator(lm, part, reading, scorer, settings, batch_size=batch_size)

    def collection_of(name: str, evaluator: Evaluator) -> Collection:
        return Collection(space, evaluator.figures) if store is None else store.context(name, evaluator)

    search = evaluator_on(searched, Reading(lm, texts[0], settings.reading, batch_size))
    require_searchable(search, settings, subsets)
    judged_on: list[LanguageEvaluator] = []
    if held_out:  # made before the search, so that what cannot be judged on is refused before it
        reading = Reading(lm, texts[1], settings.reading, batch_size)
        judged_on = [evaluator_on(part, reading) for part in [judged, *judged_with(others, settings)]]
    collection = collection_of("search", search)
    runner = Runner(search, collection, workers=Packed(search), progress=progress)
    ranking = given_ranking(lm, scores, searched, texts[0], settings)  # refused before anything is measured
    (before,) = runner.measure([space.untouched()])
    _require_whole(before, lm)
    if ranking is None:
        scoring = scoring_evaluator(lm, searched, texts[0], scorer, settings, batch_size=batch_size)
        ranking = rank_heads(scoring, settings, store=store, progress=progress)
    floor = settings.floor(search.figures, before)
    sets: Mapping[Mask, PruningRule | None]
    if settings.searches_subsets:
        table = ranking.table
        prior = None if table is None else {"bias": table.axis(searched.axis).effect, "loss": table.loss.effect}
        ranked = {} if prior is None else sets_of(starting_rules(settings, space), ranking.scores, space)
        starts = list(within_floor(search, ranked, floor, progress))
        found, _, collected = find_subsets(
            search, settings, collection_of, prior=prior, starts=starts, given=subsets, progress=progress
        )
        if collected.stopped == "interrupted":
            raise KeyboardInterrupt  # everything measured is kept
        sets = dict.fromkeys(found)
    elif settings.choice == "measured":
        at_least = settings.subsets.finalists if settings.front else 0
        sets = within_floor(search, sets_of(settings.finalists(), ranking.scores, space), floor, progress, at_least)
    else:
        sets = sets_of(settings.finalists(), ranking.scores, space)
    run = measure_sets(runner, search, list(sets))
    finalists = tuple(
        Finalist(mask, rule, made) for mask, rule in sets.items() if (made := collection.get(mask)) is not None
    )
    if further and run.stopped == "interrupted":
        raise KeyboardInterrupt  # nothing can be chosen without them; everything measured is kept
    masks = [finalist.mask for finalist in finalists]
    measured_further = measure_objectives(further, masks, collection_of, settings.objective_limit, progress)
    admitted = [finalist for finalist in finalists if all(each.admits(finalist.mask) for each in measured_further)]
    chosen = _chosen(search, before, finalists if settings.choice == "rule" else admitted, floor, settings)
    mask = space.untouched() if chosen is None else chosen.mask

    points = front_of(space.untouched(), before, admitted, floor) if settings.front else ()
    judgements: dict[Mask, Judgement] = {}
    examples: tuple[Pair, ...] = ()
    if judged_on and run.stopped != "interrupted":
        wanted = [mask, *(point.mask for point in points)]
        measured = measure_held_out(judged_on, wanted, store=store, progress=progress)
        judgements = judge_measured(measured, wanted, settings.seed)
        held = measured[judged_on[0]]
        examples = largest_changes(judged_on[0], held[space.untouched()], held[mask], mask, batch_size=batch_size)
    front = None
    if points and run.stopped != "interrupted":
        points = tuple(replace(point, judgement=judgements.get(point.mask)) for point in points)
        front = RepairFront.of(points, mask, space, search.figures, len(judged))
    return Repair(
        mask=mask,
        space=space,
        figures=search.figures,
        before=before,
        after=collection[mask],
        floor=floor,
        ranking=ranking,
        finalists=finalists,
        held_out=judgements.get(mask),
        front=front,
        examples=examples,
        search_prompts=searched,
        judge_prompts=judged,
        texts=texts,
        run=run,
        settings=settings,
        objectives=measured_further,
    )


def make_evaluator(
    lm: LanguageModel,
    prompts: PromptSet,
    reading: Reading,
    scorer: Scorer,
    settings: RepairSettings,
    *,
    n_samples: int | None = None,
    batch_size: Rows = "auto",
) -> LanguageEvaluator:
    """An evaluator as `settings` describe it, with as many continuations per prompt as they say unless told otherwise.

    Raises:
        InputError, DataError: see `LanguageEvaluator`.
    """
    return LanguageEvaluator(
        lm,
        prompts,
        reading,
        scorer,
        sampling=replace(settings.sampling, n_samples=n_samples or settings.sampling.n_samples),
        group_mean=settings.group_mean,
        batch_size=batch_size,
    )


def scoring_evaluator(
    lm: LanguageModel,
    searched: PromptSet,
    text: Text,
    scorer: Scorer,
    settings: RepairSettings,
    *,
    batch_size: Rows = "auto",
) -> LanguageEvaluator:
    """The evaluator that single heads are scored with: `scoring_samples` continuations and `scoring_tokens` of text.

    Raises:
        InputError, DataError: see `LanguageEvaluator` and `Reading`.
    """
    read = replace(settings.reading, tokens=settings.scoring_tokens or settings.reading.tokens)
    reading = Reading(lm, text, read, batch_size)
    return make_evaluator(
        lm, searched, reading, scorer, settings, n_samples=settings.scoring_samples, batch_size=batch_size
    )


def halves(
    prompts: PromptSet, settings: RepairSettings, judge_prompts: PromptSet | None = None
) -> tuple[PromptSet, PromptSet]:
    """The prompts to search with and the prompts to judge on: disjoint, stratified by group.

    Args:
        prompts: split in two, unless those to judge on are given.
        settings: how many of each, and how they are split.
        judge_prompts: those to judge on.

    Raises:
        DataError: a half without a group, or prompts to judge on that are searched with or have other groups.
        InputError: fewer prompts asked for than there are groups, or an unknown column to split by.
    """
    if judge_prompts is None:
        first, second = prompts.split(seed=settings.seed, by=settings.split_by)
    else:
        first, second = prompts, _unseen(judge_prompts, prompts)
        if first.group_names != second.group_names:
            raise DataError(
                "the prompts to judge on must be others of the same groups as those to search with: they have "
                f"{', '.join(second.group_names)}, not {', '.join(first.group_names)}"
            )
    return _sampled(first, settings), _sampled(second, settings)


def judged_with(others: Sequence[PromptSet], settings: RepairSettings) -> list[PromptSet]:
    """The prompts of other axes that are judged on: as many as of the repaired one."""
    return [_sampled(other, settings) for other in others]


def given_ranking(
    lm: LanguageModel, scores: HeadScores | None, searched: PromptSet, text: Text, settings: RepairSettings
) -> HeadRanking | None:
    """The ranking by given scores, None when there are none or the method reads others.

    Raises:
        DataError: scores of another model, or of prompts or a text that are not those searched with.
        InputError: scores without the axis.
    """
    if scores is None or not {"loss", "bias"} & set(settings.needs):
        return None
    scores.check(lm.head_map)
    if "bias" in settings.needs:
        scores.axis(searched.axis)
    scores.require_origin(origin_of(lm, text, [searched]))
    return HeadRanking.of(scores, searched.axis, settings.needs)


def _unseen(prompts: PromptSet, searched: PromptSet) -> PromptSet:
    """Without prompts that are searched with: published splits have some texts in both parts."""
    seen = set(searched.texts)
    rows = [row for row, text in enumerate(prompts.texts) if text not in seen]
    if len(rows) == len(prompts):
        return prompts
    if not rows:
        raise DataError("every prompt to judge on is searched with: give others to judge on")
    note = f"left out, because they are searched with: {len(prompts) - len(rows):,} of {len(prompts):,} prompts"
    return replace(prompts.take(rows), notes=(*prompts.notes, note))


def _sampled(prompts: PromptSet, settings: RepairSettings) -> PromptSet:
    if settings.prompts is None or settings.prompts >= len(prompts):
        return prompts
    return prompts.sample(settings.prompts, settings.seed)


def _chosen(
    search: LanguageEvaluator,
    before: Measurement,
    finalists: Sequence[Finalist],
    floor: UtilityFloor,
    settings: RepairSettings,
) -> Finalist | None:
    if settings.choice == "rule":
        return finalists[0] if finalists else None
    return choose(search, before, finalists, floor)


def _require_whole(untouched: Measurement, lm: LanguageModel) -> None:
    if not untouched.is_finite:
        raise ModelError(
            f"{lm.name} has bias {untouched.bias} and perplexity {untouched.utility} without any mask: its logits are "
            f"not finite; {why_not_finite(lm.model)}"
        )


def _require_other_axes(prompts: PromptSet, others: Sequence[PromptSet]) -> None:
    axes = [prompts.axis, *(other.axis for other in others)]
    repeated = sorted({axis for axis in axes if axes.count(axis) > 1})
    if repeated:
        raise InputError(f"axis {repeated[0]!r} was given twice: give every axis once, the one to repair first")
