"""Compare pruning methods at equal numbers of heads, and settings of FASP, on prompts and text that no score saw.

Every head is scored once, for all methods and settings together; sets of heads that coincide are measured once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.language.measurement.judging import Judgement, draw_judged, judge_sets, spot_of
from fairmend.language.measurement.logbook import Logbook
from fairmend.language.repair.head_ranking import HeadRanking, given_ranking, rank_heads
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.scores.head_scores import HeadScores
from fairmend.language.studies.study import NOT_CHOSEN, UNTOUCHED, JudgedSet, JudgedStudy
from fairmend.masks import Mask, Space
from fairmend.report.study import study_kind
from fairmend.report.tables import Cell, Column
from fairmend.runs.progress import Progress
from fairmend.runs.store import Store
from fairmend.runs.workers import Workers
from fairmend.search import PruningRule
from fairmend.search.base import require_choice, require_count
from fairmend.search.names import METHODS, Method
from fairmend.search.pruning_rules import NEEDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

    kind: ClassVar[str] = "language comparison"

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


@dataclass(frozen=True, kw_only=True)
class ComparedSet(JudgedSet):
    """The heads that a rule drops.

    Attributes:
        rule: the method with its settings.
        same_as: the first rule that drops the very same heads, "" if it is this one.
    """

    rule: PruningRule
    same_as: str = ""

    def cells(self) -> dict[str, Cell]:
        """The rule, with what its method reads of it."""
        rule = self.rule
        return {
            "method": rule.method,
            "alpha": rule.alpha,
            "gamma": rule.gamma if rule.method == "fasp" else None,
            "seed": rule.seed if rule.method == "random" else None,
            "heads": self.mask.size,
            "same_heads_as": self.same_as,
        }

    def to_json(self) -> dict[str, Any]:
        """The rule, with everything that is set of it."""
        return asdict(self.rule) | {"same_heads_as": self.same_as or None}


class MethodComparison(JudgedStudy[ComparedSet]):
    """Pruning methods and settings side by side."""

    kind = study_kind(ComparisonSettings.kind, "compare")
    caveat = f"{NOT_CHOSEN} (another --seed, or fairmend lm repair)"
    before: ClassVar[Mapping[str, Cell]] = {
        **dict.fromkeys(("method", "alpha", "gamma", "seed", "heads", "same_heads_as")),
        **{"method": UNTOUCHED, "heads": 0},
    }

    def columns(self) -> tuple[Column, ...]:
        """The rule and the number of heads."""
        drawn = any(row.rule.method == "random" for row in self.rows)
        return (
            Column("method", "method"),
            Column("alpha", "alpha", "{:g}".format, undefined=""),
            Column("gamma", "gamma", "{:g}".format, undefined=""),
            *([Column("seed", "seed", undefined="")] if drawn else []),
            Column("heads", "heads"),
        )

    def remarks(self) -> list[str]:
        """Rules that drop the same heads, and how the other axes moved."""
        said = [f"{rule_name(row.rule)} drops the same heads as {row.same_as}." for row in self.rows if row.same_as]
        for place, axis in enumerate(self.untouched.axes[1:], start=1):
            changes = ((row.rule, row.judgement.axes[place].change) for row in self.rows)
            moved = [f"{rule_name(rule)} {change.change:+.4f}" for rule, change in changes if change is not None]
            said.append(f"{axis.axis} bias moved by: {', '.join(moved)}.")
        return said

    def draw(self) -> Figure:
        """Bias against perplexity on held-out data, one panel per share of dropped heads."""
        before = spot_of(UNTOUCHED, self.untouched, hollow=True)
        n_heads = self.judge.space.n_units
        several_gammas = len({row.rule.gamma for row in self.rows if row.rule.method == "fasp"}) > 1
        panels = {}
        for alpha in dict.fromkeys(row.rule.alpha for row in self.rows):
            rows = [row for row in self.rows if row.rule.alpha == alpha]
            labels = [
                f"fasp, gamma {row.rule.gamma:g}" if row.rule.method == "fasp" and several_gammas else row.rule.method
                for row in rows
            ]
            name = f"alpha {alpha:g}: {rows[0].rule.count(n_heads)} of {n_heads} heads dropped"
            panels[name] = [before, *(spot_of(label, row.judgement) for label, row in zip(labels, rows, strict=True))]
        return draw_judged(
            panels,
            bias=self.judge.figures.bias.name,
            title=f"held-out: {len(self.judge.prompts):,} prompts that no score saw, 95 % intervals",
        )


def compare_methods(
    subject: Subject,
    settings: ComparisonSettings | None = None,
    *,
    scores: HeadScores | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> MethodComparison:
    """Prune a model by several methods and settings, and judge every set of heads on held-out prompts and text.

    The sets follow from scores of single heads on the search half; nothing is chosen among them, so that no figure of
    the judging half is too rosy. Whoever then picks the best of many lines has chosen on the judging half.

    Args:
        subject: the model, and what it is pruned for and judged on.
        settings: what is compared.
        scores: as for `repair_model`.
        store: where scores and measurements are kept; a store with an interrupted run is gone on with.
        progress: where to show how far it is.
        workers: who measures sets of heads; None is this process.

    Raises:
        InputError: settings that cannot work, among them an alpha that drops no head of this model.
        ModelError, DataError, RunError: see `repair_model`.
        KeyboardInterrupt: Ctrl-C; with a store everything measured is kept.
    """
    settings = settings or ComparisonSettings()
    shared, space = settings.shared, subject.lm.head_map.space()
    for alpha in settings.alphas:
        if not PruningRule("random", alpha).count(space.n_units):
            raise InputError(f"alpha={alpha:g} of {space.n_units} heads is none: choose a larger share")
    log = Logbook(store, progress, workers)
    evaluators = subject.judging(shared)
    rankings = _rankings(subject, settings, scores, log)
    ranked = {name: values for ranking in rankings for name, values in ranking.scores.items()}
    sets = {rule: _set(rule, ranked, space) for rule in settings.rules}
    notes = [f"{rule_name(rule)}: {said}" for rule, (mask, said) in sets.items() if mask is None]
    masks = list(dict.fromkeys(mask for mask, _ in sets.values() if mask is not None))
    judgements = judge_sets(evaluators, masks, log, shared.seed)
    rankings = [ranking.held_against(subject.prompts.axis, _figures(judgements)) for ranking in rankings]
    notes = [*(remark for ranking in rankings for remark in ranking.remarks), *notes]
    first: dict[Mask, str] = {}
    rows = []
    for rule, (mask, _) in sets.items():
        if mask is not None:
            same = first.setdefault(mask, rule_name(rule))
            same_as = "" if same == rule_name(rule) else same
            rows.append(ComparedSet(rule=rule, mask=mask, judgement=judgements[mask], same_as=same_as))
    return MethodComparison(
        rows=tuple(rows),
        untouched=judgements[space.untouched()],
        subject=subject,
        search_prompts=subject.halves(shared)[0],
        judge=evaluators[0],
        notes=tuple(notes),
    )


def rule_name(rule: PruningRule) -> str:
    """A rule in a few words, unique within a comparison."""
    parts = [f"{rule.method} alpha {rule.alpha:g}"]
    parts += [f"gamma {rule.gamma:g}"] if rule.method == "fasp" else []
    parts += [f"seed {rule.seed}"] if rule.method == "random" else []
    return ", ".join(parts)


def _rankings(
    subject: Subject, settings: ComparisonSettings, given: HeadScores | None, log: Logbook
) -> list[HeadRanking]:
    """The rankings with every score that some method reads, each found once."""
    wanted = {name for method in settings.methods for name in NEEDS[method]}
    both = tuple(sorted(wanted & {"bias", "loss"}))
    own: list[Method] = [method for method in ("magnitude", "gradient") if method in wanted]
    methods = ([_SCORED[both]] if both else []) + own
    rankings = []
    evaluator = None
    for method in methods:
        asked = replace(settings.shared, method=method, alpha=0.0, gamma=0.0)
        ranking = given_ranking(subject, given, asked)
        if ranking is None:
            evaluator = evaluator or subject.scoring(settings.shared)
            ranking = rank_heads(evaluator, asked, log, settings.rules)
        rankings.append(ranking)
    return rankings


def _figures(judgements: Mapping[Mask, Judgement]) -> Iterator[tuple[Mask, Measurement]]:
    """Held-out bias of the repaired axis and perplexity of every set that has both."""
    for mask, judgement in judgements.items():
        change = judgement.main.change
        if change is not None:
            yield mask, Measurement(change.after.value, judgement.perplexity.after)


def _set(rule: PruningRule, scores: Mapping[str, Any], space: Space) -> tuple[Mask | None, str]:
    """The heads that a rule drops; None with the reason when it finds too few."""
    try:
        return space.mask(rule.choose(scores, space.n_units, space.frozen)), ""
    except InputError as error:
        return None, str(error)
