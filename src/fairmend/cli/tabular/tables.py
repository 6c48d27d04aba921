"""Tables of an audit and of a repair, for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fairmend.cli.tables import number, p_value, plain_table
from fairmend.records import built
from fairmend.tabular.fairness.findings import Comparison, Estimate, FairnessFigures
from fairmend.tabular.fairness.metrics import OBJECTIVES, title_of
from fairmend.tabular.repair.audit import Audit

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

UNSEEN = "never seen by the search"
SEARCHED = "seen by the search, overstates the gain"
KEY = (
    "In brackets the interval. floor: what a network without any group difference would show by chance; p-value: of "
    "a permutation test of no group difference.\n"
)


def audit_parts(audit: Audit) -> list[RenderableType]:
    """What an audit says: a table over the splits, one of the groups, and the verdict in words."""
    first = next(iter(audit.splits.values()))
    utilities = [title_of(name) for name in first.utilities]
    splits = plain_table(
        f"{audit.dataset}: {objective_title(first.objective)} by split",
        *(
            "split",
            "rows",
            f"{short_title(first.objective)} {level_note(first)}",
            "floor",
            "excess",
            "p-value",
            *utilities,
        ),
        tight=True,
    )
    for split, figures in audit.splits.items():
        splits.add_row(
            split,
            f"{figures.n:,}",
            estimate(figures.value),
            number(figures.floor),
            number(figures.excess),
            p_value(figures.p_value),
            *(number(utility.value) for utility in figures.utilities.values()),
        )
    verdicts = [f"{split}: {words}" for split, words in audit.verdicts.items()]
    return [splits, KEY, _groups(audit.splits), "", *_positive(audit.positive), *verdicts]


def repair_parts(result: Mapping[str, Any]) -> list[RenderableType]:
    """What a saved repair says: before and after on every split, unseen rows first, and the verdict in words."""
    search, outcome = result["search"], result["outcome"]
    first, *others = [
        _comparison(f"{split} split, {judged['rows']:,} rows: {_seen(split, judged)}", judged["comparison"])
        for split, judged in sorted(result["splits"].items(), key=lambda item: item[0] != "test")
    ]
    # The search's own figures right below the test split's, so that nobody takes the one for the other.
    parts: list[RenderableType] = [first, KEY, _search_line(search)]
    for table in others:
        parts += [table, ""]
    if "test" in result["splits"]:
        parts.append(f"Before: {result['splits']['test']['verdict_before']}")
    if outcome["improved"]:
        dials = "".join(f"; {name} moved by {value:+.3f}" for name, value in outcome["dials"].items() if value)
        parts.append(f"Dropped {outcome['dropped']} of {outcome['units']} neurons{dials}.")
    if not outcome["feasible"]:
        parts.append("The utility floor is not kept: do not use this network.")
    # Folders that fairmend 0.1 saved do not say.
    parts += _positive(result.get("positive"))
    parts += [f"Warning: {warning}" for warning in result.get("warnings", [])]
    verdict = str(outcome["verdict"])
    parts.append(verdict[:1].upper() + verdict[1:])
    return parts


def _positive(positive: str | None) -> list[str]:
    return [] if positive is None else [f"Positive class: {positive!r}."]


def objective_title(name: str) -> str:
    """An objective in words."""
    return OBJECTIVES[name].title


def short_title(name: str) -> str:
    """An objective as the head of a narrow column."""
    return "EOD" if name == "equalized_odds_difference" else objective_title(name)


def level_note(figures: FairnessFigures) -> str:
    """The level of the intervals, for the head of a column that has them in brackets."""
    return f"[{figures.value.interval.level:.0%}]"


def estimate(figure: Estimate, sign: str = "") -> str:
    """A figure with its interval."""
    limits = figure.interval
    if math.isnan(limits.low) or math.isnan(limits.high):
        return number(figure.value, sign)
    return f"{number(figure.value, sign)} [{limits.low:.3f}, {limits.high:.3f}]"


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


def _seen(split: str, judged: Mapping[str, Any]) -> str:
    if judged["seen_by_search"]:
        return SEARCHED
    return UNSEEN if split == "test" else "not seen by the search"


def _search_line(search: Mapping[str, Any]) -> str:
    bias, utility = search["figures"]["bias"]["name"], search["figures"]["utility"]["name"]
    return (
        f"On the search's own rows ({' and '.join(search['rows'])}; overstates the gain): "
        f"{'EOD' if bias == 'equalized_odds_difference' else bias.replace('_', ' ')} {_change(search, 'bias')}, "
        f"{title_of(utility)} {_change(search, 'utility')}, {search['measured']:,} states measured.\n"
    )


def _comparison(title: str, described: Mapping[str, Any]) -> Table:
    comparison = built(described, Comparison)
    before, after = comparison.before, comparison.after
    level = level_note(before)
    table = plain_table(title, "", f"before {level}", f"after {level}", f"change {level}")
    for name, (old, new, change) in comparison.figures().items():
        title = short_title(name) if name == before.objective else title_of(name)
        table.add_row(title, estimate(old), estimate(new), estimate(change, "+"))
    table.add_row("floor", *(number(figures.floor) for figures in (before, after)), "")
    table.add_row("p-value", *(p_value(figures.p_value) for figures in (before, after)), "")
    return table


def _change(search: Mapping[str, Any], name: str) -> str:
    figures = (search[side][name] for side in ("before", "after"))
    return " -> ".join(number(math.nan if figure is None else figure) for figure in figures)
