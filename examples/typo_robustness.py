"""An objective beyond bias: how much worse a model reads text with typing errors than the same text without.

    fairmend lm repair smollm2 --scorer lexical --objective python:typo_robustness:lost_to_typos --out repaired

run where this file lies. A set of heads that makes the loss more than `--objective-limit` times as large is not chosen,
and the loss before and after stands among the held-out figures.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch

from fairmend.language.measurement.texts import read_text

PASSAGES = 40
WORDS = 30
ERRORS = 0.1


def lost_to_typos(model: Any, tokenizer: Any) -> list[float]:
    """Log-likelihood that typing errors cost, nats per word, of each of 40 passages of Wikipedia."""
    return lost_per_passage(model, tokenizer, passages(read_text(None, "search").content))


def lost_per_passage(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[float]:
    """Log-likelihood of each text minus that of the text with typing errors, nats per word.

    Errors break words into other tokens, so that the loss is counted per word and not per token.
    """
    lost = []
    for number, text in enumerate(texts):
        clean = log_likelihood(model, tokenizer, text)
        lost.append((clean - log_likelihood(model, tokenizer, with_typos(text, seed=number))) / len(text.split()))
    return lost


def passages(text: str) -> list[str]:
    """The last passages of a text: a repair takes the perplexity of its beginning."""
    words = text.split()[-PASSAGES * WORDS :]
    return [" ".join(words[start : start + WORDS]) for start in range(0, len(words), WORDS)]


def with_typos(text: str, seed: int) -> str:
    """The text with two neighbouring letters swapped in a tenth of the words, the first word kept."""
    rng = random.Random(seed)
    words = text.split()
    long = [place for place, word in enumerate(words) if place and len(word) > 3 and word.isalpha()]
    for place in rng.sample(long, min(len(long), max(1, round(ERRORS * len(words))))):
        word = words[place]
        # Neither the first letter nor the last, as in most real typing errors; different letters, so that it shows.
        swaps = [at for at in range(1, len(word) - 2) if word[at] != word[at + 1]]
        if swaps:
            at = rng.choice(swaps)
            words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def log_likelihood(model: Any, tokenizer: Any, text: str) -> float:
    """Of all tokens behind the first one, in nats."""
    tokens = tokenizer(text, return_tensors="pt")["input_ids"].to(model.device)
    with torch.inference_mode():
        scores = model(input_ids=tokens).logits[0, :-1].float().log_softmax(-1)
    return float(scores.gather(-1, tokens[0, 1:, None]).sum())
