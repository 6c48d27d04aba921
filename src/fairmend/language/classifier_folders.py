"""Where a toxicity classifier lies: a directory in the format of transformers, here or out of the hub's cache.

It is somebody else's. What runs code (custom classes, pickled weights) is refused, and so is what transformers would
read in part or make up: no tokenizer, an adapter beside its base, quantised weights.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import transformers
from safetensors import safe_open
from transformers import CONFIG_MAPPING

from fairmend.errors import ArtifactError, InputError, ModelError
from fairmend.language.checkpoint_files import check_tokenizer_files, check_weights, read_json
from fairmend.language.tokenizers import check_readers

DESCRIPTION_FILES = ("*.json", "*.txt", "*.model")
"""Of a repository: configuration and tokenizer. Never code, never pickles."""

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


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
        raise InputError(f"no scorer at {source!r}: {_allowed()}")
    if ":" in source:
        hint = f"a function of your own is named python:{source}; " if source.count(":") == 1 else ""
        raise InputError(f"no scorer is named {source!r}: {hint}{_allowed()}")
    at = "" if revision is None else f" --revision {revision}"
    remedy = (
        f"On a machine with network run: hf download {source}{at}; or name a directory that holds it, a local Detoxify "
        "checkpoint (detoxify:PATH), or the offline scorer lexical"
    )
    return fetch_folder(source, revision, (*DESCRIPTION_FILES, "*.safetensors"), remedy), False


def fetch_folder(name: str, revision: str | None, files: tuple[str, ...], remedy: str) -> Path:
    """The snapshot of a repository in the hub's cache, with `files` at its top level; `remedy` ends the error.

    Raises:
        InputError: `name` cannot be an id of the hub, or there is no such revision.
        ArtifactError: neither cached nor reachable, or the cache cannot be written.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(files), ignore_patterns="*/*"
        )
        return Path(folder)
    except errors.HFValidationError as error:
        raise InputError(f"{name!r} cannot be a Hugging Face id ({first_line(error)}): {_allowed()}") from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name} has no revision {revision!r}: name a branch, tag or commit") from error
    except OSError as error:
        if error.errno in _UNWRITABLE:
            raise ArtifactError(
                f"the cache of Hugging Face, {constants.HF_HUB_CACHE}, cannot be written ({error.strerror}): free "
                "space there, or name another folder in the environment variable HF_HOME"
            ) from error
        raise ArtifactError(
            f"{name} is not in the local cache and could not be fetched: {first_line(error)}. {remedy}"
        ) from error
    except Exception as error:  # errors of the HTTP library beneath, which is another one in every other release
        raise ArtifactError(
            f"{name} could not be fetched by huggingface_hub {huggingface_hub.__version__} "
            f"({type(error).__name__}: {first_line(error)}). {remedy}"
        ) from error


def check_folder(folder: Path, where: str, n_tensors: int | None = None) -> None:
    """Refuse a directory that transformers would not read whole, or only by running code.

    Args:
        folder: the directory.
        where: what the messages call it.
        n_tensors: of the weights where these lie elsewhere; None where they lie in the directory.

    Raises:
        ModelError: names the file and the remedy.
    """
    pipes = [path.name for path in folder.iterdir() if path.exists() and not (path.is_file() or path.is_dir())]
    if pipes:
        raise ModelError(f"{where} holds {pipes[0]}, which is a pipe, a socket or a device: remove it")
    config = read_json(folder / "config.json")
    if config is None:
        raise ModelError(f"{where} has no config.json, so it is no classifier of transformers: name its directory")
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{where} holds an adapter (adapter_config.json), whose base would be scored without it or fetched from "
            "elsewhere: merge it with merge_and_unload() of peft, save the whole with save_pretrained and name that"
        )
    if config.get("quantization_config") is not None:
        raise ModelError(f"{where} is quantised: save it in single or half precision with save_pretrained")
    _refuse_code(config, read_json(folder / "tokenizer_config.json") or {}, where)
    check_tokenizer_files(folder)
    check_readers(folder, where)
    if n_tensors is None:
        # Some other file named in the configuration would be read in the place of the safetensors checked here.
        if config.get("transformers_weights") is not None:
            raise ModelError(
                f"{where} names its weights {config['transformers_weights']!r} in config.json: only model.safetensors "
                "is read, as save_pretrained writes it"
            )
        _refuse_pickles(folder, where)
        check_weights(folder)
        n_tensors = _n_tensors(folder)
    for key, value in config.items():
        if key.endswith(("layers", "n_layer")) and isinstance(value, int) and value > n_tensors:
            raise ModelError(f"{where} says {key} = {value:,} in config.json, but has {n_tensors} tensors: correct it")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, and the next where it only announces it: those of libraries are long."""
    lines = [line.strip(" .") for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _local(source: str) -> Path | None:
    try:
        path = Path(source).expanduser()
        if source and path.is_dir():
            return path
        is_other = bool(source) and path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, the home of nobody
        raise InputError(f"no scorer at {source[:80]!r} ({first_line(error)}): {_allowed()}") from error
    if is_other:
        raise InputError(f"{source!r} is no directory: {_allowed()}")
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


def _refuse_pickles(folder: Path, where: str) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for suffix in ("bin", "pt", "pth", "ckpt") for path in folder.glob(f"*.{suffix}"))
    if pickles:
        raise ModelError(
            f"{where} holds its weights as {', '.join(pickles[:3])} only, which can run code when it is read and is "
            "not loaded. Where you trust its origin, write it again as safetensors and name the new directory: "
            'python -c "from transformers import AutoModelForSequenceClassification as M, AutoTokenizer as T; '
            "M.from_pretrained('OLD').save_pretrained('NEW'); T.from_pretrained('OLD').save_pretrained('NEW')\""
        )


def _n_tensors(folder: Path) -> int:
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            total += len(file.keys())
    return total


def _allowed() -> str:
    return (
        "name a directory with a classifier, an id such as owner/model, detoxify:PATH, lexical, or "
        "python:MODULE:FUNCTION"
    )
