"""Tables of an audit and of a repair, for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fairmend.statistics import Interval
    from fairmend.tabular.audit import Audit
    from fairmend.tabular.findings import Comparison, Estimate, FairnessFigures

UNSEEN = "never seen by the search"
SEARCHED = "seen by the search, overstates the gain"


def plain_table(title: str, *columns: str, numbers_from: int = 1) -> Table:
    """An empty table; the columns from `numbers_from` on are aligned to the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place >= numbers_from else "left")
    return table


def audit_parts(audit: Audit) -> list[RenderableType]:
    """What an audit says: a table over the splits, one of the groups, and the verdict in words."""
    first = next(iter(audit.splits.values()))
    utilities = [_utility_title(name) for name in first.utilities]
    splits = plain_table(
        f"{audit.dataset}: {objective_title(first.objective)} by split",
        *("split", "rows", short_title(first.objective), level_title(first), "noise floor", "excess", "p", *utilities),
    )
    for split, figures in audit.splits.items():
        splits.add_row(
            split,
            f"{figures.n:,}",
            number(figures.value.value),
            interval(figures.value.interval),
            number(figures.floor),
            number(figures.excess),
            p_value(figures.p_value),
            *(number(estimate.value) for estimate in figures.utilities.values()),
        )
    parts: list[RenderableType] = [splits, _groups(audit.splits)]
    return [*parts, *(f"{split}: {words}" for split, words in audit.verdicts.items())]


def repair_parts(result: Mapping[str, Any]) -> list[RenderableType]:
    """What a saved repair says: before and after on every split, unseen rows first, and the verdict in words."""
    from fairmend.tabular.findings import Comparison

    # The test split first; the search's own figures right below it, so that nobody takes the one for the other.
    parts: list[RenderableType] = []
    for split, judged in sorted(
        result["splits"].items(), key=lambda item: (item[0] != "test", item[1]["seen_by_search"])
    ):
        seen = SEARCHED if judged["seen_by_search"] else UNSEEN if split == "test" else "not seen by the search"
        title = f"{split} split, {judged['rows']:,} rows: {seen}"
        parts.append(_comparison(title, Comparison.from_json(judged["comparison"])))
    search, outcome = result["search"], result["outcome"]
    figures = search["figures"]
    parts.insert(
        1,
        f"On the search's own rows ({' and '.join(search['rows'])}; overstates the gain): "
        f"{_raw_title(figures['bias'])} {_change(search['before'], search['after'], 'bias')}, "
        f"{_utility_title(figures['utility']['name'])} {_change(search['before'], search['after'], 'utility')}, "
        f"{search['measured']:,} states measured.\n",
    )
    if outcome["improved"]:
        dials = "".join(f"; {name} moved by {value:+.3f}" for name, value in outcome["dials"].items() if value)
        parts.append(f"Dropped {outcome['dropped']} of {outcome['units']} neurons{dials}.")
    if not outcome["feasible"]:
        parts.append("The utility floor is not kept: do not use this network.")
    verdict = str(outcome["verdict"])
    parts.append(verdict[:1].upper() + verdict[1:])
    return parts


def objective_title(name: str) -> str:
    """An objective in words."""
    from fairmend.tabular.metrics import OBJECTIVES

    return OBJECTIVES[name].title


def short_title(name: str) -> str:
    """An objective as the head of a narrow column."""
    return "EOD" if name == "equalized_odds_difference" else objective_title(name)


def level_title(figures: FairnessFigures) -> str:
    """Head of a column of intervals."""
    return f"{figures.value.interval.level:.0%} interval"


def number(value: float, sign: str = "") -> str:
    """A figure with four decimals, or n/a where it is undefined."""
    return "n/a" if math.isnan(value) else format(value, f"{sign}.4f")


def interval(limits: Interval, sign: str = "") -> str:
    """The limits of an interval."""
    return f"{number(limits.low, sign)} to {number(limits.high, sign)}"


def p_value(value: float) -> str:
    """A p-value, small ones as a bound."""
    return "n/a" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _groups(splits: Mapping[str, FairnessFigures]) -> Table:
    several = len({row.judged_class for row in next(iter(splits.values())).groups}) > 1
    judged = ["class"] if several else []
    table = plain_table(
        "Rates by group",
        *("split", "group", *judged, "people", "positives", "TPR", "negatives", "FPR"),
        numbers_from=2,
    )
    for split, figures in splits.items():
        for place, row in enumerate(figures.groups):
            table.add_row(
                split if place == 0 else "",
                row.group,
                *([str(row.judged_class)] if several else []),
                f"{row.n:,}",
                f"{row.positives:,}",
                number(row.true_positive_rate),
                f"{row.negatives:,}",
                number(row.false_positive_rate),
            )
        table.add_section()
    return table


def _comparison(title: str, comparison: Comparison) -> Table:
    before, after = comparison.before, comparison.after
    level = level_title(before)
    table = plain_table(title, "", "before", level, "after", level, "change", level)
    lines: Sequence[tuple[str, Estimate, Estimate, Estimate]] = [
        (short_title(before.objective), before.value, after.value, comparison.change),
        *(
            (_utility_title(name), before.utilities[name], after.utilities[name], change)
            for name, change in comparison.utility_changes.items()
        ),
    ]
    for name, old, new, change in lines:
        table.add_row(
            name,
            *(cell for estimate in (old, new) for cell in (number(estimate.value), interval(estimate.interval))),
            number(change.value, "+"),
            interval(change.interval, "+"),
        )
    table.add_row("noise floor", number(before.floor), "", number(after.floor), "", "", "")
    table.add_row("p (no difference)", p_value(before.p_value), "", p_value(after.p_value), "", "", "")
    return table


def _utility_title(name: str) -> str:
    from fairmend.tabular.metrics import UTILITIES

    return UTILITIES[name].title if name in UTILITIES else name.replace("_", "-")


def _raw_title(figure: Mapping[str, Any]) -> str:
    return "EOD" if figure["name"] == "equalized_odds_difference" else str(figure["name"]).replace("_", " ")


def _change(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> str:
    return f"{_or_nan(before[name])} -> {_or_nan(after[name])}"


def _or_nan(value: float | None) -> str:
    return number(math.nan if value is None else value)
