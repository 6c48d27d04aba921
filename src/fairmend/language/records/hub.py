"""What the Hugging Face Hub reads of a model card: its YAML header with base, licence, tags, data sets and results.

Results go into `model-index`, which the Hub shows on the model's page. Its newer `.eval_results/*.yaml` puts figures on
a benchmark's leaderboard beside those of its own protocol, which these are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from fairmend.escaping import visible
from fairmend.language.checkpoints import smollm2
from fairmend.language.checkpoints.sources import BUILT_IN, PLANTED
from fairmend.language.measurement.judging import Judgement
from fairmend.language.models.models import LanguageModel
from fairmend.language.records.formats import CHECKPOINT, GGUF

DATASETS = {
    "CrowS-Pairs": "nyu-mll/crows_pairs",
    "StereoSet": "McGill-NLP/stereoset",
    "WinoBias": "uclanlp/wino_bias",
    "HolisticBias": "fairnlp/holistic-bias",
    "BBQ": "heegyu/bbq",
    "WikiText-2": "Salesforce/wikitext",
}
"""Ids on the Hub by how a source begins; what is only made of such data has none."""

_OTHER = "other"  # the Hub wants a type for a data set that it does not have
_TAGS = ["fairmend", "bias-mitigation", "attention-head-pruning"]


def hub_header(
    lm: LanguageModel, formats: Sequence[str], title: str, judgement: Judgement | None, data: Mapping[str, Any]
) -> str:
    """The header of a card, from "---" to "---", as `huggingface_hub.ModelCard` reads it.

    Args:
        lm: the model that was repaired.
        formats: what it is saved as, some of `FORMATS`.
        title: of the repaired model.
        judgement: the held-out figures, if there are any.
        data: from `describe_data`.
    """
    used = [data[name]["source"] for name in ("search_prompts", "judge_prompts", "search_text", "judge_text")]
    datasets = sorted({named for source in used if (named := _dataset(source)) != _OTHER})
    results = [] if judgement is None else list(_results(judgement, data["judge_text"]["source"]))
    base, whole = base_model(lm), CHECKPOINT in formats or GGUF in formats
    relation: dict[str, Any] = {"base_model_relation": "finetune" if whole else "adapter"} if base else {}
    card = ModelCardData(
        license=None if not lm.licence else visible(lm.licence.lower()),
        base_model=base,
        library_name="transformers" if whole else "peft",
        pipeline_tag="text-generation",
        tags=_TAGS,
        datasets=datasets or None,
        model_name=visible(title) if results else None,
        eval_results=results or None,
        **relation,
    )
    return f"---\n{card.to_yaml(line_break=chr(10)).rstrip()}\n---"


def base_model(lm: LanguageModel) -> str | None:
    """The id on the Hub of the model that was repaired; None of one that only lies on this machine."""
    if lm.origin is None:
        return None
    if lm.origin.name in (BUILT_IN, PLANTED):
        return smollm2.HUB_ID
    return lm.origin.name if lm.revision is not None else None


def _results(judgement: Judgement, text: str) -> Iterator[EvalResult]:
    """Every held-out figure that is defined, after the repair; beside it what it was before."""
    for judged in judgement.axes:
        for by, change in (("", judged.change), (" by the second scorer", judged.second)):
            if change is not None:
                limits = {"change_low": change.interval.low, "change_high": change.interval.high}
                named = f"bias, {judged.axis}{by}"
                yield from _result(judged.source, "bias", named, change.before.value, change.after.value, limits)
    read, known = judgement.perplexity, judgement.knowledge
    limits = {"times_low": read.interval.low, "times_high": read.interval.high}
    yield from _result(text, "perplexity", f"perplexity, {read.protocol}", read.before, read.after, limits)
    if known is not None:
        limits = {"kept_low": known.interval.low, "kept_high": known.interval.high}
        named = "mean preference for the right answer"
        yield from _result("knowledge to be kept", "knowledge", named, known.before.mean, known.after.mean, limits)


def _result(
    source: str, kind: str, name: str, before: float, after: float, limits: Mapping[str, float]
) -> Iterator[EvalResult]:
    if math.isfinite(after):
        beside = {"before": before} | dict(limits)
        yield EvalResult(
            task_type="text-generation",
            dataset_type=_dataset(source),
            dataset_name=visible(source),
            dataset_split="held out",
            metric_type=kind,
            metric_name=visible(name),
            metric_value=round(after, 6),
            metric_args={name: round(value, 6) for name, value in beside.items() if math.isfinite(value)},
        )


def _dataset(source: str) -> str:
    return next((named for begins, named in DATASETS.items() if source.startswith(begins)), _OTHER)
