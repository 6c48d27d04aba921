"""A desk with a tiny random language model of the user's own, prompts, a text and a scorer."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    set_seed,
)

from .conftest import Outcome, Run, arguments

WORDS = ["<pad>", "</s>", "<unk>", *(f"w{number}" for number in range(3, 64))]
SCORER = """\
def score(texts):
    numbers = [[int(word[1:]) for word in text.split() if word[1:].isdigit()] for text in texts]
    return [sum(n % 2 == 0 for n in row) / len(row) if row else 0.0 for row in numbers]
"""
MEASURE: dict[str, Any] = {
    "--prompts": "people.csv",
    "--prompt-count": 16,
    "--scorer": "python:words_scorer_of_cli_tests:score",
    "--new-tokens": 4,
    "--text": "text.txt",
    "--text-tokens": 96,
    "--device": "cpu",
    "--quiet": True,
}
REPAIR = MEASURE | {"--alpha": 0.4, "--gamma": 0.3, "--loss-scores": "first-order", "--out": "out"}
UNRANKED = MEASURE | {"--alpha": 0.4, "--choice": "rule", "--out": "out"}  # for methods that read no scores


def press(*given: object, **named: object) -> None:
    """Ctrl-C, in place of a function that would have been called."""
    raise KeyboardInterrupt


def tokenizer() -> Any:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


def save(model: Any, folder: str) -> None:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def gpt2(folder: str, n_layer: int = 3, seed: int = 0, change: Callable[[Any], object] = lambda model: None) -> None:
    set_seed(seed)
    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=64, n_embd=16, n_layer=n_layer, n_head=4, eos_token_id=1, bos_token_id=1
    )
    config.initializer_range = 0.3
    model = GPT2LMHeadModel(config)
    change(model)
    save(model, folder)


def words(n: int, seed: int) -> str:
    return " ".join(f"w{number}" for number in np.random.default_rng(seed).integers(3, 64, n))


def write_prompts(n: int = 40, header: tuple[str, str] = ("prompt", "group"), group: str = "b") -> None:
    with Path("people.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows((words(4, row), "a" if row % 2 else group) for row in range(n))


def lm(run: Run, command: str, options: dict[str, Any], *positional: str) -> Outcome:
    return run("lm", command, *(positional or ("model",)), *arguments(options))


def llama(folder: str) -> None:
    """Three layers of two groups of two heads, which can be sliced."""
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=1,
        bos_token_id=1,
        initializer_range=0.3,
    )
    save(LlamaForCausalLM(config), folder)


def furnish() -> None:
    """Put a model, prompts, a text and a scorer into the working directory."""
    gpt2("model")
    write_prompts()
    Path("text.txt").write_text("".join(words(12, 100 + row) + "\n" for row in range(30)))
    Path("words_scorer_of_cli_tests.py").write_text(SCORER)


def corpus() -> None:
    """A small data set with the layout of HolisticBias: one axis of two buckets."""
    Path("corpus").mkdir()
    files: dict[str, Any] = {
        "descriptors.json": {
            "ability": {
                bucket: [{"descriptor": name, "preference": "no_data"}]
                for bucket, name in (("auditory", "w7"), ("mobility", "w9"))
            }
        },
        "nouns.json": {"neutral": [["w20", "w40"]]},
        "sentence_templates.json": {"w3 w4 {noun_phrase} w5": {}, "w6 {plural_noun_phrase} w8": {}},
        "standalone_noun_phrases.json": {},
    }
    for name, content in files.items():
        Path("corpus", name).write_text(json.dumps(content))


def logits(folder: str) -> Any:
    """What plain transformers makes of a checkpoint."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer()(words(12, 5), return_tensors="pt")["input_ids"]
    return model(ids).logits.detach().numpy()
