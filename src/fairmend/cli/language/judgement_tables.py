"""Held-out figures of a set of heads as cells of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JUDGED = ("bias", "change [95 %]", "perplexity", "times [95 %]")
"""The columns that `judged_cells` fills."""


def judged_cells(judgement: Mapping[str, Any] | None, is_untouched: bool = False) -> tuple[str, str, str, str]:
    """Bias, its change, perplexity and its ratio, as `describe_judgement` has them; no changes where nothing was."""
    if judgement is None:
        return "not judged", "", "", ""
    change, read = judgement["axes"][0]["change"], judgement["perplexity"]
    bias = "broken" if change is None else f"{change['after']['value']:.4f}"
    perplexity = "broken" if read["after"] is None else f"{read['after']:.2f}"
    if is_untouched:
        return bias, "", perplexity, ""
    return (
        bias,
        "" if change is None else f"{change['change']:+.4f}{limits(change['interval'])}",
        perplexity,
        "" if read["ratio"] is None else f"{read['ratio']:.3f}{limits(read['interval'])}",
    )


def limits(interval: Mapping[str, Any]) -> str:
    """An interval in brackets with a space before it; "" where it is not defined."""
    low, high = interval["low"], interval["high"]
    return "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
