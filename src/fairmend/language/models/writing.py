"""What is saved is what was measured: a checkpoint is written, loaded again by plain transformers and compared."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn

from fairmend.artifacts import staging
from fairmend.errors import InputError, ModelError, RunError, first_line
from fairmend.files import hold, sweep
from fairmend.language.backend.stored_formats import in_storage
from fairmend.language.checkpoints.checkpoints import quiet_transformers
from fairmend.language.heads.folding import require_foldable
from fairmend.language.models.models import LanguageModel
from fairmend.runs.directories import RUN

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXT = "Two people met. “It's 12 % off,” she said; he wrote: naïve & new_line\n\tend."
"""What the tokenizer is compared on."""

N_TOKENS = 64
_TOLERANCE = {torch.float32: 1e-4}  # of the largest logit; sums of a sliced model have another order
_TOLERANCE_OF_HALF = 5e-2


def is_new(directory: str | Path) -> bool:
    """Whether a checkpoint may be written there: no such directory, or an empty one.

    What killed processes left unfinished there is removed; what a living one is writing counts as content.
    """
    target = Path(directory)
    if not target.is_dir():
        return not (target.exists() or target.is_symlink())
    sweep(target)
    return not any(target.iterdir())


def require_new(directory: str | Path) -> None:
    """Refuse a directory that has something in it: the one rule for all that write checkpoints.

    Raises:
        RunError: it has, or it is a file.
    """
    if not is_new(directory):
        run = "a run of fairmend, which stays as it is" if (Path(directory) / RUN).exists() else "no run of fairmend"
        raise RunError(f"{directory} is not empty and holds {run}: choose a new or empty directory as --out")


@contextmanager
def unfinished(beside: Path, remedy: str) -> Iterator[Path]:
    """Yield an empty folder inside `beside` that counts as in use as long as this process works on it, see `is_new`.

    Raises:
        ArtifactError: see `staging`.
    """
    with staging(beside, remedy) as folder, ExitStack() as ending:
        if sys.platform != "win32":
            handle = os.open(folder, os.O_RDONLY)
            ending.callback(os.close, handle)
            hold(handle)
        yield folder


def require_savable(lm: LanguageModel) -> None:
    """Refuse, before hours of search, a model that could not be saved at their end.

    Its configuration and tokenizer are written and read again; its weights are not.

    Raises:
        ModelError: transformers refuses to write them, reads another tokenizer back, or weights that cannot be edited.
        ArtifactError: there is no room for a few small files in the folder for temporary ones.
    """
    require_foldable(lm.model, lm.head_map)
    with staging(Path(tempfile.gettempdir()), "Free space there, or name another folder in TMPDIR") as part:
        try:
            with quiet_transformers():
                lm.model.config.save_pretrained(part)
                if lm.model.can_generate():
                    lm.model.generation_config.save_pretrained(part)
                lm.tokenizer.save_pretrained(part)
                same = same_tokens(lm.tokenizer, _load(lm.tokenizer, transformers.AutoTokenizer, part))
        except (ValueError, RuntimeError, TypeError, KeyError) as error:
            raise ModelError(
                f"{lm.name} could not be saved after its repair: transformers {transformers.__version__} refuses its "
                f"configuration or tokenizer ({type(error).__name__}: {first_line(error)}). Mend them in its files, or "
                "try another release of transformers"
            ) from error
    if not same:
        raise ModelError(
            f"{lm.name} could not be saved after its repair: transformers {transformers.__version__} reads another "
            "tokenizer back than the one it wrote. Take a tokenizer.json for it, or another release of transformers"
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
        unharmed = f"Nothing was put into {target}; the model itself is as it was"
        write_proven(lm, saved, state, logits_of(saved, lm), part, unharmed)
        for name, text in (files or {}).items():
            (part / name).write_text(text, encoding="utf-8")
        if target.is_dir():
            target.rmdir()
        os.replace(part, target)
    return target


def write_proven(
    lm: LanguageModel, model: PreTrainedModel, state: Mapping[str, Tensor], wanted: Tensor, part: Path, unharmed: str
) -> None:
    """Write configuration, weights and tokenizer into a directory, load them with plain transformers and compare.

    Every weight is compared, logits on a few tokens, and tokens. Weights are in the formats of their checkpoint.

    Args:
        lm: the tokenizer, how the weights are stored, and where and in which number format was measured.
        model: whose configuration is written.
        state: its tensors by name, as they were measured.
        wanted: from `logits_of`, of the masked model.
        part: the directory; made if it does not exist.
        unharmed: what is kept if it is not the same, for messages.

    Raises:
        ModelError: transformers refuses to write the model, or what was written is not what was measured.
        OSError: it cannot be written, or the disk is full.
    """
    _write(lm, model, state, part)
    wrong = _difference(lm, model, state, wanted, part)
    if wrong:
        raise ModelError(
            f"the checkpoint as written is not the model that was measured: {wrong} (transformers "
            f"{transformers.__version__}). {unharmed}"
        )


def logits_of(model: nn.Module, lm: LanguageModel) -> Tensor:
    """The model's logits on a few fixed tokens, `(1, n_tokens, vocabulary)`, as float32."""
    n_tokens = min(N_TOKENS, lm.context)
    ids = (torch.arange(n_tokens, device=lm.device) * 7919 + 11) % lm.vocabulary
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids[None]).logits.float()
    return logits


def relative_change(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of two tensors, as a part of the second one's largest number."""
    return float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max().clamp_min(1e-30))


def allowed_change(lm: LanguageModel) -> float:
    """How much rounding may change logits and weights of a model, as `relative_change` counts."""
    return _TOLERANCE.get(getattr(torch, lm.dtype), _TOLERANCE_OF_HALF)


def _write(lm: LanguageModel, model: PreTrainedModel, state: Mapping[str, Tensor], part: Path) -> None:
    stored = None if lm.storage is None else in_storage(state, lm.storage)
    try:
        with quiet_transformers(), torch.no_grad():
            model.save_pretrained(part, state_dict=dict(state) if stored is None else stored)
            lm.tokenizer.save_pretrained(part)
    except SafetensorError as error:  # a full disk, mostly
        raise OSError(first_line(error)) from error
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"transformers {transformers.__version__} refuses to save this {type(model).__name__} "
            f"({type(error).__name__}: {first_line(error)}): its masks still work"
        ) from error
    config = part / "config.json"
    if stored is not None and lm.storage is not None:
        described = json.loads(config.read_bytes())
        _declare(described, lm.storage.declared)
        config.write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    mode = config.stat().st_mode & 0o777  # as the umask has it; weights are written for nobody else to read
    for path in part.iterdir():
        if path.is_file():
            path.chmod(mode)


def _difference(
    lm: LanguageModel, model: PreTrainedModel, state: Mapping[str, Tensor], wanted: Tensor, part: Path
) -> str:
    """What of a written checkpoint is not as it was measured, in words; "" if all is."""
    formats = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    options = {
        "dtype": next(iter(formats)) if len(formats) == 1 else torch.float32,
        "attn_implementation": model.config._attn_implementation,
        "output_loading_info": True,
        "use_safetensors": True,
    }
    try:
        with quiet_transformers():
            again, report = _load(model, transformers.AutoModelForCausalLM, part, **options)
            tokenizer = _load(lm.tokenizer, transformers.AutoTokenizer, part)
    except Exception as error:  # whatever the reason, it does not load
        return f"it does not load again, {type(error).__name__}: {first_line(error)}"
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report[name]:
            return f"loading it reports {len(report[name])} {name}, the first is {sorted(map(str, report[name]))[0]}"
    again = again.to(lm.device).train(False)
    found = again.state_dict()
    if found.keys() != state.keys():
        return f"it has other weights, for example {sorted(found.keys() ^ state.keys())[0]}"
    for name, tensor in state.items():
        if not torch.equal(found[name].to(tensor.dtype), tensor):
            return f"{name} has other values"
    del found
    _compute_alike(again, model)
    change, allowed = relative_change(logits_of(again, lm), wanted), allowed_change(lm)
    if not change <= allowed:
        return f"its logits differ by {change:.1e} of their size, {allowed:.0e} is allowed"
    if not same_tokens(lm.tokenizer, tokenizer):
        return "its tokenizer gives other tokens"
    return ""


def _load(written: Any, auto: Any, part: Path, **options: Any) -> Any:
    """Load with transformers' own choice of class; a class that only this process knows loads itself."""
    kind = type(written)
    known = kind.__module__.startswith(("transformers.", "transformers_modules."))
    own_code = kind.__module__.startswith("transformers_modules.")  # it ran already, by leave of the person who asked
    return (auto if known else kind).from_pretrained(part, local_files_only=True, trust_remote_code=own_code, **options)


def _compute_alike(again: nn.Module, model: nn.Module) -> None:
    """Give parameters and buffers the number formats that they were measured in, where a checkpoint mixes them."""
    measured = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in [*again.named_parameters(), *again.named_buffers()]:
        if name in measured:
            tensor.data = tensor.data.to(measured[name].dtype)


def same_tokens(ours: Any, theirs: Any, *, padded: bool = False) -> bool:
    """Whether two tokenizers give the same tokens, and have as many; the second one may be padded with unused ones."""
    texts = (TEXT, ours.decode(range(0, len(ours), max(1, len(ours) // 50))))
    return (padded or len(ours) == len(theirs)) and all(_tokens(ours, text) == _tokens(theirs, text) for text in texts)


def _tokens(tokenizer: Any, text: str) -> Any:
    try:
        return list(tokenizer(text)["input_ids"])
    except Exception as error:  # without a token for what is unknown, the library tokenizers raises just that
        return str(error)


def _declare(config: dict[str, Any], dtype: str) -> None:
    """Set the number format that a configuration names, in the parts of it too."""
    for name, value in config.items():
        if name == "dtype" and value is not None:
            config[name] = dtype
        elif isinstance(value, dict):
            _declare(value, dtype)
