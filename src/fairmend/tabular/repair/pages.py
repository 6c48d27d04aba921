"""The report of a tabular repair or audit: saved figures as the texts, tables and pictures of a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scipy.stats import binomtest

from fairmend.records import built
from fairmend.report.card import interval, number, p_value
from fairmend.report.figures import Point
from fairmend.report.page import Chapter, Choice, Fact, Notes, Page, Panel, made_chapter
from fairmend.report.plots import Picture, Row, Spot, Units, draw_bars, draw_forest, draw_front, draw_map
from fairmend.report.tables import Cell, Column, Table
from fairmend.report.tracking import flat
from fairmend.tabular.fairness.confusion import GroupRates
from fairmend.tabular.fairness.findings import Comparison, Estimate, FairnessFigures, figure_title
from fairmend.tabular.repair.audit import Audit, saved_audit
from fairmend.tabular.repair.cards import chance, limits, split_parts
from fairmend.tabular.repair.results import HELD_OUT

_RATES = {
    "true positive rate": ("true_positive_rate", "positives"),
    "false positive rate": ("false_positive_rate", "negatives"),
}
_FRONT_COLUMNS = (
    Column("point", "point"),
    Column("dropped", "neurons dropped"),
    Column("bias", "unfairness", number),
    Column("utility", "utility", number),
)


def repair_page(result: Mapping[str, Any], front: Mapping[str, Any] | None) -> Page:
    """The report of a repair.

    Args:
        result: what `fairmend.tabular.repair.saving.load_result` reads.
        front: what its front.json holds, if it is there.
    """
    outcome, data, search = result["outcome"], result["data"], result["search"]
    order = sorted(result["splits"], key=lambda split: (split != HELD_OUT, result["splits"][split]["seen_by_search"]))
    splits = {split: built(result["splits"][split]["comparison"], Comparison) for split in order}
    held_out, classes = splits.get(HELD_OUT), data["classes"]
    headline, tone = _headline(outcome, held_out)
    chapters = [
        *([] if held_out is None else _before_and_after(held_out, result["splits"][HELD_OUT], classes)),
        *(
            Chapter(
                f"{split[:1].upper()}{split[1:]} split",
                (*split_parts(comparison, result["splits"][split]["role"], classes),),
            )
            for split, comparison in splits.items()
            if split != HELD_OUT
        ),
        *([] if front is None or not front["masks"] else [_front(front, result)]),
        _neurons(result),
        _search(search, result["session"]),
        Chapter("What this does not show", (Notes(limits(held_out, outcome["improved"], data["groups"])),)),
        _data(data, result.get("network", {})),
        _made(result),
    ]
    return Page(
        title=str(data["name"]),
        kind="Repair of a tabular network",
        headline=headline,
        tone=tone,
        verdict=tuple(_sentences(outcome, result["splits"].get(HELD_OUT))),
        warnings=tuple(map(str, result.get("warnings", ()))),
        facts=tuple(_facts(outcome, held_out, result["session"])),
        chapters=tuple(chapters),
    )


def audit_page(saved: Mapping[str, Any]) -> Page:
    """The report of a saved audit."""
    found = saved_audit(saved)
    split = HELD_OUT if HELD_OUT in found.splits else next(iter(found.splits))
    figures = found.splits[split]
    headline, tone = (
        ("The network treats the groups differently", "bad")
        if figures.is_significant
        else ("No difference between the groups could be told from chance", "unsure")
    )
    facts = [
        Fact(figure_title(figures.objective), *_sure(figures.value)),
        Fact("Chance alone would show", number(chance(figures)), p_value(figures.p_value)),
        *(Fact(figure_title(name), *_sure(estimate)) for name, estimate in figures.utilities.items()),
    ]
    rows = [
        Row(f"{figure_title(name)}, {split}", {"measured": _point(estimate)}, floor)
        for split, each in found.splits.items()
        for name, estimate, floor in (
            (each.objective, each.value, chance(each)),
            *((name, estimate, float("nan")) for name, estimate in each.utilities.items()),
        )
    ]
    data = saved["data"]
    return Page(
        title=found.dataset,
        kind="Audit of a tabular network",
        headline=headline,
        tone=tone,
        verdict=tuple(f"{name} split: {words}" for name, words in found.verdicts.items()),
        warnings=found.warnings,
        facts=tuple(facts),
        chapters=(
            Chapter(
                "Figures",
                (draw_forest(rows, "Figures with their 95 % intervals, by split"), _splits(found)),
            ),
            Chapter(f"Groups on the {split} split", tuple(_group_parts({"measured": figures}, data["classes"]))),
            Chapter("What this does not show", (Notes(limits(None, False, data["groups"])),)),
            _data(data, {"notes": found.notes}),
            _made(saved),
        ),
    )


def _headline(outcome: Mapping[str, Any], held_out: Comparison | None) -> tuple[str, str]:
    """The verdict in a few words, and its tone."""
    if not outcome["feasible"]:
        return "The utility that was to be kept is not kept: do not use this network", "bad"
    if not outcome["improved"]:
        return "Nothing fairer was found: the network is unchanged", "unsure"
    if held_out is None:
        return "Repaired, but not judged on data that the search never saw", "unsure"
    if held_out.change.interval.contains(0.0):
        return "Repaired, but on unseen data no change of the unfairness could be told from chance", "unsure"
    if (held_out.change.value < 0) != (held_out.change.better == "lower"):
        return "The repair made the network less fair on unseen data", "bad"
    return "The repaired network treats the groups more equally on unseen data", "good"


def _sentences(outcome: Mapping[str, Any], judged: Mapping[str, Any] | None) -> Iterator[str]:
    verdict = str(outcome["verdict"])
    yield f"{verdict[:1].upper()}{verdict[1:]}"
    if judged is not None:
        yield f"Before the repair: {judged['verdict_before']}"


def _facts(outcome: Mapping[str, Any], held_out: Comparison | None, session: Mapping[str, Any]) -> Iterator[Fact]:
    if held_out is not None:
        for name, (before, after, change) in held_out.figures().items():
            yield Fact(
                f"{figure_title(name)} ({change.better} is better)",
                f"{number(before.value)} → {number(after.value)}",
                f"change {interval(change.interval.low, change.interval.high)}",
            )
    yield Fact("Neurons switched off", f"{outcome['dropped']:,} of {outcome['units']:,}")
    yield Fact("Time searched", f"{session.get('seconds', 0):,.1f} s")


def _before_and_after(held_out: Comparison, judged: Mapping[str, Any], classes: Sequence[str]) -> Iterator[Chapter]:
    rows = [
        Row(
            f"{figure_title(name)} ({change.better} is better)",
            {"before": _point(before), "after": _point(after)},
            chance(held_out.after) if name == held_out.before.objective else float("nan"),
        )
        for name, (before, after, change) in held_out.figures().items()
    ]
    said, figures, chances, groups = split_parts(held_out, judged["role"], classes)
    label = f"Before and after on {judged['rows']:,} rows that the search never saw, with 95 % intervals"
    yield Chapter("Before and after, on unseen data", (said, draw_forest(rows, label), figures, chances))
    pictures = _group_pictures({"before": held_out.before, "after": held_out.after}, classes)
    yield Chapter("Groups, on unseen data", (*pictures, groups))


def _group_parts(found: Mapping[str, FairnessFigures], classes: Sequence[str]) -> Iterator[Picture | Table]:
    """Pictures of the groups' rates, and a table of them."""
    yield from _group_pictures(found, classes)
    columns = (
        Column("group", "group"),
        Column("judged", "positive class"),
        Column("n", "people", "{:,}".format),
        Column("positives", "positives", "{:,}".format),
        *(Column(name, title, number, interval=True, undefined="not defined") for title, (name, _) in _RATES.items()),
    )
    rows: list[dict[str, Cell]] = []
    for rates in next(iter(found.values())).groups:
        row: dict[str, Cell] = {
            "group": rates.group,
            "judged": classes[rates.judged_class],
            "n": rates.n,
            "positives": rates.positives,
        }
        for name, of in _RATES.values():
            point = _rate(rates, name, of)
            row |= {name: point.value, f"{name}_low": point.low, f"{name}_high": point.high}
        rows.append(row)
    yield Table("Rates by group", columns, tuple(rows))


def _group_pictures(found: Mapping[str, FairnessFigures], classes: Sequence[str]) -> Iterator[Picture]:
    several = len(classes) > 2
    for title, (name, of) in _RATES.items():
        places = range(len(next(iter(found.values())).groups))
        rows = []
        for place in places:
            points = {said: _rate(figures.groups[place], name, of) for said, figures in found.items()}
            rates = next(iter(found.values())).groups[place]
            label = f"{rates.group}, {classes[rates.judged_class]}" if several else rates.group
            rows.append(Row(f"{label} ({getattr(rates, of):,} people)", points))
        label = f"{title[:1].upper()}{title[1:]} of every group, with its 95 % Wilson interval"
        yield draw_bars(rows, label)


def _rate(rates: GroupRates, name: str, of: str) -> Point:
    """A rate with its interval; NaN where there is nobody to rate."""
    value, people = getattr(rates, name), getattr(rates, of)
    if people == 0:
        return Point(value)
    limits = binomtest(round(value * people), people).proportion_ci(method="wilson")
    return Point(value, float(limits.low), float(limits.high))


def _front(front: Mapping[str, Any], result: Mapping[str, Any]) -> Chapter:
    search, start, saved = result["search"], 0, []
    for name, size in search["space"]["sites"]:
        saved += [start + place for place in result["outcome"]["dropped_by_site"].get(name, ())]
        start += size
    bias, utility = (figure_title(front["figures"][name]) for name in ("bias", "utility"))
    before, spots, panels = search["before"], [], []
    rows: list[dict[str, Cell]] = []
    points = [{"dropped": [], "bias": before["bias"], "utility": before["utility"]}, *front["masks"]]
    for place, point in enumerate(points):
        dropped = point["dropped"]
        title = f"point {place}: {len(dropped)} neurons dropped" if place else "point 0: the untouched network"
        is_saved = place > 0 and dropped == saved
        facts = {bias: number(point["bias"]), utility: number(point["utility"])}
        said = ", ".join(f"{name} {value}" for name, value in facts.items())
        title += " (saved)" if is_saved else ""
        spots.append(
            Spot(
                place,
                f"{title}; {said}",
                Point(point["utility"]),
                Point(point["bias"]),
                "untouched" if not place else "saved" if is_saved else "other",
            )
        )
        units = " ".join(map(str, dropped))
        panels.append(Panel(place, title, facts | {"neurons": units or "none"}))
        rows.append(
            {
                "point": place,
                "dropped": len(dropped),
                "bias": point["bias"],
                "utility": point["utility"],
                "units": units,
            }
        )
    picture = draw_front(
        spots,
        "Trade-offs between unfairness and utility that the search found; ringed: the untouched network",
        f"{utility} on the search's rows",
        f"{bias} on the search's rows",
    )
    words = (
        f"Of the {search['measured']:,} sets of neurons that were measured, these are fairer than all others of the "
        f"same utility. About these: {front['caveat']}."
    )
    return Chapter(
        "Other trade-offs", (words, Choice(picture, tuple(panels)), Table("Trade-offs", _FRONT_COLUMNS, tuple(rows)))
    )


def _neurons(result: Mapping[str, Any]) -> Chapter:
    layers, rows = [], []
    for name, size in result["search"]["space"]["sites"]:
        dropped = result["outcome"]["dropped_by_site"].get(name, [])
        off = set(dropped)
        layers.append(Units(name, [0.0 if place in off else 1.0 for place in range(size)]))
        rows.append(
            {"layer": name, "size": size, "count": len(dropped), "which": ", ".join(map(str, dropped)) or "none"}
        )
    columns = (
        Column("layer", "layer"),
        Column("size", "neurons"),
        Column("count", "switched off"),
        Column("which", "which"),
    )
    parts: list[Any] = [
        draw_map(layers, "neuron", "The hidden neurons, layer by layer"),
        Table("Switched off", columns, tuple(rows)),
        f"Meaning of switched off: {result['protocol']['drop']}.",
    ]
    dials = {name: value for name, value in result["outcome"]["dials"].items() if value}
    parts += [f"The {name} moved by {value:+.4f}." for name, value in dials.items()]
    return Chapter("Neurons", tuple(parts))


def _search(search: Mapping[str, Any], session: Mapping[str, Any]) -> Chapter:
    names = {role: search["figures"][role]["name"] for role in ("bias", "utility")}
    rows = tuple(
        {"figure": figure_title(name), "before": search["before"][role], "after": search["after"][role]}
        for role, name in names.items()
    )
    columns = (Column("figure", "figure"), Column("before", "before", number), Column("after", "after", number))
    words = (
        f"{search['measured']:,} sets of neurons were measured in {session.get('seconds', 0):,.1f} seconds on the rows "
        f"of {' and '.join(search['rows'])}. These rows chose the set, so that their figures overstate the gain."
    )
    return Chapter("The search", (words, Table("On the search's own rows", columns, rows)))


def _splits(found: Audit) -> Table:
    names = list(next(iter(found.splits.values())).utilities)
    columns = (
        Column("split", "split"),
        Column("rows", "rows", "{:,}".format),
        Column("value", "figure", number, interval=True, undefined="not defined"),
        Column("floor", "chance alone", number),
        Column("p", "p-value", number),
        *(Column(name, figure_title(name), number, interval=True, undefined="not defined") for name in names),
    )
    rows: list[dict[str, Cell]] = []
    for split, figures in found.splits.items():
        row: dict[str, Cell] = {"split": split, "rows": figures.n, "floor": chance(figures), "p": figures.p_value}
        for name, estimate in {"value": figures.value, **figures.utilities}.items():
            low, high = estimate.interval.low, estimate.interval.high
            row |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return Table(f"{figure_title(next(iter(found.splits.values())).objective)} by split", columns, tuple(rows))


def _data(data: Mapping[str, Any], network: Mapping[str, Any]) -> Chapter:
    said = [
        f"{data['name']}: {data['rows']:,} rows, {len(data['features']):,} features, classes "
        f"{', '.join(map(str, data['classes']))}.",
        f"Compared groups: {', '.join(map(str, data['groups']))}.",
        f"Source: {data.get('source') or 'not stated'}.",
        f"Licence of the data: {data.get('licence') or 'not stated'}.",
        *map(str, network.get("notes", ())),
        *map(str, data.get("notes", ())),
    ]
    return Chapter("Data", (Notes(tuple(said)),))


def _made(result: Mapping[str, Any]) -> Chapter:
    data = result["data"]
    entries = {
        **flat(result.get("settings", {})),
        **flat(result.get("protocol", {}), "protocol: "),
        **flat((result.get("session") or {}).get("request", {}), "asked: "),
        "digest of the data": str(data["arrays"]),
    }
    for name in ("network", "repaired_network", "slim_network"):
        described = result.get(name)
        if described:
            digest = described if isinstance(described, str) else described["digest"]
            entries[f"digest of the {name.replace('_', ' ')}"] = str(digest)
    return made_chapter(result, entries)


def _point(estimate: Estimate) -> Point:
    return Point.of(estimate.value, estimate.interval)


def _sure(estimate: Estimate) -> tuple[str, str]:
    low, high = estimate.interval.low, estimate.interval.high
    return number(estimate.value), f"{estimate.interval.level:.0%} interval [{low:.3f}, {high:.3f}]"
