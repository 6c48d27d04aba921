"""Where a toxicity classifier lies: a directory in the format of transformers, here or out of the hub's cache.

It is somebody else's. What runs code (custom classes, pickled weights) is refused, and so is what transformers would
read in part or make up: no tokenizer, an adapter beside its base, quantised weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING

from fairmend.errors import InputError, ModelError, first_line
from fairmend.language.backend.stored_formats import quantisation_of
from fairmend.language.backend.tokenizers import check_readers
from fairmend.language.checkpoints.checkpoints import (
    check_adapter,
    check_kinds,
    check_sizes,
    check_tokenizer_files,
    check_weights,
    read_json,
)
from fairmend.language.checkpoints.sources import fetch_snapshot

DESCRIPTION_FILES = ("*.json", "*.txt", "*.model")
"""Of a repository: configuration and tokenizer. Never code, never pickles."""

_KIND = "SequenceClassification"


def find_folder(source: str, revision: str | None = None) -> tuple[Path, bool]:
    """The directory that holds a classifier, and whether it is the user's own and not the hub's.

    Raises:
        InputError: neither a directory nor an id of the hub.
        ArtifactError: the hub's, and neither cached nor reachable.
    """
    path = _local(source)
    if path is not None:
        if revision is not None:
            raise InputError(f"{source} is a directory, which has no revisions, got {revision!r}: leave it out")
        return path, True
    if not source or source.count("/") > 1 or source.startswith((".", "~", "/")) or not source.isprintable():
        raise InputError(f"no scorer at {source!r}: {allowed()}")
    if ":" in source:
        hint = f"a function of your own is named python:{source}; " if source.count(":") == 1 else ""
        raise InputError(f"no scorer is named {source!r}: {hint}{allowed()}")
    at = "" if revision is None else f" --revision {revision}"
    by_hand = (
        f"On a machine with network run: hf download {source}{at}; or name a directory that holds it, a local Detoxify "
        "checkpoint (detoxify:PATH), or the offline scorer lexical"
    )
    return fetch_snapshot(source, revision, (*DESCRIPTION_FILES, "*.safetensors"), allowed(), by_hand), False


def check_folder(folder: Path, where: str, n_tensors: int | None = None) -> None:
    """Refuse a directory that transformers would not read whole, or only by running code.

    Args:
        folder: the directory.
        where: what the messages call it.
        n_tensors: of the weights where these lie elsewhere; None where they lie in the directory.

    Raises:
        ModelError: names the file and the remedy.
    """
    check_kinds(folder)
    check_adapter(folder, _KIND)
    config = read_json(folder / "config.json")
    if config is None:
        raise ModelError(f"{where} has no config.json, so it is no classifier of transformers: name its directory")
    if quantisation_of(config) is not None:
        raise ModelError(f"{where} is quantised: save it in single or half precision with save_pretrained")
    _refuse_code(config, read_json(folder / "tokenizer_config.json") or {}, where)
    check_tokenizer_files(folder)
    check_readers(folder, where)
    check_sizes(config, len(check_weights(folder, config, _KIND).dtypes) if n_tensors is None else n_tensors, where)


def _local(source: str) -> Path | None:
    try:
        path = Path(source).expanduser()
        if source and path.is_dir():
            return path
        is_other = bool(source) and path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, the home of nobody
        raise InputError(f"no scorer at {source[:80]!r} ({first_line(error)}): {allowed()}") from error
    if is_other:
        raise InputError(f"{source!r} is no directory: {allowed()}")
    return None


def _refuse_code(config: dict[str, Any], tokenizer: dict[str, Any], where: str) -> None:
    # Where transformers knows the type of model itself, it does not need the code that may lie beside it.
    is_known = str(config.get("model_type")) in CONFIG_MAPPING
    needing = ["config.json"] if "auto_map" in config and not is_known else []
    needing += ["tokenizer_config.json"] if "auto_map" in tokenizer else []
    if needing:
        raise ModelError(
            f"{where} needs code of its own (auto_map in {' and '.join(needing)}), which is never run for a scorer: "
            f"name a classifier that transformers {transformers.__version__} knows, or call it from a function of your "
            "own, python:MODULE:FUNCTION"
        )


def allowed() -> str:
    """What a scorer may be named, for messages."""
    return (
        "name a directory with a classifier, an id such as owner/model, detoxify:PATH, lexical, or "
        "python:MODULE:FUNCTION"
    )
