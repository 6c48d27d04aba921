"""A model without the dropped heads, saved in the formats of `formats`, and the mask of such a one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel

from fairmend.errors import InputError, ModelError, RunError
from fairmend.files import parse_json, sweep
from fairmend.language.heads.adapter import Adapter, low_rank_adapter, scaling_adapter
from fairmend.language.heads.folding import folded_state
from fairmend.language.heads.gates import masked
from fairmend.language.heads.slicing import Slicing
from fairmend.language.models.adapter_writing import write_adapter
from fairmend.language.models.gguf_writing import require_gguf, write_gguf
from fairmend.language.models.models import LanguageModel
from fairmend.language.models.writing import (
    logits_of,
    require_new,
    unfinished,
    write_proven,
)
from fairmend.language.records.formats import ADAPTER, CHECKPOINT, GGUF, GGUF_FILE, IA3
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
    formats: Sequence[str] = (CHECKPOINT,),
    sliced: Slicing | None = None,
    beside_run: bool = False,
) -> dict[str, Path]:
    """Write a model without the dropped heads as a checkpoint that plain transformers loads, or in other formats.

    It is loaded again with plain transformers before anything takes its place: every weight is compared with the
    model's, folded, and the logits on a few tokens with the masked model's. Weights are stored in the formats of
    `lm.storage` where that loses nothing. Adapters are read again and merged for it, GGUF files
    loaded by transformers.

    Args:
        lm: the model.
        mask: the heads to drop.
        out: the directory: new or empty.
        files: further files by name; the last one is written last of all.
        formats: some of `FORMATS`, see `require_formats`.
        sliced: a smaller copy to write instead, as a checkpoint.
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
            with masked(lm.model, mask, lm.head_map):
                wanted = logits_of(lm.model, lm)
            unharmed = f"Nothing was put into {target}; {kept}"
            if CHECKPOINT in formats:
                if sliced is None:
                    saved, state = lm.model, folded_state(lm.model, mask, lm.head_map)
                else:
                    saved, state = cast(PreTrainedModel, sliced.model), sliced.model.state_dict()
                write_proven(lm, saved, state, wanted, part, unharmed)
            part.mkdir(exist_ok=True)
            for kind, adapter in _adapters(lm, mask, formats):
                write_adapter(lm, mask, adapter, wanted, part / kind, unharmed)
            if GGUF in formats:
                write_gguf(lm, folded_state(lm.model, mask, lm.head_map), wanted, part / GGUF_FILE, unharmed)
            for name, content in files.items():
                (part / name).write_bytes(content)
            written = sorted(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file())
            names = [name for name in written if name not in files]
            others = {path.name for path in target.iterdir()} - {folder.name}
            if others and not beside_run:
                raise RunError(f"{target} was written into meanwhile ({sorted(others)[0]}): choose another directory")
            for name in [*names, *files]:
                (target / name).parent.mkdir(exist_ok=True)
                os.replace(part / name, target / name)
    except BaseException:
        if made:
            with suppress(OSError):
                target.rmdir()
        raise
    return {name: target / name for name in [*names, *files]}


def require_formats(lm: LanguageModel, formats: Sequence[str], *, sliced: bool = False) -> None:
    """Refuse, before anything is measured, what a model could not be saved as.

    Raises:
        InputError: a sliced model as anything but a checkpoint.
        ModelError: see `require_gguf`.
    """
    others = [name for name in formats if name != CHECKPOINT]
    if sliced and others:
        raise InputError(
            f"--slice makes a model of another shape, which is saved as a {CHECKPOINT} only: leave out --slice, or "
            f"{others[0]} of --save"
        )
    if GGUF in formats:
        require_gguf(lm)


def formats_in_words(lm: LanguageModel, mask: Mask, formats: Sequence[str]) -> tuple[str, ...]:
    """What a person must know of the formats that a mask is saved in: size and rank of adapters."""
    return tuple(adapter.in_words() for _, adapter in _adapters(lm, mask, formats))


def _adapters(lm: LanguageModel, mask: Mask, formats: Sequence[str]) -> Iterator[tuple[str, Adapter]]:
    for kind, make in ((ADAPTER, low_rank_adapter), (IA3, scaling_adapter)):
        if kind in formats:
            yield kind, make(lm.model, mask, lm.with_units_of(mask).head_map)


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
