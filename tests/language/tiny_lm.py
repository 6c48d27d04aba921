"""A tiny random language model with a tokenizer of one token per word."""

from typing import Any

from architectures import VOCABULARY, tiny
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fairmend.language.models.models import LanguageModel, wrap_model

WORDS = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{number}" for number in range(4, VOCABULARY))]


def word_tokenizer(**special: str) -> Any:
    """A tokenizer of 96 words, without special tokens unless named."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def tiny_lm(name: str = "llama-gqa", seed: int = 0, **changes: Any) -> LanguageModel:
    """One of the tiny architectures, with the word tokenizer."""
    tokenizer = word_tokenizer(pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    return wrap_model(tiny(name, seed, **changes), tokenizer, name=f"tiny {name}")


def sentences(lengths: list[int]) -> list[str]:
    """One prompt of so many words for each length, all different."""
    return [" ".join(f"w{4 + (7 * row + 3 * place) % 90}" for place in range(n)) for row, n in enumerate(lengths)]
