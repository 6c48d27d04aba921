"""One point of a saved front as a model of its own: its heads dropped, with its figures and a card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairmend.escaping import code_block, markdown
from fairmend.language.models.models import LanguageModel
from fairmend.language.models.writing import require_new
from fairmend.language.records.cards import LOADING, card_header, held_out_blocks, limits
from fairmend.language.records.front_files import mask_at, point_of
from fairmend.language.records.results import describe_mask, describe_session, read_judgement
from fairmend.language.records.saving import CARD, MASK, write_checkpoint
from fairmend.report.card import bullets
from fairmend.report.card import number as written
from fairmend.report.tables import json_bytes
from fairmend.runs.directories import read_result

SCHEMA, SCHEMA_VERSION = "fairmend language front point", 1
POINT = "point.json"


def save_point(
    front: Mapping[str, Any], number: int, lm: LanguageModel, out: str | Path, *, command: str = ""
) -> dict[str, Path]:
    """Fold the mask of a point into a copy of the model and save it as a checkpoint that plain transformers loads.

    Args:
        front: from `load_front`.
        number: of the point.
        lm: the model that the front was found for.
        out: the directory: new or empty.
        command: the command line, for the record.

    Returns:
        The files by name: the checkpoint, mask.json, README.md and, last, point.json with the point's figures.

    Raises:
        InputError: there is no such point.
        ModelError: the front is one of another model, or weights that cannot be folded.
        RunError: the directory is not empty.
        ArtifactError: it cannot be written, or the disk is full.
    """
    mask = mask_at(front, number, lm)
    require_new(out)
    point = point_of(front, number)
    described = {
        **{key: value for key, value in front.items() if key not in ("points", "saved", "schema", "schema_version")},
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "point": dict(point),
        "session": describe_session(None, command),
    }
    files = {
        MASK: json_bytes(describe_mask(mask, lm)),
        CARD: render_point_card(front, point, lm, command).encode(),
        POINT: json_bytes(described),
    }
    return write_checkpoint(lm, mask, out, files)


def load_point(out: str | Path) -> dict[str, Any]:
    """Read the figures of a point that `save_point` saved.

    Raises:
        RunError: there are none, or their file is damaged or of another schema version.
    """
    return read_result(Path(out) / POINT, {SCHEMA: SCHEMA_VERSION}, "saved point", "pick the point")


def render_point_card(front: Mapping[str, Any], point: Mapping[str, Any], lm: LanguageModel, command: str = "") -> str:
    """The model card of a point, as Markdown with a YAML header, ending in a newline."""
    judgement = None if point["held_out"] is None else read_judgement(point["held_out"])
    dropped, axis = len(point["dropped"]), markdown(front["data"]["judge_prompts"]["axis"])
    outcome = (
        f"{dropped} of {front['heads']} attention heads are switched off, so that what the model writes about "
        f"different groups ({axis}) is more equally toxic. It was not retrained."
        if dropped
        else "**The model is unchanged**: this is the point of the front that drops nothing."
    )
    blocks = [card_header(lm), f"# {markdown(lm.name)}, point {point['point']} of a front", outcome]
    blocks += ["## What was done", bullets(_done(front, point))]
    if judgement is not None:
        blocks += held_out_blocks(judgement)
    blocks += ["## What this does not show", bullets(limits(judgement, dropped > 0))]
    blocks += ["## How to load it", "No code of fairmend is needed:", LOADING]
    if command:
        blocks += ["## How it was made", code_block(command, "console")]
    return "\n\n".join(blocks) + "\n"


def _done(front: Mapping[str, Any], point: Mapping[str, Any]) -> list[str]:
    search, data, settings = point["search"], front["data"], front["settings"]
    sites = point["dropped_by_site"].items()
    said = [
        f"Point {point['point']} of {len(front['points'])} trade-offs between bias and perplexity, found by "
        f"{settings['method']}, seed {settings['seed']}.",
        f"On the search half: bias {written(search['bias'])}, perplexity {search['perplexity']:.2f}.",
        f"About the held-out figures: {front['caveat']}.",
        *(f"Dropped in {site}: {', '.join(map(str, heads))}." for site, heads in sites if heads),
    ]
    for role in ("search", "judge"):
        prompts, text = data[f"{role}_prompts"], data[f"{role}_text"]
        count = sum(prompts["counts"].values())
        said += [
            f"Prompts to {role} with: {count:,} of {prompts['source']}, {prompts['licence']}.",
            f"Text to {role} with: {text['source']}, licence {text['licence'] or 'not stated'}.",
        ]
    return said
