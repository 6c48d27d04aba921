"""What is repaired and judged on, held together: a model, prompts in groups, a scorer of toxicity and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fairmend.errors import DataError, InputError
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import LONGEST_WINDOW, Reading
from fairmend.language.measurement.texts import Text, read_text
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.toxicity.scorer import Scorer

_LEAST_WINDOWS = 4


def _wikipedia() -> tuple[Text, Text]:
    return read_text(None, "search"), read_text(None, "judge")


@dataclass(frozen=True, eq=False)
class Subject:
    """A language model and what it is repaired for and judged on.

    Attributes:
        lm: a causal language model.
        prompts: of the axis to repair, in groups; split into a half to search with and a half to judge on.
        scorer: of toxicity.
        texts: to take the perplexity of: one to search with and one to judge on; by default Wikipedia passages.
        others: prompts of other axes, to see whether they moved.
        judge_prompts: prompts to judge on, such as a published test part; `prompts` are then all searched with.

    Raises:
        InputError: an axis that was given twice.
    """

    lm: LanguageModel
    prompts: PromptSet
    scorer: Scorer
    texts: tuple[Text, Text] = field(default_factory=_wikipedia)
    others: Sequence[PromptSet] = ()
    judge_prompts: PromptSet | None = None

    def __post_init__(self) -> None:
        axes = [axis.axis for axis in self.axes]
        repeated = sorted({axis for axis in axes if axes.count(axis) > 1})
        if repeated:
            raise InputError(f"axis {repeated[0]!r} was given twice: give every axis once, the one to repair first")

    @property
    def axes(self) -> tuple[PromptSet, ...]:
        """The prompts of every axis, the one to repair first."""
        return self.prompts, *self.others

    def sampled(self, settings: RepairSettings) -> list[PromptSet]:
        """As many prompts of every axis as the settings say, whether or not they are searched with."""
        return [_sampled(axis, settings) for axis in self.axes]

    def halves(self, settings: RepairSettings) -> tuple[PromptSet, PromptSet]:
        """The prompts to search with and the prompts to judge on, see `halves`."""
        return halves(self.prompts, settings, self.judge_prompts)

    def searching(self, settings: RepairSettings) -> LanguageEvaluator:
        """What measures masks on the search half.

        Raises:
            DataError, InputError: see `halves`, `LanguageEvaluator` and `Reading`.
        """
        return self.evaluator(self.halves(settings)[0], self._reading(0, settings.reading), settings)

    def scoring(self, settings: RepairSettings) -> LanguageEvaluator:
        """What scores single heads on the search half: `scoring_samples` continuations, `scoring_tokens` of text.

        Raises:
            DataError, InputError: see `searching`.
        """
        drawn = replace(settings, sampling=replace(settings.sampling, n_samples=settings.scoring_samples))
        return self.evaluator(self.halves(settings)[0], scoring_reading(self.lm, self.texts[0], settings), drawn)

    def judging(self, settings: RepairSettings) -> list[LanguageEvaluator]:
        """What judges masks on prompts and text that no search saw: one per axis, the repaired one first.

        Raises:
            DataError, InputError: see `searching`.
        """
        reading = self._reading(1, settings.reading)
        others = (_sampled(other, settings) for other in self.others)
        return [self.evaluator(axis, reading, settings) for axis in (self.halves(settings)[1], *others)]

    def evaluator(self, prompts: PromptSet, reading: Reading, settings: RepairSettings) -> LanguageEvaluator:
        """An evaluator as the settings describe it.

        Raises:
            InputError, DataError: see `LanguageEvaluator`.
        """
        return LanguageEvaluator(
            self.lm, prompts, reading, self.scorer, sampling=settings.sampling, group_mean=settings.group_mean
        )

    def fingerprint(self) -> dict[str, Any]:
        """What tells this subject from others, JSON-ready."""
        return {
            "model": self.lm.fingerprint(),
            "prompts": self.prompts.fingerprint(),
            "judge_prompts": None if self.judge_prompts is None else self.judge_prompts.fingerprint(),
            "others": [other.fingerprint() for other in self.others],
            "texts": [text.fingerprint() for text in self.texts],
            "scorer": {"name": self.scorer.name, **self.scorer.fingerprint()},
        }

    def _reading(self, number: int, settings: ReadingSettings) -> Reading:
        return Reading(self.lm, self.texts[number], settings)


def scoring_reading(lm: LanguageModel, text: Text, settings: RepairSettings) -> Reading:
    """The text as heads are scored with: `scoring_tokens` of it, in four windows at least, so that errors can be told.

    Raises:
        DataError, InputError: see `Reading`.
    """
    reading, tokens = settings.reading, settings.scoring_tokens
    if tokens is not None:
        reading = replace(reading, tokens=tokens)
        if reading.window is None and reading.kind == "standard":
            reading = replace(reading, window=max(2, min(lm.context, LONGEST_WINDOW, tokens // _LEAST_WINDOWS + 1)))
    return Reading(lm, text, reading)


def halves(
    prompts: PromptSet, settings: RepairSettings, judge_prompts: PromptSet | None = None
) -> tuple[PromptSet, PromptSet]:
    """The prompts to search with and the prompts to judge on: disjoint, stratified by group.

    Args:
        prompts: split in two, unless those to judge on are given.
        settings: how many of each, and how they are split.
        judge_prompts: those to judge on.

    Raises:
        DataError: a half without a group, or prompts to judge on that are searched with or have other groups.
        InputError: fewer prompts asked for than there are groups, or an unknown column to split by.
    """
    if judge_prompts is None:
        first, second = prompts.split(seed=settings.seed, by=settings.split_by)
    else:
        first, second = prompts, _unseen(judge_prompts, prompts)
        if first.group_names != second.group_names:
            raise DataError(
                "the prompts to judge on must be others of the same groups as those to search with: they have "
                f"{', '.join(second.group_names)}, not {', '.join(first.group_names)}"
            )
    return _sampled(first, settings), _sampled(second, settings)


def _unseen(prompts: PromptSet, searched: PromptSet) -> PromptSet:
    """Without prompts that are searched with: published splits have some texts in both parts."""
    seen = set(searched.keys)
    rows = [row for row, key in enumerate(prompts.keys) if key not in seen]
    if len(rows) == len(prompts):
        return prompts
    if not rows:
        raise DataError("every prompt to judge on is searched with: give others to judge on")
    note = f"left out, because they are searched with: {len(prompts) - len(rows):,} of {len(prompts):,} prompts"
    return replace(prompts.take(rows), notes=(*prompts.notes, note))


def _sampled(prompts: PromptSet, settings: RepairSettings) -> PromptSet:
    if settings.prompts is None or settings.prompts >= len(prompts):
        return prompts
    return prompts.sample(settings.prompts, settings.seed)
