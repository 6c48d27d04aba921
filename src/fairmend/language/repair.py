"""Repair a language model: rank its heads, measure sets of them, choose, judge on what the search never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fairmend.costs import UtilityFloor
from fairmend.errors import InputError, ModelError
from fairmend.evaluation import Figures, Measurement
from fairmend.language.batching import Rows
from fairmend.language.evaluator import LanguageEvaluator, Packed
from fairmend.language.finalists import Finalist, choose, sets_of, within_floor
from fairmend.language.head_ranking import HeadRanking, rank_heads
from fairmend.language.head_scores import HeadScores
from fairmend.language.judging import Judgement, judge
from fairmend.language.models import LanguageModel
from fairmend.language.prompts import PromptSet
from fairmend.language.reading import Reading
from fairmend.language.settings import RepairSettings
from fairmend.language.texts import Text, read_text
from fairmend.language.toxicity import Scorer
from fairmend.masks import Mask, Space
from fairmend.runs.collection import Collection
from fairmend.runs.progress import Progress
from fairmend.runs.runner import Runner, RunSummary
from fairmend.runs.store import Store
from fairmend.search import Candidates


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
        search_prompts, judge_prompts: the two halves of the repaired axis.
        texts: the text searched with and the one judged on.
        run: how the measuring of the finalists went.
        settings: how it was set.
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
    search_prompts: PromptSet
    judge_prompts: PromptSet
    texts: tuple[Text, Text]
    run: RunSummary
    settings: RepairSettings

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
    scores: HeadScores | None = None,
    store: Store | None = None,
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
        scores: the heads' scores, if they are known already; they must not come from the half to judge on.
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
    searched, judged = halves(prompts, settings)
    texts = texts or (read_text(None, "search"), read_text(None, "judge"))
    space = lm.head_map.space()

    def evaluator_on(part: PromptSet, reading: Reading, n_samples: int | None = None) -> LanguageEvaluator:
        sampling = replace(settings.sampling, n_samples=n_samples or settings.sampling.n_samples)
        return LanguageEvaluator(
            lm,
            part,
            reading,
            scorer,
            sampling=sampling,
            group_mean=settings.group_mean,
            space=space,
            batch_size=batch_size,
        )

    def collection_of(name: str, evaluator: LanguageEvaluator) -> Collection:
        return Collection(space, evaluator.figures) if store is None else store.context(name, evaluator)

    search = evaluator_on(searched, Reading(lm, texts[0], settings.reading, batch_size))
    collection = collection_of("search", search)
    runner = Runner(search, collection, workers=Packed(search), progress=progress)
    (before,) = runner.measure([space.untouched()])
    _require_whole(before, lm)
    ranking = _ranking(lm, scores, searched, settings)
    if ranking is None:
        part_read = replace(settings.reading, tokens=settings.scoring_tokens or settings.reading.tokens)
        scoring = evaluator_on(searched, Reading(lm, texts[0], part_read, batch_size), settings.scoring_samples)
        ranking = rank_heads(scoring, settings, store=store, progress=progress)
    sets, floor = sets_of(settings.finalists(), ranking.scores, space), settings.floor(search.figures, before)
    if settings.choice == "measured":
        sets = within_floor(search, sets, floor, progress)
    run = runner.run(Candidates(space, list(sets), batch=search.masks_at_once))
    finalists = tuple(
        Finalist(mask, rule, made) for mask, rule in sets.items() if (made := collection.get(mask)) is not None
    )
    chosen = _chosen(search, before, finalists, floor, settings)
    mask = space.untouched() if chosen is None else chosen.mask

    judgement = None
    if held_out and run.stopped != "interrupted":
        reading = Reading(lm, texts[1], settings.reading, batch_size)
        sets_judged = [judged, *(_sampled(other, settings) for other in others)]

        def measure(evaluator: LanguageEvaluator, masks: Sequence[Mask]) -> list[Measurement]:
            context = collection_of(f"held-out {evaluator.prompts.axis}", evaluator)
            judging = Runner(evaluator, context, workers=Packed(evaluator), progress=progress)
            changed = [mask for mask in masks if not mask.is_untouched]
            if judging.run(Candidates(space, changed)).stopped == "interrupted":
                raise KeyboardInterrupt  # what was measured is kept; half a judgement is none
            return judging.measure(masks)

        judgement = judge([evaluator_on(part, reading) for part in sets_judged], mask, measure, settings.seed)
    return Repair(
        mask=mask,
        space=space,
        figures=search.figures,
        before=before,
        after=collection[mask],
        floor=floor,
        ranking=ranking,
        finalists=finalists,
        held_out=judgement,
        search_prompts=searched,
        judge_prompts=judged,
        texts=texts,
        run=run,
        settings=settings,
    )


def halves(prompts: PromptSet, settings: RepairSettings) -> tuple[PromptSet, PromptSet]:
    """The prompts to search with and the prompts to judge on: disjoint, stratified by group.

    Raises:
        DataError: a half without a group.
        InputError: fewer prompts asked for than there are groups, or an unknown column to split by.
    """
    first, second = prompts.split(seed=settings.seed, by=settings.split_by)
    return _sampled(first, settings), _sampled(second, settings)


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


def _ranking(
    lm: LanguageModel, scores: HeadScores | None, prompts: PromptSet, settings: RepairSettings
) -> HeadRanking | None:
    """The ranking by given scores, if the method can use them."""
    if scores is None or not {"loss", "bias"} & set(settings.needs):
        return None
    scores.check(lm.head_map)
    return HeadRanking.of(scores, prompts.axis, settings.needs)


def _require_whole(untouched: Measurement, lm: LanguageModel) -> None:
    if not untouched.is_finite:
        raise ModelError(
            f"{lm.name} has bias {untouched.bias} and perplexity {untouched.utility} without any mask: its logits are "
            f"not finite. Check its weights, and try float32 instead of {lm.dtype}"
        )


def _require_other_axes(prompts: PromptSet, others: Sequence[PromptSet]) -> None:
    axes = [prompts.axis, *(other.axis for other in others)]
    repeated = sorted({axis for axis in axes if axes.count(axis) > 1})
    if repeated:
        raise InputError(f"axis {repeated[0]!r} was given twice: give every axis once, the one to repair first")
