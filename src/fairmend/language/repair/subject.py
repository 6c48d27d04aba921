"""What is repaired and judged on, held together: a model, prompts in groups, a scorer, texts, what must be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from fairmend.errors import DataError, InputError
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import LONGEST_WINDOW, Reading
from fairmend.language.measurement.texts import Text, read_text
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.choices import ChoiceSet
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.settings import SOFT, RepairSettings
from fairmend.language.toxicity.scorer import Scorer

_KNOWN = 160  # items of knowledge that masks are measured on, half as many as slopes are taken of
_SEARCHED = (2 / 3, 1 / 3)
"""Of the words and of the sentences of choices, what is searched with and judged on: variety is what generalises, and
items that mix the words of one part with the sentences of the other are left out."""
_LEAST_WINDOWS = 4
_Items = TypeVar("_Items", bound=PromptSet)
_Prompts = TypeVar("_Prompts", bound=PromptSet | None)


def _wikipedia() -> tuple[Text, Text]:
    return read_text(None, "search"), read_text(None, "judge")


@dataclass(frozen=True, eq=False)
class Subject:
    """A language model and what it is repaired for and judged on.

    Attributes:
        lm: a causal language model.
        prompts: of the axis to repair, in groups; split into a half to search with and a half to judge on.
        scorer: of toxicity; not needed if all prompts are choices.
        texts: to take the perplexity of: one to search with and one to judge on; by default Wikipedia passages.
        others: prompts of other axes, to see whether they moved.
        judge_prompts: prompts to judge on, such as a published test part; `prompts` are then all searched with.
        knowledge: items whose right answer is `a`, which a repair must keep; one half is searched with.
        second: another scorer, which judges the continuations too that the scorer judges.

    Raises:
        InputError: an axis that was given twice.
    """

    lm: LanguageModel
    prompts: PromptSet
    scorer: Scorer | None = None
    texts: tuple[Text, Text] = field(default_factory=_wikipedia)
    others: Sequence[PromptSet] = ()
    judge_prompts: PromptSet | None = None
    knowledge: ChoiceSet | None = None
    second: Scorer | None = None

    def __post_init__(self) -> None:
        axes = [axis.axis for axis in self.axes]
        repeated = sorted({axis for axis in axes if axes.count(axis) > 1})
        if repeated:
            raise InputError(f"axis {repeated[0]!r} was given twice: give every axis once, the one to repair first")

    def turning(self, settings: RepairSettings) -> Subject:
        """The same with the model's units that the settings are about: its heads, or its neurons too.

        Raises:
            ModelError: see `fairmend.language.heads.neurons.with_neurons`.
        """
        return replace(self, lm=self.lm.turning("all" if settings.turns_neurons else "heads"))

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
        half, known = self.halves(settings)[0], _at_most(self.known()[0], _KNOWN, settings.seed)
        return self.evaluator(half, self._reading(0, settings.reading), settings, known, settings.max_drift is not None)

    def scoring(self, settings: RepairSettings) -> LanguageEvaluator:
        """What single heads are scored on, or slopes for soft gates are taken of.

        `scoring_samples` continuations, `scoring_tokens` of text or, for soft gates, `soft.tokens`.

        Raises:
            DataError, InputError: see `searching`.
        """
        drawn = replace(settings, sampling=replace(settings.sampling, n_samples=settings.scoring_samples))
        reading = scoring_reading(self.lm, self.texts[0], settings)
        half = self.halves(settings)[0]
        known = _at_most(self.known()[0], min(2 * _KNOWN, len(half)), settings.seed)
        return self.evaluator(half, reading, drawn, known)

    def judging(self, settings: RepairSettings) -> list[LanguageEvaluator]:
        """What judges masks on prompts and text that no search saw: one per axis, the repaired one first.

        Raises:
            DataError, InputError: see `searching`.
        """
        reading = self._reading(1, settings.reading)
        half, known = self.halves(settings)[1], _at_most(self.known()[1], _KNOWN, settings.seed)
        main = self.evaluator(half, reading, settings, known, drift=True, second=self.second)
        others = [_sampled(other, settings) for other in self.others]
        return [main, *(self.evaluator(other, reading, settings, second=self.second) for other in others)]

    def known(self) -> tuple[ChoiceSet | None, ChoiceSet | None]:
        """The knowledge to search with and the knowledge to judge on, nothing of the one in the other."""
        if self.knowledge is None:
            return None, None
        # One split for all seeds, so that no search of a comparison sees what another is judged on.
        first, second = _split(self.knowledge, 0, self.knowledge.apart)
        return first, second

    def evaluator(
        self,
        prompts: PromptSet,
        reading: Reading,
        settings: RepairSettings,
        knowledge: ChoiceSet | None = None,
        drift: bool = False,
        second: Scorer | None = None,
    ) -> LanguageEvaluator:
        """An evaluator as the settings describe it.

        Raises:
            InputError, DataError: see `LanguageEvaluator`.
        """
        return LanguageEvaluator(
            self.lm,
            prompts,
            reading,
            self.scorer,
            sampling=settings.sampling,
            group_mean=settings.group_mean,
            space=self.lm.head_map.space(gains=settings.method == SOFT),
            knowledge=knowledge,
            drift=drift,
            second=second,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What tells this subject from others, JSON-ready."""
        return {
            "model": self.lm.fingerprint(),
            "prompts": self.prompts.fingerprint(),
            "judge_prompts": None if self.judge_prompts is None else self.judge_prompts.fingerprint(),
            "others": [other.fingerprint() for other in self.others],
            "texts": [text.fingerprint() for text in self.texts],
            "scorer": _described(self.scorer),
            "second_scorer": _described(self.second),
            "knowledge": None if self.knowledge is None else self.knowledge.fingerprint(),
        }

    def _reading(self, number: int, settings: ReadingSettings) -> Reading:
        return Reading(self.lm, self.texts[number], settings)


def scoring_reading(lm: LanguageModel, text: Text, settings: RepairSettings) -> Reading:
    """The text as heads are scored with: `scoring_tokens` of it, in four windows at least, so that errors can be told.

    Raises:
        DataError, InputError: see `Reading`.
    """
    reading = settings.reading
    tokens = settings.soft.tokens if settings.method == SOFT else settings.scoring_tokens
    if tokens is not None:
        reading = replace(reading, tokens=tokens)
        if reading.window is None and reading.kind == "standard":
            reading = replace(reading, window=max(2, min(lm.context, LONGEST_WINDOW, tokens // _LEAST_WINDOWS + 1)))
    return Reading(lm, text, reading)


def _described(scorer: Scorer | None) -> dict[str, Any] | None:
    return None if scorer is None else {"name": scorer.name, **scorer.fingerprint()}


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
        own = prompts.apart if isinstance(prompts, ChoiceSet) else ()
        first, second = _split(prompts, settings.seed, own if settings.split_by is None else (settings.split_by,))
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


def _split(prompts: _Items, seed: int, apart: Sequence[str]) -> tuple[_Items, _Items]:
    first, second = prompts.split(_SEARCHED if len(apart) > 1 else (0.5, 0.5), seed=seed, by=apart or None)
    return first, second


def _sampled(prompts: PromptSet, settings: RepairSettings) -> PromptSet:
    return _at_most(prompts, settings.prompts, settings.seed)


def _at_most(prompts: _Prompts, count: int | None, seed: int) -> _Prompts:
    return prompts if prompts is None or count is None or count >= len(prompts) else prompts.sample(count, seed)
