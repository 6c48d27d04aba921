"""Classifiers as other people leave them: incomplete, contradictory, hostile, or of another version of transformers."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_classifiers import TEXTS, WORDS, classifier, save_classifier, save_detoxify, tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BloomConfig,
    BloomForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from fairmend.errors import ArtifactError, FairmendError, InputError, ModelError
from fairmend.language.toxicity.catalogue import load_scorer
from fairmend.language.toxicity.classifiers import ClassifierScorer

LABELS = ["neutral", "toxic"]
VISIBLE = [text for text in TEXTS if text.strip()]


def load(folder: Path) -> ClassifierScorer:
    scorer = load_scorer(str(folder), device="cpu")
    assert isinstance(scorer, ClassifierScorer)
    return scorer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_classifier(tmp_path / "tiny", LABELS)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def words_tokenizer(words: list[str], **options: Any) -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **({"unk_token": "<unk>", "pad_token": "<pad>"} | options))


def wrap(model: torch.nn.Module, words: PreTrainedTokenizerFast) -> ClassifierScorer:
    return ClassifierScorer(model, words, name="tiny", device="cpu")


class TestTokenizers:
    def test_a_directory_without_a_tokenizer_is_refused(self, folder):
        for path in folder.glob("tokenizer*"):
            path.unlink()
        with pytest.raises(ModelError, match=r"has no tokenizer \(tokenizer\.json, .*save it beside the model"):
            load(folder)

    def test_a_tokenizer_that_transformers_makes_up_knows_no_words_and_is_refused(self, folder):
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
        with pytest.raises(ModelError, match="tokenizer of tiny gives only unknown tokens for ordinary text"):
            load(folder)

    def test_a_tokenizer_of_another_alphabet_is_a_tokenizer(self):
        scorer = wrap(classifier(LABELS), words_tokenizer(["люди", "и", "собака"]))
        assert len(set(scorer.score(["люди", "собака"]).tolist())) == 2

    def test_a_tokenizer_of_other_words_is_refused(self):
        with pytest.raises(ModelError, match="only unknown tokens"):
            wrap(classifier(LABELS), words_tokenizer(["lorem", "ipsum"]))

    def test_a_token_that_the_model_does_not_have_is_named_with_both_sizes(self, folder):
        words = tokenizer()
        words.add_tokens(["rude", "ruder"])
        words.save_pretrained(folder)
        with pytest.raises(ModelError, match=rf"2 tokens .* 'rude' with number {len(WORDS)}, .* {len(WORDS)} rows"):
            load(folder)

    def test_a_tokenizer_without_padding_is_refused_with_the_remedy(self, folder):
        edit(folder / "tokenizer_config.json", pad_token=None)
        with pytest.raises(ModelError, match=r"no padding token.*tokenizer\.pad_token = tokenizer\.eos_token"):
            load(folder)

    def test_a_token_for_unknown_words_that_is_not_there_is_named(self, folder):
        edit(folder / "tokenizer_config.json", unk_token="")
        with pytest.raises(ModelError, match="does not have its own token for unknown words, ''"):
            load(folder)

    def test_a_tokenizer_that_fails_on_a_word_is_an_error_that_names_the_scorer(self):
        vocabulary = {word: number for number, word in enumerate(WORDS)}
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[absent]"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        scorer = wrap(classifier(LABELS), PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>"))
        with pytest.raises(ModelError, match=r"tokenizer of tiny:toxic fails on 'a mouse' .*unknown words"):
            scorer.score(["a mouse"])

    def test_a_text_without_a_single_token_is_an_error(self):
        vocabulary = {letter: number for number, letter in enumerate(["<pad>", *"acdeghiklnoprst"])}
        letters = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, [])), pad_token="<pad>")
        scorer = wrap(classifier(LABELS), letters)
        assert scorer.score(["dog"])[0] > 0
        with pytest.raises(ModelError, match="tokenizer of tiny:toxic makes nothing of '!!'"):
            scorer.score(["dog", "!!"])


class TestPadding:
    def last_token_model(self, pad: int | None) -> GPT2ForSequenceClassification:
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=19, n_embd=16, n_layer=2, n_head=2, n_positions=40, pad_token_id=pad)
        config.id2label = dict(enumerate(LABELS))
        config.label2id = {label: number for number, label in enumerate(LABELS)}
        model = GPT2ForSequenceClassification(config).eval()
        torch.nn.init.normal_(model.score.weight)
        return model

    def test_a_model_that_reads_the_last_token_scores_short_texts_as_if_alone(self):
        model, words = self.last_token_model(0), words_tokenizer(WORDS[4:])
        with torch.inference_mode():
            logits = torch.cat([model(**words(text, return_tensors="pt")).logits for text in VISIBLE])
        expected = torch.softmax(logits, dim=1)[:, 1].numpy()
        np.testing.assert_allclose(wrap(model, words).score(VISIBLE), expected, atol=1e-6)

    def test_a_model_that_takes_padding_for_the_last_token_is_refused(self):
        with pytest.raises(ModelError, match=r"tiny:toxic scores a text otherwise when it is padded .*pad_token_id"):
            wrap(self.last_token_model(7), words_tokenizer(WORDS[4:]))

    def test_a_model_that_knows_no_padding_is_refused(self):
        with pytest.raises(ModelError, match=r"does not run with transformers .*padding token"):
            wrap(self.last_token_model(None), words_tokenizer(WORDS[4:]))


class TestLimits:
    def no_positions(self) -> BloomForSequenceClassification:
        labels = {"id2label": dict(enumerate(LABELS)), "label2id": {"neutral": 0, "toxic": 1}}
        config = BloomConfig(vocab_size=19, hidden_size=16, n_layer=1, n_head=2, pad_token_id=0, **labels)
        return BloomForSequenceClassification(config)

    def test_where_nobody_knows_the_limit_it_is_asked_for(self):
        with pytest.raises(ModelError, match="set model_max_length in tokenizer_config"):
            wrap(self.no_positions(), words_tokenizer(WORDS[4:]))
        assert wrap(self.no_positions(), words_tokenizer(WORDS[4:], model_max_length=9)).max_length == 9

    def test_a_tokenizer_that_promises_more_than_the_model_has_is_bounded_by_the_model(self, folder):
        edit(folder / "tokenizer_config.json", model_max_length=1000)
        scorer = load(folder)
        assert scorer.max_length == 32
        assert np.isfinite(scorer.score(["you are awful " * 500])).all()

    def test_a_limit_without_room_for_a_text_is_refused(self, folder):
        edit(folder / "tokenizer_config.json", model_max_length=2)
        with pytest.raises(ModelError, match=r"takes 2 tokens .* no room for a text"):
            load(folder)


class TestCode:
    @pytest.fixture(autouse=True)
    def _nobody_is_asked(self, monkeypatch):
        def ask(*_: object) -> str:
            raise AssertionError("a question was asked")

        monkeypatch.setattr("builtins.input", ask)
        monkeypatch.setattr("torch.load", ask)

    def with_code(self, folder: Path) -> Path:
        (folder / "evil.py").write_text(f"open({str(folder / 'it ran')!r}, 'w')\n")
        return folder

    @pytest.mark.parametrize(
        ("file", "changes"),
        [
            ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}),
            ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ],
    )
    def test_custom_code_is_refused_without_a_question(self, folder, file, changes):
        edit(self.with_code(folder) / file, **changes)
        with pytest.raises(ModelError, match=rf"needs code of its own \(auto_map in {file}\).*python:MODULE:FUNCTION"):
            load(folder)
        assert not (folder / "it ran").exists()

    def test_code_beside_a_model_that_transformers_knows_is_not_run(self, folder):
        expected = load(folder).score(TEXTS)
        auto_map = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
        edit(self.with_code(folder) / "config.json", auto_map=auto_map)
        assert np.array_equal(load(folder).score(TEXTS), expected)
        assert not (folder / "it ran").exists()

    def test_pickled_weights_are_not_read_and_the_way_to_safetensors_is_named(self, folder):
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match=r"only pytorch_model\.bin\..*save_pretrained\('NEW'\)") as caught:
            load(folder)
        assert "weights_only" not in str(caught.value)

    def test_weights_of_another_name_are_not_read(self, folder):
        edit(folder / "config.json", transformers_weights="adapter_model.bin")
        with pytest.raises(ModelError, match=r"transformers_weights='adapter_model\.bin'"):
            load(folder)

    def test_a_kernel_of_the_hub_is_not_asked_for(self, folder):
        expected = load(folder)
        edit(folder / "config.json", _attn_implementation="owner/kernel")
        scorer = load(folder)
        assert scorer.fingerprint()["attention"] == "sdpa"
        assert np.array_equal(scorer.score(TEXTS), expected.score(TEXTS))

    def test_a_checkpoint_of_detoxify_takes_no_code_from_the_files_beside_it(self, tmp_path, monkeypatch):
        monkeypatch.undo()
        path = save_detoxify(tmp_path, ["toxic"])
        edit(self.with_code(tmp_path) / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"})
        with pytest.raises(ModelError, match="needs code of its own"):
            load_scorer(f"detoxify:{path}")
        assert not (tmp_path / "it ran").exists()


class TestFiles:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_hidden_layers": 1}, r"does not read, such as roberta\.encoder\.layer\.1\..*another model"),
            ({"num_hidden_layers": 3}, r"lacks roberta\.encoder\.layer\.2\."),
            ({"num_hidden_layers": 10**7}, r"num_hidden_layers=10000000, .* tensors"),
            ({"quantization_config": {"quant_method": "fp8"}}, "is quantised"),
            ({"id2label": {"0": "neutral", "2": "toxic"}}, "id2label must name every number from 0 to 1"),
            ({"id2label": {"0": "neutral", "1": 3}}, "id2label"),
            ({"model_type": ["roberta"]}, "transformers cannot read .*another release"),
            ({"hidden_size": "wide"}, "transformers cannot read .*another release"),
            ({"vocab_size": 99}, "transformers cannot read .*another release"),
        ],
    )
    def test_a_configuration_that_is_not_the_weights_is_refused(self, folder, changes, message):
        edit(folder / "config.json", **changes)
        with pytest.raises(ModelError, match=message):
            load(folder)

    def test_an_adapter_is_refused_with_the_remedy(self, folder):
        (folder / "adapter_config.json").write_text("{}")
        with pytest.raises(ModelError, match=r"holds an adapter .*merge_and_unload"):
            load(folder)

    def test_a_pipe_is_refused_and_not_waited_for(self, folder):
        (folder / "tokenizer.json").unlink()
        os.mkfifo(folder / "tokenizer.json")
        with pytest.raises(ModelError, match=r"tokenizer\.json is neither a file nor a directory but a pipe"):
            load(folder)

    def test_labels_that_differ_in_case_only_have_to_be_named(self, tmp_path):
        save_classifier(tmp_path, ["Toxic", "TOXIC"])
        with pytest.raises(InputError, match="several labels 'toxic': name one of Toxic, TOXIC"):
            load(tmp_path)
        assert load_scorer(str(tmp_path), label="TOXIC", device="cpu").name.endswith(":TOXIC")

    @pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{", "\udcff"])
    @pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json"])
    def test_damaged_descriptions_are_refused(self, folder, file, content):
        (folder / file).write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(ModelError):
            load(folder)

    @pytest.mark.parametrize(
        ("raised", "error", "message"),
        [
            (
                TypeError("unexpected keyword"),
                ModelError,
                f"TypeError: unexp.* this release, {transformers.__version__}",
            ),
            (
                ImportError("install sentencepiece"),
                InputError,
                "cannot be read with the packages installed here: install sentence",
            ),
        ],
    )
    def test_a_refusal_of_the_library_is_not_blamed_on_the_files_alone(
        self, folder, monkeypatch, raised, error, message
    ):
        def from_pretrained(*_: object, **__: object) -> None:
            raise raised

        monkeypatch.setattr("transformers.AutoModelForSequenceClassification.from_pretrained", from_pretrained)
        with pytest.raises(error, match=message):
            load(folder)

    def test_a_forward_pass_that_refuses_what_it_is_given_names_the_version(self, monkeypatch):
        model = classifier(LABELS)

        def forward(tokens: torch.Tensor) -> None:
            raise AssertionError

        monkeypatch.setattr(model, "forward", forward)
        with pytest.raises(ModelError, match=f"does not run with transformers {transformers.__version__} .TypeError"):
            wrap(model, tokenizer())


class TestNames:
    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("scorers:ok", r"a function of your own is named python:scorers:ok"),
            ("C:\\models\\toxic:x", "no scorer is named"),
            ("a" * 5000, "no scorer at"),
            ("a\0b", "no scorer at"),
            ("own er/model", "cannot be a Hugging Face id"),
        ],
    )
    def test_what_is_no_scorer_is_refused_with_what_is(self, spec, message):
        with pytest.raises(InputError, match=rf"{message}.*name a directory with a classifier"):
            load_scorer(spec)

    def test_a_file_is_refused(self, folder):
        with pytest.raises(InputError, match="is no directory: name a directory"):
            load_scorer(str(folder / "model.safetensors"))

    def test_a_repository_is_fetched_without_code_and_pickles_and_keeps_its_name(self, folder, monkeypatch):
        asked = {}

        def snapshot_download(name: str, **options: Any) -> str:
            asked.update(options, name=name)
            return str(folder)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        scorer = load_scorer("owner/model", device="cpu", revision="v1")
        assert scorer.name == "owner/model:toxic"
        assert (asked["name"], asked["revision"]) == ("owner/model", "v1")
        assert sorted(asked["allow_patterns"]) == ["*.json", "*.model", "*.safetensors", "*.txt"]

    def test_a_cache_that_is_full_is_named_and_not_the_network(self, monkeypatch):
        def snapshot_download(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        with pytest.raises(ArtifactError, match=r"cache of Hugging Face, .*No space left on device.*HF_HOME"):
            load_scorer("owner/model")

    def test_a_client_of_the_hub_that_changed_is_named_with_its_version(self, monkeypatch):
        def snapshot_download(*_: object, **__: object) -> None:
            raise TypeError("unexpected keyword argument 'allow_patterns'")

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        with pytest.raises(ArtifactError, match=rf"huggingface_hub {huggingface_hub.__version__} .TypeError: unexp"):
            load_scorer("owner/model")

    def test_nothing_but_errors_of_ours_comes_out_of_an_empty_directory(self, tmp_path):
        with pytest.raises(FairmendError, match=r"has no config\.json"):
            load_scorer(str(tmp_path))
