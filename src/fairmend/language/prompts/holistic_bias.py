"""HolisticBias: sentences about people, built from noun phrases and templates.

Smith et al., "I'm sorry to hear that: Finding New Biases in Language Models with a Holistic Descriptor Dataset",
EMNLP 2022. Version 1.1 makes 566,625 sentences; their order here is the one that makes the split published with FASP
(Zayed et al., "Fairness-Aware Structured Pruning in Transformers", AAAI 2024) reproducible byte for byte.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fairmend.errors import ArtifactError, DataError, InputError

Part = Literal["all", "valid", "test"]

LICENCE = "CC BY-SA 4.0"
NONE = "(none)"
NULL_AXIS = "null"
N_VALID = 113_325
N_SENTENCES = 566_625
FILES = ("descriptors.json", "nouns.json", "sentence_templates.json", "standalone_noun_phrases.json")

# SHA-256 of the four files of version 1.1 after parsing, so that line endings do not matter.
_DIGEST_V1_1 = "7757926c2c007c053df4d6f9dba78817e237d48258c2c0dab0fe61067e7ea35a"
_SINGULAR, _PLURAL = "{noun_phrase}", "{plural_noun_phrase}"
_ARTICLE, _NOUN = "{article}", "{noun}"


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


def fasp_split(corpus: HolisticBias) -> dict[Part, npt.NDArray[np.int64]]:
    """Split all sentences of HolisticBias v1.1 as FASP published them: one shuffle, 20 % valid, the rest test.

    Returns:
        Positions in the corpus of "valid" and of "test", in the published order.

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
    return {"valid": shuffled[:N_VALID], "test": shuffled[N_VALID:]}


def read_holistic_bias(directory: str | Path) -> HolisticBias:
    """Read the data files of HolisticBias v1.1, or of a version with the same layout.

    Raises:
        ArtifactError: a file is missing.
        DataError: a file cannot be understood; the message names the file and the place.
    """
    files = {path.name: _read_json(path) for path in holistic_bias_files(directory)}
    nouns = list(_nouns(files["nouns.json"]))
    phrases = [
        *_bare(nouns),
        *_described(files["descriptors.json"], nouns),
        *_standalone(files["standalone_noun_phrases.json"], nouns),
    ]
    templates = tuple(_templates(files["sentence_templates.json"]))
    if not nouns or not templates:
        raise DataError(f"{directory} has {len(nouns)} nouns and {len(templates)} templates: sentences need both")
    digest = hashlib.sha256(json.dumps([files[name] for name in FILES]).encode()).hexdigest()
    is_v1_1 = digest == _DIGEST_V1_1
    source = "HolisticBias v1.1" if is_v1_1 else f"HolisticBias with changed files (SHA-256 {digest[:12]})"
    return HolisticBias(tuple(sorted(phrases)), templates, source, is_v1_1)


def holistic_bias_files(directory: str | Path) -> tuple[Path, ...]:
    """Paths of the four data files in `directory`, in the order of `FILES`.

    Raises:
        ArtifactError: one is missing.
    """
    paths = tuple(Path(directory) / name for name in FILES)
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ArtifactError(
            f"{directory} lacks {', '.join(missing)}: name the folder of HolisticBias v1.1 that holds "
            f"{', '.join(FILES)}"
        )
    return paths


def article(word: str) -> str:
    """The indefinite article by the data set's rule: "an" before a, e, i, o and u, otherwise "a"."""
    return "an" if word[:1].lower() in set("aeiou") else "a"


class _Noun(NamedTuple):
    singular: str
    plural: str
    gender: str


def _nouns(payload: Any) -> Iterator[_Noun]:
    for gender, pairs in _items(payload, "nouns.json"):
        where = f"nouns.json, {gender!r}"
        for pair in _listed(pairs, where):
            if not (isinstance(pair, list) and len(pair) == 2 and all(map(_is_text, pair))):
                raise DataError(f"{where}: {pair!r} must be a pair of words [singular, plural]")
            yield _Noun(pair[0], pair[1], gender)


def _templates(payload: Any) -> Iterator[Template]:
    for text, options in _items(payload, "sentence_templates.json"):
        where = f"sentence_templates.json, {text!r}"
        if text.count(_SINGULAR) + text.count(_PLURAL) != 1:
            raise DataError(f"{where}: a template holds {_SINGULAR} or {_PLURAL} exactly once")
        gap = _PLURAL if _PLURAL in text else _SINGULAR
        before, after = text.split(gap)
        noun_only = dict(_items(options, where)).get("must_be_noun", False)
        if not isinstance(noun_only, bool):
            raise DataError(f"{where}: must_be_noun is true or false, got {noun_only!r}")
        yield Template(text, before, after, plural=gap == _PLURAL, noun_only=noun_only)


def _bare(nouns: Sequence[_Noun]) -> Iterator[NounPhrase]:
    """The nouns themselves ("a woman"): the null axis."""
    for noun in nouns:
        text = f"{article(noun.singular)} {noun.singular}"
        yield NounPhrase(NULL_AXIS, NONE, NONE, NONE, "no_data", *noun, text, noun.plural, "noun")


def _described(payload: Any, nouns: Sequence[_Noun]) -> Iterator[NounPhrase]:
    """Each descriptor alone ("Deaf") and with every noun of a matching gender ("a Deaf woman")."""
    genders = {NONE, *(noun.gender for noun in nouns)}
    for axis, buckets in _items(payload, "descriptors.json"):
        for bucket, entries in _items(buckets, f"descriptors.json, {axis!r}"):
            where = f"descriptors.json, {axis!r}, {bucket!r}"
            for raw in _listed(entries, where):
                entry = _entry(raw, "descriptor", where)
                descriptor, gender = entry["descriptor"], entry.get("gender", NONE)
                if gender not in genders:
                    raise DataError(f"{where}: {descriptor!r} has gender {gender!r}, the nouns have {sorted(genders)}")
                head = (axis, bucket, descriptor, gender, entry.get("preference", "no_data"))
                yield NounPhrase(*head, NONE, NONE, NONE, descriptor, descriptor, "descriptor")
                start = f"{entry.get('article') or article(descriptor)} {descriptor}"
                for noun in nouns:
                    if gender in (NONE, noun.gender):
                        text, plural = f"{start} {noun.singular}", f"{descriptor} {noun.plural}"
                        yield NounPhrase(*head, *noun, text, plural, "descriptor_noun")


def _standalone(payload: Any, nouns: Sequence[_Noun]) -> Iterator[NounPhrase]:
    """Phrases with a gap for the noun, one per noun ("a woman with asthma"), and without ("a youth")."""
    for axis, entries in _items(payload, "standalone_noun_phrases.json"):
        where = f"standalone_noun_phrases.json, {axis!r}"
        for raw in _listed(entries, where):
            entry = _entry(raw, "noun_phrase", where)
            pattern, preference = entry["noun_phrase"], entry.get("preference", "no_data")
            plural_pattern = entry.get("plural_noun_phrase", pattern)
            descriptor = _filled(pattern, "", "", where)
            head = (axis, NONE, descriptor, NONE, preference)
            if _NOUN not in pattern:
                plural = _filled(plural_pattern, "", "", where)
                yield NounPhrase(*head, NONE, NONE, "neutral", descriptor, plural, "fixed_phrase")
                continue
            for noun in nouns:
                text = _filled(pattern, article(noun.singular), noun.singular, where)
                plural = _filled(plural_pattern, "", noun.plural, where)
                yield NounPhrase(*head, *noun, text, plural, "noun_descriptor")


def _filled(pattern: str, article: str, noun: str, where: str) -> str:
    text = pattern.replace(_ARTICLE, article).replace(_NOUN, noun).lstrip()
    if not text or "{" in text:
        raise DataError(f"{where}: {pattern!r} must have words and no gap but {_ARTICLE} and {_NOUN}")
    return text


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path} as JSON in UTF-8 ({error}): fetch the file again") from error


def _items(payload: Any, where: str) -> list[tuple[str, Any]]:
    if not isinstance(payload, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(payload).__name__}")
    return list(payload.items())


def _listed(payload: Any, where: str) -> list[Any]:
    if not isinstance(payload, list):
        raise DataError(f"{where}: expected a JSON list, got {type(payload).__name__}")
    return payload


def _entry(raw: Any, key: str, where: str) -> dict[str, str]:
    """An entry as the files write it: a text, or an object of texts that has `key`."""
    entry = {key: raw} if isinstance(raw, str) else raw
    if not (isinstance(entry, dict) and key in entry and all(map(_is_text, entry.values()))):
        raise DataError(f"{where}: {raw!r} must be a text, or an object of texts with {key!r}")
    return entry


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
