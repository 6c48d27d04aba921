"""A model without the dropped heads as a checkpoint that plain transformers loads, and the mask of such a one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel

from fairmend.errors import InputError, ModelError, RunError
from fairmend.files import parse_json, sweep
from fairmend.language.heads.folding import folded_state
from fairmend.language.heads.gates import masked
from fairmend.language.heads.slicing import Slicing
from fairmend.language.models.models import LanguageModel
from fairmend.language.models.writing import (
    logits_of,
    require_new,
    unfinished,
    write_proven,
)
from fairmend.language.records.results import MASK, mask_for
from fairmend.masks import Mask

CARD = "README.md"
_OTHER_FOLDER = "Free space there, or choose another directory"


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
    target, lm = Path(out), lm.with_units_of(mask)
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


def read_mask(path: str | Path, lm: LanguageModel) -> Mask:
    """Read the mask of a saved repair, from its mask.json or its directory.

    Raises:
        InputError: there is no such file, or it is not JSON.
        ModelError: it is no mask of heads, or one of another model.
    """
    file = Path(path) / MASK.file if Path(path).is_dir() else Path(path)
    try:
        if file.exists() and not file.is_file():
            raise OSError("it is no regular file")
        payload = parse_json(file.read_bytes())
    except (OSError, ValueError, MemoryError) as error:
        raise InputError(
            f"{file} cannot be read as a mask ({error}): give the {MASK.file} of a language repair"
        ) from error
    if not isinstance(payload, dict):
        raise ModelError(f"{file} is no mask of attention heads: give the {MASK.file} of a language repair")
    return mask_for(payload, lm)
