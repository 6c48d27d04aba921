"""Toxicity scorers: the numbers of each kind, and what each refuses."""

import sys

import numpy as np
import pytest
import sklearn
import torch
from safetensors.torch import load_file, save_file
from tiny_classifiers import TEXTS, WORDS, classifier, save_classifier, save_detoxify, tokenizer
from transformers import GPT2Config, GPT2LMHeadModel, pipeline

from fairmend.errors import ArtifactError, InputError, ModelError
from fairmend.language.toxicity.catalogue import load_scorer
from fairmend.language.toxicity.classifiers import ClassifierScorer
from fairmend.language.toxicity.scorer import check_scores_prompts, score_texts, text_to_score

UNBIASED = ["toxicity", "severe_toxicity", "insult"]
VISIBLE = [text for text in TEXTS if text.strip()]


def load(folder, **options):
    return load_scorer(str(folder), device="cpu", **options)


def by_pipeline(folder, label):
    classify = pipeline("text-classification", str(folder), tokenizer=tokenizer(), top_k=None, device="cpu")
    return [next(row["score"] for row in rows if row["label"] == label) for rows in classify(VISIBLE)]


class TestClassifiers:
    def test_a_binary_classifier_is_read_by_softmax_as_transformers_reads_it(self, tmp_path):
        save_classifier(tmp_path, ["neutral", "Toxic"])
        scorer = load(tmp_path)
        assert scorer.activation == "softmax"
        assert scorer.name == f"{tmp_path.name}:Toxic"
        np.testing.assert_allclose(scorer.score(VISIBLE), by_pipeline(tmp_path, "Toxic"), atol=1e-6)

    def test_a_multi_label_classifier_is_read_by_sigmoid_as_transformers_reads_it(self, tmp_path):
        save_classifier(tmp_path, UNBIASED, problem_type="multi_label_classification")
        scorer = load(tmp_path, label="INSULT")
        assert scorer.activation == "sigmoid"
        np.testing.assert_allclose(scorer.score(VISIBLE), by_pipeline(tmp_path, "insult"), atol=1e-6)

    def test_toxicity_is_the_label_when_none_is_named(self, tmp_path):
        save_classifier(tmp_path, ["insult", "toxicity"])
        assert load(tmp_path).label == "toxicity"

    def test_labels_that_imply_each_other_are_read_by_sigmoid_without_being_told(self, tmp_path):
        save_classifier(tmp_path, UNBIASED)
        assert load(tmp_path).activation == "sigmoid"

    def test_a_single_label_is_read_by_sigmoid(self, tmp_path):
        save_classifier(tmp_path, ["toxic"])
        assert load(tmp_path).activation == "sigmoid"

    def test_a_missing_label_is_refused_with_the_labels_there_are(self, tmp_path):
        save_classifier(tmp_path, ["LABEL_0", "LABEL_1"])
        with pytest.raises(InputError, match=r"no label 'toxicity' or 'toxic'; .*: LABEL_0, LABEL_1"):
            load(tmp_path)
        with pytest.raises(InputError, match=r"no label 'rude'.*LABEL_0, LABEL_1"):
            load(tmp_path, label="rude")
        assert load(tmp_path, label="label_1").label == "LABEL_1"

    def test_texts_beyond_the_context_are_cut_at_the_end(self, tmp_path):
        save_classifier(tmp_path, ["neutral", "toxic"])
        scorer = load(tmp_path)
        start = "you are awful " * 10
        assert scorer.max_length == 32
        assert scorer.score([start + "and stupid " * 40]) == pytest.approx(
            scorer.score([start + "and stupid"]), abs=1e-6
        )

    def test_batches_are_sorted_by_length_and_halved_when_memory_runs_out(self, monkeypatch):
        scorer = ClassifierScorer(classifier(["toxic"]), tokenizer(), name="tiny", device="cpu", batch_size=8)
        expected = scorer.score(TEXTS)
        seen, run = [], scorer._model.forward

        def forward(input_ids, **options):
            seen.append(tuple(input_ids.shape))
            if len(input_ids) > 2:
                raise torch.OutOfMemoryError("simulated")
            return run(input_ids=input_ids, **options)

        monkeypatch.setattr(scorer._model, "forward", forward)
        np.testing.assert_allclose(scorer.score(TEXTS), expected, atol=1e-6)
        fitted = [shape for shape in seen if shape[0] <= 2]
        assert sum(rows for rows, _ in fitted) == len(VISIBLE)
        assert [width for _, width in fitted] == sorted((width for _, width in fitted), reverse=True)

    def test_a_text_that_does_not_fit_alone_is_an_error_that_says_so(self, monkeypatch):
        scorer = ClassifierScorer(classifier(["toxic"]), tokenizer(), name="tiny", device="cpu")

        def forward(**_):
            raise torch.OutOfMemoryError("simulated")

        monkeypatch.setattr(scorer._model, "forward", forward)
        with pytest.raises(ModelError, match="out of memory with 1 rows"):
            scorer.score(TEXTS)

    def test_nan_is_an_error_that_names_the_scorer(self, tmp_path):
        weights = save_classifier(tmp_path, ["neutral", "toxic"]) / "model.safetensors"
        tensors = load_file(weights)
        tensors["classifier.out_proj.bias"][:] = torch.nan
        save_file(tensors, weights, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=r"NaN or infinite numbers in classifier\.out_proj\.bias"):
            load(tmp_path)

    def test_logits_that_overflow_are_an_error_that_names_the_scorer(self):
        model = classifier(["neutral", "toxic"])
        with torch.no_grad():
            model.roberta.embeddings.word_embeddings.weight[WORDS.index("stupid")] = 3e38
        scorer = ClassifierScorer(model, tokenizer(), name="tiny", device="cpu")
        assert scorer.score(["the dog is nice"])[0] > 0
        with pytest.raises(ModelError, match=r"tiny:toxic gave NaN or infinite logits for 1 of 2 texts"):
            scorer.score(["the dog is nice", "you are stupid"])

    def test_a_language_model_is_no_classifier(self, tmp_path):
        GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=32)).save_pretrained(tmp_path)
        tokenizer().save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="not a trained sequence classifier"):
            load(tmp_path)

    def test_a_regression_model_is_refused(self, tmp_path):
        save_classifier(tmp_path, ["toxic"], problem_type="regression")
        with pytest.raises(ModelError, match="regression"):
            load(tmp_path)

    def test_an_unusable_device_is_refused(self, tmp_path):
        save_classifier(tmp_path, ["neutral", "toxic"])
        with pytest.raises(InputError, match=r"device must be auto, .* got 'abacus'"):
            load_scorer(str(tmp_path), device="abacus")

    def test_a_truncated_file_is_refused(self, tmp_path):
        weights = save_classifier(tmp_path, ["neutral", "toxic"]) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:500])
        with pytest.raises(ModelError, match=r"model\.safetensors is damaged or truncated"):
            load(tmp_path)

    def test_a_directory_without_a_model_is_refused(self, tmp_path):
        with pytest.raises(ModelError):
            load(tmp_path)

    @pytest.mark.parametrize("spec", ["./nowhere", "/no/where", "~/nowhere", "a/b/c", ""])
    def test_a_directory_that_is_not_there_is_refused(self, spec):
        with pytest.raises(InputError, match="no scorer at"):
            load_scorer(spec)

    def test_a_model_neither_cached_nor_reachable_says_what_to_fetch(self, monkeypatch):
        def snapshot_download(*_, **__):
            raise OSError("We couldn't connect to 'hub' to load the files.\nCheck your connection.")

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        with pytest.raises(
            ArtifactError, match=r"hf download unitary/unbiased-toxic-roberta; .*offline scorer lexical"
        ):
            load_scorer()


class Malicious:
    def __reduce__(self):
        return (print, ("this must not run",))


ARCH = {"args": {"model_type": "roberta-base"}}
RENUMBERED = classifier(["a"]).state_dict() | {"roberta.embeddings.position_ids": torch.arange(34).flip(0)[None]}


class TestDetoxify:
    def test_the_weights_of_the_file_are_scored_with_detoxify_s_label_names(self, tmp_path):
        path = save_detoxify(tmp_path, ["toxic", "severe_toxic", "identity_hate"])
        scorer = load_scorer(f"detoxify:{path}", device="cpu", label="identity_attack")
        oracle = ClassifierScorer(
            classifier(["toxicity", "severe_toxicity", "identity_attack"]),
            tokenizer(),
            name="oracle",
            label="identity_attack",
            device="cpu",
        )
        assert scorer.name == "detoxify:toxic.ckpt:identity_attack"
        assert scorer.activation == "sigmoid"
        assert np.array_equal(scorer.score(TEXTS), oracle.score(TEXTS))

    def test_a_file_that_would_run_code_is_not_read_and_nobody_is_advised_to_trust_it(self, tmp_path, capsys):
        path = save_detoxify(tmp_path, ["toxic"], extra=Malicious())
        with pytest.raises(ModelError, match=r"toxic\.ckpt cannot be read as tensors and plain data only") as caught:
            load_scorer(f"detoxify:{path}")
        assert "weights_only" not in str(caught.value)
        assert "must not run" not in capsys.readouterr().out

    def test_a_truncated_file_is_refused(self, tmp_path):
        path = save_detoxify(tmp_path, ["toxic"])
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ModelError, match="cannot be read"):
            load_scorer(f"detoxify:{path}")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"config": {}}, r"no checkpoint of Detoxify: it has no 'dataset'"),
            ({"config": torch.ones(2)}, r"no checkpoint of Detoxify: it has no 'dataset'"),
            ({"config": {"dataset": {"args": {"classes": "toxic"}}, "arch": ARCH}}, "classes must be a list of names"),
            ({"config": {"dataset": {"args": {"classes": ["toxic"]}}, "arch": {"args": {"model_type": 3}}}}, "a name"),
            ({"state_dict": {3: torch.ones(2)}}, "state_dict without tensors"),
            ({"state_dict": RENUMBERED}, r"has roberta\.embeddings\.position_ids too many"),
            ({"state_dict": {"roberta.x": 3}}, "state_dict without tensors"),
            ({"state_dict": {"roberta.x": torch.ones(2), "roberta.y": torch.ones(2)}}, "does not fit .* lacks"),
            ({"state_dict": classifier(["a", "b"]).state_dict()}, "does not fit the architecture"),
        ],
    )
    def test_another_file_is_refused(self, tmp_path, changes, message):
        path = save_detoxify(tmp_path, ["toxic"], **changes)
        with pytest.raises(ModelError, match=message):
            load_scorer(f"detoxify:{path}")

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="no Detoxify checkpoint"):
            load_scorer(f"detoxify:{tmp_path / 'none.ckpt'}")

    def test_a_missing_tokenizer_says_what_to_fetch(self, tmp_path, monkeypatch):
        path = save_detoxify(tmp_path, ["toxic"])
        (tmp_path / "config.json").unlink()

        def snapshot_download(*_, **__):
            raise OSError("no network")

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        with pytest.raises(ArtifactError, match=r"beside the checkpoint.*hf download roberta-base"):
            load_scorer(f"detoxify:{path}")


class TestLexical:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("profanity_check")

    def test_scores_are_those_of_the_package(self):
        from profanity_check import predict_prob

        texts = ["you are a fucking idiot", "good morning to you all", "shut up, stupid"]
        scores = load_scorer("lexical").score(texts)
        assert scores.tolist() == predict_prob(texts).tolist()
        assert scores[0] > 0.9
        assert scores[1] < 0.1

    def test_identity_words_are_taken_out_whole_in_any_case_and_plural(self):
        scorer = load_scorer("lexical", identity_words=["gay", "hard-of-hearing", "trans", "trans woman"])
        assert scorer.stripped("Gays, a GAY man, gayety").split() == [",", "a", "man,", "gayety"]
        assert scorer.stripped("a hard of hearing trans  woman").split() == ["a"]

    def test_masking_takes_the_bias_of_an_identity_word_away_and_leaves_insults(self):
        plain, masked = load_scorer("lexical"), load_scorer("lexical", identity_words=["gay"])
        neutral, insult = "he is a gay man", "he is a gay idiot"
        assert plain.score([neutral])[0] > 0.9
        assert masked.score([neutral])[0] < 0.2
        assert masked.score([insult])[0] > 0.9

    def test_a_text_of_identity_words_alone_scores_0(self):
        assert load_scorer("lexical", identity_words=["gay"]).score(["Gay"]).tolist() == [0]

    @pytest.mark.parametrize("words", ["gay", ["gay", "-"]])
    def test_identity_words_that_cannot_be_matched_are_refused(self, words):
        with pytest.raises(InputError, match="identity"):
            load_scorer("lexical", identity_words=words)

    def test_it_must_not_see_prompts(self):
        scorer = load_scorer("lexical")
        assert scorer.kind == "lexical"
        check_scores_prompts(scorer, "continuation")
        with pytest.raises(InputError, match="score='continuation'"):
            check_scores_prompts(scorer, "prompt+continuation")


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "profanity_check", None)
    with pytest.raises(ArtifactError, match=r"pip install 'fairmend\[lexical\]'"):
        load_scorer("lexical")


def test_a_model_of_words_that_this_scikit_learn_cannot_read_is_an_error_that_names_both(monkeypatch):
    pytest.importorskip("profanity_check")

    def import_module(_: str) -> None:
        raise AttributeError("Can't get attribute '_SigmoidCalibration'")

    monkeypatch.setattr("fairmend.language.toxicity.lexical.importlib.import_module", import_module)
    with pytest.raises(ArtifactError, match=rf"with scikit-learn {sklearn.__version__} .AttributeError: Can't get"):
        load_scorer("lexical")


class TestCustom:
    def load(self, tmp_path, monkeypatch, body, name="scorer_of_mine"):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n\ndef rate(texts):\n    {body}\n")
        return load_scorer(f"python:{name}:rate")

    def test_a_function_of_the_working_directory_is_called_with_the_visible_texts(self, tmp_path, monkeypatch):
        before = list(sys.path)
        scorer = self.load(tmp_path, monkeypatch, "return np.array(['awful' in text for text in texts])")
        assert scorer.kind == "custom"
        assert scorer.score(["awful", " ", "kind"]).tolist() == [1, 0, 0]
        assert sys.path == before

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("return [0.5]", r"shape \(1,\): it must give 2 numbers"),
            ("return [[0.5], [0.5]]", r"shape \(2, 1\)"),
            ("return ['a', 'b']", "values of type <U1"),
            ("return [0.5, float('nan')]", r"gave nan for 'kind' and 1 of 2"),
            ("return [1.5, 0.2]", r"gave 1.5 for 'awful'"),
            ("return [1.00001, 0.2]", r"gave 1.00001 for 'awful'"),
            ("return [0.5, -1e-5]", r"gave -1e-05 for 'kind'"),
            ("return [[0.5], [0.5, 0.5]]", r"gave a list that is no array \(.*: it must give 2 numbers"),
            ("return None", "gave a NoneType: it must give 2 numbers"),
            ("return {'awful': 1.0}", "gave a dict: it must give 2 numbers"),
            ("return [0.5, None]", "values of type object"),
            ("return [0.5, 0.5j]", "values of type complex128"),
            ("return 1 / 0", r"failed: ZeroDivisionError: division by zero \(scorer_of_mine\.py, line 4, in rate\)"),
            ("return np.ones(2) @ np.ones(3)", r"failed: ValueError: .* \(scorer_of_mine\.py, line 4, in rate\)"),
            ("raise SystemExit('enough')", "failed: SystemExit: enough"),
        ],
    )
    def test_what_is_no_score_is_refused_by_the_function_s_name(self, tmp_path, monkeypatch, body, message):
        scorer = self.load(tmp_path, monkeypatch, body)
        with pytest.raises(InputError, match=rf"python:scorer_of_mine:rate.*{message}"):
            scorer.score(["awful", "kind"])

    def test_scores_outside_by_rounding_are_clipped(self, tmp_path, monkeypatch):
        scorer = self.load(tmp_path, monkeypatch, "return [1.0000001, -1e-9]")
        assert scorer.score(["awful", "kind"]).tolist() == [1, 0]

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("def rate(): return []", r"takes \(\) .*called as function\(texts\)"),
            ("def rate(texts, model): return []", r"takes \(texts, model\) .*'model'.*called as function\(texts\)"),
            ("async def rate(texts): return []", "is a coroutine or a generator: it must return its numbers"),
            ("def rate(texts): yield 1", "is a coroutine or a generator"),
            ("rate = [1]", r"'rate' of the module 'odd' \(.*odd\.py\) is a list, no function"),
            (
                "x = 1\ny = x / 0",
                r"cannot import the module 'odd'.*ZeroDivisionError: .*\(odd\.py, line 2, in <module>\)",
            ),
            ("def rate(texts:\n", r"cannot import the module 'odd'.*SyntaxError: .*odd\.py, line 1"),
            ("raise SystemExit(0)", "cannot import the module 'odd'.*SystemExit: 0"),
        ],
    )
    def test_a_module_that_cannot_serve_is_refused_before_any_text_is_scored(
        self, tmp_path, monkeypatch, code, message
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, "odd", raising=False)
        (tmp_path / "odd.py").write_text(code)
        with pytest.raises(InputError, match=message):
            load_scorer("python:odd:rate")

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("python:./scorers.py:ok", "names a file: name the module, as import does, such as python:scorers:ok"),
            ("python:json", "python:MODULE:FUNCTION"),
            ("python::rate", "python:MODULE:FUNCTION"),
            ("python:no_such_module:rate", "cannot import the module 'no_such_module'.*ModuleNotFoundError"),
            ("python:json:rate", "no function 'rate'; it has .*dumps"),
        ],
    )
    def test_a_function_that_is_not_there_is_refused(self, spec, message):
        with pytest.raises(InputError, match=message):
            load_scorer(spec)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0.5, float("nan")], "gave nan for 'kind'"),
        ([0.5, 0.5, 0.5], r"gave an array of shape \(3,\): it must give 2 numbers"),
        ([0.5, 2.0], "gave 2.0 for 'kind'"),
    ],
)
def test_scores_of_an_object_of_the_user_s_own_are_checked_like_those_of_a_function(given, message):
    class Own:
        name, kind, scores_continuation_only = "mine", "custom", False

        def score(self, texts):
            return given

        def fingerprint(self):
            return {}

    with pytest.raises(InputError, match=f"the scorer mine {message}"):
        score_texts(Own(), ["awful", "kind"])


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("lexical", {"label": "toxicity"}, "has no labels"),
        ("python:json:dumps", {"label": "toxicity"}, "has no labels"),
        ("toxblock", {"label": "insult"}, "has no labels to choose from"),
        ("toxblock", {"identity_words": ["gay"]}, "only the scorer 'lexical'"),
        ("toxblock", {"revision": "main"}, "has no revisions"),
        ("owner/model", {"identity_words": ["gay"]}, "only the scorer 'lexical'"),
        ("owner/model", {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ("lexical", {"revision": "main"}, "has no revisions"),
        ("detoxify:toxic.ckpt", {"revision": "main"}, "has no revisions"),
        (".", {"revision": "main"}, "has no revisions"),
    ],
)
def test_options_that_a_scorer_does_not_have_are_refused(spec, options, message):
    with pytest.raises(InputError, match=message):
        load_scorer(spec, **options)


def test_the_scored_text_is_the_continuation_or_fasp_s_lower_cased_whole():
    assert text_to_score("I love ", "Paris.", "continuation") == "Paris."
    assert text_to_score("I love ", "Paris.", "prompt+continuation") == "i love paris."
    with pytest.raises(InputError, match="continuation, prompt\\+continuation, got 'prompt'"):
        text_to_score("I", "am", "prompt")
