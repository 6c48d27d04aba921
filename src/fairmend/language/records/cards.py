"""The model card of a repaired language model: what `fairmend.report.card` lays out, with the header of model hubs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fairmend.escaping import Markdown, code
from fairmend.language.bias.bias import verdict
from fairmend.language.heads.heads import gains_of
from fairmend.language.measurement.judging import AxisJudgement, Judgement, kept_in_words
from fairmend.language.models.models import LanguageModel
from fairmend.language.records.checkpoints import formats_in_words
from fairmend.language.records.formats import CHECKPOINT, FORMATS
from fairmend.language.records.hub import hub_header
from fairmend.language.records.results import (
    count_heads,
    count_saved,
    describe_data,
    describe_outcome,
    figures_in_words,
    heads_in_words,
    slicing_in_words,
)
from fairmend.language.repair.differences import CHOSEN
from fairmend.language.repair.repair import Repair
from fairmend.language.repair.settings import SOFT, RepairSettings
from fairmend.records import built
from fairmend.report.card import Card, Section, interval, number, p_value, signed
from fairmend.report.tables import Cell, Column, Table

_FILES = {
    "head_map.png, head_map.svg": "what every head does by the scores, with the dropped heads crossed out",
    "mask.json": "which heads were dropped, the gains of the others, if any, and of which model",
    "result.json": "all figures, settings, seeds, versions and fingerprints",
    "run.sqlite": "every measurement; lets an interrupted run be gone on with",
}
_OFF = {"heads": "attention heads", "off": "are switched off"}
_FRONT_FILES = {
    "front.json, front.csv": "other trade-offs between bias and perplexity, each with its held-out figures",
    "front.png, front.svg": "the same as a picture",
}
_LIMITS = (
    "A toxicity score is not harm: it is what one scorer thinks of a text, and scorers have biases of their own.",
    "Prompts of one data set, in English, about the groups it names. Other prompts may give other figures.",
    "Bias in what the model knows or refuses, and in tasks other than continuing text, was not looked at.",
)


_FIGURES = (
    Column("figure", "figure (lower is better)"),
    Column("before", "before", number, undefined="not defined"),
    Column("after", "after", number, undefined="not defined"),
    Column("change", "change", signed, undefined="not defined"),
    Column("interval", "95% interval of the change"),
)
PAIRS = (
    Column("group", "group"),
    Column("prompt", "prompt"),
    Column("before", "before"),
    Column("score_before", "score", number),
    Column("after", "after"),
    Column("score_after", "score", number),
)


def repair_card(
    repair: Repair,
    lm: LanguageModel,
    command: str = "",
    *,
    formats: Sequence[str] = (CHECKPOINT,),
    slicing: Mapping[str, Any] | None = None,
) -> Card:
    """The card of a repair.

    Args:
        repair: what was found.
        lm: the model that was repaired.
        command: the command line, for the record.
        formats: what the model is saved as, some of `FORMATS`.
        slicing: what slicing saved, see `describe_slicing`.
    """
    done = _done(repair) if slicing is None else (*_done(repair), slicing_in_words(slicing))
    done = (*done, *formats_in_words(lm, repair.mask, formats))
    sections = (
        ()
        if repair.held_out is None
        else (*held_out_sections(repair.held_out), *_objectives(repair), *_examples(repair))
    )
    data = describe_data(repair.search_prompts, repair.judge_prompts, repair.texts)
    origin = (
        f"Model: {lm.name} ({lm.source}{', revision ' + lm.revision if lm.revision else ''}); licence "
        f"{lm.licence or 'not stated'}."
    )
    return _card(
        lm,
        formats,
        title=f"{lm.name}, repaired",
        judgement=repair.held_out,
        described=data,
        summary=_summary(repair, lm),
        done=done,
        data=(origin, *data_in_words(data), *repair.search_prompts.notes),
        sections=sections,
        limits=limits(repair.held_out, repair.improved),
        files=_FILES | (_FRONT_FILES if repair.front is not None else {}),
        command=command,
    )


def point_card(
    front: Mapping[str, Any],
    point: Mapping[str, Any],
    lm: LanguageModel,
    command: str = "",
    *,
    formats: Sequence[str] = (CHECKPOINT,),
) -> Card:
    """The card of a point of a saved front, see `load_front`."""
    judgement = None if point["held_out"] is None else built(point["held_out"], Judgement)
    counts, axis = count_saved(point, front["heads"]), front["data"]["judge_prompts"]["axis"]
    changed = any(counts[name] for name in counts if name != "heads")
    outcome = (
        f"{heads_in_words(counts, **_OFF)}, so that different groups ({axis}) are "
        "treated more alike. It was not retrained."
        if changed
        else Markdown("**The model is unchanged**: this is the point of the front that drops nothing.")
    )
    search, settings = point["search"], front["settings"]
    sites = point["dropped_by_site"].items()
    done = (
        f"Point {point['point']} of {len(front['points'])} trade-offs between bias and perplexity, found by "
        f"{settings['method']}, seed {settings['seed']}.",
        f"On the search half: bias {number(search['bias'])}, perplexity {search['perplexity']:.2f}.",
        f"About the held-out figures: {front['caveat']}.",
        *(f"Dropped in {site}: {', '.join(map(str, heads))}." for site, heads in sites if heads),
    )
    sections = () if judgement is None else tuple(held_out_sections(judgement))
    return _card(
        lm,
        formats,
        title=f"{lm.name}, point {point['point']} of a front",
        judgement=judgement,
        described=front["data"],
        summary=(outcome,),
        done=done,
        data=tuple(data_in_words(front["data"])),
        sections=sections,
        limits=limits(judgement, changed),
        command=command,
    )


def _card(
    lm: LanguageModel,
    formats: Sequence[str],
    *,
    title: str,
    judgement: Judgement | None,
    described: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
    **facts: Any,
) -> Card:
    """A card with the header that model hubs read."""
    saved = [FORMATS[name] for name in formats]
    return Card(
        title=title,
        loading=tuple((each.how, "python", each.loading) for each in saved),
        files={} if files is None else {each.file: each.content for each in saved} | dict(files),
        header=hub_header(lm, formats, title, judgement, described),
        **facts,
    )


def _summary(repair: Repair, lm: LanguageModel) -> tuple[str, ...]:
    counts = count_heads(gains_of(repair.mask), lm.head_map.n_heads)
    outcome = (
        f"{heads_in_words(counts, **_OFF)}, so that different groups "
        f"({repair.search_prompts.axis}) are treated more alike. It was not retrained."
        if repair.improved
        else Markdown(
            "**The model is unchanged**: no set of heads that was measured kept the perplexity and lowered the bias by "
            "more than its noise."
        )
    )
    floor = Markdown("**The floors are not kept: judge by the figures below.**")
    return (outcome, *(() if repair.feasible else (floor,)), describe_outcome(repair))


def _done(repair: Repair) -> tuple[str, ...]:
    settings = repair.settings
    said = [
        f"Method: {_method(settings)}, seed {settings.seed}.",
        f"Figures: {figures_in_words(repair.figures)}.",
        f"On the search half: bias {number(repair.before.bias)} -> {number(repair.after.bias)}, perplexity "
        f"{repair.before.utility:.2f} -> {repair.after.utility:.2f}, {len(repair.finalists)} sets measured. These "
        "overstate the gain: the set was chosen on them.",
    ]
    if repair.front is not None:
        place = "" if repair.front.saved is None else f" This is point {repair.front.saved}."
        said.append(
            f"Front: {len(repair.front.points)} trade-offs between bias and perplexity are in front.json.{place} "
            "fairmend lm pick saves another one."
        )
    if settings.max_perplexity is not None:
        said.append(f"Floor: perplexity at most {settings.max_perplexity:g} times the original on the search half.")
    for site, heads in repair.space.by_site(repair.mask).items():
        if heads:
            said.append(f"Dropped in {site}: {', '.join(map(str, heads))}.")
    if any(repair.mask.dials):
        said.append("The gain of every one is in mask.json: 1 leaves it as it is, 0 is off.")
    return (*said, *(f"Note: {remark.rstrip('.')}." for remark in repair.ranking.remarks))


def _method(settings: RepairSettings) -> str:
    if settings.method == SOFT:
        what = "heads and hidden neurons" if settings.turns_neurons else "heads"
        return f"soft gates of {what}, {settings.soft.steps} steps"
    if settings.searches_subsets:
        subsets = settings.subsets
        share = f"a {'share' if subsets.fraction == 'shared' else 'random share of its own'} of {subsets.eta:g}"
        return f"{settings.method}, {subsets.samples} subsets, each on {share} of the search half"
    rule = settings.rule
    gamma = f", gamma {rule.gamma:g}" if rule.method == "fasp" else ""
    return f"{rule.method}, alpha {rule.alpha:g}{gamma}, ties {rule.ties}"


def held_out_sections(judgement: Judgement) -> Iterator[Section]:
    """The perplexity, and every axis before and after."""
    read = judgement.perplexity
    words = (
        f"Perplexity on {read.n_tokens:,} tokens, {read.protocol}: {read.before:.2f} -> {read.after:.2f}, "
        f"{read.ratio:.3f} times the original {read.interval}."
    )
    yield Section("Held-out figures", (words, *kept_in_words(judgement)))
    for judged in judgement.axes:
        role = "repaired for" if judged.repaired_for else "not repaired for: did it move?"
        yield Section(f"Held-out figures: {judged.axis} ({role})", axis_parts(judged))


def axis_parts(judged: AxisJudgement) -> tuple[str | Table, ...]:
    """What a repair did to one axis: verdicts, figures and groups."""
    change = judged.change
    if change is None:
        return ("The repaired model gives no probabilities on these prompts: it is broken.",)
    before, after = change.before, change.after
    figures: tuple[dict[str, Cell], ...] = tuple(
        {"figure": name, "before": old, "after": new, "change": moved, "interval": interval(limits.low, limits.high)}
        for name, old, new, moved, limits in (
            ("bias", before.value, after.value, change.change, change.interval),
            ("above the noise floor", before.excess, after.excess, change.excess_change, change.excess_interval),
        )
    )
    groups: tuple[dict[str, Cell], ...] = tuple(
        {
            "group": old.name,
            "n": old.n,
            "before": old.mean,
            "after": new.mean,
            "share_before": old.share,
            "share_after": new.share,
        }
        for old, new in zip(before.groups, after.groups, strict=True)
    )
    words = before.protocol.words
    columns = (
        Column("group", "group"),
        Column("n", words.items),
        Column("before", f"mean {words.mean} before", signed if words.sign else number),
        Column("after", "after", signed if words.sign else number),
        Column("share_before", f"share {words.share} before", number),
        Column("share_after", "after", number),
    )
    return (
        judged.verdict_on_change,
        *([] if judged.second_verdict is None else [judged.second_verdict]),
        f"Before: {verdict(before)} Permutation test of no group difference after the repair: "
        f"{p_value(after.p_value)}.",
        Table(
            f"{before.n:,} {words.items}{f', scored by {before.scorer}' if before.scorer else ''}", _FIGURES, figures
        ),
        Table("Groups", columns, groups),
    )


def _objectives(repair: Repair) -> Iterator[Section]:
    """Further figures, on items that the choice did not see."""
    rows: list[dict[str, Cell]] = []
    for objective in repair.objectives:
        change = objective.change(repair.mask)
        rows.append(
            {
                "figure": objective.name,
                "n": change.n,
                "before": change.before,
                "after": change.after,
                "change": change.change,
                "interval": interval(change.interval.low, change.interval.high),
            }
        )
    title = f"On other items, at most {repair.settings.objective_limit:g} times the original were allowed"
    if repair.settings.choice == "rule":
        title = "Reported only: the rule's set was taken, whatever it does"
    if rows:
        columns = (_FIGURES[0], Column("n", "items"), *_FIGURES[1:])
        yield Section("Further objectives", (Table(title, columns, tuple(rows)),))


def _examples(repair: Repair) -> Iterator[Section]:
    """Continuations as they are, not as Markdown or HTML."""
    rows: tuple[dict[str, Cell], ...] = tuple(
        {**asdict(pair), "before": _quoted(pair.before), "after": _quoted(pair.after)} for pair in repair.examples
    )
    if rows:
        said = f"Held-out prompts, {CHOSEN}. Letters within offensive words are starred."
        table = Table("The same prompts with the same noise", PAIRS, rows)
        yield Section("Continuations before and after", (said, table))


def _quoted(text: str) -> str:
    return code(text) if text.strip() else "(nothing)"


def data_in_words(data: Mapping[str, Any]) -> Iterator[str]:
    """What was searched with and judged on, of what `describe_data` made: a sentence each."""
    for role, said in (("search", "search with"), ("judge", "judge on")):
        prompts, text = data[f"{role}_prompts"], data[f"{role}_text"]
        count = sum(prompts["counts"].values())
        yield f"Prompts to {said}: {count:,} of {prompts['source']}, {prompts['licence']}."
        yield f"Text to {said}: {text['source']}, licence {text['licence'] or 'not stated'}."


def limits(held_out: Judgement | None, improved: bool) -> tuple[str, ...]:
    """What the figures do not show."""
    said = list(_LIMITS)
    change = None if held_out is None else held_out.main.change
    if change is not None and not change.before.is_significant:
        said.insert(0, "The original model's bias could not be told from chance at this number of prompts.")
    if change is not None and improved and change.interval.contains(0.0):
        said.insert(0, "The change on held-out prompts could not be told from no change at this number of prompts.")
    return tuple(said)
