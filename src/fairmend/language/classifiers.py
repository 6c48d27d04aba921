"""Neural toxicity scorers: sequence-classification models of transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fairmend.errors import ArtifactError, InputError, ModelError
from fairmend.language.checkpoints import quiet_transformers
from fairmend.language.toxicity import Floats, ScorerKind, score_visible

TOXIC_LABELS = ("toxicity", "toxic")

# A text that is severely toxic is toxic too, so such labels cannot exclude each other.
_NESTED_LABELS = {"severe_toxicity", "severe_toxic"}
_UNLIMITED = 1_000_000  # tokenizers that know no limit name an astronomic one

Activation = Literal["sigmoid", "softmax"]


class ClassifierScorer:
    """Score texts by the probability that a sequence classifier gives to one label.

    Runs in single precision, longest texts first, padded to the longest text of a batch. Texts beyond the model's
    context are cut at its end.

    Args:
        model: a sequence-classification model of transformers; moved to the device and set to evaluation.
        tokenizer: its tokenizer.
        name: of the model; the figures are labelled with it and the label.
        label: to score by; "toxicity" or "toxic" when not given. Case does not matter.
        device: "auto" for a GPU if there is one, or any name that torch knows.
        batch_size: texts per batch; halved when memory runs out.

    Raises:
        InputError: no such label or device.
        ModelError: a regression model: its output is no probability.
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
        labels = [config.id2label[number] for number in range(config.num_labels)]
        self._column = _label_column(name, labels, label)
        self.label = labels[self._column]
        self.name = f"{name}:{self.label}"
        self.activation = _activation(name, config.problem_type, labels)
        self.max_length = _max_length(tokenizer, config)
        self.batch_size = batch_size
        self.device = _device(device)
        self._tokenizer = tokenizer
        self._model = model.to(self.device, torch.float32).eval()
        self._digest: str | None = None

    def score(self, texts: Sequence[str]) -> Floats:
        """Toxicity of every text, shape (n_texts,), in the order of the texts; 0 for blank texts.

        Raises:
            ModelError: the model gives NaN.
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
            "transformers": transformers.__version__,
        }

    def _score(self, texts: list[str]) -> Floats:
        encoded = self._tokenizer(texts, truncation=self.max_length is not None, max_length=self.max_length)
        features = [{key: encoded[key][row] for key in encoded} for row in range(len(texts))]
        lengths = np.array([len(row["input_ids"]) for row in features])
        order = np.argsort(-lengths, kind="stable")
        scores = np.empty(len(texts))
        start = 0
        while start < len(order):
            rows = order[start : start + self.batch_size]
            try:
                scores[rows] = self._batch([features[row] for row in rows])
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                self.batch_size = len(rows) // 2
                continue
            start += len(rows)
        undefined = np.flatnonzero(np.isnan(scores))
        if undefined.size:
            raise ModelError(
                f"the scorer {self.name} gave NaN for {undefined.size} of {len(texts)} texts, the first "
                f"{texts[undefined[0]][:60]!r}: its weights are damaged, or need another version of transformers"
            )
        return scores

    @torch.inference_mode()
    def _batch(self, features: list[dict[str, list[int]]]) -> Floats:
        padded = self._tokenizer.pad(features, return_tensors="pt").to(self.device)
        logits = self._model(**padded).logits.double()
        probabilities = torch.sigmoid(logits) if self.activation == "sigmoid" else torch.softmax(logits, dim=-1)
        scores: Floats = probabilities[:, self._column].cpu().numpy()
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

    Raises:
        ArtifactError: neither cached nor reachable.
        InputError: no such directory, or no such label.
        ModelError: not a trained classifier, or damaged.
    """
    path = Path(source).expanduser()
    is_local = bool(source) and path.is_dir()
    name = path.resolve().name if is_local else source
    if is_local:
        source = str(path)
    elif not source or source.count("/") > 1 or source.startswith((".", "~", "/")):
        raise InputError(f"no scorer at {source!r}: name a directory with a classifier, or an id such as owner/model")
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision or "main")
            model, info = AutoModelForSequenceClassification.from_pretrained(
                source, revision=revision or "main", dtype=torch.float32, output_loading_info=True
            )
        except OSError as error:
            if is_local:
                raise ModelError(f"{source} does not hold a complete classifier: {first_line(error)}") from error
            raise ArtifactError(_how_to_fetch(source, error)) from error
        except Exception as error:  # a damaged or foreign file makes the parsers of transformers raise anything
            raise ModelError(f"{source} cannot be read as a sequence classifier: {first_line(error)}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{source} is not a trained sequence classifier: its file lacks {', '.join(missing[:4])}. A language model "
            "has no classification head: name a classifier"
        )
    return ClassifierScorer(model, tokenizer, name=name, label=label, device=device, batch_size=batch_size)


def _label_column(name: str, labels: Sequence[str], label: str | None) -> int:
    lower = [known.lower() for known in labels]
    for wanted in TOXIC_LABELS if label is None else (label.lower(),):
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


def _max_length(tokenizer: Any, config: Any) -> int | None:
    if tokenizer.model_max_length < _UNLIMITED:
        return int(tokenizer.model_max_length)
    positions = getattr(config, "max_position_embeddings", None)
    # RoBERTa numbers positions from 2; two tokens less harm no other model.
    return None if positions is None else int(positions) - 2


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {first_line(error)}; use 'auto' or 'cpu'") from error


def _digest(model: nn.Module, tokenizer: Any) -> str:
    """SHA-256 over weights and tokenizer: where they were loaded from does not matter."""
    sha = hashlib.sha256()
    for key, weight in sorted(model.state_dict().items()):
        block = weight.detach().cpu().contiguous()
        sha.update(f"{key}{block.dtype}{tuple(block.shape)}".encode())
        sha.update(block.reshape(-1).view(torch.uint8).numpy())
    sha.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    if tokenizer.is_fast:
        description = json.loads(tokenizer.backend_tokenizer.to_str())
        # A call to the tokenizer leaves its truncation and padding in it: they are no part of its identity.
        kept = {key: part for key, part in description.items() if key not in ("truncation", "padding")}
        sha.update(json.dumps(kept, sort_keys=True).encode())
    return sha.hexdigest()


def _how_to_fetch(source: str, error: Exception) -> str:
    return (
        f"the scorer {source} is not in the local cache and could not be fetched: {first_line(error)}. On a machine "
        f"with network run: hf download {source}; or name a directory that holds it, a local Detoxify checkpoint "
        "(detoxify:PATH), or the offline scorer lexical"
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message: those of transformers and torch go on for pages."""
    return next((line.strip(" .") for line in str(error).splitlines() if line.strip()), type(error).__name__)
