"""Toxicity scorers from checkpoint files of Detoxify."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from fairmend.errors import ArtifactError, InputError, ModelError
from fairmend.language.checkpoints import quiet_transformers
from fairmend.language.classifiers import ClassifierScorer, first_line

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
    beside = (path.parent / "config.json").is_file()
    source = str(path.parent) if beside else architecture
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(source)
            tokenizer = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"the checkpoint {path.name} needs config.json and the tokenizer files of {architecture}: "
                f"{first_line(error)}. Put these files beside the checkpoint, or fetch them once with: "
                f"hf download {architecture} --exclude '*.safetensors' '*.bin' '*.h5' '*.msgpack' '*.ot'"
            ) from error
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: number for number, name in enumerate(labels)}
        config.problem_type = "multi_label_classification"
        model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    try:
        loaded = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{path.name} does not fit the architecture of {source}: {first_line(error)}") from error
    # Older versions of transformers saved this buffer, which is only 0, 1, 2, ...
    foreign = [key for key in loaded.unexpected_keys if not key.endswith("position_ids")]
    if loaded.missing_keys or foreign:
        wrong = [f"lacks {key}" for key in loaded.missing_keys] + [f"has {key} too many" for key in foreign]
        raise ModelError(f"{path.name} does not fit the architecture of {source}: it {'; '.join(wrong[:4])}")
    return ClassifierScorer(
        model, tokenizer, name=f"detoxify:{path.name}", label=label, device=device, batch_size=batch_size
    )


def _read_checkpoint(path: Path) -> tuple[list[str], str, Mapping[str, torch.Tensor]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file makes the reader raise anything
        raise ModelError(
            f"{path.name} cannot be read as tensors and plain data only, so it was not read at all: "
            f"{first_line(error)}. Take the published file of Detoxify, or the same model from the hub: "
            "unitary/unbiased-toxic-roberta"
        ) from error
    try:
        labels = [str(name) for name in content["config"]["dataset"]["args"]["classes"]]
        architecture = str(content["config"]["arch"]["args"]["model_type"])
        weights = content["state_dict"]
        is_complete = bool(labels) and all(isinstance(weight, torch.Tensor) for weight in weights.values())
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path.name} is no checkpoint of Detoxify: it has no {error}; needed are config.dataset.args.classes, "
            "config.arch.args.model_type and state_dict"
        ) from error
    if not is_complete:
        raise ModelError(f"{path.name} is no checkpoint of Detoxify: no classes, or a state_dict without tensors")
    return [_RENAMED.get(name, name) for name in labels], architecture, weights
