"""The directory of a language repair: its run from the start, the repaired checkpoint and its figures at the end.

Every file is written whole or not at all, and `result.json` last: a directory that has it is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel

import fairmend
from fairmend.artifacts import staging
from fairmend.errors import InputError, ModelError, RunError
from fairmend.language.cards import render_language_card
from fairmend.language.folding import fold
from fairmend.language.models import LanguageModel, save_model
from fairmend.language.prompts import PromptSet
from fairmend.language.repair import Repair
from fairmend.language.results import SCHEMA, SCHEMA_VERSION, describe_mask, describe_result, mask_for
from fairmend.language.settings import RepairSettings
from fairmend.language.texts import Text
from fairmend.language.toxicity import Scorer
from fairmend.masks import Mask
from fairmend.report.tables import json_bytes
from fairmend.runs.directories import RUN, open_directory
from fairmend.runs.store import Store

KIND = "language repair"
MASK, RESULT, CARD = "mask.json", "result.json", "README.md"
_IDENTITY = ("kind", "settings", "model", "prompts", "others", "texts", "scorer")


def open_run(
    out: str | Path,
    *,
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    settings: RepairSettings,
    texts: tuple[Text, Text],
    others: Sequence[PromptSet] = (),
    request: Mapping[str, Any] | None = None,
) -> Store:
    """Start a run in a directory, or open the same run there to go on with it.

    Args:
        out: the directory; made if it does not exist.
        lm, prompts, scorer, settings, texts, others: what is repaired, on what and how; see `repair_model`.
        request: JSON-ready: how they were named by the person who asked, so that the run can be resumed.

    Raises:
        RunError: the directory holds another run (what differs is named) or other files, or cannot be written.
    """
    header = {
        "kind": KIND,
        "fairmend": fairmend.__version__,
        "settings": settings.to_json(),
        "model": lm.fingerprint(),
        "prompts": prompts.fingerprint(),
        "others": [other.fingerprint() for other in others],
        "texts": [text.fingerprint() for text in texts],
        "scorer": {"name": scorer.name, **scorer.fingerprint()},
        "request": dict(request or {}),
    }
    return open_directory(Path(out), header, identity=_IDENTITY)


def save_repair(
    repair: Repair,
    lm: LanguageModel,
    out: str | Path,
    *,
    request: Mapping[str, Any] | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Write the repaired checkpoint, its mask, all figures and a model card into a directory.

    Args:
        repair: what to save.
        lm: the model that was repaired.
        out: the directory: new, empty, or that of the repair's own run.
        request: see `open_run`.
        command: the command line, for the record.

    Returns:
        The files by name.

    Raises:
        ModelError: weights that cannot be folded, see `fold`; masks still work on them.
        RunError: the directory holds other files.
        ArtifactError: it cannot be written, or the disk is full.
    """
    result = describe_result(repair, lm, request=request, command=command)
    files = {
        MASK: json_bytes(describe_mask(repair.mask, lm)).decode(),
        CARD: render_language_card(repair, lm, command),
    }
    return write_checkpoint(lm, repair.mask, out, files | {RESULT: json_bytes(result).decode()})


def write_checkpoint(lm: LanguageModel, mask: Mask, out: str | Path, files: Mapping[str, str]) -> dict[str, Path]:
    """Fold a mask into a copy of the model and write it as a checkpoint that plain transformers loads.

    Args:
        lm: the model.
        mask: the heads to drop.
        out: the directory: new, empty, or one that holds a run of fairmend.
        files: further text files by name; the last one is written last of all.

    Raises:
        ModelError: weights that cannot be folded.
        RunError: the directory holds other files.
        ArtifactError: it cannot be written, or the disk is full.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / RUN).is_file())):
        raise RunError(f"{target} is not empty and holds no run of fairmend: choose a new or empty directory as --out")
    folded = cast(PreTrainedModel, fold(lm.model, mask, lm.head_map))
    with staging(target.absolute()) as folder:
        part = save_model(lm, folder / "checkpoint", model=folded, files=files)
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
            f"{out} holds a run that has not finished: run the same repair again to go on with it"
            if begun
            else f"{out} holds no saved repair (no {RESULT}): name the directory given as --out"
        )
    try:
        result = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): repair again, or restore it from a copy") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or result["schema_version"] != SCHEMA_VERSION:
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
        payload = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as a mask ({error}): give the {MASK} of a language repair") from error
    if not isinstance(payload, dict):
        raise ModelError(f"{file} is no mask of attention heads: give the {MASK} of a language repair")
    return mask_for(payload, lm)
