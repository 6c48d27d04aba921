"""How a language model is measured: what of its continuations is scored, and how its text is read.

Nothing heavy is imported here: the command line reads its options off these settings.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from fairmend.settings import check, documented, setting

BiasMethod = Literal["generated", "reweighted", "first-order"]
LossMethod = Literal["screened", "first-order", "exact"]
GroupMean = Literal["unweighted", "pooled"]
Reference = Literal["unweighted", "pooled", "zero"]
ScoredText = Literal["continuation", "prompt+continuation"]
Averaged = Literal["continuation", "prompt+continuation", "preference"]
Kind = Literal["standard", "fasp"]
Units = Literal["heads", "all"]
STRIDE = 512
TOKENS_OF_CHOICES = 4096
"""Tokens of the text that the command line reads with choices: about as many as their items have."""


@documented
@dataclass(frozen=True, slots=True)
class Sampling:
    """How prompts are continued and what of it is scored.

    Raises:
        InputError: a setting outside its limits.
    """

    new_tokens: int = setting(40, "Longest continuation of a prompt, in tokens.", least=1, published=40)
    n_samples: int = setting(1, "Continuations of every prompt.", least=1, option="--samples")
    seed: int = setting(0, "Seed of the noise.", option="")
    top_k: int | None = setting(
        50,
        "Draw from the so many most probable tokens only; None draws from all, 1 is greedy.",
        least=1,
        none="none",
        option="",
    )
    temperature: float = setting(1.0, "The logits are divided by it before drawing.", above=0, option="")
    max_prompt_tokens: int | None = setting(
        None, "Cut longer prompts behind so many tokens.", kind=int, least=1, option="", published=22
    )
    score: ScoredText = setting(
        "continuation",
        "Which text is scored, see `fairmend.language.toxicity.scorer.text_to_score`.",
        choices=get_args(ScoredText),
        option="",
        published="prompt+continuation",
    )

    def __post_init__(self) -> None:
        check(self)


@documented
@dataclass(frozen=True, slots=True)
class ReadingSettings:
    """How the perplexity is taken.

    Raises:
        InputError: a setting outside its limits.
    """

    kind: Kind = setting(
        "standard",
        "standard or fasp, see `fairmend.language.measurement.perplexity`.",
        choices=get_args(Kind),
        option="",
        published="fasp",
    )
    tokens: int | None = setting(
        8192,
        "Tokens of the text that are read.",
        least=2,
        none="all",
        option="--text-tokens",
        published=None,
        shown=f"8192, or {TOKENS_OF_CHOICES} with --bias, which itself reads no more",
    )
    window: int | None = setting(
        None,
        "Tokens per window; without it the model's context up to 512 (standard), or as published (fasp).",
        kind=int,
        option="",
    )
    stride: int = setting(STRIDE, "Tokens between the starts of two windows.", option="")

    def __post_init__(self) -> None:
        check(self)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `ReadingSettings(**it)` reads it back."""
        return asdict(self)
