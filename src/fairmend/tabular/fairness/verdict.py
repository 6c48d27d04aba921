"""Figures in words: is there anything to repair, and did a repair change anything?"""

from __future__ import annotations

import math

from fairmend.statistics import two_digits, written_p_value
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.findings import Comparison, Estimate, FairnessFigures
from fairmend.tabular.fairness.metrics import OBJECTIVES, UTILITIES
from fairmend.tabular.networks.networks import Network, decide

_ROWS_LOOKED_AT = 20_000
_CLEARLY = 3.0  # standard errors


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


def contradiction(network: Network, dataset: Dataset) -> str | None:
    """Say that a network of two classes does worse than saying the opposite, where it clearly does; else None.

    Clearly: it is right on less than half of the rows, and its true positive rate lies below its false positive rate by
    more than three standard errors. Looked at are at most 20,000 rows, evenly spaced.
    """
    if dataset.positive is None:
        return None
    rows = slice(None, None, max(1, len(dataset.X) // _ROWS_LOOKED_AT))
    y, predicted = dataset.y[rows], decide(network.logits(dataset.X[rows]))
    right = float((y == predicted).mean())
    rates = [(float(predicted[y == code].mean()), int((y == code).sum())) for code in (0, 1) if (y == code).any()]
    if right >= 0.5 or len(rates) < 2:
        return None
    (alarms, _), (hits, _) = rates
    error = math.sqrt(sum(rate * (1 - rate) / n for rate, n in rates))
    if alarms - hits <= _CLEARLY * error:
        return None
    negative, positive = dataset.classes
    return (
        f"the network does worse than saying the opposite: it is right on {right:.1%} of the rows, the opposite would "
        f"be on {1 - right:.1%}. {positive!r} was taken as the positive class, the one that the network's class 1 "
        f"means: if that is {negative!r}, say so (positive=...)"
    )


def verdict_on_change(comparison: Comparison) -> str:
    """Say what a repair changed, and which of the changes can be told from chance."""
    before, after = comparison.before, comparison.after
    parts = [_change(OBJECTIVES[before.objective].title, before.value, after.value, comparison.change)]
    for name, change in comparison.utility_changes.items():
        title = UTILITIES[name].title if name in UTILITIES else "Log-loss"
        parts.append(_change(title, before.utilities[name], after.utilities[name], change))
    return " ".join(parts)


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
