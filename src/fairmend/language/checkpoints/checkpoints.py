"""What a checkpoint on disk holds: the files that transformers reads, and those it would pass by in silence.

Everything that can be refused without reading the weights is refused here; only JSON and the headers of safetensors
files are read.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairmend.errors import ModelError
from fairmend.files import parse_json
from fairmend.language.backend.stored_formats import check_quantisation

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

_ADAPTER = "adapter_config.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_OTHER_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
_LAYERS = re.compile(r"(n|num)_((hidden|decoder)_)?(layer|block)s?|block_count")
_FEW_LAYERS = 128  # built in a moment, whatever the weights are


@dataclass(frozen=True)
class Contents:
    """What a directory with a checkpoint holds, as far as it can be told without reading its weights.

    Attributes:
        config: its config.json.
        read: names of the safetensors files that transformers reads.
        unread: names of the other files of weights beside them.
        dtypes: how each tensor is stored, as safetensors calls it ("F32", "BF16"), by its name.
    """

    config: Mapping[str, Any]
    read: tuple[str, ...]
    unread: tuple[str, ...]
    dtypes: Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, checked as far as that is possible without reading its weights.

    Attributes:
        path: a directory in the format of transformers, or a GGUF file.
        source: where it is from, in words.
        revision: commit of the Hugging Face repository, None for local files.
        licence: what its model card says, None when it says nothing.
        delta: a file of low-rank factors to add to the weights, see `planted.add_low_rank`.
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
    contents = check_weights(folder, config)
    check_quantisation(folder, config, contents.dtypes)
    check_sizes(config, len(contents.dtypes), folder)
    check_tokenizer_files(folder)
    return contents


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


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no file.

    Raises:
        ModelError: it is not JSON, not UTF-8, nested too deeply, or no object.
    """
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, MemoryError) as error:  # also bytes that are not UTF-8
        raise ModelError(f"{path} is not valid JSON ({str(error) or type(error).__name__}): fetch it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {type(content).__name__}, not an object: fetch it again")
    return content


def check_kinds(folder: Path) -> None:
    """Refuse a directory with a pipe or a device in it: reading it would wait for ever.

    Raises:
        ModelError: names it.
    """
    for path in sorted(folder.iterdir()):
        mode = path.stat().st_mode if path.exists() else stat.S_IFREG  # a dangling link is no file for anybody
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ModelError(f"{path} is neither a file nor a directory but a pipe, socket or device: remove it")


def check_adapter(folder: Path, kind: str = "CausalLM") -> None:
    """Refuse the directory of an adapter, and one with an adapter beside the weights that it is added to.

    Raises:
        ModelError: how to merge it.
    """
    weights = sorted(path.name for path in folder.glob("adapter_model*"))
    if not (folder / _ADAPTER).exists() and not weights:
        return
    config = read_json(folder / _ADAPTER) or {}
    base = str(config.get("base_model_name_or_path") or "BASE")[:200]
    beside = any((folder / name).exists() for name in (WEIGHTS, INDEX))
    raise ModelError(
        f"{folder} holds an adapter ({', '.join([_ADAPTER] * bool(config) + weights)}; "
        f"{str(config.get('peft_type') or 'kind not stated')[:40]}) of {base}"
        + (" beside a model, to which transformers adds it only where peft is installed" if beside else ", not a model")
        + ". Merge it and give the result: in Python, with peft installed, "
        f"PeftModel.from_pretrained(AutoModelFor{kind}.from_pretrained({base!r}), {str(folder)!r})"
        ".merge_and_unload().save_pretrained('merged'), and save_pretrained the tokenizer there too"
        + (". To take the model without it, move the adapter's files away" if beside else "")
    )


def check_tokenizer_files(folder: Path) -> None:
    """Refuse a directory without a tokenizer: transformers would make up an empty one.

    Raises:
        ModelError: there is none.
    """
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer ({', '.join(_TOKENIZER_FILES)}): save it beside the model")


def check_weights(folder: Path, config: Mapping[str, Any], kind: str = "CausalLM") -> Contents:
    """Find the weights that transformers reads; refuse missing, pickled, damaged and contradictory ones.

    Args:
        folder: of the checkpoint.
        config: its config.json.
        kind: of model, as transformers calls it.

    Raises:
        ModelError: names the file and the remedy.
    """
    elsewhere = config.get("transformers_weights")
    if elsewhere not in (None, WEIGHTS, INDEX):
        raise ModelError(
            f"{folder}: its config.json names other weights than {WEIGHTS} (transformers_weights={elsewhere!r}): give "
            "the file that name and take the entry out"
        )
    index = read_json(folder / INDEX)
    placed = {} if index is None else _placed(index, folder)
    missing = sorted({name for name in placed.values() if not (folder / name).is_file()})
    if missing:
        raise ModelError(f"{folder} lacks {', '.join(missing)}, which its index names: fetch the missing files")
    present = sorted(path.name for path in folder.glob("*.safetensors") if path.is_file())
    if not present:
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        found = f"only {', '.join(pickles)}" if pickles else "no weights"
        raise ModelError(
            f"{folder} holds no safetensors file, {found}. Pickled weights can run code when they are read and are not "
            "loaded. Where you trust their origin, write them again as safetensors and name the new directory: "
            f'python -c "from transformers import AutoModelFor{kind} as M, AutoTokenizer as T; '
            "M.from_pretrained('OLD').save_pretrained('NEW'); T.from_pretrained('OLD').save_pretrained('NEW')\""
        )
    shards = sorted(set(placed.values()))
    if WEIGHTS in present and index is not None and shards != [WEIGHTS]:
        raise ModelError(
            f"{folder} holds two sets of weights, {WEIGHTS} and the shards of {INDEX}, and transformers reads the "
            "first only: remove the one that is not meant"
        )
    read = [WEIGHTS] if WEIGHTS in present else shards
    if not read:
        raise ModelError(
            f"{folder} has neither {WEIGHTS} nor {INDEX}, by which transformers finds weights, only "
            f"{', '.join(present)}: give the file its name back, or write the model with save_pretrained"
        )
    stray = [name for name in present if name not in read and _SHARD.fullmatch(name)]
    if stray:
        raise ModelError(
            f"{folder} holds {', '.join(stray)}, which {INDEX if index is not None else WEIGHTS} does not go with, so "
            "that they would not be read: fetch the index again, or remove them if they are left from another model"
        )
    dtypes = _headers(folder, read, placed if WEIGHTS not in read else {})
    others = {path.name for pattern in _OTHER_WEIGHTS for path in folder.glob(pattern) if path.is_file()}
    return Contents(config, tuple(read), tuple(sorted(others - set(read))), dtypes)


def check_sizes(config: Mapping[str, Any], n_tensors: int, where: object) -> None:
    """Refuse a configuration with more layers than the files have tensors: building them could take for ever.

    Raises:
        ModelError: names the entry.
    """
    waiting: list[Mapping[str, Any]] = [config]
    while waiting:
        part = waiting.pop()
        for name, value in part.items():
            if isinstance(value, dict):
                waiting.append(value)
            elif _LAYERS.fullmatch(name) and isinstance(value, int | float) and value > max(n_tensors, _FEW_LAYERS):
                raise ModelError(
                    f"{where}: its configuration says {name}={value}, but its files hold {n_tensors} tensors: they do "
                    "not belong together"
                )


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


def _placed(index: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The file of every tensor, as the index has it."""
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise ModelError(f"{folder / INDEX} has no weight_map of tensors to files: fetch it again")
    outside = sorted({name for name in placed.values() if name in ("", ".", "..") or re.search(r"[/\\\0]", name)})
    if outside:
        raise ModelError(f"{folder / INDEX} names {outside[0]!r}, which is not a file of its directory: fetch it again")
    return placed


def _headers(folder: Path, names: list[str], placed: Mapping[str, str]) -> dict[str, str]:
    """The dtype of every tensor in the files, which must be those that the index places there, if there is one."""
    from safetensors import SafetensorError, safe_open

    dtypes: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in names:
        file = folder / name
        try:
            with safe_open(file, framework="numpy") as opened:
                found = {key: str(opened.get_slice(key).get_dtype()) for key in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{file} is damaged or truncated ({error}; {file.stat().st_size:,} bytes): fetch it again"
            ) from error
        twice = sorted(owner.keys() & found.keys())
        if twice:
            raise ModelError(f"{folder} holds {twice[0]} twice, in {owner[twice[0]]} and in {name}: fetch it again")
        dtypes |= found
        owner |= dict.fromkeys(found, name)
    differing = sorted(key for key in owner.keys() | placed.keys() if owner.get(key) != placed.get(key))
    if placed and differing:
        first = differing[0]
        raise ModelError(
            f"{folder / INDEX} and the files beside it disagree about {len(differing)} tensors, the first is {first}: "
            f"the index places it in {placed.get(first, 'no file')}, and {owner.get(first, 'no file')} holds it. Fetch "
            "them again, or write the model anew with save_pretrained"
        )
    return dtypes
