"""The offline scorer toxblock: the package's own figures, a vocabulary that is never unpickled, a cache that mends."""

import os
import pickle
import sys

import numpy as np
import pytest
from tiny_toxblock import VOCABULARY, cache_wheel, pickled, weights

from fairmend.errors import ArtifactError, InputError
from fairmend.language.toxicity import toxblock
from fairmend.language.toxicity.catalogue import load_scorer, second_scorer
from fairmend.language.toxicity.scorer import check_scores_prompts, score_distinct
from fairmend.language.toxicity.toxblock import ToxBlockScorer, is_cached, read_vocabulary

# The README of tox-block 0.1.2, "Usage", and the ranges that its figures are rescaled to (its config.py).
PUBLISHED = {
    "Good morning my friend, I hope you're having a fantastic day!": [
        *(0.05347811430692673, 0.0006274021579883993, 0.004466842859983444),
        *(0.009578478522598743, 0.00757843442261219, 0.002106667961925268),
    ],
    "I will kill you, you fucking idiot!": [
        *(0.9998679757118225, 0.7870362997055054, 0.9885633587837219),
        *(0.8483908176422119, 0.9883397221565247, 0.171059250831604),
    ],
    "I do strongly disagree with the fascist views of this joke that calls itself a political party.": [
        *(0.026190076023340225, 7.185135473264381e-05, 0.0009493605466559529),
        *(0.00012321282702032477, 0.0029190618079155684, 0.0022098885383456945),
    ],
}
LOW = np.array([0.002116, 0.000011, 0.000347, 0.000040, 0.000373, 0.000074])
HIGH = np.array([0.999858, 0.648682, 0.997533, 0.918887, 0.986303, 0.901117])


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    return cache_wheel(tmp_path / "cache", monkeypatch)


@pytest.fixture
def scorer(wheel):
    return load_scorer("toxblock")


def sequence(text):
    """Numbers of the last 100 known words, after zeros."""
    known = [VOCABULARY.index(word) + 1 for word in text.split() if word in VOCABULARY][-100:]
    return [0] * (100 - len(known)) + known


def by_hand(text):
    """Keras's documented LSTM with hard sigmoids, one text and one unit at a time, in double precision."""
    w = {name: values.astype(np.float64) for name, values in weights().items()}
    hard = lambda values: np.clip(0.2 * values + 0.5, 0, 1)  # noqa: E731
    highest = []
    for direction, step in (("forward", 1), ("backward", -1)):
        kernel, recurrent, bias = (
            w[f"bidirectional/bidirectional/{direction}_lstm/{part}:0"]
            for part in ("kernel", "recurrent_kernel", "bias")
        )
        hidden, cell, states = np.zeros(4), np.zeros(4), []
        for number in sequence(text)[::step]:
            z = w["embedding/embedding/embeddings:0"][number] @ kernel + hidden @ recurrent + bias
            cell = hard(z[4:8]) * cell + hard(z[:4]) * np.tanh(z[8:12])
            hidden = hard(z[12:]) * np.tanh(cell)
            states.append(hidden)
        highest += np.max(states, axis=0).tolist()
    dense = np.maximum(0, np.array(highest) @ w["dense/dense/kernel:0"] + w["dense/dense/bias:0"])
    return 1 / (1 + np.exp(-(dense @ w["dense_1/dense_1/kernel:0"] + w["dense_1/dense_1/bias:0"])))


@pytest.mark.slow
def test_the_published_examples_have_their_published_figures():
    pytest.importorskip("h5py")
    scorer = ToxBlockScorer()
    found = scorer.probabilities(list(PUBLISHED))
    np.testing.assert_allclose((found - LOW) / (HIGH - LOW), list(PUBLISHED.values()), rtol=2e-5, atol=2e-7)
    np.testing.assert_allclose(scorer.score(list(PUBLISHED)), found[:, 0])
    assert scorer.score(["I'm gay."])[0] == pytest.approx(0.66, abs=0.005)


class TestScores:
    def test_they_are_keras_s_layers_computed_by_hand(self, scorer):
        texts = ["you are stupid", "the dog is kind and the people are awful", "unheard of", "a " * 150 + "dog"]
        np.testing.assert_allclose(scorer.probabilities(texts), [by_hand(text) for text in texts], atol=1e-6)

    def test_case_and_punctuation_separate_words_and_apostrophes_do_not(self, scorer):
        plain, dressed, other = scorer.score(["you are stupid", "You,are\t(STUPID)!\n", "you are stupid's"])
        assert dressed == plain
        assert other == scorer.score(["you are"])[0] != plain

    def test_a_text_is_scored_alone_as_among_many_of_all_lengths(self, scorer):
        rng = np.random.default_rng(0)
        texts = [" ".join(rng.choice(VOCABULARY, rng.integers(1, 130))) for _ in range(530)]
        together = scorer.score(texts)
        np.testing.assert_allclose([scorer.score([text])[0] for text in texts[::53]], together[::53], atol=1e-6)

    def test_of_a_long_text_the_last_hundred_known_words_count(self, scorer):
        end = " ".join((VOCABULARY * 10)[:100])
        long, alone, unlike = scorer.score([f"stupid awful {end} unknown", end, f"{end} stupid"])
        assert long == pytest.approx(alone, abs=1e-6)
        assert unlike != pytest.approx(alone, abs=1e-6)

    def test_blank_texts_score_0_and_unknown_ones_as_the_network_says(self, scorer):
        assert scorer.score(["", " \n"]).tolist() == [0, 0]
        assert scorer.score(["?!"])[0] == pytest.approx(by_hand("")[0], abs=1e-6)

    def test_it_is_cheap_offline_and_must_not_see_prompts(self, scorer):
        assert scorer.kind == "recurrent"
        assert scorer.name == "toxblock (tox-block 0.1.2)"
        with pytest.raises(InputError, match="score='continuation'"):
            check_scores_prompts(scorer, "prompt+continuation")

    def test_the_fingerprint_names_the_wheel(self, scorer):
        assert scorer.fingerprint()["package"] == "tox-block 0.1.2"
        assert scorer.fingerprint()["sha256"] == toxblock.WHEEL.sha256


class Malicious:
    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


class TestVocabulary:
    def test_words_are_read_in_the_order_of_their_numbers(self):
        assert read_vocabulary(pickled()) == VOCABULARY
        many = [f"w{number}" for number in range(70_000)]  # numbers of one, two and four bytes
        assert read_vocabulary(pickled(many)) == many

    @pytest.mark.parametrize(
        "hostile",
        [
            {"word_index": {"a": 1}, "index_word": Malicious()},
            {"before": Malicious(), "word_index": {"a": 1}},
            {"word_index": Malicious()},
            {"word_index": {"a": Malicious()}},
        ],
    )
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(self, tmp_path, monkeypatch, hostile, protocol):
        monkeypatch.chdir(tmp_path)
        content = pickle.dumps(hostile, protocol=protocol)
        with pytest.raises(ArtifactError, match="which has no place there: refused"):
            read_vocabulary(content)
        assert list(tmp_path.iterdir()) == []
        pickle.loads(content)
        assert [path.name for path in tmp_path.iterdir()] == ["unpickled"]  # it would have

    @pytest.mark.parametrize(
        ("index", "message"),
        [
            ({}, "numbers 0 words"),
            ({"a": 1, "b": 3}, "numbers 2 words, but not from 1 up"),
            ({"a": 1, "b": 1}, "not from 1 up, each once"),
            ({"a": 0}, "not from 1 up"),
            ({1: 2}, "a number without a word"),
            ({"a": 1.0}, "holds BINFLOAT 1.0"),
            ({"a": [1]}, "holds EMPTY_LIST"),
        ],
    )
    def test_another_dictionary_is_refused(self, index, message):
        with pytest.raises(ArtifactError, match=message):
            read_vocabulary(pickle.dumps({"word_index": index, "index_word": {}}, protocol=3))

    @pytest.mark.parametrize("content", [b"", b"no pickle", pickled()[:-40], pickled()[:20]])
    def test_what_is_no_whole_pickle_is_refused(self, content):
        with pytest.raises(ArtifactError, match="refused"):
            read_vocabulary(content)


class TestCache:
    def test_what_is_kept_needs_no_wheel_and_no_pickle_is_among_it(self, wheel):
        expected = load_scorer("toxblock").score(["you are stupid"])
        wheel.unlink()
        assert load_scorer("toxblock").score(["you are stupid"]) == expected
        names = {path.name for path in wheel.parent.rglob("*") if path.is_file()}
        assert names == {"weights.h5", "vocabulary.txt", "LICENSE"}

    @pytest.mark.parametrize("name", ["weights.h5", "vocabulary.txt", "LICENSE"])
    def test_a_damaged_file_is_made_again(self, wheel, name):
        expected = load_scorer("toxblock").score(["you are stupid"])
        damaged = wheel.parent / "extracted" / name
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
        assert load_scorer("toxblock").score(["you are stupid"]) == expected

    def test_another_pickle_in_the_wheel_is_not_read(self, wheel, monkeypatch):
        monkeypatch.setattr(toxblock, "_PICKLE_SHA256", "0" * 64)
        monkeypatch.setattr(toxblock, "read_vocabulary", lambda _: pytest.fail("read before its digest was checked"))
        with pytest.raises(ArtifactError, match=r"holds another .*encoder_0\.1\.2\.pkl than expected"):
            load_scorer("toxblock")

    def test_a_damaged_wheel_is_fetched_again(self, wheel, monkeypatch):
        def unreachable(artifact, folder, progress):
            raise ArtifactError("no network")

        monkeypatch.setattr("fairmend.artifacts._pip_download", unreachable)
        wheel.write_bytes(wheel.read_bytes()[:-1])
        assert not is_cached()
        with pytest.raises(ArtifactError, match="no network"):
            load_scorer("toxblock")

    def test_without_h5py_the_error_says_how_to_install_it(self, wheel, monkeypatch):
        monkeypatch.setattr(toxblock, "find_spec", lambda _: None)
        assert not is_cached()
        with pytest.raises(ArtifactError, match=r"needs the package h5py.*pip install 'fairmend\[toxblock\]'"):
            load_scorer("toxblock")


def of_kind(kind):
    class Own:
        name, scores_continuation_only = "mine", False

        def score(self, texts):
            calls.append(list(texts))
            return [len(text) / 10 for text in texts]

        def fingerprint(self):
            return {}

    calls, own = [], Own()
    own.kind, own.calls = kind, calls
    return own


class TestSecondOpinion:
    @pytest.fixture(autouse=True)
    def _offline(self, monkeypatch):
        monkeypatch.setattr("fairmend.artifacts._pip_download", lambda *_: pytest.fail("nothing is to be fetched"))

    @pytest.mark.parametrize("kind", ["lexical", "classifier", "custom"])
    def test_it_is_tox_block_s_where_that_is_cached(self, wheel, kind):
        assert second_scorer(of_kind(kind)).kind == "recurrent"

    def test_of_tox_block_it_is_the_lexical_one(self, scorer):
        pytest.importorskip("profanity_check")
        assert second_scorer(scorer).kind == "lexical"

    def test_where_tox_block_is_not_cached_it_is_the_lexical_one_and_of_that_none(self, tmp_path, monkeypatch):
        pytest.importorskip("profanity_check")
        monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path))
        assert second_scorer(of_kind("custom")).kind == "lexical"
        assert second_scorer(of_kind("lexical")) is None
        assert list(tmp_path.iterdir()) == []

    def test_where_neither_is_there_it_is_none(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path))
        monkeypatch.setitem(sys.modules, "profanity_check", None)
        assert second_scorer(of_kind("classifier")) is None

    def test_equal_texts_are_scored_once_each_in_its_place(self):
        own = of_kind("custom")
        assert score_distinct(own, ["bb", "a", "bb", "", "a"]).tolist() == [0.2, 0.1, 0.2, 0, 0.1]
        assert own.calls == [["bb", "a", ""]]
        assert score_distinct(own, []).shape == (0,)
