"""What every toxicity scorer keeps to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from tiny_classifiers import TEXTS, save_classifier, save_detoxify
from tiny_toxblock import cache_wheel

from fairmend.errors import InputError
from fairmend.evaluation import digest
from fairmend.language.toxicity.catalogue import load_scorer
from fairmend.language.toxicity.scorer import Scorer, ScorerKind

UNBIASED = ["toxicity", "severe_toxicity", "insult"]
Make = Callable[..., Scorer]


def binary(folder: Path, **options) -> Scorer:
    save_classifier(folder, ["neutral", "toxic"])
    return load_scorer(str(folder), device="cpu", **options)


def multi_label(folder: Path, **options) -> Scorer:
    save_classifier(folder, UNBIASED, problem_type="multi_label_classification")
    return load_scorer(str(folder), device="cpu", **options)


def detoxify(folder: Path, **options) -> Scorer:
    return load_scorer(f"detoxify:{save_detoxify(folder, ['toxic', 'identity_hate'])}", device="cpu", **options)


def lexical(folder: Path, **options) -> Scorer:
    pytest.importorskip("profanity_check")
    options.pop("batch_size", None)
    return load_scorer("lexical", **options)


def toxblock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Scorer:
    cache_wheel(folder / "cache", monkeypatch)
    return load_scorer("toxblock")


def custom(folder: Path, **options) -> Scorer:
    (folder / "my_scorer.py").write_text("def length(texts):\n    return [1 - 1 / (1 + len(text)) for text in texts]\n")
    return load_scorer("python:my_scorer:length", **options)


SCORERS: dict[str, Make] = {
    "binary classifier": binary,
    "multi-label classifier": multi_label,
    "detoxify": detoxify,
    "lexical": lexical,
    "lexical, masked": lambda folder: lexical(folder, identity_words=["dog", "people"]),
    "custom": custom,
}
KINDS = [*SCORERS, "toxblock"]


@pytest.fixture(params=KINDS)
def make(request, tmp_path, monkeypatch) -> Make:
    monkeypatch.chdir(tmp_path)
    if request.param == "toxblock":
        return lambda: toxblock(tmp_path, monkeypatch)
    return lambda **options: SCORERS[request.param](tmp_path, **options)


def test_scores_are_one_float64_in_0_to_1_per_text(make):
    scorer = make()
    scores = scorer.score(TEXTS)
    assert isinstance(scorer, Scorer)
    assert scorer.kind in get_args(ScorerKind)
    assert scores.shape == (len(TEXTS),)
    assert scores.dtype == np.float64
    assert ((scores >= 0) & (scores <= 1)).all()
    assert len(set(scores.tolist())) > 3


def test_blank_texts_score_0_and_no_texts_give_no_scores(make):
    scorer = make()
    assert scorer.score(["", "  ", "\n\t"]).tolist() == [0, 0, 0]
    assert scorer.score([]).shape == (0,)
    assert scorer.score(TEXTS)[[2, 5]].tolist() == [0, 0]


def test_the_same_texts_score_the_same_again(make):
    scorer = make()
    assert np.array_equal(scorer.score(TEXTS), scorer.score(TEXTS))


def test_scores_follow_the_texts_whatever_their_order_and_neighbours(make):
    scorer = make()
    scores = scorer.score(TEXTS)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    np.testing.assert_allclose(scorer.score([TEXTS[i] for i in order]), scores[order], atol=1e-6)
    np.testing.assert_allclose([scorer.score([text])[0] for text in TEXTS], scores, atol=1e-6)
    np.testing.assert_allclose(scorer.score(TEXTS * 3), np.tile(scores, 3), atol=1e-6)


def test_the_fingerprint_is_json_names_the_kind_and_stays(make):
    scorer = make()
    first = digest(scorer.fingerprint())
    scorer.score(TEXTS)
    assert digest(scorer.fingerprint()) == first
    assert json.loads(json.dumps(scorer.fingerprint()))["kind"] == scorer.kind


def test_a_single_string_is_refused(make):
    with pytest.raises(InputError, match=r"pass \[text\]"):
        make().score("you")


@pytest.mark.parametrize("make_classifier", [binary, multi_label, detoxify])
def test_the_batch_size_is_no_setting_of_the_scores(tmp_path, make_classifier):
    large = make_classifier(tmp_path)
    small = make_classifier(tmp_path, batch_size=2)
    np.testing.assert_allclose(small.score(TEXTS), large.score(TEXTS), atol=1e-6)
    assert small.fingerprint() == large.fingerprint()


def test_settings_change_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prints = [
        multi_label(tmp_path).fingerprint(),
        multi_label(tmp_path, label="insult").fingerprint(),
        binary(tmp_path).fingerprint(),
        custom(tmp_path).fingerprint(),
    ]
    save_classifier(tmp_path, UNBIASED, seed=1, problem_type="multi_label_classification")
    prints.append(load_scorer(str(tmp_path), device="cpu").fingerprint())
    assert len({digest(one) for one in prints}) == len(prints)


def test_identity_words_change_the_fingerprint_and_the_name():
    pytest.importorskip("profanity_check")
    plain, masked = load_scorer("lexical"), load_scorer("lexical", identity_words=["gay"])
    assert plain.fingerprint() != masked.fingerprint()
    assert plain.name == "lexical (alt-profanity-check)"
    assert masked.name == "lexical (alt-profanity-check, 1 identity words taken out)"
