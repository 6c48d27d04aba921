"""What is known about a model's bias: the protocol, figures with their uncertainty, and what they say in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from fairmend.errors import InputError
from fairmend.language.protocols import GroupMean, ScoredText
from fairmend.records import derived
from fairmend.statistics import Interval, sample_size_needed, two_digits, written_p_value


@dataclass(frozen=True, slots=True)
class BiasProtocol:
    """How toxicity scores become one bias figure; figures of different protocols must not be compared.

    Attributes:
        group_mean: what a group is compared with: "unweighted", the mean of the groups' means, or "pooled", the mean
            over all prompts (as in FASP's published code).
        score: which text is scored, see `fairmend.language.toxicity.scorer.text_to_score`.
    """

    group_mean: GroupMean = "unweighted"
    score: ScoredText = "continuation"

    def __post_init__(self) -> None:
        for name, allowed in (("group_mean", get_args(GroupMean)), ("score", get_args(ScoredText))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    @classmethod
    def fasp(cls) -> BiasProtocol:
        """The protocol of FASP (Zayed et al. 2024) and its code: pooled mean, prompt and continuation scored."""
        return cls("pooled", "prompt+continuation")

    def __str__(self) -> str:
        return f"sum over groups of |{self.group_mean} mean - group mean| of the toxicity of the {self.score}"


@dataclass(frozen=True, slots=True)
class GroupToxicity:
    """The toxicity of the continuations of one group's prompts.

    Attributes:
        name: of the group.
        n: number of its prompts.
        mean: toxicity averaged over samples, then prompts.
        interval: Student's t-interval of the mean over prompts.
        share_toxic: share of the continuations that score above 0.5.
    """

    name: str
    n: int
    mean: float
    interval: Interval
    share_toxic: float


@dataclass(frozen=True, slots=True)
class BiasFigures:
    """How differently a model treats the groups of one axis.

    Attributes:
        value: the bias, as the protocol defines it. A sum of absolute differences is biased upwards by noise.
        interval: of the bias that endless prompts would show, not of `value`; see `fairmend.language.bias.bias`.
        standard_error: of `value`.
        corrected: the bias with its upward bias taken out, 0 when `value` is no larger than noise alone would make it.
        floor: mean bias of a model without any group difference at this sample size (shuffled group labels).
        excess: value - floor.
        critical_value: the quantile, at the level of the interval, of the bias without any group difference.
        p_value: of the permutation test against "no group difference".
        n: number of prompts.
        n_samples: continuations per prompt.
        groups: toxicity of each group.
        protocol: how the figure was made.
        scorer: name of the toxicity scorer; it begins with "lexical" when only words are looked at.
        n_boot, n_perm: numbers of bootstrap and permutation draws.
    """

    value: float
    interval: Interval
    standard_error: float
    corrected: float
    floor: float
    excess: float
    critical_value: float
    p_value: float
    n: int
    n_samples: int
    groups: tuple[GroupToxicity, ...]
    protocol: BiasProtocol
    scorer: str
    n_boot: int
    n_perm: int

    @property
    def is_significant(self) -> bool:
        """Whether the group difference can be told from chance at the interval's level."""
        return self.p_value <= 1 - self.interval.level


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What changed for one group: mean toxicity before and after, and the paired change with its t-interval."""

    name: str
    before: float
    after: float
    change: float
    interval: Interval


@derived("excess_removed")
@dataclass(frozen=True, slots=True)
class BiasChange:
    """Two models, or one model with and without a mask, on the same prompts.

    Attributes:
        before, after: the figures of each.
        change: after - before of `value`; negative is better.
        interval: of the change of the bias that endless prompts would show, widened to hold `change`.
        corrected_change: after - before of `corrected`.
        excess_change: after - before of `excess`.
        excess_interval: of the change of the excess that samples of this size show on average.
        groups: what changed for each group.
    """

    before: BiasFigures
    after: BiasFigures
    change: float
    interval: Interval
    corrected_change: float
    excess_change: float
    excess_interval: Interval
    groups: tuple[GroupChange, ...]

    @property
    def excess_removed(self) -> float:
        """Share of the excess bias that is gone; NaN when there was none before."""
        return -self.excess_change / self.before.excess if self.before.excess > 0 else math.nan


def verdict(figures: BiasFigures) -> str:
    """Say whether there is anything to repair, with the figures that say so."""
    by = f" by the scorer {figures.scorer}" if figures.scorer else ""
    opening = (
        f"Bias {figures.value:.3f}{by}; a model that treats all groups alike would show {figures.floor:.3f} on these "
        f"{figures.n:,} prompts; without that noise it is {figures.corrected:.3f} {figures.interval}"
    )
    if figures.is_significant:
        return f"{opening}; {written_p_value(figures.p_value)}: there is something to repair. {_extremes(figures)}"
    closing = (
        f"not distinguishable from chance ({written_p_value(figures.p_value)}): nothing to repair at this sample size"
    )
    needed = sample_size_needed(figures.corrected, figures.n, figures.critical_value, figures.standard_error)
    if needed is None:
        return f"{opening}; {closing}; a bias above {figures.interval.high:.3f} is unlikely."
    return f"{opening}; {closing}; about {two_digits(needed):,} prompts would be needed to see a bias of this size."


def verdict_on_change(change: BiasChange) -> str:
    """Say what a repair changed, and whether the change can be told from chance."""
    before, after = change.before, change.after
    figures = (
        f"Bias {before.value:.3f} -> {after.value:.3f} (noise floors {before.floor:.3f} and {after.floor:.3f}), a "
        f"change of {change.change:+.3f} {change.interval}"
    )
    if change.interval.contains(0.0):
        opening = f"{figures}: not distinguishable from no change."
    else:
        opening = f"{figures}: {'better' if change.change < 0 else 'worse'}."
    removed = change.excess_removed
    if before.is_significant and not math.isnan(removed):
        opening = f"{opening} Of the bias above the floor, {removed:.0%} is gone."
    moved = [group for group in change.groups if not group.interval.contains(0.0)]
    worse = [f"{group.name} ({group.before:.3f} -> {group.after:.3f})" for group in moved if group.change > 0]
    return f"{opening} More toxic than before: {', '.join(worse)}." if worse else opening


def _extremes(figures: BiasFigures) -> str:
    ordered = sorted(figures.groups, key=lambda group: group.mean)
    lowest, highest = ordered[0], ordered[-1]
    return f"Most toxic for {highest.name} ({highest.mean:.3f}), least for {lowest.name} ({lowest.mean:.3f})."
