"""What a language repair leaves in its directory at the end: the repaired checkpoint and its figures.

Every file is written whole or not at all, and `result.json` last: a directory that has it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel

from fairmend.artifacts import staging
from fairmend.errors import InputError, ModelError, RunError
from fairmend.files import parse_json, read_json
from fairmend.language.cards import render_language_card
from fairmend.language.folding import fold
from fairmend.language.front_files import front_files
from fairmend.language.head_pictures import draw_ranking, pictures_of
from fairmend.language.models import LanguageModel, save_model
from fairmend.language.repair import Repair
from fairmend.language.results import (
    SCHEMA,
    SCHEMA_VERSION,
    describe_mask,
    describe_result,
    describe_slicing,
    mask_for,
)
from fairmend.language.slicing import Slicing, slice_groups
from fairmend.masks import Mask
from fairmend.report.tables import json_bytes
from fairmend.runs.directories import RUN

MASK, RESULT, CARD = "mask.json", "result.json", "README.md"


def save_repair(
    repair: Repair,
    lm: LanguageModel,
    out: str | Path,
    *,
    slice_heads: bool = False,
    request: Mapping[str, Any] | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Write the repaired checkpoint, its mask, a head map, all figures and a model card into a directory.

    Args:
        repair: what to save.
        lm: the model that was repaired.
        out: the directory: new, empty, or that of the repair's own run.
        slice_heads: remove whole key-value groups from the checkpoint where that is exact, see `slice_groups`. Where it
            is not, the heads are zeroed as usual, and result.json and the card say why.
        request: see `open_run`.
        command: the command line, for the record.

    Returns:
        The files by name.

    Raises:
        ModelError: weights that cannot be folded, see `fold`; masks still work on them.
        RunError: the directory holds other files.
        ArtifactError: it cannot be written, or the disk is full.
    """
    sliced, reason = _sliced(repair, lm) if slice_heads else (None, "")
    slicing = describe_slicing(sliced, reason) if slice_heads else None
    result = describe_result(repair, lm, slicing=slicing, request=request, command=command)
    picture = draw_ranking(repair.ranking, lm.head_map, repair.mask, title=f"{lm.name}, dropped heads crossed out")
    files = {
        MASK: json_bytes(describe_mask(repair.mask, lm)),
        **pictures_of(picture),
        **front_files(repair, lm),
        CARD: render_language_card(repair, lm, command, slicing=slicing).encode(),
        RESULT: json_bytes(result),
    }
    return write_checkpoint(lm, repair.mask, out, files, sliced=sliced)


def write_checkpoint(
    lm: LanguageModel, mask: Mask, out: str | Path, files: Mapping[str, bytes], *, sliced: Slicing | None = None
) -> dict[str, Path]:
    """Fold a mask into a copy of the model and write it as a checkpoint that plain transformers loads.

    Args:
        lm: the model.
        mask: the heads to drop.
        out: the directory: new, empty, or one that holds a run of fairmend.
        files: further files by name; the last one is written last of all.
        sliced: a smaller copy to write instead.

    Raises:
        ModelError: weights that cannot be folded.
        RunError: the directory holds other files.
        ArtifactError: it cannot be written, or the disk is full.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / RUN).is_file())):
        raise RunError(f"{target} is not empty and holds no run of fairmend: choose a new or empty directory as --out")
    copy = fold(lm.model, mask, lm.head_map) if sliced is None else sliced.model
    with staging(target.absolute()) as folder:
        part = save_model(lm, folder / "checkpoint", model=cast(PreTrainedModel, copy))
        for name, content in files.items():
            (part / name).write_bytes(content)
        names = sorted(path.name for path in part.iterdir() if path.name not in files)
        for name in [*names, *files]:
            os.replace(part / name, target / name)
    return {name: target / name for name in [*names, *files]}


def load_result(out: str | Path) -> dict[str, Any]:
    """Read the figures of a saved repair.

    Raises:
        RunError: no finished repair is there, or its file is damaged or of another schema version.
    """
    path = Path(out) / RESULT
    if not path.is_file():
        begun = (Path(out) / RUN).is_file()
        raise RunError(
            f"{out} holds a run that has not finished: go on with `fairmend resume {out}`"
            if begun
            else f"{out} holds no saved repair (no {RESULT}): name the directory given as --out"
        )
    try:
        result = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): repair again, or restore it from a copy") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or result.get("schema_version") != SCHEMA_VERSION:
        raise RunError(f"{path} is not the result of a {SCHEMA}, version {SCHEMA_VERSION}: name the directory of one")
    return result


def read_mask(path: str | Path, lm: LanguageModel) -> Mask:
    """Read the mask of a saved repair, from its mask.json or its directory.

    Raises:
        InputError: there is no such file, or it is not JSON.
        ModelError: it is no mask of heads, or one of another model.
    """
    file = Path(path) / MASK if Path(path).is_dir() else Path(path)
    try:
        payload = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as a mask ({error}): give the {MASK} of a language repair") from error
    if not isinstance(payload, dict):
        raise ModelError(f"{file} is no mask of attention heads: give the {MASK} of a language repair")
    return mask_for(payload, lm)


def _sliced(repair: Repair, lm: LanguageModel) -> tuple[Slicing | None, str]:
    """The sliced model, or why there is none."""
    if not repair.improved:
        return None, "no head is dropped"
    try:
        return slice_groups(lm.model, repair.mask, lm.head_map), ""
    except ModelError as error:
        return None, str(error)
