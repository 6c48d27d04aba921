"""What a language repair leaves in its directory at the end: the repaired checkpoint and its figures.

Every file is written whole or not at all, and `result.json` last: a directory that has it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel

from fairmend.errors import InputError, ModelError, RunError
from fairmend.files import parse_json, sweep
from fairmend.language.heads.folding import folded_state
from fairmend.language.heads.gates import masked
from fairmend.language.heads.slicing import Slicing, slice_groups
from fairmend.language.models.models import LanguageModel
from fairmend.language.models.writing import (
    logits_of,
    require_new,
    unfinished,
    write_proven,
)
from fairmend.language.records.cards import render_language_card
from fairmend.language.records.front_files import front_files
from fairmend.language.records.head_pictures import draw_ranking, pictures_of
from fairmend.language.records.results import (
    SCHEMA,
    SCHEMA_VERSION,
    describe_mask,
    describe_result,
    describe_slicing,
    mask_for,
)
from fairmend.language.records.run_directories import REPAIR
from fairmend.language.repair.repair import Repair
from fairmend.masks import Mask
from fairmend.records import differences
from fairmend.report.tables import json_bytes
from fairmend.runs.directories import RUN, read_result
from fairmend.runs.store import Store

MASK, RESULT, CARD = "mask.json", "result.json", "README.md"
_OTHER_FOLDER = "Free space there, or choose another directory"


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
        ModelError: weights that cannot be folded, see `fold`; masks still work on them. Or what was written is not what
            was measured; nothing is put into the directory then, and its run can be gone on with.
        RunError: the directory holds other files, or another run.
        ArtifactError: it cannot be written, or the disk is full.
    """
    beside_run = _holds_own_run(repair, lm, Path(out))
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
    return write_checkpoint(lm, repair.mask, out, files, sliced=sliced, beside_run=beside_run)


def write_checkpoint(
    lm: LanguageModel,
    mask: Mask,
    out: str | Path,
    files: Mapping[str, bytes],
    *,
    sliced: Slicing | None = None,
    beside_run: bool = False,
) -> dict[str, Path]:
    """Write a model without the dropped heads as a checkpoint that plain transformers loads.

    It is loaded again with plain transformers before anything takes its place: every weight is compared with the
    model's, folded, and the logits on a few tokens with the masked model's. Weights are stored in the formats of
    `lm.storage` where that loses nothing.

    Args:
        lm: the model.
        mask: the heads to drop.
        out: the directory: new or empty.
        files: further files by name; the last one is written last of all.
        sliced: a smaller copy to write instead.
        beside_run: whether the directory may hold a run of fairmend, which the caller knows to be this model's.

    Raises:
        ModelError: weights that cannot be folded, or what was written is not what was measured.
        RunError: the directory holds other files.
        ArtifactError: it cannot be written, or the disk is full.
    """
    target = Path(out)
    if beside_run:
        sweep(target)
    else:
        require_new(target)
    kept = (
        f"everything measured is kept there: `fairmend resume {target}` saves it anew"
        if beside_run
        else "the model itself is as it was"
    )
    made = not target.exists()
    try:
        with unfinished(target.absolute(), f"Free space there; {kept}" if beside_run else _OTHER_FOLDER) as folder:
            part = folder / "checkpoint"
            if sliced is None:
                saved, state = lm.model, folded_state(lm.model, mask, lm.head_map)
            else:
                saved, state = cast(PreTrainedModel, sliced.model), sliced.model.state_dict()
            with masked(lm.model, mask, lm.head_map):
                wanted = logits_of(lm.model, lm)
            write_proven(lm, saved, state, wanted, part, f"Nothing was put into {target}; {kept}")
            for name, content in files.items():
                (part / name).write_bytes(content)
            names = sorted(path.name for path in part.iterdir() if path.name not in files)
            others = {path.name for path in target.iterdir()} - {folder.name}
            if others and not beside_run:
                raise RunError(f"{target} was written into meanwhile ({sorted(others)[0]}): choose another directory")
            for name in [*names, *files]:
                os.replace(part / name, target / name)
    except BaseException:
        if made:
            with suppress(OSError):
                target.rmdir()
        raise
    return {name: target / name for name in [*names, *files]}


def load_result(out: str | Path) -> dict[str, Any]:
    """Read the figures of a saved repair.

    Raises:
        RunError: no finished repair is there, or its file is damaged or of another schema version.
    """
    return read_result(Path(out) / RESULT, {SCHEMA: SCHEMA_VERSION}, "saved repair", "repair")


def read_mask(path: str | Path, lm: LanguageModel) -> Mask:
    """Read the mask of a saved repair, from its mask.json or its directory.

    Raises:
        InputError: there is no such file, or it is not JSON.
        ModelError: it is no mask of heads, or one of another model.
    """
    file = Path(path) / MASK if Path(path).is_dir() else Path(path)
    try:
        if file.exists() and not file.is_file():
            raise OSError("it is no regular file")
        payload = parse_json(file.read_bytes())
    except (OSError, ValueError, MemoryError) as error:
        raise InputError(f"{file} cannot be read as a mask ({error}): give the {MASK} of a language repair") from error
    if not isinstance(payload, dict):
        raise ModelError(f"{file} is no mask of attention heads: give the {MASK} of a language repair")
    return mask_for(payload, lm)


def _holds_own_run(repair: Repair, lm: LanguageModel, out: Path) -> bool:
    """Whether a directory holds the run that the repair is from; a new or empty one holds none.

    Raises:
        RunError: it holds something else, or the run of another repair.
    """
    if not (out / RUN).is_file():
        require_new(out)
        return False
    with closing(Store.open(out / RUN, read_only=True)) as stored:
        theirs = {name: stored.header.get(name) for name in ("kind", "settings", "model", "texts")}
    ours = {
        "kind": REPAIR,
        "settings": repair.settings.to_json(),
        "model": lm.fingerprint(),
        "texts": [text.fingerprint() for text in repair.texts],
    }
    changed = differences(theirs, ours)
    if changed:
        raise RunError(
            f"{out} holds the run of another repair ({changed[0]}), which would be overwritten: choose a new or empty "
            "directory"
        )
    return True


def _sliced(repair: Repair, lm: LanguageModel) -> tuple[Slicing | None, str]:
    """The sliced model, or why there is none."""
    if not repair.improved:
        return None, "no head is dropped"
    try:
        return slice_groups(lm.model, repair.mask, lm.head_map), ""
    except ModelError as error:
        return None, str(error)
