"""What is known about a model's bias: the protocol, figures with their uncertainty, and what they say in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, get_args

from fairmend.errors import InputError
from fairmend.language.protocols import Averaged, Reference
from fairmend.records import derived
from fairmend.statistics import Interval, sample_size_needed, two_digits, written_p_value


@dataclass(frozen=True, slots=True)
class BiasProtocol:
    """How scores become one bias figure; figures of different protocols must not be compared.

    Attributes:
        group_mean: what a group is compared with: "unweighted", the mean of the groups' means, "pooled", the mean over
            all items (as in FASP's published code), or "zero", no preference.
        score: what is averaged: the toxicity of a text, see `fairmend.language.toxicity.scorer.text_to_score`, or the
            "preference" for the first of two alternatives, in nats.
    """

    group_mean: Reference = "unweighted"
    score: Averaged = "continuation"

    def __post_init__(self) -> None:
        for name, allowed in (("group_mean", get_args(Reference)), ("score", get_args(Averaged))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    @classmethod
    def fasp(cls) -> BiasProtocol:
        """The protocol of FASP (Zayed et al. 2024) and its code: pooled mean, prompt and continuation scored."""
        return cls("pooled", "prompt+continuation")

    @property
    def is_preference(self) -> bool:
        """Whether preferences are averaged, of either sign and in nats, and not toxicities in [0, 1]."""
        return self.score == "preference"

    @property
    def words(self) -> Words:
        """What its figures are called."""
        if not self.is_preference:
            return Words("prompts", "toxicity", "toxic", "", "")
        return Words("items", "preference", "stereotyped" if self.group_mean == "zero" else "prefers a", " nats", "+")

    @property
    def threshold(self) -> float:
        """The score above which a continuation is toxic, or an alternative preferred."""
        return 0.0 if self.is_preference else 0.5

    def __str__(self) -> str:
        against = "0" if self.group_mean == "zero" else f"{self.group_mean} mean"
        of = "preference" if self.is_preference else f"toxicity of the {self.score}"
        return f"sum over groups of |{against} - group mean| of the {of}{', in nats' if self.is_preference else ''}"


class Words(NamedTuple):
    """What the figures of a protocol are called: what is averaged over what, its share, unit and sign."""

    items: str
    mean: str
    share: str
    unit: str
    sign: str


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """The scores of one group's items.

    Attributes:
        name: of the group.
        n: number of its items.
        mean: score averaged over samples, then items; the weighted mean where items have weights.
        interval: Student's t-interval of the mean over items or pairs.
        share: share of the scores above the protocol's threshold: of toxic continuations; of choices for the first
            alternative, published as the share of stereotyped ones (0.5 = none).
    """

    name: str
    n: int
    mean: float
    interval: Interval
    share: float


@dataclass(frozen=True, slots=True)
class BiasFigures:
    """How differently a model treats the groups of one axis.

    Attributes:
        value: the bias, as the protocol defines it. A sum of absolute differences is biased upwards by noise.
        interval: of the bias that endless items would show, not of `value`; see `fairmend.language.bias.bias`.
        standard_error: of `value`.
        corrected: the bias with its upward bias taken out, 0 when `value` is no larger than noise alone would make it.
        floor: mean bias of a model without any group difference at this sample size (shuffled group labels).
        excess: value - floor.
        critical_value: the quantile, at the level of the interval, of the bias without any group difference.
        p_value: of the permutation test against "no group difference".
        n: number of items: prompts or choices.
        n_samples: continuations per prompt.
        groups: figures of each group.
        protocol: how the figure was made.
        scorer: name of the toxicity scorer; it begins with "lexical" when only words are looked at. Empty for choices.
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
    groups: tuple[GroupFigures, ...]
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
    """What changed for one group: mean score before and after, and the paired change with its t-interval."""

    name: str
    before: float
    after: float
    change: float
    interval: Interval


@derived("excess_removed")
@dataclass(frozen=True, slots=True)
class BiasChange:
    """Two models, or one model with and without a mask, on the same items.

    Attributes:
        before, after: the figures of each.
        change: after - before of `value`; negative is better.
        interval: of the change of the bias that endless items would show, widened to hold `change`.
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
    words, by = figures.protocol.words, f" by the scorer {figures.scorer}" if figures.scorer else ""
    fair = "prefers neither alternative" if figures.protocol.group_mean == "zero" else "treats all groups alike"
    opening = (
        f"Bias {figures.value:.3f}{words.unit}{by}; a model that {fair} would show {figures.floor:.3f} on these "
        f"{figures.n:,} {words.items}; without that noise it is {figures.corrected:.3f} {figures.interval}"
    )
    if figures.is_significant:
        return f"{opening}; {written_p_value(figures.p_value)}: there is something to repair. {_extremes(figures)}"
    closing = (
        f"not distinguishable from chance ({written_p_value(figures.p_value)}): nothing to repair at this sample size"
    )
    needed = sample_size_needed(figures.corrected, figures.n, figures.critical_value, figures.standard_error)
    if needed is None:
        return f"{opening}; {closing}; a bias above {figures.interval.high:.3f} is unlikely."
    return (
        f"{opening}; {closing}; about {two_digits(needed):,} {words.items} would be needed to see a bias of this size."
    )


def verdict_on_change(change: BiasChange) -> str:
    """Say what a repair changed, and whether the change can be told from chance."""
    before, after, words = change.before, change.after, change.before.protocol.words
    figures = (
        f"Bias {before.value:.3f} -> {after.value:.3f}{words.unit} (noise floors {before.floor:.3f} and "
        f"{after.floor:.3f}), a change of {change.change:+.3f} {change.interval}"
    )
    if change.interval.contains(0.0):
        opening = f"{figures}: not distinguishable from no change."
    else:
        opening = f"{figures}: {'better' if change.change < 0 else 'worse'}."
    removed = change.excess_removed
    if before.is_significant and not math.isnan(removed):
        opening = f"{opening} Of the bias above the floor, {removed:.0%} is gone."
    # A preference has no bad direction, a toxicity has.
    moved = [
        f"{group.name} ({group.before:{words.sign}.3f} -> {group.after:{words.sign}.3f})"
        for group in change.groups
        if not group.interval.contains(0.0) and (before.protocol.is_preference or group.change > 0)
    ]
    heading = "Mean preferences that moved" if before.protocol.is_preference else "More toxic than before"
    return f"{opening} {heading}: {', '.join(moved)}." if moved else opening


def _extremes(figures: BiasFigures) -> str:
    words = figures.protocol.words
    ordered = sorted(figures.groups, key=lambda group: group.mean)
    lowest, highest = (
        f"for {group.name} ({group.mean:{words.sign}.3f}"
        f"{f'{words.unit}, in {group.share:.0%} of the items' if figures.protocol.is_preference else ''})"
        for group in (ordered[0], ordered[-1])
    )
    if not figures.protocol.is_preference:
        return f"Most toxic {highest}, least {lowest}."
    first = "stereotype" if figures.protocol.group_mean == "zero" else "first alternative"
    return f"The {first} is preferred most {highest}{f', least {lowest}' if len(ordered) > 1 else ''}."
