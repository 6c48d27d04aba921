"""Reading and checking the four data files of HolisticBias."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairmend.errors import ArtifactError, DataError
from fairmend.language.prompts.holistic_bias import NONE, NULL_AXIS, HolisticBias, NounPhrase, Template

FILES = ("descriptors.json", "nouns.json", "sentence_templates.json", "standalone_noun_phrases.json")

# SHA-256 of the four files of version 1.1 after parsing, so that line endings do not matter.
_DIGEST_V1_1 = "7757926c2c007c053df4d6f9dba78817e237d48258c2c0dab0fe61067e7ea35a"
_SINGULAR, _PLURAL = "{noun_phrase}", "{plural_noun_phrase}"
_ARTICLE, _NOUN = "{article}", "{noun}"


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
