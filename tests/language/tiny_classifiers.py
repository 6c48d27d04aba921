"""Tiny random sequence classifiers, saved like real ones, and checkpoints in Detoxify's form."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

WORDS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    *["the", "a", "you", "are", "is", "kind", "nice", "awful", "stupid", "dog", "cat", "people", "and", "very", "not"],
]
TEXTS = [
    "you are awful and very stupid",
    "the dog is nice",
    "",
    "a cat",
    "people are not kind and the people are very awful and the dog is not nice",
    " \n",
    "you",
    "the cat and the dog and the people are kind",
]


def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def classifier(labels: list[str], seed: int = 0, **options: Any) -> RobertaForSequenceClassification:
    """A random RoBERTa of two layers; large weights, so that texts score far apart."""
    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=34,
        initializer_range=0.6,
        id2label=dict(enumerate(labels)),
        label2id={name: number for number, name in enumerate(labels)},
        **options,
    )
    return RobertaForSequenceClassification(config).eval()


def save_classifier(folder: Path, labels: list[str], seed: int = 0, **options: Any) -> Path:
    classifier(labels, seed, **options).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_detoxify(folder: Path, classes: list[str], **changes: Any) -> Path:
    """A checkpoint file as Detoxify's training script writes it, with config and tokenizer beside it."""
    model = classifier(classes)
    model.config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    arch = {"num_classes": len(classes), "model_type": "roberta-base", "model_name": "RobertaForSequenceClassification"}
    content = {
        "config": {"arch": {"args": arch}, "dataset": {"args": {"classes": classes}}},
        # Written by transformers before version 4.31.
        "state_dict": model.state_dict() | {"roberta.embeddings.position_ids": torch.arange(34)[None]},
    }
    path = folder / "toxic.ckpt"
    torch.save(content | changes, path)
    return path
