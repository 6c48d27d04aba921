"""Toxicity classifiers on disk: in the format of transformers, here or out of the hub, and Detoxify's files.

They are somebody else's. What runs code (custom classes, pickles) is refused, and so is what transformers would read in
part or make up: no tokenizer, an adapter beside its base, quantised weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from fairmend.errors import InputError, ModelError, first_line
from fairmend.language.backend.stored_formats import quantisation_of
from fairmend.language.backend.tokenizers import check_readers
from fairmend.language.backend.versions import own_attention
from fairmend.language.checkpoints.checkpoints import (
    check_adapter,
    check_kinds,
    check_sizes,
    check_tokenizer_files,
    check_weights,
    quiet_transformers,
    read_json,
)
from fairmend.language.checkpoints.reading import reading
from fairmend.language.checkpoints.sources import fetch_snapshot

_DESCRIPTION = ("*.json", "*.txt", "*.model")  # configuration and tokenizer; never code, never pickles
_KIND = "SequenceClassification"
_UNTRUSTED: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
_ALLOWED = (
    "name a directory with a classifier, an id such as owner/model, detoxify:PATH, lexical, toxblock, or "
    "python:MODULE:FUNCTION"
)

# What Detoxify itself renames, so that all its models share their words.
_RENAMED = {"toxic": "toxicity", "identity_hate": "identity_attack", "severe_toxic": "severe_toxicity"}


class Classifier(NamedTuple):
    """A sequence-classification model of transformers, its tokenizer, and what it is called."""

    model: nn.Module
    tokenizer: Any
    name: str


def read_classifier(source: str, revision: str | None = None) -> Classifier:
    """Read a sequence-classification model of transformers from the hub, its cache or a local directory.

    Code that lies beside the model is not run, and no pickle is read.

    Raises:
        ArtifactError: neither cached nor reachable.
        InputError: neither a directory nor an id of the hub.
        ModelError: not a trained classifier, damaged, incomplete, or it would run code.
    """
    folder, where, name = _local(source), source, source
    if folder is None:
        folder = _from_hub(source, revision)
    elif revision is not None:
        raise InputError(f"{source} is a directory, which has no revisions, got {revision!r}: leave it out")
    else:
        where, name = str(folder), folder.resolve().name.encode(errors="replace").decode()
    check_folder(folder, where)
    load: Any = AutoModelForSequenceClassification.from_pretrained
    with quiet_transformers(), reading(where, "its configuration, tokenizer or weights"):
        options = {"config": own_attention(AutoConfig.from_pretrained(folder, **_UNTRUSTED)), "use_safetensors": True}
        tokenizer = AutoTokenizer.from_pretrained(folder, **_UNTRUSTED)
        model, info = load(folder, dtype=torch.float32, output_loading_info=True, **options, **_UNTRUSTED)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{where} is not a trained sequence classifier: its file lacks {', '.join(missing[:4])}. A language model "
            "has no classification head: name a classifier"
        )
    # A pooler that the head does not read, and another head, change nothing; a layer of the body left out would.
    prefix = f"{model.base_model_prefix}."
    unread = [key for key in sorted(info["unexpected_keys"]) if key.startswith(prefix) and ".pooler." not in key]
    if unread:
        raise ModelError(
            f"{where} holds weights that {type(model).__name__} of transformers {transformers.__version__} does not "
            f"read, such as {', '.join(unread[:4])}: its config.json belongs to another model"
        )
    return Classifier(model, tokenizer, name)


def read_detoxify(checkpoint: str) -> Classifier:
    """Read a checkpoint file of Detoxify (Hanu and Unitary 2020), such as toxic_debiased-c7548aa0.ckpt.

    The file holds the weights, the labels and the name of the architecture. The architecture's config.json and
    tokenizer files are taken from beside the checkpoint when a config.json lies there, else from the hub or its cache.
    Weights are read without running code of the file.

    Raises:
        InputError: no such file.
        ModelError: the file is damaged, is no checkpoint of Detoxify, or would run code.
        ArtifactError: config and tokenizer are neither beside it nor cached nor reachable.
    """
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise InputError(f"no Detoxify checkpoint at {checkpoint!r}: name a file as detoxify:PATH")
    labels, architecture, weights = _read_checkpoint(path)
    folder, where = path.parent, str(path.parent)
    if not (folder / "config.json").is_file():
        where = architecture
        by_hand = (
            f"The checkpoint {path.name} needs config.json and the tokenizer files of {architecture}: put them beside "
            f"the checkpoint, or fetch them once with: hf download {architecture} --exclude '*.safetensors' '*.bin' "
            "'*.h5' '*.msgpack' '*.ot'"
        )
        folder = fetch_snapshot(architecture, None, _DESCRIPTION, _ALLOWED, by_hand)
    check_folder(folder, where, n_tensors=len(weights))
    make: Any = AutoModelForSequenceClassification.from_config
    with quiet_transformers(), reading(where, "its configuration or tokenizer"):
        config = own_attention(AutoConfig.from_pretrained(folder, **_UNTRUSTED))
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: number for number, name in enumerate(labels)}
        config.problem_type = "multi_label_classification"
        tokenizer = AutoTokenizer.from_pretrained(folder, **_UNTRUSTED)
        model = make(config, trust_remote_code=False)
    misfit = f"{path.name} does not fit the architecture of {where} in transformers {transformers.__version__}"
    try:
        loaded = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{misfit}: {first_line(error)}") from error
    foreign = [key for key in loaded.unexpected_keys if not _is_positions(key, weights[key])]
    if loaded.missing_keys or foreign:
        wrong = [f"lacks {key}" for key in loaded.missing_keys] + [f"has {key} too many" for key in foreign]
        raise ModelError(f"{misfit}: it {'; '.join(wrong[:4])}")
    return Classifier(model, tokenizer, f"detoxify:{path.name}")


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
        raise InputError(f"no scorer at {source[:80]!r} ({first_line(error)}): {_ALLOWED}") from error
    if is_other:
        raise InputError(f"{source!r} is no directory: {_ALLOWED}")
    return None


def _from_hub(source: str, revision: str | None) -> Path:
    if not source or source.count("/") > 1 or source.startswith((".", "~", "/")) or not source.isprintable():
        raise InputError(f"no scorer at {source!r}: {_ALLOWED}")
    if ":" in source:
        hint = f"a function of your own is named python:{source}; " if source.count(":") == 1 else ""
        raise InputError(f"no scorer is named {source!r}: {hint}{_ALLOWED}")
    at = "" if revision is None else f" --revision {revision}"
    by_hand = (
        f"On a machine with network run: hf download {source}{at}; or name a directory that holds it, a local Detoxify "
        "checkpoint (detoxify:PATH), or the offline scorer lexical or toxblock"
    )
    return fetch_snapshot(source, revision, (*_DESCRIPTION, "*.safetensors"), _ALLOWED, by_hand)


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


def _is_positions(key: str, found: torch.Tensor) -> bool:
    """Whether an entry is the buffer 0, 1, 2, ... that older versions of transformers saved."""
    return key.endswith(".position_ids") and torch.equal(found.flatten().cpu(), torch.arange(found.numel()))


def _read_checkpoint(path: Path) -> tuple[list[str], str, Mapping[str, torch.Tensor]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file makes the reader raise anything; its text advises to trust it
        raise ModelError(
            f"{path.name} cannot be read as tensors and plain data only, so it was not read at all "
            f"({type(error).__name__} of torch {torch.__version__}). Take the published file of Detoxify, or the same "
            "model from the hub: unitary/unbiased-toxic-roberta"
        ) from error
    labels = _entry(path, content, "config", "dataset", "args", "classes")
    architecture = _entry(path, content, "config", "arch", "args", "model_type")
    weights = _entry(path, content, "state_dict")
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise ModelError(f"{path.name} is no checkpoint of Detoxify: its classes must be a list of names")
    if not isinstance(architecture, str):
        raise ModelError(f"{path.name} is no checkpoint of Detoxify: its model_type must be a name")
    if not isinstance(weights, Mapping) or not all(
        isinstance(key, str) and isinstance(weight, torch.Tensor) for key, weight in weights.items()
    ):
        raise ModelError(f"{path.name} is no checkpoint of Detoxify: a state_dict without tensors")
    return [str(_RENAMED.get(name, name)) for name in labels], architecture, weights


def _entry(path: Path, content: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            raise ModelError(
                f"{path.name} is no checkpoint of Detoxify: it has no {key!r}; needed are config.dataset.args.classes, "
                "config.arch.args.model_type and state_dict"
            )
        content = content[key]
    return content
