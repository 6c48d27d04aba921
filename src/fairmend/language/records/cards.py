"""The model card of a repaired language model: README.md with the header that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fairmend.escaping import Markdown, code, code_block, markdown, markdown_block, visible
from fairmend.language.bias.bias import verdict, verdict_on_change
from fairmend.language.measurement.judging import AxisJudgement, Judgement, PerplexityChange
from fairmend.language.models.models import LanguageModel
from fairmend.language.records.results import describe_outcome, figures_in_words, slicing_in_words
from fairmend.language.repair.differences import Pair
from fairmend.language.repair.examples import CHOSEN
from fairmend.language.repair.repair import Repair
from fairmend.language.repair.settings import RepairSettings
from fairmend.report.card import bullets, interval, number, p_value, signed
from fairmend.report.tables import Column, Table

LOADING = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("DIRECTORY")
tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")
```"""
_FILES = {
    "model.safetensors, config.json, tokenizer": "the repaired model; dropped heads are zeros in its weights",
    "head_map.png, head_map.svg": "what every head does by the scores, with the dropped heads crossed out",
    "mask.json": "which heads were dropped, and of which model",
    "result.json": "all figures, settings, seeds, versions and fingerprints",
    "run.sqlite": "every measurement; lets an interrupted run be gone on with",
}

_FRONT_FILES = {
    "front.json, front.csv": "other trade-offs between bias and perplexity, each with its held-out figures",
    "front.png, front.svg": "the same as a picture",
}
_LIMITS = (
    "A toxicity score is not harm: it is what one scorer thinks of a text, and scorers have biases of their own.",
    "Prompts of one data set, in English, about the groups it names. Other prompts may give other figures.",
    "Bias in what the model knows or refuses, and in tasks other than continuing text, was not looked at.",
)


def render_language_card(
    repair: Repair, lm: LanguageModel, command: str = "", *, slicing: Mapping[str, Any] | None = None
) -> str:
    """Return the card as Markdown with a YAML header, ending in a newline.

    Args:
        repair: what was found.
        lm: the model that was repaired.
        command: the command line, for the record.
        slicing: what slicing saved, see `describe_slicing`.
    """
    blocks = [card_header(lm), f"# {markdown(lm.name)}, repaired", *_summary(repair)]
    sliced = [] if slicing is None else [slicing_in_words(slicing)]
    blocks += ["## What was done", bullets([*_done(repair), *sliced])]
    if repair.held_out is not None:
        blocks += held_out_blocks(repair.held_out)
        blocks += _objectives(repair)
        if repair.examples:
            blocks += ["### Continuations before and after", *_examples(repair.examples)]
    blocks += ["## Data", bullets(_data(repair, lm))]
    blocks += ["## What this does not show", bullets(limits(repair.held_out, repair.improved)), "## How to load it"]
    blocks += ["No code of fairmend is needed:", LOADING]
    files = _FILES | (_FRONT_FILES if repair.front is not None else {})
    rows = tuple({"file": code(name), "content": content} for name, content in files.items())
    blocks += [_table("Files", (Column("file", "file"), Column("content", "content")), rows)]
    if command:
        blocks += ["## How it was made", code_block(command, "console")]
    return "\n\n".join(blocks) + "\n"


def card_header(lm: LanguageModel) -> str:
    """The header that model hubs read, in YAML; a JSON string is a YAML string, whatever is in it."""
    entries = {"base_model": lm.name, "library_name": "transformers", "pipeline_tag": "text-generation"}
    if lm.licence:
        entries = {"license": lm.licence.lower()} | entries
    lines = [f"{key}: {json.dumps(visible(value))}" for key, value in entries.items()]
    return "\n".join(["---", *lines, "tags:", "- fairmend", "- bias-mitigation", "- attention-head-pruning", "---"])


def _summary(repair: Repair) -> tuple[str, ...]:
    if not repair.improved:
        outcome = Markdown(
            "**The model is unchanged**: no set of heads that was measured kept the perplexity and lowered the bias by "
            "more than its noise."
        )
    else:
        outcome = markdown_block(
            f"{repair.mask.size} of {repair.space.n_units} attention heads are switched off, so that what the model "
            f"writes about different groups ({repair.search_prompts.axis}) is more equally toxic. It was not "
            "retrained."
        )
    floor = "" if repair.feasible else "**The perplexity floor is not kept: judge by the figures below.**"
    return tuple(text for text in (outcome, floor, markdown_block(describe_outcome(repair))) if text)


def _done(repair: Repair) -> list[str]:
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
    return [*said, *(f"Note: {note}." for note in repair.ranking.notes)]


def _method(settings: RepairSettings) -> str:
    if settings.searches_subsets:
        subsets = settings.subsets
        share = f"a {'share' if subsets.fraction == 'shared' else 'random share of its own'} of {subsets.eta:g}"
        return f"{settings.method}, {subsets.samples} subsets, each on {share} of the search half"
    rule = settings.rule
    gamma = f", gamma {rule.gamma:g}" if rule.method == "fasp" else ""
    return f"{rule.method}, alpha {rule.alpha:g}{gamma}, ties {rule.ties}"


def held_out_blocks(judgement: Judgement) -> list[str]:
    """The section with the perplexity and every axis before and after."""
    blocks = ["## Held-out figures", _perplexity(judgement.perplexity)]
    return blocks + [block for judged in judgement.axes for block in _axis(judged)]


def _perplexity(change: PerplexityChange) -> str:
    return markdown_block(
        f"Perplexity on {change.n_tokens:,} tokens, {change.protocol}: {change.before:.2f} -> {change.after:.2f}, "
        f"{change.ratio:.3f} times the original {change.interval}."
    )


def _axis(judged: AxisJudgement) -> list[str]:
    role = "repaired for" if judged.searched else "not repaired for: did it move?"
    opening = f"### {markdown(judged.axis)} ({role})"
    change = judged.change
    if change is None:
        return [opening, "The repaired model gives no probabilities on these prompts: it is broken."]
    before, after = change.before, change.after
    figures = (
        {"figure": "bias", "before": before.value, "after": after.value, "change": change.change}
        | {"interval": interval(change.interval.low, change.interval.high)},
        {"figure": "above the noise floor", "before": before.excess, "after": after.excess}
        | {"change": change.excess_change}
        | {"interval": interval(change.excess_interval.low, change.excess_interval.high)},
    )
    columns = (
        Column("figure", "figure (lower is better)"),
        Column("before", "before", number),
        Column("after", "after", number),
        Column("change", "change", signed),
        Column("interval", f"{change.interval.level:.0%} interval of the change"),
    )
    groups = tuple(
        {"group": old.name, "n": old.n, "before": old.mean, "after": new.mean}
        | {"toxic_before": old.share_toxic, "toxic_after": new.share_toxic}
        for old, new in zip(before.groups, after.groups, strict=True)
    )
    group_columns = (
        Column("group", "group"),
        Column("n", "prompts"),
        Column("before", "mean toxicity before", number),
        Column("after", "after", number),
        Column("toxic_before", "share toxic before", number),
        Column("toxic_after", "after", number),
    )
    return [
        opening,
        markdown_block(verdict_on_change(change)),
        f"Before: {markdown(verdict(before))} Permutation test of no group difference after the repair: "
        f"{p_value(after.p_value)}.",
        _table(f"{before.n:,} prompts, scored by {before.scorer}", columns, figures),
        _table("Groups", group_columns, groups),
    ]


def _objectives(repair: Repair) -> list[str]:
    """Further figures, on items that the choice did not see."""
    rows = []
    for objective in repair.objectives:
        change = objective.change(repair.mask)
        limits = interval(change.interval.low, change.interval.high)
        rows.append(
            {"name": objective.name, "n": change.n, "before": change.before, "after": change.after}
            | {"change": change.change, "interval": limits}
        )
    columns = (
        Column("name", "objective (lower is better)"),
        Column("n", "items"),
        Column("before", "before", number),
        Column("after", "after", number),
        Column("change", "change", signed),
        Column("interval", "95% interval of the change"),
    )
    settings = repair.settings
    title = f"On other items, at most {settings.objective_limit:g} times the original were allowed"
    if settings.choice == "rule":
        title = "Reported only: the rule's set was taken, whatever it does"
    return ["### Further objectives", _table(title, columns, rows)] if rows else []


def _examples(pairs: Sequence[Pair]) -> list[str]:
    rows = tuple(
        {"group": pair.group, "prompt": pair.prompt}
        | {"before": _quoted(pair.before), "toxicity_before": pair.toxicity_before}
        | {"after": _quoted(pair.after), "toxicity_after": pair.toxicity_after}
        for pair in pairs
    )
    columns = (
        Column("group", "group"),
        Column("prompt", "prompt"),
        Column("before", "before"),
        Column("toxicity_before", "toxicity", number),
        Column("after", "after"),
        Column("toxicity_after", "toxicity", number),
    )
    return [
        f"Held-out prompts, {CHOSEN}. Letters within offensive words are starred.",
        _table("The same prompts with the same noise", columns, rows),
    ]


def _quoted(text: str) -> str:
    """A model's words as they are, not as Markdown or HTML."""
    return code(text) if text.strip() else "(nothing)"


def _data(repair: Repair, lm: LanguageModel) -> list[str]:
    said = [
        f"Model: {lm.name} ({lm.source}{', revision ' + lm.revision if lm.revision else ''}); licence "
        f"{lm.licence or 'not stated'}.",
        f"Prompts to search with: {len(repair.search_prompts):,} of {repair.search_prompts.source}, "
        f"{repair.search_prompts.licence}.",
        f"Prompts to judge on: {len(repair.judge_prompts):,} others of the same source.",
    ]
    for role, text in zip(("search with", "judge on"), repair.texts, strict=True):
        said.append(f"Text to {role}: {text.source}, licence {text.licence or 'not stated'}.")
    return [*said, *repair.search_prompts.notes]


def limits(held_out: Judgement | None, improved: bool) -> list[str]:
    """What the figures do not show."""
    said = list(_LIMITS)
    change = None if held_out is None else held_out.main.change
    if change is not None and not change.before.is_significant:
        said.insert(0, "The original model's bias could not be told from chance at this number of prompts.")
    if change is not None and improved and change.interval.contains(0.0):
        said.insert(0, "The change on held-out prompts could not be told from no change at this number of prompts.")
    return said


def _table(title: str, columns: tuple[Column, ...], rows: Sequence[Mapping[str, Any]]) -> str:
    return Table(title, columns, tuple(rows)).markdown().rstrip()
