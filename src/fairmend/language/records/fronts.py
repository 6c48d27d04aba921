"""The files of a front, and one point of it as a model of its own (docs/reference/files-language.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairmend.errors import InputError, RunError
from fairmend.language.models.models import LanguageModel
from fairmend.language.models.writing import require_new
from fairmend.language.records.cards import point_card
from fairmend.language.records.checkpoints import CARD, write_checkpoint
from fairmend.language.records.formats import CHECKPOINT
from fairmend.language.records.head_pictures import pictures_of
from fairmend.language.records.results import (
    MASK,
    MEANING,
    PACKAGES,
    describe_data,
    describe_heads,
    describe_mask,
    describe_measurement,
    describe_model,
    mask_for,
)
from fairmend.language.repair.front import CAVEAT
from fairmend.language.repair.repair import Repair
from fairmend.masks import Mask
from fairmend.records import RUN, Kind, document, read, session, versions
from fairmend.report.card import render_card
from fairmend.report.study import tables_of

FRONT = Kind("language front", file="front.json", noun="front")
_HEADS = ("dropped", "dropped_by_site", "gains")  # no gains where heads are dropped only
POINT = Kind("language front point", file="point.json", noun="saved point", again="pick the point")


def front_files(repair: Repair, lm: LanguageModel) -> dict[str, bytes]:
    """front.csv, front.png, front.svg and front.json by name; none without a front, no picture of an unjudged one."""
    front = repair.front
    if front is None:
        return {}
    described = {
        "caveat": CAVEAT,
        "figures": {"bias": front.figures.bias.name, "utility": front.figures.utility.name},
        "saved": front.saved,
        "points": [
            {
                "point": number,
                **describe_heads(point.mask, front.space),
                "search": describe_measurement(point.measurement),
                "held_out": point.judgement,
            }
            for number, point in enumerate(front.points)
        ],
        "heads": front.space.n_units,
        "space": front.space,
        "settings": repair.settings.to_json(),
        "data": describe_data(repair.search_prompts, repair.judge_prompts, repair.texts),
        "model": describe_model(lm),
        "versions": versions(*PACKAGES),
        "tables": [front.table().shown()],
    }
    pictures = pictures_of(front.draw(), "front") if front.is_judged else {}
    return {"front.csv": front.table().csv(), **pictures, FRONT.file: document(described, FRONT)}


def load_front(out: str | Path) -> dict[str, Any]:
    """Read the front of a saved repair.

    Raises:
        RunError: there is none, or its file is damaged or of another schema version.
    """
    path = Path(out) / FRONT.file
    if not path.exists() and (Path(out) / RUN).is_file():
        raise RunError(
            f"{out} holds no front (no {FRONT.file}): if it was asked for, go on with `fairmend resume {out}`; else "
            "repair with --front into another folder"
        )
    return read(path, FRONT)


def point_of(front: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    """A point of a front that `load_front` read.

    Raises:
        InputError: there is no such point.
    """
    points: list[Mapping[str, Any]] = front["points"]
    if not 0 <= number < len(points):
        raise InputError(
            f"there is no point {number}: the front has the points 0 (the untouched model) to {len(points) - 1}"
        )
    return points[number]


def mask_at(front: Mapping[str, Any], number: int, lm: LanguageModel) -> Mask:
    """The mask of a point, if the front was found for this model.

    Raises:
        InputError: there is no such point.
        ModelError: the front is one of another model.
    """
    described = {**MASK.head, "meaning": MEANING} | {name: front[name] for name in ("model", "space")}
    point = point_of(front, number)
    return mask_for(described | {name: point[name] for name in _HEADS if name in point}, lm)


def save_point(
    front: Mapping[str, Any],
    number: int,
    lm: LanguageModel,
    out: str | Path,
    *,
    formats: Sequence[str] = (CHECKPOINT,),
    command: str = "",
) -> dict[str, Path]:
    """Fold the mask of a point into a copy of the model and save it as a checkpoint that plain transformers loads.

    Args:
        front: from `load_front`.
        number: of the point.
        lm: the model that the front was found for.
        out: the directory: new or empty.
        formats: what the model is saved as, some of `FORMATS`.
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
    kept = ("caveat", "figures", "heads", "space", "settings", "data", "model", "versions")
    shown = tables_of(front) if "tables" in front else ()  # fairmend 0.1 saved none
    tables = [replace(table, rows=table.rows[number : number + 1]) for table in shown]
    described = {name: front[name] for name in kept} | {"tables": tables}
    described |= {"point": dict(point), "session": session(None, command)}
    files = {
        MASK.file: document(describe_mask(mask, lm)),
        CARD: render_card(point_card(front, point, lm, command, formats=formats)).encode(),
        POINT.file: document(described, POINT),
    }
    return write_checkpoint(lm, mask, out, files, formats=formats)


def load_point(out: str | Path) -> dict[str, Any]:
    """Read the figures of a point that `save_point` saved.

    Raises:
        RunError: there are none, or their file is damaged or of another schema version.
    """
    return read(Path(out) / POINT.file, POINT)
