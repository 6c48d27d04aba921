"""Repairs that measure whole subsets of heads: Attention Pruning, active learning and NSGA-II.

A ranking scores heads one at a time and cannot know how they act together. These searches measure subsets on a part of
the search half, by default the same prompts, noise and text for all of them, and name a few that are worth measuring in
full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fairmend.costs import UtilityFloor
from fairmend.errors import DataError, InputError
from fairmend.evaluation import Measurement
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.logbook import Logbook
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.repair.finalists import sets_of, within_floor
from fairmend.language.repair.floors import Floors, floors_of
from fairmend.language.repair.head_ranking import HeadRanking
from fairmend.language.repair.own_fractions import OwnFractions
from fairmend.language.repair.settings import SUBSET_METHODS, RepairSettings, SubsetSearch
from fairmend.masks import Mask
from fairmend.records import differences
from fairmend.runs.collection import Collection
from fairmend.runs.context import Context
from fairmend.search import Genetic
from fairmend.search.base import Searcher
from fairmend.surrogates.active import Active
from fairmend.surrogates.attention_pruning import AttentionPruning
from fairmend.surrogates.families.base import LEAST_SAMPLES
from fairmend.surrogates.learning import LearningSearcher
from fairmend.surrogates.objectives import floored_sum

CONTEXT = "subsets"
_LEAST_PER_GROUP = 2
_LEAST_TOKENS = 512
PUBLISHED_SURROGATE = "network"

SubsetEvaluator: TypeAlias = LanguageEvaluator | OwnFractions


def collecting_evaluator(search: LanguageEvaluator, settings: RepairSettings) -> SubsetEvaluator:
    """The evaluator that subsets are measured with: a part of the search half's prompts and text.

    Args:
        search: on the whole search half.
        settings: share, limits and seed.
    """
    subsets, prompts = settings.subsets, search.prompts
    space = subsets.space(search.space)
    if subsets.fraction == "own":
        return OwnFractions(search, eta=subsets.eta, seed=settings.seed, space=space)
    count = subset_prompts(subsets, len(prompts), len(prompts.group_names))
    tokens = max(_LEAST_TOKENS, round(subsets.eta * len(search.reading.tokens)))
    reading = replace(settings.reading, tokens=min(tokens, len(search.reading.tokens)))
    return search.on(
        prompts.sample(count, settings.seed), Reading(search.lm, search.reading.text, reading), space=space
    )


def subset_prompts(subsets: SubsetSearch, count: int, n_groups: int) -> int:
    """How many of `count` prompts in `n_groups` groups a subset is measured on."""
    return min(count, max(_LEAST_PER_GROUP * n_groups, round(subsets.eta * count)))


def find_subsets(
    search: LanguageEvaluator,
    ranking: HeadRanking,
    floor: Floors,
    settings: RepairSettings,
    given: Context | None,
    log: Logbook,
) -> tuple[list[Mask], Collection]:
    """Measure subsets as the method of `settings` asks for them, and name those to measure in full.

    Args:
        search: on the whole search half.
        ranking: what every head is worth, used by "active": it begins with the ranking's sets, see
            `RepairSettings.starting_rules`.
        floor: the largest perplexity that those may have.
        settings: the method and how it searches.
        given: subsets that were measured already and are `require_searchable`; taken in place of random ones, not by
            "genetic".
        log: where measurements are kept.

    Returns:
        The most promising subsets without the empty one; and all that were measured.

    Raises:
        KeyboardInterrupt: Ctrl-C; everything measured is kept.
        InputError: settings that cannot work.
        DataError: surrogates cannot learn from what was measured.
    """
    table = ranking.table
    prior = None if table is None else {"bias": table.axis(search.prompts.axis).effect, "loss": table.loss.effect}
    sets = {} if prior is None else sets_of(settings.starting_rules(search.space), ranking.scores, search.space)
    starts = list(within_floor(search, sets, floor, log.progress))
    evaluator = collecting_evaluator(search, settings)
    runner = log.runner(CONTEXT, evaluator)
    collection = runner.collection
    known: list[Mask] = []
    if given is not None:
        pairs = [(mask, made) for mask, made in given if mask.is_untouched or evaluator.space.admits(mask)]
        known = [mask for mask, _ in pairs]
        collection.put(known, [made for _, made in pairs])
    searcher = subset_searcher(evaluator, settings, prior, starts, known)
    runner.finish(searcher)
    if isinstance(searcher, LearningSearcher) and searcher.pair is None:
        raise DataError(f"nothing can be learned from the {len(collection)} measured subsets: {searcher.trouble}")
    return promising(searcher, settings.subsets.finalists, front=settings.front), collection


def subset_searcher(
    evaluator: SubsetEvaluator,
    settings: RepairSettings,
    prior: Mapping[str, npt.NDArray[np.float64]] | None = None,
    starts: Sequence[Mask] = (),
    known: Sequence[Mask] = (),
) -> AttentionPruning | Active | Genetic:
    """The searcher of the method of `settings`, which begins with the known masks; they count as samples."""
    subsets, space, figures = settings.subsets, evaluator.space, evaluator.figures
    begun_with = [mask for mask in dict.fromkeys(starts) if space.admits(mask) and mask not in known]

    def floor(reference: Measurement) -> UtilityFloor:
        return floors_of(evaluator.whole if isinstance(evaluator, OwnFractions) else evaluator, reference, settings)

    if settings.method == "genetic":
        return Genetic(space, figures, floor, seed=settings.seed, states=subsets.samples)
    if settings.method == "active":
        return Active(
            space,
            figures,
            floored_sum(figures, subsets.epsilon, settings.max_perplexity),
            floor,
            seed=settings.seed,
            states=max(subsets.samples, len(known) + 1 + (len(begun_with) if known else 0)),
            surrogate="pairwise" if subsets.surrogate == "auto" else subsets.surrogate,
            prior=prior,
            starts=begun_with,
            whole_front=settings.front,
            known=known,
        )
    if settings.method == "attention-pruning":
        return AttentionPruning(
            space,
            figures,
            None,
            floor if settings.max_perplexity is not None else None,
            seed=settings.seed,
            states=max(subsets.samples, len(known) + 1 + subsets.finalists),
            known=known,
            surrogate=PUBLISHED_SURROGATE if subsets.surrogate == "auto" else subsets.surrogate,
            finalists=subsets.finalists if known else min(subsets.finalists, max(1, subsets.samples - 16)),
            epsilon=subsets.epsilon,
            whole_front=settings.front,
        )
    raise InputError(f"method must be one of {', '.join(map(repr, SUBSET_METHODS))}, got {settings.method!r}")


def promising(searcher: Searcher, count: int, *, front: bool = False) -> list[Mask]:
    """The subsets worth measuring in full: what surrogates believe to be best, or an even choice of the front.

    Of the choice by surrogates, up to half are sets that the search began with. A ranking saw every prompt, a surrogate
    only a few, so that it may underrate them; and they tend to be smaller.

    Args:
        searcher: one of `subset_searcher`, after its search.
        count: how many at most.
        front: whether the choice by surrogates is to be spread along the front too, instead of the cheapest.
    """
    if isinstance(searcher, LearningSearcher):
        if front:
            masks = searcher.front_finalists(count)
        else:
            begun_with = searcher.starts if isinstance(searcher, Active) else ()
            masks = [*searcher.finalists(count // 2, begun_with), *searcher.finalists(count + 1)]
    elif isinstance(searcher, Genetic):
        found = sorted(searcher.front, key=lambda one: one[1].bias)
        places = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
        masks = [found[place][0] for place in places.tolist()]
    else:
        masks = []
    return [mask for mask in dict.fromkeys(masks) if not mask.is_untouched][:count]


def require_searchable(search: LanguageEvaluator, settings: RepairSettings, given: Context | None) -> None:
    """Refuse what surrogates could not learn from, before anything is measured.

    Args:
        search: on the whole search half.
        settings: the method and how it searches; one that learns nothing from subsets is never refused.
        given: subsets that were measured already.

    Raises:
        InputError: too few subsets to learn from.
        DataError: the given ones are of another model, or were measured otherwise; what differs is named.
    """
    if settings.method not in ("active", "attention-pruning"):
        return
    if given is not None:
        asked = json.loads(json.dumps(collecting_evaluator(search, settings).fingerprint()))
        changed = differences(dict(given.fingerprint), asked)
        if changed:
            raise DataError(
                f"the subsets in {given.store.path} are of another model or were measured under other settings than "
                f"you give now: {'; '.join(changed[:5])}. Give the model and the options of that collection, or "
                "collect again"
            )
    known, samples = 0 if given is None else len(given), settings.subsets.samples
    # Of the samples of Attention Pruning at least one is a finalist, which nothing is learned from.
    learned = max(samples, known) if settings.method == "active" else known or samples - 1
    if learned < LEAST_SAMPLES:
        raise InputError(
            f"{settings.method} learns from at least {LEAST_SAMPLES} measured subsets, and would have {learned}: ask "
            "for more subsets" + ("" if given is None else ", or collect more")
        )
