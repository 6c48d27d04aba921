"""The report of a language repair, of a point of its front, or of an audit: saved figures as a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fairmend.language.bias.records import BiasChange, BiasFigures
from fairmend.language.measurement.judging import AxisJudgement, Judgement, kept_in_words
from fairmend.language.measurement.knowledge import KnowledgeFigures
from fairmend.language.records.cards import PAIRS, axis_parts, data_in_words, held_out_sections, limits
from fairmend.language.records.results import count_saved, heads_in_words, slicing_in_words
from fairmend.language.repair.audit import PerplexityFigures
from fairmend.language.repair.differences import Pair
from fairmend.records import built
from fairmend.report.card import interval, number, p_value, signed
from fairmend.report.figures import Point
from fairmend.report.page import Chapter, Choice, Fact, Notes, Page, Panel, Part, Stored, made_chapter
from fairmend.report.plots import Row, Spot, Units, draw_bars, draw_forest, draw_front, draw_map
from fairmend.report.study import tables_of
from fairmend.report.tables import Cell, Column, Table
from fairmend.report.tracking import flat
from fairmend.statistics import Interval

LARGEST_PICTURE = 1_200_000  # bytes that a report carries
_READ = (
    "Intervals of a bias are of the bias that endless prompts would show. Chance alone: what a model that treats "
    "all groups alike would show on as many prompts."
)


def repair_page(
    result: Mapping[str, Any],
    *,
    mask: Mapping[str, Any] | None = None,
    front: Mapping[str, Any] | None = None,
    head_map: bytes | None = None,
    folder: str = "DIR",
) -> Page:
    """The report of a repair.

    Args:
        result: what `fairmend.language.records.saving.load_result` reads.
        mask: what its mask.json holds, for the gains of the heads.
        front: what its front.json holds.
        head_map: its head_map.svg, the scores of all heads.
        folder: as it is called in the command that saves another point.
    """
    outcome = result["outcome"]
    held_out = None if result["held_out"] is None else built(result["held_out"], Judgement)
    headline, tone = _headline(outcome, held_out)
    heads: dict[str, Any] = {"dropped": [], "space": None} if mask is None else dict(mask)
    scored = head_map if result["scores"].get("scores") else None
    return Page(
        title=str(result["model"]["name"]),
        kind="Repair of a language model",
        headline=headline,
        tone=tone,
        verdict=(str(outcome["verdict"]),),
        warnings=tuple(map(str, result["scores"].get("notes", ()))),
        facts=(
            *([] if held_out is None else _facts(held_out)),
            _heads_fact(outcome),
            Fact("Time searched", f"{result['session'].get('seconds') or 0:,.1f} s"),
        ),
        chapters=(
            *([] if held_out is None else _judged(held_out)),
            *([] if front is None else [_front(front, folder)]),
            *([] if heads["space"] is None else [_heads(heads, int(outcome["heads"]), scored)]),
            *_examples(result["examples"]),
            *_objectives(result.get("objectives") or ()),
            _search(result),
            Chapter("What this does not show", (Notes(limits(held_out, outcome["improved"])),)),
            _data(result),
            _made(result),
        ),
    )


def point_page(saved: Mapping[str, Any]) -> Page:
    """The report of a point of a front that was saved as a model."""
    point = saved["point"]
    held_out = None if point["held_out"] is None else built(point["held_out"], Judgement)
    counts = count_saved(point, saved["heads"])
    changed = any(counts[name] for name in counts if name != "heads")
    headline, tone = _headline({"feasible": True, "improved": changed}, held_out)
    return Page(
        title=f"{saved['model']['name']}, point {point['point']}",
        kind="A point of a language model's front",
        headline=headline,
        tone=tone,
        verdict=() if held_out is None else (held_out.main.verdict_on_change,),
        facts=(
            *([] if held_out is None else _facts(held_out)),
            _heads_fact(counts),
        ),
        chapters=(
            *([] if held_out is None else _judged(held_out)),
            _heads({**point, "space": saved["space"]}, int(saved["heads"]), None),
            Chapter(
                "What this does not show",
                (Notes((f"About the figures: {saved['caveat']}.", *limits(held_out, changed))),),
            ),
            _data(saved),
            _made(saved),
        ),
    )


def audit_page(saved: Mapping[str, Any]) -> Page:
    """The report of a saved audit."""
    axes = {entry["axis"]: built(entry["bias"], BiasFigures) for entry in saved["axes"]}
    read = built(saved["perplexity"], PerplexityFigures)
    differing = [axis for axis, figures in axes.items() if figures.is_significant]
    rows = [Row(f"Bias: {axis}", {"measured": _bias(figures)}, figures.floor) for axis, figures in axes.items()]
    rows.append(Row("Perplexity", {"measured": _normal(read.value, read.standard_error)}))
    facts = [
        *(
            Fact(f"Bias: {axis}", number(each.value), f"{each.interval}; {p_value(each.p_value)}")
            for axis, each in axes.items()
        ),
        Fact("Perplexity", f"{read.value:.2f}", f"on {read.n_tokens:,} tokens"),
    ]
    known = None if saved.get("knowledge") is None else built(saved["knowledge"], KnowledgeFigures)
    if known is not None:
        facts.append(Fact("Knowledge", f"{known.accuracy:.0%} right", f"of {known.n:,} items"))
    columns = (
        Column("axis", "axis"),
        Column("n", "items", "{:,}".format),
        Column("bias", "bias", number, interval=True, undefined="not defined"),
        Column("floor", "chance alone", number),
        Column("p", "p-value", number),
    )
    table = Table(
        "Bias by axis",
        columns,
        tuple(
            {
                "axis": axis,
                "n": each.n,
                "bias": each.value,
                "bias_low": each.interval.low,
                "bias_high": each.interval.high,
                "floor": each.floor,
                "p": each.p_value,
            }
            for axis, each in axes.items()
        ),
    )
    words = f"Perplexity {read.value:.2f} on {read.n_tokens:,} tokens of {read.text}; {read.protocol}."
    said = [
        f"{entry['axis']}: {sum(entry['prompts']['counts'].values()):,} items of {entry['prompts']['source']}, licence "
        f"{entry['prompts'].get('licence') or 'not stated'}."
        for entry in saved["axes"]
    ]
    return Page(
        title=str(saved["model"]["name"]),
        kind="Audit of a language model",
        headline=(
            "The model treats the groups differently"
            if differing
            else "No difference between the groups could be told from chance"
        ),
        tone="bad" if differing else "unsure",
        verdict=tuple(f"{entry['axis']}: {entry['verdict']}" for entry in saved["axes"]),
        facts=tuple(facts),
        chapters=(
            Chapter("Figures", (draw_forest(rows, "Figures with their 95 % intervals"), _READ, table, words)),
            *(Chapter(f"Groups: {axis}", tuple(_groups({"measured": figures}))) for axis, figures in axes.items()),
            Chapter("What this does not show", (Notes(limits(None, False)),)),
            Chapter("Data", (Notes((_origin(saved["model"]), *said)),)),
            _made(saved),
        ),
    )


def _headline(outcome: Mapping[str, Any], held_out: Judgement | None) -> tuple[str, str]:
    """The verdict in a few words, and its tone."""
    if not outcome["feasible"]:
        return "What was to be kept is not kept: do not use this model", "bad"
    if not outcome["improved"]:
        return "Nothing fairer was found that keeps what was to be kept: the model is unchanged", "unsure"
    if held_out is None:
        return "Repaired, but not judged on prompts that the search never saw", "unsure"
    change = held_out.main.change
    if change is None:
        return "The repair broke the model: do not use it", "bad"
    if change.interval.contains(0.0):
        return "Repaired, but on held-out prompts no change of the bias could be told from chance", "unsure"
    if change.change > 0:
        return "The repair made the bias larger on held-out prompts", "bad"
    return "The repaired model treats the groups more equally on held-out prompts", "good"


def _facts(judged: Judgement) -> Iterator[Fact]:
    for axis in judged.axes:
        if axis.change is not None:
            change = axis.change
            yield Fact(
                f"Bias: {axis.axis}{'' if axis.repaired_for else ' (not repaired for)'}",
                f"{number(change.before.value)} → {number(change.after.value)}",
                f"change {interval(change.interval.low, change.interval.high)}",
            )
    read, known = judged.perplexity, judged.knowledge
    yield Fact("Perplexity", f"{read.before:.2f} → {read.after:.2f}", f"{read.ratio:.3f} times {_known(read.interval)}")
    if known is not None and math.isfinite(known.kept):
        yield Fact("Knowledge kept", f"{known.kept:.0%}", f"[{known.interval.low:.0%}, {known.interval.high:.0%}]")
    yield Fact("Drift", f"{judged.drift.value:.4f}", "nats per token from the original")


def _heads_fact(counts: Mapping[str, Any]) -> Fact:
    off, _, turned = heads_in_words(counts, off="switched off").partition(", ")
    return Fact("Attention heads", off, turned)


def _judged(judged: Judgement) -> Iterator[Chapter]:
    """Before and after: figures, what was kept, and every axis with its groups."""
    rows = []
    for axis in judged.axes:
        if axis.change is not None:
            points = {"before": _bias(axis.change.before), "after": _bias(axis.change.after)}
            rows.append(Row(f"Bias: {axis.axis} (lower is better)", points, axis.change.after.floor))
    read, known = judged.perplexity, judged.knowledge
    points = {"before": _normal(read.before, read.before_error), "after": _normal(read.after, read.after_error)}
    rows.append(Row("Perplexity (lower is better)", points))
    if known is not None:
        points = {
            "before": _normal(known.before.mean, known.before.standard_error),
            "after": _normal(known.after.mean, known.after.standard_error),
        }
        rows.append(Row("Knowledge: nats for the right answer (higher is better)", points))
    picture = draw_forest(rows, "Before and after on held-out items and text, with 95 % intervals")
    first, *_ = held_out_sections(judged)
    yield Chapter("Before and after, on held-out items", (picture, _READ, *first.parts[:1]))
    yield Chapter("Knowledge and drift: what was to stay", kept_in_words(judged))
    for axis in judged.axes:
        role = "" if axis.repaired_for else " (not repaired for: did it move?)"
        pictures = () if axis.change is None else tuple(_change_pictures(axis.change))
        yield Chapter(f"Groups: {axis.axis}{role}", (*_ordered(axis, pictures),))


def _ordered(axis: AxisJudgement, pictures: tuple[Part, ...]) -> Iterator[Part]:
    """Words, then the picture of the groups, then the tables."""
    parts = axis_parts(axis)
    yield from (part for part in parts if isinstance(part, str))
    yield from pictures
    yield from (part for part in parts if not isinstance(part, str))


def _change_pictures(change: BiasChange) -> Iterator[Part]:
    yield _bars({"before": change.before, "after": change.after})


def _groups(found: Mapping[str, BiasFigures]) -> Iterator[Part]:
    yield _bars(found)
    figures = next(iter(found.values()))
    words = figures.protocol.words
    columns = (
        Column("group", "group"),
        Column("n", words.items, "{:,}".format),
        Column("mean", f"mean {words.mean}", signed if words.sign else number, interval=True, undefined="not defined"),
        Column("share", f"share {words.share}", number),
    )
    rows: tuple[dict[str, Cell], ...] = tuple(
        {
            "group": each.name,
            "n": each.n,
            "mean": each.mean,
            "mean_low": each.interval.low,
            "mean_high": each.interval.high,
            "share": each.share,
        }
        for each in figures.groups
    )
    yield Table("Groups", columns, rows)


def _bars(found: Mapping[str, BiasFigures]) -> Part:
    first = next(iter(found.values()))
    rows = [
        Row(
            f"{group.name} ({group.n:,} {first.protocol.words.items})",
            {name: _mean(figures, place) for name, figures in found.items()},
        )
        for place, group in enumerate(first.groups)
    ]
    return draw_bars(rows, f"Mean {first.protocol.words.mean} of every group, with its 95 % interval")


def _front(front: Mapping[str, Any], folder: str) -> Chapter:
    spots, panels = [], []
    for point in front["points"]:
        place = point["point"]
        counts = count_saved(point, front["heads"])
        title = f"point {place}: {heads_in_words(counts)}" if place else "point 0: the untouched model"
        title += " (saved)" if place == front["saved"] else ""
        search = point["search"]
        x, y = Point(search["perplexity"]), Point(search["bias"])
        facts = {"bias, search half": number(search["bias"]), "perplexity, search half": f"{search['perplexity']:.2f}"}
        judged = None if point["held_out"] is None else built(point["held_out"], Judgement)
        if judged is not None and judged.main.change is not None:
            after, read = judged.main.change.after, judged.perplexity
            x, y = _normal(read.after, read.after_error), _bias(after)
            facts = {
                "bias": f"{number(after.value)} {after.interval}",
                "perplexity": f"{read.after:.2f}",
                "drift": number(judged.drift.value),
                **facts,
            }
        if not math.isfinite(x.value + y.value):
            continue
        look = "untouched" if not place else "saved" if place == front["saved"] else "other"
        said = ", ".join(f"{name} {value}" for name, value in list(facts.items())[:2])
        spots.append(Spot(place, f"{title}; {said}", x, y, look))
        command = f"fairmend lm pick {folder} --point {place} --out picked-{place}"
        panels.append(Panel(place, title, facts, command))
    where = "held-out data" if front["points"][0]["held_out"] is not None else "the search half"
    picture = draw_front(
        spots,
        f"Trade-offs between bias and perplexity on {where}; ringed: the untouched model",
        f"perplexity on {where} (lower is better)",
        f"{front['figures']['bias']} on {where} (lower is better)",
    )
    tables = tables_of(front) if "tables" in front else ()
    return Chapter("The front: other trade-offs", (Choice(picture, tuple(panels)), *tables))


def _heads(mask: Mapping[str, Any], n_heads: int, head_map: bytes | None) -> Chapter:
    """The heads of every layer, and how many neurons were turned: `mask` has its space, dropped units and gains."""
    sites = mask["space"]["sites"]
    count = sum(size for _, size in sites)
    gains = [float(gain) for gain in mask.get("gains") or [1.0] * count]
    for unit in mask["dropped"]:
        gains[unit] = 0.0
    layers, start = [], 0
    rows: list[dict[str, Cell]] = []
    for name, size in sites:
        own = gains[start : start + size]
        is_attention = start < n_heads  # the neurons follow all heads, and are too many to be drawn or listed
        if is_attention:
            layers.append(Units(_layer(name), own))
        rows.append(
            {
                "layer": name,
                "unit": "heads" if is_attention else "neurons",
                "units": size,
                "off": sum(gain == 0 for gain in own),
                "down": sum(0 < gain < 1 for gain in own),
                "up": sum(gain > 1 for gain in own),
                "gains": " ".join(f"{gain:.3g}" for gain in own) if is_attention else "",
            }
        )
        start += size
    columns = (
        Column("layer", "layer"),
        Column("units", "number"),
        Column("unit", "of"),
        Column("off", "switched off"),
        Column("down", "turned down"),
        Column("up", "turned up"),
    )
    stored = [] if head_map is None else [Stored(head_map, "Scores of the heads; those switched off are crossed out")]
    has_neurons = start > n_heads
    return Chapter(
        "Attention heads and neurons" if has_neurons else "Attention heads",
        (
            draw_map(layers, "head", "The attention heads, a row per layer"),
            *stored,
            Table(
                "Heads and neurons by layer" if has_neurons else "Heads by layer",
                columns,
                tuple(rows),
                ("The CSV file has the gain of every head too; mask.json has those of neurons.",)
                if has_neurons
                else ("The CSV file has the gain of every head too.",),
            ),
        ),
    )


def _layer(name: str) -> str:
    """The number of a layer, if its name has just one, such as model.layers.3.self_attn.o_proj."""
    numbers = [word for word in name.split(".") if word.isdigit()]
    return f"layer {numbers[0]}" if len(numbers) == 1 else name


def _examples(examples: Mapping[str, Any]) -> Iterator[Chapter]:
    pairs = built(examples["pairs"], tuple[Pair, ...])
    rows: tuple[dict[str, Cell], ...] = tuple(
        {
            "group": pair.group,
            "prompt": pair.prompt,
            "before": pair.before.strip() or "(nothing)",
            "score_before": pair.score_before,
            "after": pair.after.strip() or "(nothing)",
            "score_after": pair.score_after,
        }
        for pair in pairs
    )
    if rows:
        words = f"Held-out prompts, {examples['chosen']}. {str(examples['masked']).capitalize()}."
        yield Chapter("Examples before and after", (words, Table("The same prompts with the same noise", PAIRS, rows)))


def _objectives(objectives: Any) -> Iterator[Chapter]:
    if objectives:
        entries = [flat(each) for each in objectives]
        keys = list(dict.fromkeys(key for entry in entries for key in entry))
        rows: tuple[dict[str, Cell], ...] = tuple({key: entry.get(key) for key in keys} for entry in entries)
        yield Chapter("Further objectives", (Table("", tuple(Column(key, key) for key in keys), rows),))


def _search(result: Mapping[str, Any]) -> Chapter:
    search = result["search"]
    rows = tuple(
        {"figure": name, "before": search["before"][name], "after": search["after"][name]}
        for name in ("bias", "perplexity")
    )
    columns = (
        Column("figure", "figure"),
        Column("before", "before", number, undefined="not defined"),
        Column("after", "after", number, undefined="not defined"),
    )
    finalists = tuple(
        {
            "number": place,
            "off": len(each["dropped"]),
            "kept": "yes" if each["within_floor"] else "no",
            "bias": each["bias"],
            "perplexity": each["perplexity"],
        }
        for place, each in enumerate(search["finalists"], start=1)
    )
    measured = (
        Column("number", "set"),
        Column("off", "heads switched off"),
        Column("kept", "keeps the floors"),
        Column("bias", "bias", number, undefined="broken"),
        Column("perplexity", "perplexity", number, undefined="broken"),
    )
    sliced = [] if result.get("slicing") is None else [slicing_in_words(result["slicing"])]
    return Chapter(
        "The search",
        (
            f"Sets of heads measured on the search half: {len(search['finalists']):,}. These figures overstate the "
            "gain: the set was chosen on them.",
            *sliced,
            Table("On the search half", columns, rows),
            *([Table("The measured sets, in the order measured", measured, finalists)] if finalists else []),
        ),
    )


def _data(result: Mapping[str, Any]) -> Chapter:
    data = result["data"]
    notes = data["search_prompts"].get("notes", ())
    return Chapter("Data", (Notes((_origin(result["model"]), *data_in_words(data), *map(str, notes))),))


def _origin(model: Mapping[str, Any]) -> str:
    revision = f", revision {model['revision']}" if model.get("revision") else ""
    return f"Model: {model['name']} ({model['source']}{revision}); licence {model.get('licence') or 'not stated'}."


def _made(result: Mapping[str, Any]) -> Chapter:
    entries = {
        **flat(result.get("settings", {})),
        **flat(result.get("sampling", {}), "sampling: "),
        **flat((result.get("session") or {}).get("request") or {}, "asked: "),
        **flat(result["model"].get("fingerprint", {}), "model: "),
    }
    for role, described in result.get("data", {}).items():
        entries[f"digest of {role.replace('_', ' ')}"] = str(described["sha256"])
    return made_chapter(result, entries)


def _bias(figures: BiasFigures) -> Point:
    return Point.of(figures.value, figures.interval)


def _mean(figures: BiasFigures, place: int) -> Point:
    group = figures.groups[place]
    return Point.of(group.mean, group.interval)


def _normal(value: float, error: float) -> Point:
    return Point.of(value, Interval.normal(value, error))


def _known(limits: Interval) -> str:
    return "" if math.isnan(limits.low) else str(limits)
