"""Toxicity scorers from checkpoint files of Detoxify."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from fairmend.errors import InputError, ModelError, first_line
from fairmend.language.backend.versions import own_attention
from fairmend.language.checkpoints.checkpoints import quiet_transformers
from fairmend.language.checkpoints.reading import reading
from fairmend.language.checkpoints.sources import fetch_snapshot
from fairmend.language.toxicity.classifier_folders import DESCRIPTION_FILES, allowed, check_folder
from fairmend.language.toxicity.classifiers import ClassifierScorer

# What Detoxify itself renames, so that all its models share their words.
_RENAMED = {"toxic": "toxicity", "identity_hate": "identity_attack", "severe_toxic": "severe_toxicity"}


def load_detoxify(
    checkpoint: str, *, label: str | None = None, device: str = "auto", batch_size: int = 64
) -> ClassifierScorer:
    """Load a checkpoint file of Detoxify (Hanu and Unitary 2020), such as toxic_debiased-c7548aa0.ckpt.

    The file holds the weights, the labels and the name of the architecture. The architecture's config.json and
    tokenizer files are taken from beside the checkpoint when a config.json lies there, else from the hub or its cache.
    Weights are read without running code of the file.

    Raises:
        InputError: no such file or label.
        ModelError: the file is damaged, is no checkpoint of Detoxify, or would run code.
        ArtifactError: config and tokenizer are neither beside it nor cached nor reachable.
    """
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise InputError(f"no Detoxify checkpoint at {checkpoint!r}: name a file as detoxify:PATH")
    labels, architecture, weights = _read_checkpoint(path)
    folder = path.parent if (path.parent / "config.json").is_file() else _fetched(path, architecture)
    where = str(folder) if folder == path.parent else architecture
    check_folder(folder, where, n_tensors=len(weights))
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    make: Any = AutoModelForSequenceClassification.from_config
    with quiet_transformers(), reading(where, "its configuration or tokenizer"):
        config = own_attention(AutoConfig.from_pretrained(folder, **options))
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: number for number, name in enumerate(labels)}
        config.problem_type = "multi_label_classification"
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
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
    return ClassifierScorer(
        model, tokenizer, name=f"detoxify:{path.name}", label=label, device=device, batch_size=batch_size
    )


def _fetched(path: Path, architecture: str) -> Path:
    by_hand = (
        f"The checkpoint {path.name} needs config.json and the tokenizer files of {architecture}: put them beside the "
        f"checkpoint, or fetch them once with: hf download {architecture} --exclude '*.safetensors' '*.bin' '*.h5' "
        "'*.msgpack' '*.ot'"
    )
    return fetch_snapshot(architecture, None, DESCRIPTION_FILES, allowed(), by_hand)


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
