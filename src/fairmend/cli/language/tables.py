"""Tables about language models, for people: audits, repairs, head scores, comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fairmend.cli.tables import number, p_value, plain_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fairmend.language.bias.records import BiasChange, BiasFigures
    from fairmend.language.measurement.judging import PerplexityChange
    from fairmend.language.measurement.knowledge import KnowledgeFigures
    from fairmend.language.repair.audit import LanguageAudit
    from fairmend.language.repair.differences import ModelDifferences, Pair
    from fairmend.language.scores.head_scores import BiasScores, HeadScores

KEY = (
    "bias: summed distance of the groups' mean scores from their common mean, or from 0; in brackets the interval of "
    "the bias that endless prompts would show. floor: what a model that treats all groups alike would show on as many "
    "prompts; p-value: of a permutation test of no group difference. toxic: share of continuations that score above "
    "0.5; prefers a, stereotyped: of choices for the first alternative.\n"
)


def audit_parts(audit: LanguageAudit) -> list[RenderableType]:
    """What an audit says: bias by axis, toxicity by group, perplexity, and the verdict in words."""
    table = plain_table("Bias by axis", "axis", "items", "bias", "interval", "floor", "excess", "p-value")
    for axis, figures in audit.axes.items():
        table.add_row(axis, f"{figures.n:,}", *_bias_cells(figures))
    read = audit.perplexity
    error = "" if math.isnan(read.standard_error) else f" (standard error {read.standard_error:.2f})"
    words = f"Perplexity {read.value:.2f}{error} on {read.n_tokens:,} tokens of {read.text}; {read.protocol}.\n"
    drawn = f"{audit.sampling.n_samples} continuation(s) of {audit.sampling.new_tokens} tokens each"
    scorer = next((figures.scorer for figures in audit.axes.values() if figures.scorer), "")
    return [
        table,
        KEY,
        *(part for axis, figures in audit.axes.items() for part in (_groups(axis, figures), "")),
        *([f"Scorer: {scorer}, {drawn}."] if scorer else []),
        *(
            f"As published, {axis}, {group}: {score}."
            for axis, scores in audit.published.items()
            for group, score in scores.items()
        ),
        *([] if audit.knowledge is None else [_knowledge_line(audit.knowledge)]),
        words,
        *(f"{axis}: {verdict}" for axis, verdict in audit.verdicts.items()),
    ]


def repair_parts(result: Mapping[str, Any]) -> list[RenderableType]:
    """What a saved repair says: the outcome in words, and before and after on held-out prompts."""
    from fairmend.language.records.results import heads_in_words

    outcome, held_out = result["outcome"], result["held_out"]
    name = result["model"]["name"]
    parts: list[RenderableType] = [
        f"{name}: {heads_in_words(outcome)}.",
        *([] if outcome["feasible"] else ["The floors are not kept: do not use this model."]),
        f"{outcome['verdict']}\n",
    ]
    if held_out is not None:
        from fairmend.language.measurement.judging import Judgement, kept_in_words
        from fairmend.records import built

        judged = built(held_out, Judgement)
        changes = {f"{axis.axis}{' (repaired)' if axis.repaired_for else ''}": axis.change for axis in judged.axes}
        parts += [
            _changes("Held-out items, never seen by the search", changes),
            *(f"{axis.axis}: {axis.second_verdict}" for axis in judged.axes if axis.second_verdict is not None),
            *kept_in_words(judged),
            _perplexity_line(judged.perplexity),
            KEY,
        ]
        parts += [
            part for axis in judged.axes if axis.change is not None for part in (_moved(axis.axis, axis.change), "")
        ]
        parts += _objective_parts(result.get("objectives") or ())
        parts += _example_parts(result["examples"])
    if result.get("slicing") is not None:
        from fairmend.language.records.results import slicing_in_words

        parts.append(f"{slicing_in_words(result['slicing'])}\n")
    search = result["search"]
    parts.append(
        f"On the search's own prompts (overstates the gain): bias {_given(search['before']['bias'])} -> "
        f"{_given(search['after']['bias'])}, perplexity {_given(search['before']['perplexity'], '.2f')} -> "
        f"{_given(search['after']['perplexity'], '.2f')}, {len(search['finalists'])} sets measured.\n"
    )
    if result["scores"].get("validity"):
        from fairmend.language.scores.validity import Validity, validity_in_words
        from fairmend.records import built

        parts.append(f"{validity_in_words(built(result['scores']['validity'], tuple[Validity, ...]))}\n")
    return parts


def diff_parts(found: ModelDifferences, shown: int) -> list[RenderableType]:
    """What a comparison of two models says, with the continuations whose toxicity differs most."""
    kinds = {"choices" if each.before.protocol.is_preference else "continuations" for each in found.axes.values()}
    return [
        f"{len(found.pairs):,} of {found.n_continuations:,} {' and '.join(sorted(kinds))} differ.\n",
        _changes("The same prompts through both models", found.axes),
        _perplexity_line(found.perplexity),
        KEY,
        *(part for axis, change in found.axes.items() for part in (_moved(axis, change), "")),
        *(line for pair in found.pairs[:shown] for line in _pair_lines(pair)),
        "",
        *(f"{axis}: {words}" for axis, words in found.verdicts.items()),
    ]


def _objective_parts(objectives: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    if not objectives:
        return []
    from fairmend.records import built
    from fairmend.statistics import Interval

    table = plain_table(
        "Further objectives (lower is better), on items that the choice did not see",
        *("objective", "items", "before", "after", "change", "interval", "sets vetoed"),
    )
    for each in objectives:
        judged, search = each["held_out"], each["search"]
        table.add_row(
            each["name"],
            f"{judged['n']:,}",
            _given(judged["before"]),
            _given(judged["after"]),
            _given(judged["change"], "+.4f"),
            str(built(judged["interval"], Interval)),
            f"{search['vetoed']} of {len(search['finalists'])}",
        )
    return [table, ""]


def _example_parts(examples: Mapping[str, Any]) -> list[RenderableType]:
    if not examples["pairs"]:
        return []
    from fairmend.language.repair.differences import Pair
    from fairmend.records import built

    parts: list[RenderableType] = [f"Held-out prompts, {examples['chosen']}; {examples['masked']}."]
    for pair in built(examples["pairs"], tuple[Pair, ...]):
        parts += _pair_lines(pair)
    return [*parts, ""]


def _pair_lines(pair: Pair) -> list[str]:
    return [
        f"{pair.axis}, {pair.group}: {pair.prompt!r}",
        f"  before ({number(pair.score_before)}): {pair.before!r}",
        f"  after  ({number(pair.score_after)}): {pair.after!r}",
    ]


def score_parts(scores: HeadScores, shown: int) -> list[RenderableType]:
    """What head scores say: the heads that matter most to each figure, and how far the rankings would repeat."""
    parts: list[RenderableType] = []
    for axis in scores.axes:
        title = f"Heads without which the {axis.axis} bias ({number(axis.before)}) falls most"
        parts += [_head_table(title, scores, axis, axis.effect.argsort(kind="stable")[:shown].tolist()), ""]
    title = f"Heads without which the perplexity ({scores.loss.before:.2f}) rises most"
    worst = (-scores.loss.effect).argsort(kind="stable")[:shown].tolist()
    parts += [_head_table(title, scores, scores.axes[0], worst), ""]
    parts += [
        "Reliability: the share of the spread of the scores that would repeat on another sample of the same size.",
        f"  perplexity: {scores.loss.reliability}",
        *(f"  bias, {axis.axis}: {axis.reliability}" for axis in scores.axes),
    ]
    if scores.validity:
        from fairmend.language.scores.validity import validity_in_words

        parts.append(validity_in_words(scores.validity))
    return parts


def _head_table(title: str, scores: HeadScores, axis: BiasScores, units: Sequence[int]) -> Table:
    table = plain_table(
        title, "layer", "head", f"{axis.axis} bias effect", "error", "perplexity without", "loss effect", "error"
    )
    for unit in units:
        table.add_row(
            str(scores.layers[unit]),
            str(scores.heads[unit]),
            number(float(axis.effect[unit]), "+"),
            number(float(axis.standard_error[unit])),
            f"{scores.loss.without[unit]:.2f}",
            number(float(scores.loss.effect[unit]), "+"),
            number(float(scores.loss.standard_error[unit])),
        )
    return table


def _changes(title: str, axes: Mapping[str, BiasChange | None]) -> Table:
    table = plain_table(
        title,
        *("axis", "items", "bias before", "after", "change", "interval", "floor after", "p after"),
    )
    for name, change in axes.items():
        if change is None:
            table.add_row(name, "", "", "broken", "", "", "", "")
            continue
        table.add_row(
            name,
            f"{change.after.n:,}",
            number(change.before.value),
            number(change.after.value),
            number(change.change, "+"),
            str(change.interval),
            number(change.after.floor),
            p_value(change.after.p_value),
        )
    return table


def _knowledge_line(known: KnowledgeFigures) -> str:
    return (
        f"Knowledge: the right answer is preferred by {known.mean:.2f} nats (standard error "
        f"{known.standard_error:.2f}), in {known.accuracy:.0%} of {known.n:,} items; {known.source}."
    )


def _perplexity_line(read: PerplexityChange) -> str:
    return (
        f"Perplexity on {read.n_tokens:,} held-out tokens: {_given(read.before, '.2f')} -> "
        f"{_given(read.after, '.2f')}, {_given(read.ratio, '.3f')} times {read.interval}; {read.protocol}.\n"
    )


def _moved(axis: str, change: BiasChange) -> Table:
    words = change.before.protocol.words
    table = plain_table(
        f"{words.mean.capitalize()} by group: {axis}",
        *("group", words.items, "before", "after", "change", "interval", f"{words.share} before", "after"),
    )
    for group, before, after in zip(change.groups, change.before.groups, change.after.groups, strict=True):
        table.add_row(
            group.name,
            f"{after.n:,}",
            number(group.before, words.sign),
            number(group.after, words.sign),
            number(group.change, "+"),
            str(group.interval),
            f"{before.share:.1%}",
            f"{after.share:.1%}",
        )
    return table


def _groups(axis: str, figures: BiasFigures) -> Table:
    words = figures.protocol.words
    table = plain_table(
        f"{words.mean.capitalize()} by group: {axis}", "group", words.items, words.mean, "interval", words.share
    )
    for group in sorted(figures.groups, key=lambda group: -group.mean):
        mean = number(group.mean, words.sign)
        table.add_row(group.name, f"{group.n:,}", mean, str(group.interval), f"{group.share:.1%}")
    return table


def _bias_cells(figures: BiasFigures) -> tuple[str, ...]:
    return (
        number(figures.value),
        str(figures.interval),
        number(figures.floor),
        number(figures.excess),
        p_value(figures.p_value),
    )


def _given(value: float | None, form: str = ".4f") -> str:
    return "n/a" if value is None or math.isnan(value) else format(value, form)
