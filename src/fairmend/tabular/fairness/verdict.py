"""Figures in words: is there anything to repair, and did a repair change anything?"""

from __future__ import annotations

import math

from fairmend.statistics import two_digits, written_p_value
from fairmend.tabular.fairness.findings import Comparison, Estimate, FairnessFigures
from fairmend.tabular.fairness.metrics import OBJECTIVES, UTILITIES


def verdict(figures: FairnessFigures) -> str:
    """Say whether there is anything to repair, with the figures that say so."""
    title, value = OBJECTIVES[figures.objective].title, figures.value
    if math.isnan(value.value):
        return f"{title} is not defined on these rows: every rate it compares is 0, or a group has nobody to rate."
    rows = (
        f"{figures.n_compared:,} rows" if figures.n_compared == figures.n else f"{figures.n_compared:,} compared rows"
    )
    floor = figures.floor if value.better == "lower" else 1 - figures.floor
    opening = (
        f"{title} {value.value:.3f} {value.interval}; a network without any group difference would show "
        f"{floor:.3f} on these {rows}"
    )
    if figures.is_significant:
        return f"{opening}; {written_p_value(figures.p_value)}: there is something to repair."
    closing = (
        f"not distinguishable from chance ({written_p_value(figures.p_value)}): nothing to repair at this sample size"
    )
    if figures.rows_needed is None:
        return f"{opening}; {closing}."
    needed = f"about {two_digits(figures.rows_needed):,} rows would be needed to see a difference of this size"
    return f"{opening}; {closing}; {needed}."


def verdict_on_change(comparison: Comparison) -> str:
    """Say what a repair changed, and which of the changes can be told from chance."""
    return " ".join(_change(figure_title(name), *figure) for name, figure in comparison.figures().items())


def figure_title(name: str) -> str:
    """An objective or a utility at the beginning of a sentence."""
    if name in OBJECTIVES:
        return OBJECTIVES[name].title
    return UTILITIES[name].title if name in UTILITIES else "Log-loss"


def _change(title: str, before: Estimate, after: Estimate, change: Estimate) -> str:
    if math.isnan(change.value):
        return f"{title} is not defined for both networks."
    figures = f"{title} {before.value:.3f} -> {after.value:.3f}, a change of {change.value:+.3f} {change.interval}"
    if math.isnan(change.interval.half_width):
        return f"{figures}: too few defined draws for an interval."
    if change.interval.contains(0.0):
        return f"{figures}: not distinguishable from no change."
    improved = (change.value < 0) == (change.better == "lower")
    return f"{figures}: {'better' if improved else 'worse'}."
