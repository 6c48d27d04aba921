"""How a language model is to be repaired: every choice with its default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from fairmend.costs import UtilityFloor
from fairmend.errors import InputError
from fairmend.evaluation import Figures, Measurement
from fairmend.language.bias.records import GroupMean
from fairmend.language.generation.decoding import Sampling
from fairmend.language.measurement.masked_perplexity import ReadingSettings
from fairmend.language.repair.subset_settings import SUBSET_METHODS, SubsetMethod, SubsetSearch
from fairmend.language.scores.head_scores import BiasMethod, LossMethod
from fairmend.search import METHODS, Method, PruningRule
from fairmend.search.base import require_choice, require_number
from fairmend.search.pruning_rules import NEEDS
from fairmend.settings import PruningTies

BiasScoring = Literal["auto", "first-order", "reweighted", "generated"]
Choice = Literal["measured", "rule"]

DEFAULT_BIAS_METHOD: BiasMethod = "first-order"
"""What bias_scores="auto" stands for."""

_CHOICES = {"bias_scores": BiasScoring, "loss_scores": LossMethod, "choice": Choice, "group_mean": GroupMean}
_SIZES = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1.0)  # of the finalists, as shares of alpha
_LOSS_WEIGHTS = (0.0, 0.5, 1.0)  # of FASP's finalists: from bias alone to bias and perplexity alike


@dataclass(frozen=True)
class RepairSettings:
    """All choices of a repair.

    Attributes:
        method: how heads are ranked, see `fairmend.search.PruningRule`, or how subsets of them are searched, see
            `subsets`.
        alpha: share of the heads to drop; the largest share, when the choice is "measured".
        gamma: share of the heads that are critical to the perplexity and are never dropped; "fasp" and the sets
            that "active" begins with.
        ties: "exact", or "published" as in FASP's code.
        bias_scores: how each head's effect on the bias is found. "generated" continues the prompts without the head,
            exact and slow, and reads the text without it; "reweighted" draws continuations once and weights them by
            what the model without the head thinks of them; "first-order" takes one backward pass for all heads. "auto"
            takes the default.
        loss_scores: how each head's effect on the perplexity is found: "exact" reads the text without it, "first-order"
            takes one backward pass for all heads.
        scoring_samples: continuations per prompt that heads are scored with.
        scoring_tokens: tokens of the text that heads are scored with; None takes as many as `reading`.
        choice: "measured" measures several sets around the rule's on the search half (smaller ones, and for "fasp"
            ones that weigh bias and perplexity jointly; of each ranking the largest that keep the floor) and takes
            the cheapest of those that cannot be told from the least biased, which may be the untouched model; "rule"
            takes the rule's one set, whatever it does.
        front: whether the repair also finds the front: the trade-offs between bias and perplexity among the sets that
            were measured in full, each judged on the held-out half. Searches of subsets then look along the whole
            front, and rankings measure further sets in between, up to `subsets.finalists` in all.
        max_perplexity: the utility floor: the perplexity may be at most so many times the untouched model's on the
            search half; None sets no floor.
        prompts: prompts of each half, stratified by group: one half to search with, one to judge on; None takes all.
        split_by: a column of the prompts whose values the halves must not share, such as "template".
        sampling: how prompts are continued and what of it is scored; its seed is that of these settings.
        group_mean: what a group is compared with, see `BiasProtocol`.
        reading: how the perplexity is taken.
        subsets: how subsets are searched by the methods "attention-pruning", "active" and "genetic", which do not read
            alpha. "active" begins with FASP's sets, so that it reads gamma and ties.
        objective_limit: how many times the untouched model's figure by a further objective a set of heads may have, see
            `repair_model`.
        seed: of everything random.

    Raises:
        InputError: an option outside its range.
    """

    method: Method | SubsetMethod = "fasp"
    alpha: float = 0.1
    gamma: float = 0.3
    ties: PruningTies = "exact"
    bias_scores: BiasScoring = "auto"
    loss_scores: LossMethod = "first-order"
    scoring_samples: int = 2
    scoring_tokens: int | None = 2048
    choice: Choice = "measured"
    front: bool = False
    max_perplexity: float | None = 1.2
    prompts: int | None = 500
    split_by: str | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(new_tokens=20))
    group_mean: GroupMean = "unweighted"
    reading: ReadingSettings = field(default_factory=ReadingSettings)
    subsets: SubsetSearch = field(default_factory=SubsetSearch)
    objective_limit: float = 1.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            require_choice(name, getattr(self, name), get_args(kind))
        for name, least in (("prompts", 4), ("scoring_samples", 1), ("scoring_tokens", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, got {value!r}")
        limit = self.max_perplexity
        if limit is not None and not (math.isfinite(limit) and limit >= 1):
            raise InputError(f"max_perplexity must be at least 1, got {limit!r}: 1.2 allows 1.2 times the perplexity")
        require_number("objective_limit", self.objective_limit, 0, math.inf, positive=True)
        if self.front and self.choice != "measured":
            raise InputError(
                f"a front is of several measured sets, and choice {self.choice!r} takes one of them unseen: choose "
                "'measured', or leave out the front"
            )
        object.__setattr__(self, "sampling", replace(self.sampling, seed=self.seed))
        require_choice("method", self.method, (*METHODS, *SUBSET_METHODS))
        if not self.searches_subsets:
            self.rule  # noqa: B018 - refuses shares that cannot work

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
        method = require_choice("method", self.method, METHODS)
        return PruningRule(method, self.alpha, self.gamma, self.ties, seed=self.seed)

    @property
    def bias_method(self) -> BiasMethod:
        """How the bias without each head is found: `bias_scores` with "auto" resolved."""
        return DEFAULT_BIAS_METHOD if self.bias_scores == "auto" else self.bias_scores

    @property
    def needs(self) -> tuple[str, ...]:
        """The scores of single heads that the method reads."""
        if self.searches_subsets:
            return ("bias", "loss") if self.method == "active" else ()
        return NEEDS[self.rule.method]

    def finalists(self) -> tuple[PruningRule, ...]:
        """The rules whose sets are tried: the method's own last."""
        rule = self.rule
        if self.choice == "rule":
            return (rule,)
        weights = _LOSS_WEIGHTS if self.method == "fasp" else (0.0,)
        return tuple(
            rule.at(alpha=self.alpha * size, loss_weight=weight) for size in _SIZES for weight in weights[::-1]
        )

    def floor(self, figures: Figures, reference: Measurement) -> UtilityFloor:
        """The largest perplexity that a repair may have on the search half."""
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
        read["subsets"] = SubsetSearch(**read["subsets"])
        return cls(**read)

    @classmethod
    def fasp(cls, *, seed: int = 1, **changes: Any) -> RepairSettings:
        """FASP as published: its protocol of bias and perplexity, its rule and ties, no floor."""
        published: dict[str, Any] = {
            "ties": "published",
            "bias_scores": "generated",
            "loss_scores": "exact",
            "choice": "rule",
            "max_perplexity": None,
            "prompts": None,
            "sampling": Sampling(new_tokens=40, max_prompt_tokens=22, score="prompt+continuation"),
            "group_mean": "pooled",
            "reading": ReadingSettings(kind="fasp", tokens=None),
            "scoring_samples": 1,
            "scoring_tokens": None,
            "seed": seed,
        }
        return cls(**(published | changes))
