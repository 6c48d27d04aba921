"""Neural toxicity scorers: sequence-classification models of transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import transformers
from torch import nn

from fairmend.errors import InputError, ModelError, first_line
from fairmend.language.backend.batching import BatchSize, is_out_of_memory
from fairmend.language.backend.forward import embedding
from fairmend.language.backend.tokenizers import encode, tokenizer_description
from fairmend.language.models.models import find_device, weights_digest
from fairmend.language.toxicity.scorer import Floats, Scorer, ScorerKind, score_visible

# "The people are kind and the dog is nice", because a classifier of one language may know no other's letters.
_ORDINARY = (
    "the people are kind and the dog is nice",
    "люди добрые и собака хорошая",
    "οι άνθρωποι είναι καλοί και ο σκύλος είναι καλός",
    "الناس طيبون والكلب لطيف",
    "האנשים נחמדים והכלב נחמד",
    "लोग दयालु हैं और कुत्ता अच्छा है",
    "মানুষ দয়ালু এবং কুকুর ভালো",
    "人们很善良,狗也很好",
    "人々は親切で犬はいい子です",
    "사람들은 친절하고 개는 착하다",
    "ผู้คนใจดีและสุนัขน่ารัก",
)

_UNLIMITED = 1_000_000  # tokenizers that know no limit name an astronomic one
_TOLERANCE = 1e-3  # of logits in single precision: rounding is far below, a pad that is read far above

_TOXIC_LABELS = ("toxicity", "toxic")

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

    Attributes:
        reload: loads the same scorer again; None for one that was given in Python. Pickled, a scorer is this.

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
        self.reload: Callable[[], Scorer] | None = None
        config: Any = model.config
        labels = _labels(name, config)
        self._column = _label_column(name, labels, label)
        self.label = labels[self._column]
        self.name = f"{name}:{self.label}"
        self.activation = _activation(name, config.problem_type, labels)
        _check_tokenizer(name, tokenizer, model)
        _check_weights(name, model)
        self.max_length = _max_length(name, tokenizer, model)
        self.device = find_device(device)
        self._batches = BatchSize("auto", self.device, most=batch_size)
        self._attention = str(config._attn_implementation)
        self._n_labels = len(labels)
        self._tokenizer = tokenizer
        self._model = model.to(self.device, torch.float32).eval()
        self._digest: str | None = None
        _prove_padding(self.name, lambda texts: self._logits(self._encoded(texts)))

    def __reduce__(self) -> tuple[Any, ...]:
        if self.reload is None:
            raise InputError(
                f"the scorer {self.name} was given in Python, so that no other process can load it: load it with "
                "load_scorer, or do the work in one process (--workers 1)"
            )
        return self.reload, ()

    def score(self, texts: Sequence[str]) -> Floats:
        """Toxicity of every text, shape (n_texts,), in the order of the texts; 0 for blank texts.

        Raises:
            ModelError: the model gives NaN or infinite logits, or does not run, or a single text does not fit.
        """
        return score_visible(texts, self._score)

    def fingerprint(self) -> dict[str, Any]:
        """The weights' digest, the label, how it is read, and the version of transformers."""
        if self._digest is None:
            whole = f"{weights_digest(self._model)} {tokenizer_description(self._tokenizer)}"
            self._digest = hashlib.sha256(whole.encode()).hexdigest()
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
        scores = np.empty(len(texts))
        longest_first = np.argsort(-lengths, kind="stable").tolist()
        for rows, logits in self._batches.run(
            lambda rows: self._logits([features[row] for row in rows]), longest_first
        ):
            probabilities = torch.sigmoid(logits) if self.activation == "sigmoid" else torch.softmax(logits, dim=-1)
            scores[list(rows)] = probabilities[:, self._column].numpy()
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
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if is_out_of_memory(error):
                raise
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
    for wanted in _TOXIC_LABELS if label is None else (label.lower(),):
        if lower.count(wanted) > 1:
            raise InputError(f"the scorer {name} has several labels {wanted!r}: name one of {', '.join(labels)}")
        if wanted in lower:
            return lower.index(wanted)
    asked = f"no label {label!r}" if label is not None else f"no label {' or '.join(map(repr, _TOXIC_LABELS))}"
    raise InputError(f"the scorer {name} has {asked}; choose one of its labels by name: {', '.join(labels)}")


def _activation(name: str, problem_type: str | None, labels: Sequence[str]) -> Activation:
    if problem_type == "regression":
        raise ModelError(f"{name} is a regression model: its output is no probability; name a classifier")
    if problem_type == "multi_label_classification" or len(labels) == 1:
        return "sigmoid"
    if problem_type is None and _NESTED_LABELS & {label.lower() for label in labels}:
        return "sigmoid"
    return "softmax"


def _check_tokenizer(name: str, tokenizer: Any, model: nn.Module) -> None:
    """Refuse a tokenizer without padding, one that knows no words, and one with tokens that the model does not have."""
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer of {name} has no padding token, so that texts cannot be scored together: set "
            "tokenizer.pad_token = tokenizer.eos_token and model.config.pad_token_id = tokenizer.pad_token_id, and "
            "save both"
        )
    if not any(_knows(name, tokenizer, text) for text in _ORDINARY):
        raise ModelError(
            f"the tokenizer of {name} gives only unknown tokens for ordinary text, so that all texts would score the "
            "same: it is empty or another model's. Save the tokenizer of the training beside the model, with "
            "save_pretrained"
        )
    rows = len(embedding(model))
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if beyond:
        raise ModelError(
            f"the tokenizer of {name} has {len(beyond)} tokens that the model does not have, the first is "
            f"{beyond[0][1]!r} with number {beyond[0][0]}, and the embedding has {rows} rows: save the tokenizer of "
            "the training beside the model"
        )


def _check_weights(name: str, model: nn.Module) -> None:
    """Refuse weights that are no numbers."""
    for key, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ModelError(
                f"{name} holds NaN or infinite numbers in {key}: it is damaged, or its training or conversion "
                "overflowed; fetch it again, or take another"
            )


def _max_length(name: str, tokenizer: Any, model: nn.Module) -> int:
    """Tokens of the longest text that the model takes, special ones too: the tokenizer's limit or the model's."""
    limits = []
    named = tokenizer.model_max_length
    if isinstance(named, int | float) and named < _UNLIMITED:
        limits.append(int(named))
    # Absent where positions are relative or computed; then the tokenizer has to know.
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - _positions_before_the_first(model, positions))
    if not limits:
        raise ModelError(
            f"neither the tokenizer of {name} nor its config.json says how many tokens it takes: set model_max_length "
            "in tokenizer_config.json to the length it was trained with"
        )
    if min(limits) <= tokenizer.num_special_tokens_to_add():
        raise ModelError(
            f"{name} takes {min(limits)} tokens (the least of model_max_length of its tokenizer and "
            "max_position_embeddings of its config.json): there is no room for a text; correct these files"
        )
    return min(limits)


def _prove_padding(name: str, logits: Callable[[list[str]], torch.Tensor]) -> None:
    """Run a short text alone and beside a longer one: it must have the same logits, (n_texts, n_labels)."""
    short, long = _ORDINARY[0].split()[1], " ".join([_ORDINARY[0]] * 2)
    alone, together = logits([short])[0], logits([long, short])[1]
    if not torch.allclose(alone, together, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ModelError(
            f"the scorer {name} scores a text otherwise when it is padded (logits {_shown(alone)} alone, "
            f"{_shown(together)} padded): pad_token_id of its config.json and the padding token of its tokenizer must "
            "be the same, and its attention mask must be heeded"
        )


def _knows(name: str, tokenizer: Any, text: str) -> bool:
    """Whether a text has a token, and one that is known."""
    ids = encode(name, tokenizer, [text], add_special_tokens=False, verbose=False)["input_ids"][0]
    try:
        unknown = tokenizer.unk_token_id
    except RecursionError as error:  # transformers looks a token that is not there up as the unknown one, for ever
        raise ModelError(
            f"the tokenizer of {name} does not have its own token for unknown words, {tokenizer.unk_token!r}: save the "
            "tokenizer of the training beside the model"
        ) from error
    return any(number != unknown for number in ids)


def _positions_before_the_first(model: nn.Module, positions: int) -> int:
    """RoBERTa and its kin number the positions of a text from behind that of padding, whose rows are never used."""
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == positions and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0


def _shown(logits: torch.Tensor) -> str:
    return "[" + ", ".join(f"{value:.3f}" for value in logits.tolist()[:4]) + "]"
