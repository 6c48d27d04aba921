"""Compare pruning methods at equal numbers of heads, and settings of FASP, on prompts and text that no score saw.

Every head is scored once, for all methods and settings together; sets of heads that coincide are measured once.
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
from fairmend.language.repair.head_ranking import rank_heads
from fairmend.language.repair.repair import given_ranking, halves, judged_with, make_evaluator, scoring_evaluator
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.scores.head_scores import HeadScores
from fairmend.language.studies.comparison import ComparedSet, MethodComparison
from fairmend.language.toxicity.scorer import Scorer
from fairmend.masks import Mask, Space
from fairmend.runs.progress import Progress
from fairmend.runs.store import Store
from fairmend.search import PruningRule
from fairmend.search.base import require_choice, require_count
from fairmend.search.pruning_rules import NEEDS
from fairmend.settings import METHODS, Method

_SCORED: Mapping[tuple[str, ...], Method] = {
    ("bias", "loss"): "fasp",
    ("bias",): "fairness-only",
    ("loss",): "performance-only",
}
"""The method that reads these scores and no others."""


@dataclass(frozen=True)
class ComparisonSettings:
    """What is compared.

    Attributes:
        methods: the pruning methods, see `PruningRule`.
        alphas: shares of the heads to drop; every method at every one of them.
        gammas: shares of the heads that are critical; "fasp" at every one of them.
        random_draws: sets that "random" draws at every alpha.
        shared: everything else: how heads are scored, prompts, continuations, reading, ties, seed. Its method, alpha,
            gamma, choice and floor are not used.

    Raises:
        InputError: a list that is empty or repeats itself, or settings that cannot work.
    """

    methods: tuple[Method, ...] = METHODS
    alphas: tuple[float, ...] = (0.02, 0.05, 0.1)
    gammas: tuple[float, ...] = (0.3,)
    random_draws: int = 3
    shared: RepairSettings = field(default_factory=RepairSettings)

    def __post_init__(self) -> None:
        for name in ("methods", "alphas", "gammas"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name} needs one or more different values, got {values!r}")
        for method in self.methods:
            require_choice("method", method, get_args(Method))
        require_count("random_draws", self.random_draws, 1)
        self.rules  # noqa: B018 - refuses shares that cannot work

    @property
    def rules(self) -> tuple[PruningRule, ...]:
        """Every method with every setting that it has, methods in order."""
        ties, seed = self.shared.ties, self.shared.seed
        rules = []
        for method in self.methods:
            gammas = self.gammas if method == "fasp" else (0.0,)
            seeds = range(seed, seed + self.random_draws) if method == "random" else (seed,)
            rules += [
                PruningRule(method, alpha, gamma, ties, seed=drawn)
                for alpha in self.alphas
                for gamma in gammas
                for drawn in seeds
            ]
        return tuple(rules)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> ComparisonSettings:
        """The settings that `to_json` described."""
        lists = {name: tuple(payload[name]) for name in ("methods", "alphas", "gammas")}
        return cls(**lists, random_draws=payload["random_draws"], shared=RepairSettings.from_json(payload["shared"]))


def compare_methods(
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    settings: ComparisonSettings | None = None,
    *,
    texts: tuple[Text, Text] | None = None,
    others: Sequence[PromptSet] = (),
    judge_prompts: PromptSet | None = None,
    scores: HeadScores | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
    batch_size: Rows = "auto",
) -> MethodComparison:
    """Prune a model by several methods and settings, and judge every set of heads on held-out prompts and text.

    The sets follow from scores of single heads on the search half; nothing is chosen among them, so that no figure of
    the judging half is too rosy. Whoever then picks the best of many lines has chosen on the judging half.

    Args:
        lm, prompts, scorer, texts, others, judge_prompts, scores: as for `repair_model`.
        settings: what is compared.
        store: where scores and measurements are kept; a store with an interrupted run is gone on with.
        progress: where to show how far it is.
        batch_size: prompts at once.

    Raises:
        InputError: settings that cannot work, among them an alpha that drops no head of this model.
        ModelError, DataError, RunError: see `repair_model`.
        KeyboardInterrupt: Ctrl-C; with a store everything measured is kept.
    """
    settings = settings or ComparisonSettings()
    shared, space = settings.shared, lm.head_map.space()
    for alpha in settings.alphas:
        if not PruningRule("random", alpha).count(space.n_units):
            raise InputError(f"alpha={alpha:g} of {space.n_units} heads is none: choose a larger share")
    texts = texts or (read_text(None, "search"), read_text(None, "judge"))
    searched, judged = halves(prompts, shared, judge_prompts)
    reading = Reading(lm, texts[1], shared.reading, batch_size)
    evaluators = [
        make_evaluator(lm, part, reading, scorer, shared, batch_size=batch_size)
        for part in [judged, *judged_with(others, shared)]
    ]
    ranked, notes = _scores(lm, searched, texts[0], scorer, settings, scores, store, progress, batch_size)
    sets = {rule: _set(rule, ranked, space) for rule in settings.rules}
    notes += [f"{rule_name(rule)}: {said}" for rule, (mask, said) in sets.items() if mask is None]
    masks = list(dict.fromkeys(mask for mask, _ in sets.values() if mask is not None))
    judgements = judge_sets(evaluators, masks, store=store, progress=progress, seed=shared.seed)
    first: dict[Mask, str] = {}
    rows = []
    for rule, (mask, _) in sets.items():
        if mask is not None:
            same = first.setdefault(mask, rule_name(rule))
            rows.append(ComparedSet(rule, mask, judgements[mask], "" if same == rule_name(rule) else same))
    return MethodComparison(
        untouched=judgements[space.untouched()],
        rows=tuple(rows),
        space=space,
        figures=evaluators[0].figures,
        notes=tuple(notes),
        search_prompts=searched,
        judge_prompts=judged,
        texts=texts,
        seed=shared.seed,
    )


def rule_name(rule: PruningRule) -> str:
    """A rule in a few words, unique within a comparison."""
    parts = [f"{rule.method} alpha {rule.alpha:g}"]
    parts += [f"gamma {rule.gamma:g}"] if rule.method == "fasp" else []
    parts += [f"seed {rule.seed}"] if rule.method == "random" else []
    return ", ".join(parts)


def _scores(
    lm: LanguageModel,
    searched: PromptSet,
    text: Text,
    scorer: Scorer,
    settings: ComparisonSettings,
    given: HeadScores | None,
    store: Store | None,
    progress: Progress | None,
    batch_size: Rows,
) -> tuple[dict[str, Any], list[str]]:
    """Every score that some method reads, each found once, with what a reader should know of them."""
    wanted = {name for method in settings.methods for name in NEEDS[method]}
    both = tuple(sorted(wanted & {"bias", "loss"}))
    own: list[Method] = [method for method in ("magnitude", "gradient") if method in wanted]
    methods = ([_SCORED[both]] if both else []) + own
    scores: dict[str, Any] = {}
    notes: list[str] = []
    evaluator = None
    for method in methods:
        asked = replace(settings.shared, method=method, alpha=0.0, gamma=0.0)
        ranking = given_ranking(lm, given, searched, text, asked)
        if ranking is None:
            evaluator = evaluator or scoring_evaluator(
                lm, searched, text, scorer, settings.shared, batch_size=batch_size
            )
            ranking = rank_heads(evaluator, asked, store=store, progress=progress)
        scores |= ranking.scores
        notes += ranking.notes
    return scores, notes


def _set(rule: PruningRule, scores: Mapping[str, Any], space: Space) -> tuple[Mask | None, str]:
    """The heads that a rule drops; None with the reason when it finds too few."""
    try:
        return space.mask(rule.choose(scores, space.n_units, space.frozen)), ""
    except InputError as error:
        return None, str(error)
