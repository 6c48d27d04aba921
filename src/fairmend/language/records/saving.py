"""What a language repair leaves in its directory at the end: the repaired checkpoint and its figures.

Every file is written whole or not at all, and `result.json` last: a directory that has it is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from fairmend.errors import ModelError, RunError
from fairmend.language.heads.slicing import Slicing, slice_groups
from fairmend.language.models.models import LanguageModel
from fairmend.language.models.writing import require_new
from fairmend.language.records.cards import repair_card
from fairmend.language.records.checkpoints import CARD, require_formats, write_checkpoint
from fairmend.language.records.formats import CHECKPOINT
from fairmend.language.records.fronts import front_files
from fairmend.language.records.head_pictures import draw_ranking, pictures_of
from fairmend.language.records.results import MASK, RESULT, describe_mask, describe_result, describe_slicing
from fairmend.language.records.run_directories import REPAIR
from fairmend.language.repair.repair import Repair
from fairmend.records import RUN, differences, document, read
from fairmend.report.card import render_card
from fairmend.runs.store import Store


def save_repair(
    repair: Repair,
    lm: LanguageModel,
    out: str | Path,
    *,
    formats: Sequence[str] = (CHECKPOINT,),
    slice_heads: bool = False,
    request: Mapping[str, Any] | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Write the repaired checkpoint, its mask, a head map, all figures and a model card into a directory.

    Args:
        repair: what to save.
        lm: the model that was repaired.
        out: the directory: new, empty, or that of the repair's own run.
        formats: what the model is saved as, some of `FORMATS`.
        slice_heads: remove whole key-value groups from the checkpoint where that is exact, see `slice_groups`. Where it
            is not, the heads are zeroed as usual, and result.json and the card say why.
        request: see `open_run`.
        command: the command line, for the record.

    Returns:
        The files by name.

    Raises:
        InputError: see `require_formats`.
        ModelError: weights that cannot be folded, see `fold`; masks still work on them. Or what was written is not what
            was measured; nothing is put into the directory then, and its run can be gone on with.
        RunError: the directory holds other files, or another run.
        ArtifactError: it cannot be written, or the disk is full.
    """
    require_formats(lm, formats, sliced=slice_heads)
    beside_run = _holds_own_run(repair, lm, Path(out))
    sliced, reason = _sliced(repair, lm) if slice_heads else (None, "")
    slicing = describe_slicing(sliced, reason) if slice_heads else None
    result = describe_result(repair, lm, slicing=slicing, request=request, command=command)
    picture = draw_ranking(repair.ranking, lm.head_map, repair.mask, title=f"{lm.name}, dropped heads crossed out")
    files = {
        MASK.file: document(describe_mask(repair.mask, lm)),
        **pictures_of(picture),
        **front_files(repair, lm),
        CARD: render_card(repair_card(repair, lm, command, formats=formats, slicing=slicing)).encode(),
        RESULT.file: document(result),
    }
    return write_checkpoint(lm, repair.mask, out, files, formats=formats, sliced=sliced, beside_run=beside_run)


def load_result(out: str | Path) -> dict[str, Any]:
    """Read the figures of a saved repair.

    Raises:
        RunError: no finished repair is there, or its file is damaged or of another schema version.
    """
    return read(Path(out) / RESULT.file, RESULT)


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
