"""Read a checkpoint with plain transformers: whole, dense, and with a word about what was left aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fairmend.errors import FairmendError, InputError, ModelError, first_line
from fairmend.language.backend.batching import is_out_of_memory
from fairmend.language.backend.stored_formats import Storage, make_plain, quantisation_of, storage_of, unpacking
from fairmend.language.backend.tokenizers import check_readers, check_vocabulary
from fairmend.language.backend.versions import own_attention
from fairmend.language.checkpoints.checkpoints import Checkpoint, read_json
from fairmend.language.checkpoints.planted import add_low_rank


class Read(NamedTuple):
    """What was read of a checkpoint: `LanguageModel` says what the parts are."""

    model: Any
    tokenizer: Any
    storage: Storage | None
    notes: tuple[str, ...]


def read_checkpoint(checkpoint: Checkpoint, dtype: torch.dtype, trust_remote_code: bool = False) -> Read:
    """Read a model, on the CPU, and its tokenizer with plain transformers; what is quantised is unpacked.

    Raises:
        InputError: it needs a package that is not installed.
        ModelError: transformers cannot read it, or some weights are missing or would be read in part only.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    loader: Any = AutoModelForCausalLM
    where, path, contents = checkpoint.source, checkpoint.path, checkpoint.contents
    common: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    special: dict[str, Any] = {"use_safetensors": True}
    quantised = None if contents is None else quantisation_of(contents.config)
    if checkpoint.is_gguf:
        from transformers import GgufConfig

        path, common = path.parent, common | {"gguf_file": path.name}
        special = {"quantization_config": GgufConfig(dequantize=True)}
    elif quantised is not None:
        special["quantization_config"] = unpacking(quantised, where)
    described = path if contents is not None else None
    with reading(where, "its configuration or weights", _needs_leave(described, "config.json", trust_remote_code)):
        if not checkpoint.is_gguf:
            special["config"] = own_attention(AutoConfig.from_pretrained(path, **common))
        model, report = loader.from_pretrained(path, dtype=dtype, output_loading_info=True, **special, **common)
    if described is not None:
        check_readers(described, where)
    with reading(where, "its tokenizer", _needs_leave(described, "tokenizer_config.json", trust_remote_code)):
        tokenizer = AutoTokenizer.from_pretrained(path, **common)
    check_vocabulary(where, tokenizer)
    notes = _judge_report(report, model, where)
    if checkpoint.is_gguf or quantised is not None:
        make_plain(model, dtype, where)
    if checkpoint.delta is not None:
        add_low_rank(model, checkpoint.delta)
    if contents is None:
        return Read(model, tokenizer, None, notes)
    storage = None if quantised is not None else storage_of(contents.dtypes, contents.config)
    unread = ", ".join(contents.unread)
    if unread:
        notes = (f"beside {', '.join(contents.read)} lies {unread}, which is not read", *notes)
    return Read(model, tokenizer, storage, notes)


def _needs_leave(folder: Path | None, name: str, trusted: bool) -> bool:
    """Whether a JSON file of a directory names code of its own that nobody gave leave to run."""
    return folder is not None and not trusted and "auto_map" in (read_json(folder / name) or {})


@contextmanager
def reading(where: str, part: str, needs_leave: bool = False) -> Iterator[None]:
    """Say what transformers could not read, and that it may be to blame itself, or wants leave to run code."""
    import transformers

    try:
        yield
    except FairmendError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(f"{where} needs a package that is not installed: {first_line(error)}") from error
    except ImportError as error:  # also how transformers names packages that it lacks
        raise InputError(f"{where} cannot be read with the packages installed here: {first_line(error)}") from error
    except Exception as error:  # parsers of a stranger's file raise anything, the one of tokenizers Exception itself
        if is_out_of_memory(error) or isinstance(error, MemoryError):
            raise ModelError(f"{where} does not fit the memory here: try bfloat16, or a larger machine") from error
        if needs_leave and "trust_remote_code" in str(error):
            raise ModelError(
                f"transformers cannot read {where} without the Python code that comes with {part} (auto_map), which is "
                "not run unasked: read that code, and if you trust it, give --trust-remote-code "
                "(trust_remote_code=True in Python)"
            ) from error
        raise ModelError(
            f"transformers cannot read {where}: {part} ({type(error).__name__}: {first_line(error)}). Either its files "
            f"are damaged or do not belong together: fetch them again; or this release, {transformers.__version__}, "
            "does not know the architecture or reads it in another way: try another release"
        ) from error


def _judge_report(report: Mapping[str, Any], model: Any, where: str) -> tuple[str, ...]:
    """Refuse weights that are missing or were read in part; name those that belong to nothing in the model.

    Raises:
        ModelError: names the first weight.
    """
    import transformers

    expected = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    absent = [name for name in expected if name not in report]
    if absent:
        raise ModelError(
            f"transformers {transformers.__version__} no longer reports {absent[0]} of what it loads, so that nobody "
            "can tell whether weights are missing: use a release that fairmend supports"
        )
    kind = type(model).__name__
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing:
        raise ModelError(
            f"{where} lacks {len(missing)} of the weights of {kind}, the first is {missing[0]}; they "
            "would be random. Is it a checkpoint without a language-model head?"
        )
    wrong = [*map(str, report["mismatched_keys"]), *map(str, report["error_msgs"])]
    if wrong:
        raise ModelError(f"{where} does not fit {kind}: {wrong[0][:200]}. Fetch its files again")
    leaves = {name for name, part in model.named_modules() if not list(part.children()) and list(part.parameters())}
    leaves |= {name.removeprefix(f"{model.base_model_prefix}.") for name in leaves}
    parts = [name for name in unexpected if leaves & set(accumulate(name.split(".")[:-1], "{}.{}".format))]
    if parts:
        raise ModelError(
            f"{where} holds {parts[0]}, which {kind} has no place for, although it has that layer ({len(parts)} such): "
            "the layer would compute something else than it was made for. Is it quantised, an adapter that is not "
            "merged, or does config.json switch something off (attention_bias)?"
        )
    if not unexpected:
        return ()
    return (f"{len(unexpected)} weights belong to nothing in {kind} and are not read, the first is {unexpected[0]}",)
