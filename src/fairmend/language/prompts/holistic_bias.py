"""HolisticBias: sentences about people, built from noun phrases and templates.

Smith et al., "I'm sorry to hear that: Finding New Biases in Language Models with a Holistic Descriptor Dataset",
EMNLP 2022. Version 1.1 makes 566,625 sentences; their order here is the one that makes the split published with FASP
(Zayed et al., "Fairness-Aware Structured Pruning in Transformers", AAAI 2024) reproducible byte for byte.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError, InputError

Part = Literal["all", "valid", "test"]

LICENCE = "CC BY-SA 4.0"
NONE = "(none)"
NULL_AXIS = "null"
N_VALID = 113_325
N_SENTENCES = 566_625


class NounPhrase(NamedTuple):
    """A way to name a person, such as "a Deaf woman". Phrases sort in the published order: field by field.

    `kind` is "noun" (the bare nouns of the null axis), "descriptor", "descriptor_noun", "noun_descriptor" or
    "fixed_phrase". What a phrase lacks is "(none)".
    """

    axis: str
    bucket: str
    descriptor: str
    descriptor_gender: str
    preference: str
    noun: str
    plural_noun: str
    noun_gender: str
    text: str
    plural_text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence with one gap for a noun phrase; `noun_only` ones take no phrase without a noun.

    Attributes:
        text: the template as the data file has it.
        before, after: what surrounds the gap.
        plural: whether the gap takes the plural noun phrase.
    """

    text: str
    before: str
    after: str
    plural: bool
    noun_only: bool

    def fill(self, phrase: NounPhrase) -> str:
        """The sentence about `phrase`."""
        return self.before + (phrase.plural_text if self.plural else phrase.text) + self.after


@dataclass(frozen=True, eq=False)
class Sentences:
    """Consecutive sentences of the corpus.

    Attributes:
        texts: the sentences.
        phrases: number of each sentence's noun phrase in `HolisticBias.phrases`, `(n_sentences,)`.
        templates: number of each sentence's template in `HolisticBias.templates`, `(n_sentences,)`.
        start: position of the first sentence in the whole corpus.
    """

    texts: tuple[str, ...]
    phrases: npt.NDArray[np.int32]
    templates: npt.NDArray[np.int32]
    start: int


@dataclass(frozen=True, eq=False)
class HolisticBias:
    """All noun phrases, in the published order, and the templates. Sentences are built when asked for.

    Attributes:
        source: name and version of the data, or its digest where the files are not those of version 1.1.
        is_v1_1: whether the content of the files is version 1.1, unchanged.
    """

    phrases: tuple[NounPhrase, ...]
    templates: tuple[Template, ...]
    source: str
    is_v1_1: bool

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes, sorted, without the null axis of bare nouns."""
        return tuple(axis for axis in dict.fromkeys(phrase.axis for phrase in self.phrases) if axis != NULL_AXIS)

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """Position of each phrase's first sentence in the corpus, then the number of sentences, `(n_phrases + 1,)`."""
        with_noun = len(self.templates)
        without_noun = sum(not template.noun_only for template in self.templates)
        sizes = [without_noun if phrase.noun == NONE else with_noun for phrase in self.phrases]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        """Number of sentences of the whole corpus."""
        return int(self.starts[-1])

    def check_axis(self, axis: str) -> str:
        """Return `axis` if there is one of that name (or it is "null"); otherwise raise InputError with close ones."""
        if axis in self.axes or axis == NULL_AXIS:
            return axis
        wanted = str(axis).lower()
        close = [name for name in self.axes if wanted and wanted in name]
        close += [name for name in difflib.get_close_matches(wanted, self.axes, cutoff=0.5) if name not in close]
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise InputError(f"unknown axis {axis!r}: {hint}The axes of {self.source} are {', '.join(self.axes)}")

    def sentences(self, axis: str | None = None) -> Sentences:
        """Build the sentences of one axis ("null": the bare nouns), or of all of them.

        Raises:
            InputError: there is no such axis.
        """
        first, last = 0, len(self.phrases)
        if axis is not None:
            self.check_axis(axis)
            members = [number for number, phrase in enumerate(self.phrases) if phrase.axis == axis]
            first, last = members[0], members[-1] + 1
        every = list(enumerate(self.templates))
        nounless = [(number, template) for number, template in every if not template.noun_only]
        texts: list[str] = []
        templates: list[int] = []
        for phrase in self.phrases[first:last]:
            fitting = nounless if phrase.noun == NONE else every
            texts.extend([template.fill(phrase) for _, template in fitting])
            templates.extend([number for number, _ in fitting])
        return Sentences(
            texts=tuple(texts),
            phrases=np.repeat(np.arange(first, last, dtype=np.int32), np.diff(self.starts[first : last + 1])),
            templates=np.asarray(templates, dtype=np.int32),
            start=int(self.starts[first]),
        )


@dataclass(frozen=True, eq=False)
class FaspSplit:
    """The valid and test parts published with FASP: positions in the corpus, in the published order."""

    valid: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def fasp_split(corpus: HolisticBias) -> FaspSplit:
    """Split all sentences of HolisticBias v1.1 as FASP published them: one shuffle, 20 % valid, the rest test.

    Raises:
        DataError: the corpus is not version 1.1, so that its shuffle would be another one.
    """
    if not corpus.is_v1_1:
        raise DataError(
            f"the published split exists for HolisticBias v1.1 only, this is {corpus.source} with {len(corpus):,} "
            f"sentences (not {N_SENTENCES:,}): use part='all', or the unchanged v1.1 files"
        )
    # The legacy generator on purpose: the published shuffle was drawn with it.
    shuffled = np.random.RandomState(0).permutation(len(corpus)).astype(np.int64)
    return FaspSplit(valid=shuffled[:N_VALID], test=shuffled[N_VALID:])
