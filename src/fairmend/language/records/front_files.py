"""The files of a front: what front.json, front.csv and the picture hold (docs/result-schema-language.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairmend.errors import InputError, RunError
from fairmend.language.models.models import LanguageModel
from fairmend.language.records.head_pictures import pictures_of
from fairmend.language.records.results import (
    MASK_SCHEMA,
    MASK_SCHEMA_VERSION,
    MEANING,
    describe_data,
    describe_judgement,
    describe_measurement,
    describe_model,
    describe_versions,
    mask_for,
)
from fairmend.language.repair.front import CAVEAT, RepairFront
from fairmend.language.repair.repair import Repair
from fairmend.masks import Mask
from fairmend.records import plain
from fairmend.report.tables import defined, json_bytes
from fairmend.runs.directories import RUN, read_result

SCHEMA, SCHEMA_VERSION = "fairmend language front", 1
FRONT = "front.json"


def front_files(repair: Repair, lm: LanguageModel) -> dict[str, bytes]:
    """front.csv, front.png, front.svg and front.json by name; none without a front, no picture of an unjudged one."""
    front = repair.front
    if front is None:
        return {}
    pictures = pictures_of(front.draw(), "front") if front.is_judged else {}
    return {"front.csv": front.table().csv(), **pictures, FRONT: json_bytes(describe_front(repair, front, lm))}


def describe_front(repair: Repair, front: RepairFront, lm: LanguageModel) -> dict[str, Any]:
    """Every point with its figures, and what they are of, JSON-ready."""
    payload: dict[str, Any] = defined(
        {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "caveat": CAVEAT,
            "figures": {"bias": front.figures.bias.name, "utility": front.figures.utility.name},
            "saved": front.saved,
            "points": [
                {
                    "point": number,
                    "dropped": list(point.mask.units()),
                    "dropped_by_site": front.space.by_site(point.mask),
                    "search": describe_measurement(point.measurement),
                    "held_out": None if point.judgement is None else describe_judgement(point.judgement),
                }
                for number, point in enumerate(front.points)
            ],
            "heads": front.space.n_units,
            "space": plain(front.space),
            "settings": repair.settings.to_json(),
            "data": describe_data(repair.search_prompts, repair.judge_prompts, repair.texts),
            "model": describe_model(lm),
            "versions": describe_versions(),
        }
    )
    return payload


def load_front(out: str | Path) -> dict[str, Any]:
    """Read the front of a saved repair.

    Raises:
        RunError: there is none, or its file is damaged or of another schema version.
    """
    path = Path(out) / FRONT
    if not path.exists() and (Path(out) / RUN).is_file():
        raise RunError(
            f"{out} holds no front (no {FRONT}): if it was asked for, go on with `fairmend resume {out}`; else repair "
            "with --front into another folder"
        )
    return read_result(path, {SCHEMA: SCHEMA_VERSION}, "front", "repair")


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
    """The dropped heads of a point, if the front was found for this model.

    Raises:
        InputError: there is no such point.
        ModelError: the front is one of another model.
    """
    described = {"schema": MASK_SCHEMA, "schema_version": MASK_SCHEMA_VERSION, "meaning": MEANING}
    described |= {name: front[name] for name in ("model", "space")}
    point = point_of(front, number)
    return mask_for({**described, **{name: point[name] for name in ("dropped", "dropped_by_site")}}, lm)
