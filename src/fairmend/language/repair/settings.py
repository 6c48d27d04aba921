"""How a language model is to be repaired: every setting with its default, limits and help, stated once.

Nothing heavy is imported here: the command line reads its options off these settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from fairmend.errors import InputError
from fairmend.language.protocols import (
    TOKENS_OF_CHOICES,
    BiasMethod,
    GroupMean,
    LossMethod,
    ReadingSettings,
    Sampling,
    Units,
)
from fairmend.search.names import METHODS, Method, PruningTies
from fairmend.settings import Auto, check, documented, nested, published, setting
from fairmend.surrogates.names import SURROGATE_NAMES

if TYPE_CHECKING:
    from fairmend.costs import UtilityFloor
    from fairmend.evaluation import Figures, Measurement
    from fairmend.masks import Space
    from fairmend.search import PruningRule

BiasScoring = Literal["auto", "first-order", "reweighted", "generated"]
Choice = Literal["measured", "rule"]
SubsetMethod = Literal["attention-pruning", "active", "genetic"]
SoftMethod = Literal["soft"]
Fraction = Literal["shared", "own"]
SUBSET_METHODS: tuple[SubsetMethod, ...] = get_args(SubsetMethod)
SOFT: SoftMethod = "soft"

DEFAULT_BIAS_METHOD: BiasMethod = "first-order"
"""What bias_scores="auto" stands for."""

_SIZES = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1.0)  # of the finalists, as shares of alpha
_LOSS_WEIGHTS = (0.0, 0.5, 1.0)  # of FASP's finalists: from bias alone to bias and perplexity alike
_LARGEST_SHARE = 0.15  # of all heads, in a subset


@documented
@dataclass(frozen=True, slots=True)
class SubsetSearch:
    """How subsets of heads are searched.

    Raises:
        InputError: a setting outside its limits.
    """

    samples: int = setting(300, "Subsets to measure, the empty one included.", least=2, option="--subsets")
    eta: float = setting(
        0.2,
        "Share of the search half's prompts (stratified by group) and text that every subset is measured on.",
        above=0,
        most=1,
        metavar="SHARE",
    )
    fraction: Fraction = setting(
        "shared",
        "Whether all subsets are measured on the same share, so that they differ by their heads only, or each on a "
        "random one of its own, as published for Attention Pruning.",
        choices=get_args(Fraction),
    )
    epsilon: float = setting(
        0.5, "Weight of the bias against the perplexity, from 0 to 1.", least=0, most=1, metavar="WEIGHT"
    )
    min_drop: int = setting(1, "Least heads of a subset.", least=0)
    max_drop: int | Auto | None = setting(
        "auto", "Most heads of a subset. auto: 15 % of all heads; none: all heads.", kind=int, least=0, none="none"
    )
    surrogate: str = setting(
        "auto",
        f"What learns from the measured subsets: {', '.join(SURROGATE_NAMES)}. network is as published. auto: network "
        "for attention-pruning, pairwise for active.",
        choices=("auto", *SURROGATE_NAMES),
    )
    finalists: int = setting(
        8,
        "Subsets to measure on the whole search half; the choice is made among them. With --front a ranking measures "
        "so many sets too, if its own are fewer.",
        least=1,
    )

    def __post_init__(self) -> None:
        check(self)

    def space(self, whole: Space) -> Space:
        """The subsets that are searched, of all heads.

        Raises:
            InputError: limits that leave no subset.
        """
        largest = max(1, round(_LARGEST_SHARE * whole.n_units)) if self.max_drop == "auto" else self.max_drop
        least = self.min_drop if largest is None else min(self.min_drop, largest)
        return replace(whole, min_drop=least, max_drop=largest)


@documented
@dataclass(frozen=True, slots=True)
class SoftGates:
    """How the gain of every head, or of every neuron too, is found, see `soft_gates`.

    Raises:
        InputError: a setting outside its limits.
    """

    steps: int = setting(
        6,
        "Steps from the whole bias to none, as far as the perplexity allows; the choice is made among them.",
        least=1,
        option="--soft-steps",
    )
    tokens: int = setting(
        4096, "Tokens of the text that tells which heads the words depend on.", least=32, option="--soft-tokens"
    )
    units: Units = setting(
        "all",
        "What is turned: all (a gain per attention head and per hidden neuron of the feed-forward blocks), or heads "
        "alone (far less of the bias goes at the same perplexity).",
        choices=get_args(Units),
        option="--soft-units",
    )

    def __post_init__(self) -> None:
        check(self)


@documented
@dataclass(frozen=True)
class RepairSettings:
    """All choices of a repair, of which a method reads some, see `require_read`.

    Raises:
        InputError: a setting outside its limits.
    """

    method: Method | SubsetMethod | SoftMethod = setting(
        "fasp",
        "How heads are ranked: fasp (by bias, sparing those critical to the perplexity), performance-only, "
        "fairness-only, magnitude, gradient or random. Or how subsets of heads are searched: attention-pruning "
        "(surrogate networks and annealing), active (begins with fasp's sets; surrogates choose what to measure "
        "next) or genetic (NSGA-II); these take hundreds of measurements, see --subsets. Or soft: heads and neurons "
        "are turned down or up instead of dropped, by gradients; for --bias only.",
        choices=(*METHODS, *SUBSET_METHODS, SOFT),
        shown="fasp; soft for repairs of --bias without --scores",
        basic=True,
    )
    alpha: float = setting(
        0.1,
        "Largest share of the heads to drop; with --choice rule exactly that share.",
        least=0,
        most=1,
        metavar="SHARE",
        basic=True,
    )
    gamma: float = setting(
        0.3,
        "Share of the heads that are critical to the perplexity and never dropped; fasp, and active for the sets that "
        "it begins with.",
        least=0,
        most=1,
        metavar="SHARE",
    )
    ties: PruningTies = setting(
        "exact",
        "exact, or published as in FASP's code.",
        choices=get_args(PruningTies),
        option="",
        published="published",
    )
    bias_scores: BiasScoring = setting(
        "auto",
        "How each head's effect on the bias is found: first-order (one backward pass for all heads), reweighted (draws "
        "continuations once and weights them by what the model without the head thinks of them), generated (exact: new "
        "continuations without each head, slow), or auto.",
        choices=get_args(BiasScoring),
        published="generated",
    )
    loss_scores: LossMethod = setting(
        "screened",
        "How each head's effect on the perplexity is found: first-order (one backward pass, underestimates the most "
        "damaging heads), exact (reads the text without each head, slow), or screened (first order for all heads, "
        "exact for those that a set would drop).",
        choices=get_args(LossMethod),
        published="exact",
    )
    scoring_samples: int = setting(
        2,
        "Continuations of every prompt that heads are scored with; more make the ranking more reliable.",
        least=1,
        published=1,
        shown="2, or --samples if that is more",
    )
    scoring_tokens: int | None = setting(
        512,
        "Tokens of the text that heads are scored with, in four windows at least; None reads as the perplexity does.",
        least=2,
        none="all",
        option="",
        published=None,
    )
    choice: Choice = setting(
        "measured",
        "measured: measure several sets around the method's own and take the least biased that keeps the perplexity, "
        "or change nothing. rule: take the method's one set, whatever it does.",
        choices=get_args(Choice),
        published="rule",
    )
    front: bool = setting(
        False,
        "Find the front too: other trade-offs between bias and perplexity, each judged on held-out prompts. Any of "
        "them can be saved with fairmend lm pick.",
        basic=True,
    )
    max_perplexity: float | None = setting(
        1.2,
        "Largest perplexity on the search half, as a multiple of the original; none sets no limit.",
        least=1,
        none="none",
        metavar="RATIO",
        reason="1.2 allows 1.2 times the perplexity",
        shown="1.2, or 1.05 with --bias",
        published=None,
        basic=True,
    )
    keep_knowledge: float | None = setting(
        0.9,
        "With --bias: least knowledge on the search half, as a share of the original's mean preference for the right "
        "answers; none sets no limit.",
        above=0,
        most=1,
        none="none",
        metavar="SHARE",
        published=None,
        basic=True,
    )
    spare_knowledge: float = setting(
        0.2,
        "With --bias: share of the heads without which most knowledge would be lost; they are never dropped.",
        least=0,
        most=1,
        metavar="SHARE",
        published=0.0,
    )
    max_drift: float | None = setting(
        None,
        "Largest mean drift of the next word from the original on the search half, in nats per token; without it no "
        "limit.",
        kind=float,
        above=0,
        metavar="NATS",
    )
    prompts: int | None = setting(
        500,
        "Prompts per axis, as many of each group as there are; a repair takes so many to search with and so many "
        "others to judge on. More give narrower intervals and take longer.",
        least=4,
        none="all",
        option="--prompt-count",
        published=None,
        basic=True,
    )
    split_by: str | None = setting(
        None,
        "A column of the prompts whose values the halves must not share; choices have their own.",
        option="",
    )
    sampling: Sampling = nested(Sampling, new_tokens=20)
    group_mean: GroupMean = setting(
        "unweighted",
        "What a group is compared with, see `BiasProtocol`.",
        choices=get_args(GroupMean),
        option="",
        published="pooled",
    )
    reading: ReadingSettings = nested(ReadingSettings)
    subsets: SubsetSearch = nested(SubsetSearch)
    soft: SoftGates = nested(SoftGates)
    objective_limit: float = setting(
        1.1,
        "Largest value of every --objective on the half of its items that is searched with, as a multiple of the "
        "original model's.",
        above=0,
        metavar="RATIO",
    )
    seed: int = setting(0, "Of everything random.", option="")

    def __post_init__(self) -> None:
        check(self)
        if self.front and self.choice != "measured":
            raise InputError(
                f"a front is of several measured sets, and choice {self.choice!r} takes one of them unseen: choose "
                "'measured', or leave out the front"
            )
        object.__setattr__(self, "sampling", replace(self.sampling, seed=self.seed))
        if self.method == SOFT and self.choice != "measured":
            raise InputError(
                "soft measures the gains it finds and chooses among them: leave out the choice 'rule', or rank "
                "heads by another method"
            )
        if self.turns_neurons and self.front:
            raise InputError(
                "a front counts heads, and all units are turned: leave out the front, or take the units 'heads'"
            )
        if self.method in METHODS:
            self.rule  # noqa: B018 - refuses shares that cannot work

    @property
    def turns_neurons(self) -> bool:
        """Whether neurons get gains too, beside the heads."""
        return self.method == SOFT and self.soft.units == "all"

    @property
    def searches_subsets(self) -> bool:
        """Whether the method measures subsets of heads instead of ranking heads."""
        return self.method in SUBSET_METHODS

    @property
    def rule(self) -> PruningRule:
        """The rule that makes one set of heads of their scores.

        Raises:
            InputError: the method searches subsets and has none.
        """
        from fairmend.search import PruningRule
        from fairmend.search.base import require_choice

        method = require_choice("method", self.method, METHODS)
        return PruningRule(method, self.alpha, self.gamma, self.ties, seed=self.seed)

    @property
    def bias_method(self) -> BiasMethod:
        """How the bias without each head is found: `bias_scores` with "auto" resolved."""
        return DEFAULT_BIAS_METHOD if self.bias_scores == "auto" else self.bias_scores

    @property
    def needs(self) -> tuple[str, ...]:
        """The scores of single heads that the method reads."""
        from fairmend.search.pruning_rules import NEEDS

        if self.method not in METHODS:
            return ("bias", "loss") if self.method == "active" else ()
        return NEEDS[self.rule.method]

    def require_read(self, given: Mapping[str, str]) -> None:
        """Refuse what the method does not read, so that nobody gives it in vain.

        Args:
            given: what was given, by name, with what whoever gave it calls it.

        Raises:
            InputError: names all of it.
        """
        ranks, needs = self.method in METHODS, self.needs
        read_by = {
            "alpha": ranks,
            "gamma": self.method in ("fasp", "active"),
            "bias_scores": "bias" in needs,
            "scoring_samples": "bias" in needs,
            "loss_scores": "loss" in needs,
            "spare_knowledge": self.method != SOFT,
            **{f"soft.{entry.name}": self.method == SOFT for entry in fields(SoftGates)},
            **{f"subsets.{entry.name}": self.searches_subsets for entry in fields(SubsetSearch)},
            "subsets.finalists": self.searches_subsets or (ranks and self.front),
            "scores": bool({"bias", "loss"} & set(needs)),
        }
        unread = [called for name, called in given.items() if not read_by.get(name, True)]
        if unread:
            raise InputError(
                f"method {self.method!r} does not read {', '.join(unread)}: leave that out, or choose another method"
            )

    def finalists(self) -> tuple[PruningRule, ...]:
        """The rules whose sets are tried: the method's own last."""
        rule = self.rule
        if self.choice == "rule":
            return (rule,)
        weights = _LOSS_WEIGHTS if self.method == "fasp" else (0.0,)
        return tuple(
            rule.at(alpha=self.alpha * size, loss_weight=weight) for size in _SIZES for weight in weights[::-1]
        )

    def starting_rules(self, space: Space) -> tuple[PruningRule, ...]:
        """FASP's rules whose sets an active search begins with: up to as many heads as a subset may have.

        A few noisy subsets of hundreds of heads say little; one backward pass says something about every head. So the
        sets that a ranking suggests are measured first, and the surrogates learn from them how much it is worth.
        """
        share = min(self.subsets.space(space).largest / space.n_units, 1 - self.gamma)
        return replace(self, method="fasp", alpha=share, choice="measured").finalists()

    def floor(self, figures: Figures, reference: Measurement) -> UtilityFloor:
        """The largest perplexity that a repair may have on the search half."""
        from fairmend.costs import UtilityFloor

        if self.max_perplexity is None:
            return UtilityFloor(math.inf, figures.utility.better)
        return UtilityFloor.relative(figures, reference, self.max_perplexity)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> RepairSettings:
        """The settings that `to_json` described."""
        read = dict(payload)
        read["sampling"], read["reading"] = Sampling(**read["sampling"]), ReadingSettings(**read["reading"])
        read["subsets"], read["soft"] = SubsetSearch(**read["subsets"]), SoftGates(**read["soft"])
        return cls(**read)

    @classmethod
    def of_choices(cls, **changes: Any) -> RepairSettings:
        """The defaults for choices, whose bias costs few words: less text, and a closer floor of the perplexity."""
        defaults: dict[str, Any] = {"max_perplexity": 1.05, "reading": ReadingSettings(tokens=TOKENS_OF_CHOICES)}
        return cls(**(defaults | changes))

    @classmethod
    def fasp(cls, *, seed: int = 1, **changes: Any) -> RepairSettings:
        """FASP as published: its protocol of bias and perplexity, its rule and ties, no floor."""
        return cls(**(published(cls) | {"seed": seed} | changes))
