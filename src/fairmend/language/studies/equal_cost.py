"""Compare whole repairs at an equal number of generated tokens, over several seeds, on prompts that none of them saw.

A ranking takes a few measurements on many prompts, a search over subsets takes many on few. What they have in common is
what they cost: tokens that the model generates. Every method gets as many of them and spends them in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

from fairmend.errors import InputError
from fairmend.language.backend.batching import Rows
from fairmend.language.measurement.judged_sets import judge_sets
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.texts import Text, read_text
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.repair.finalists import most_measured
from fairmend.language.repair.repair import Repair, halves, judged_with, make_evaluator, repair_model
from fairmend.language.repair.settings import SUBSET_METHODS, RepairSettings, SubsetMethod
from fairmend.language.repair.subset_search import subset_prompts
from fairmend.language.studies.equal_cost_report import CostComparison, SeedRepair
from fairmend.language.toxicity.scorer import Scorer
from fairmend.runs.progress import Progress
from fairmend.runs.store import Store
from fairmend.search.base import require_choice, require_count
from fairmend.settings import Method
from fairmend.surrogates.families.base import LEAST_SAMPLES

_LEAST_PER_GROUP = 2


@dataclass(frozen=True)
class EqualCostSettings:
    """What is compared.

    Attributes:
        methods: of ranking heads or of searching subsets.
        tokens: what every repair may generate. Continuations are counted at their full length.
        seeds: repairs of every method, each with its own prompts, noise and search.
        shared: everything else. Rankings search with as many prompts as the tokens allow, searches over subsets with
            the `prompts` of these settings and as many subsets as the tokens allow. Its seed is the first.

    Raises:
        InputError: a list that is empty or repeats itself, or settings that cannot work.
    """

    methods: tuple[Method | SubsetMethod, ...] = ("fasp", "attention-pruning", "active", "random")
    tokens: int = 100_000
    seeds: int = 3
    shared: RepairSettings = field(default_factory=RepairSettings)

    def __post_init__(self) -> None:
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise InputError(f"methods needs one or more different values, got {self.methods!r}")
        for method in self.methods:
            require_choice("method", method, (*get_args(Method), *SUBSET_METHODS))
        require_count("tokens", self.tokens, 1)
        require_count("seeds", self.seeds, 1)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> EqualCostSettings:
        """The settings that `to_json` described."""
        return cls(
            tuple(payload["methods"]), payload["tokens"], payload["seeds"], RepairSettings.from_json(payload["shared"])
        )


@dataclass(frozen=True)
class Plan:
    """One repair of a comparison: how it is set, and the tokens that it generates at most."""

    settings: RepairSettings
    tokens: int


def plan_repair(
    settings: RepairSettings, method: Method | SubsetMethod, seed: int, tokens: int, prompts: PromptSet
) -> Plan:
    """Set a method's repair so that it generates at most `tokens` tokens.

    Args:
        settings: everything that the methods share.
        method, seed: of the repair.
        tokens: the budget.
        prompts: all that may be searched with.

    Raises:
        InputError: too few tokens for this method.
    """
    asked = replace(settings, method=method, seed=seed)
    length, n_groups = asked.sampling.new_tokens, len(prompts.group_names)
    per_set = length * asked.sampling.n_samples
    scored = length * asked.scoring_samples if "bias" in asked.needs else 0
    if asked.bias_method == "generated" and scored:
        raise InputError(
            "bias_scores='generated' continues all prompts without every single head, which is no part of a comparison "
            "at equal cost: choose first-order or reweighted"
        )
    if not asked.searches_subsets:
        per_prompt = scored + per_set * (1 + most_measured(asked.finalists()))
        count = min(len(prompts), tokens // per_prompt)
        if count < max(4, _LEAST_PER_GROUP * n_groups):
            raise _too_few(tokens, method, per_prompt * max(4, _LEAST_PER_GROUP * n_groups))
        return Plan(replace(asked, prompts=count), count * per_prompt)
    count = len(prompts) if asked.prompts is None else min(asked.prompts, len(prompts))
    fixed = count * (scored + per_set * (1 + asked.subsets.finalists))
    per_subset = subset_prompts(asked.subsets, count, n_groups) * per_set
    samples = (tokens - fixed) // per_subset
    least = LEAST_SAMPLES + asked.subsets.finalists
    if samples < least:
        raise _too_few(tokens, method, fixed + least * per_subset)
    return Plan(replace(asked, subsets=replace(asked.subsets, samples=samples)), fixed + samples * per_subset)


def _too_few(tokens: int, method: str, least: int) -> InputError:
    return InputError(
        f"{tokens:,} tokens are too few for {method}, which needs {least:,}: give more, or measure on fewer prompts "
        "(--prompt-count, --eta) or with fewer new tokens"
    )


def compare_at_equal_cost(
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    settings: EqualCostSettings | None = None,
    *,
    texts: tuple[Text, Text] | None = None,
    others: Sequence[PromptSet] = (),
    judge_prompts: PromptSet | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
    batch_size: Rows = "auto",
) -> CostComparison:
    """Repair a model by several methods at an equal number of generated tokens, and judge every repair.

    All repairs are judged on the same held-out prompts and text. The seeds differ in what they search with.

    Args:
        lm, prompts, scorer, texts, others, judge_prompts: as for `repair_model`.
        settings: what is compared.
        store: where measurements are kept; a store with an interrupted run is gone on with.
        progress: where to show how far it is.
        batch_size: prompts at once.

    Raises:
        InputError: settings that cannot work, among them too few tokens for a method.
        ModelError, DataError, RunError: see `repair_model`.
        KeyboardInterrupt: Ctrl-C; with a store everything measured is kept.
    """
    settings = settings or EqualCostSettings()
    shared = settings.shared
    texts = texts or (read_text(None, "search"), read_text(None, "judge"))
    searchable, unseen = halves(prompts, replace(shared, prompts=None), judge_prompts)
    _, judged = halves(prompts, shared, judge_prompts)
    plans = [
        plan_repair(shared, method, seed, settings.tokens, searchable)
        for method in settings.methods
        for seed in range(shared.seed, shared.seed + settings.seeds)
    ]
    reading = Reading(lm, texts[1], shared.reading, batch_size)
    evaluators = [
        make_evaluator(lm, part, reading, scorer, shared, batch_size=batch_size)
        for part in [judged, *judged_with(others, shared)]
    ]
    repairs: list[Repair] = []
    for plan in plans:
        repaired = repair_model(
            lm,
            searchable,
            scorer,
            plan.settings,
            texts=texts,
            judge_prompts=unseen,
            store=None if store is None else store.section(f"{plan.settings.method}, seed {plan.settings.seed}"),
            progress=progress,
            held_out=False,
            batch_size=batch_size,
        )
        if repaired.run.stopped == "interrupted":
            raise KeyboardInterrupt  # what was measured is kept
        repairs.append(repaired)
    judgements = judge_sets(
        evaluators, [repaired.mask for repaired in repairs], store=store, progress=progress, seed=shared.seed
    )
    space = lm.head_map.space()
    return CostComparison(
        untouched=judgements[space.untouched()],
        rows=tuple(
            SeedRepair(
                method=plan.settings.method,
                seed=plan.settings.seed,
                prompts=len(repaired.search_prompts),
                subsets=plan.settings.subsets.samples if plan.settings.searches_subsets else None,
                tokens=plan.tokens,
                mask=repaired.mask,
                judgement=judgements[repaired.mask],
            )
            for plan, repaired in zip(plans, repairs, strict=True)
        ),
        space=space,
        figures=evaluators[0].figures,
        tokens=settings.tokens,
        search_prompts=searchable,
        judge_prompts=judged,
        texts=texts,
        notes=tuple(dict.fromkeys(note for repaired in repairs for note in repaired.ranking.notes)),
    )
