"""Neural toxicity scorers: sequence-classification models of transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from fairmend.errors import InputError, ModelError, first_line
from fairmend.language.backend.tokenizers import encode, tokenizer_description
from fairmend.language.backend.versions import own_attention
from fairmend.language.checkpoints.checkpoints import quiet_transformers
from fairmend.language.checkpoints.reading import reading
from fairmend.language.models.models import find_device, weights_digest
from fairmend.language.toxicity.classifier_checks import check_tokenizer, check_weights, max_length, prove_padding
from fairmend.language.toxicity.classifier_folders import check_folder, find_folder
from fairmend.language.toxicity.scorer import Floats, ScorerKind, score_visible

TOXIC_LABELS = ("toxicity", "toxic")

# A text that is severely toxic is toxic too, so such labels cannot exclude each other.
_NESTED_LABELS = {"severe_toxicity", "severe_toxic"}

Activation = Literal["sigmoid", "softmax"]


class ClassifierScorer:
    """Score texts by the probability that a sequence classifier gives to one label.

    Runs in single precision, longest texts first, padded to the longest text of a batch. Texts beyond the model's
    context are cut at its end. What the scores rest on is proven when it is built: the tokenizer knows words and fits
    the model, the weights are numbers, and padding changes nothing.

    Args:
        model: a sequence-classification model of transformers; moved to the device and set to evaluation.
        tokenizer: its tokenizer.
        name: of the model; the figures are labelled with it and the label.
        label: to score by; "toxicity" or "toxic" when not given. Case does not matter.
        device: "auto" for a GPU if there is one, or any name that torch knows.
        batch_size: texts per batch; halved when memory runs out.

    Raises:
        InputError: no such label or device.
        ModelError: a regression model (its output is no probability), or tokenizer and model do not fit together.
    """

    kind: ScorerKind = "classifier"
    scores_continuation_only = False

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str,
        label: str | None = None,
        device: str = "auto",
        batch_size: int = 64,
    ) -> None:
        config: Any = model.config
        labels = _labels(name, config)
        self._column = _label_column(name, labels, label)
        self.label = labels[self._column]
        self.name = f"{name}:{self.label}"
        self.activation = _activation(name, config.problem_type, labels)
        check_tokenizer(name, tokenizer, model)
        check_weights(name, model)
        self.max_length = max_length(name, tokenizer, model)
        self.batch_size = batch_size
        self.device = find_device(device)
        self._attention = str(config._attn_implementation)
        self._n_labels = len(labels)
        self._tokenizer = tokenizer
        self._model = model.to(self.device, torch.float32).eval()
        self._digest: str | None = None
        prove_padding(self.name, lambda texts: self._logits(self._encoded(texts)))

    def score(self, texts: Sequence[str]) -> Floats:
        """Toxicity of every text, shape (n_texts,), in the order of the texts; 0 for blank texts.

        Raises:
            ModelError: the model gives NaN or infinite logits, or does not run.
            torch.OutOfMemoryError: a single text does not fit.
        """
        return score_visible(texts, self._score)

    def fingerprint(self) -> dict[str, Any]:
        """The weights' digest, the label, how it is read, and the version of transformers."""
        if self._digest is None:
            self._digest = _digest(self._model, self._tokenizer)
        return {
            "kind": self.kind,
            "sha256": self._digest,
            "label": self.label,
            "activation": self.activation,
            "max_length": self.max_length,
            "dtype": "float32",
            "attention": self._attention,
            "transformers": transformers.__version__,
        }

    def _score(self, texts: list[str]) -> Floats:
        features = self._encoded(texts)
        lengths = np.array([len(row["input_ids"]) for row in features])
        if not lengths.all():
            raise ModelError(
                f"the tokenizer of {self.name} makes nothing of {texts[int(np.argmin(lengths))][:60]!r}, which has "
                "words: it needs a token for what it does not know"
            )
        order = np.argsort(-lengths, kind="stable")
        scores = np.empty(len(texts))
        start = 0
        while start < len(order):
            rows = order[start : start + self.batch_size]
            try:
                logits = self._logits([features[row] for row in rows])
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                self.batch_size = len(rows) // 2
                continue
            scores[rows] = self._probabilities(logits)
            start += len(rows)
        return scores

    def _encoded(self, texts: list[str]) -> list[dict[str, list[int]]]:
        encoded = encode(self.name, self._tokenizer, texts, truncation=True, max_length=self.max_length)
        return [{key: encoded[key][row] for key in encoded} for row in range(len(texts))]

    @torch.inference_mode()
    def _logits(self, features: list[dict[str, list[int]]]) -> torch.Tensor:
        """Finite logits of every label, (n_texts, n_labels), in double precision on the CPU."""
        try:
            padded = self._tokenizer.pad(features, return_tensors="pt").to(self.device)
            logits: torch.Tensor = self._model(**padded).logits.double().cpu()
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ModelError(
                f"the scorer {self.name} does not run with transformers {transformers.__version__} "
                f"({type(error).__name__}: {first_line(error)}): check that model and tokenizer belong together, and "
                "that this version of transformers supports them"
            ) from error
        if logits.shape != (len(features), self._n_labels):
            raise ModelError(
                f"the scorer {self.name} gives logits of shape {tuple(logits.shape)}, expected "
                f"{(len(features), self._n_labels)}: one for each label of its config.json"
            )
        broken = int((~logits.isfinite()).any(dim=1).sum())
        if broken:
            raise ModelError(
                f"the scorer {self.name} gave NaN or infinite logits for {broken} of {len(features)} texts: its "
                f"weights are damaged, or need another version of transformers than {transformers.__version__}"
            )
        return logits

    def _probabilities(self, logits: torch.Tensor) -> Floats:
        probabilities = torch.sigmoid(logits) if self.activation == "sigmoid" else torch.softmax(logits, dim=-1)
        scores: Floats = probabilities[:, self._column].numpy()
        return scores


def load_classifier(
    source: str,
    *,
    label: str | None = None,
    device: str = "auto",
    batch_size: int = 64,
    revision: str | None = None,
) -> ClassifierScorer:
    """Load a sequence-classification model of transformers from the hub, its cache or a local directory.

    Code that lies beside the model is not run, and no pickle is read.

    Raises:
        ArtifactError: neither cached nor reachable.
        InputError: no such directory, or no such label.
        ModelError: not a trained classifier, damaged, incomplete, or it would run code.
    """
    folder, is_own = find_folder(source, revision)
    where = str(folder) if is_own else source
    check_folder(folder, where)
    model, tokenizer = _read(folder, where)
    name = folder.resolve().name.encode(errors="replace").decode() if is_own else source
    return ClassifierScorer(model, tokenizer, name=name, label=label, device=device, batch_size=batch_size)


def _read(folder: Path, where: str) -> tuple[nn.Module, Any]:
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    special: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    load: Any = AutoModelForSequenceClassification.from_pretrained
    with quiet_transformers(), reading(where, "its configuration, tokenizer or weights"):
        special["config"] = own_attention(AutoConfig.from_pretrained(folder, **options))
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model, info = load(folder, **special, **options)
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
    return model, tokenizer


def _labels(name: str, config: Any) -> list[str]:
    """The labels in the order of the logits."""
    found = config.id2label
    if set(found) != set(range(config.num_labels)) or not all(isinstance(label, str) for label in found.values()):
        raise ModelError(
            f"{name} has the labels {str(found)[:80]} in its config.json: id2label must name every number from 0 to "
            f"{config.num_labels - 1} once"
        )
    return [found[number] for number in range(config.num_labels)]


def _label_column(name: str, labels: Sequence[str], label: str | None) -> int:
    lower = [known.lower() for known in labels]
    if label in labels:
        return labels.index(label)
    for wanted in TOXIC_LABELS if label is None else (label.lower(),):
        if lower.count(wanted) > 1:
            raise InputError(f"the scorer {name} has several labels {wanted!r}: name one of {', '.join(labels)}")
        if wanted in lower:
            return lower.index(wanted)
    asked = f"no label {label!r}" if label is not None else f"no label {' or '.join(map(repr, TOXIC_LABELS))}"
    raise InputError(f"the scorer {name} has {asked}; choose one of its labels by name: {', '.join(labels)}")


def _activation(name: str, problem_type: str | None, labels: Sequence[str]) -> Activation:
    if problem_type == "regression":
        raise ModelError(f"{name} is a regression model: its output is no probability; name a classifier")
    if problem_type == "multi_label_classification" or len(labels) == 1:
        return "sigmoid"
    if problem_type is None and _NESTED_LABELS & {label.lower() for label in labels}:
        return "sigmoid"
    return "softmax"


def _digest(model: nn.Module, tokenizer: Any) -> str:
    """SHA-256 over weights and tokenizer: where they were loaded from does not matter."""
    return hashlib.sha256(f"{weights_digest(model)} {tokenizer_description(tokenizer)}".encode()).hexdigest()
