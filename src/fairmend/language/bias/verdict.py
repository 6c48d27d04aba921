"""Bias in words: is there anything to repair, and did a repair change anything?"""

from __future__ import annotations

import math

from fairmend.language.bias.records import BiasChange, BiasFigures
from fairmend.statistics import sample_size_needed, two_digits, written_p_value


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
