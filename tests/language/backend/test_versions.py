"""Other releases of transformers: too old, newer than tested, or without something that is needed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from architectures import tiny
from head_order import prove_head_order
from shrinking import shrunk
from tiny_lm import tiny_lm, word_tokenizer
from transformers import CTRLTokenizer

from fairmend.errors import InputError, ModelError
from fairmend.language.backend import versions
from fairmend.language.backend.batching import BatchSize, is_out_of_memory
from fairmend.language.backend.tokenizers import tokenizer_description
from fairmend.language.backend.versions import OLDEST, check_installed, own_attention, required
from fairmend.language.heads.gates import masked
from fairmend.language.heads.heads import find_heads
from fairmend.language.heads.slicing import slice_groups
from fairmend.language.models.models import load_model
from fairmend.language.models.writing import save_model


@pytest.mark.parametrize("release", ["4.57.1", "5.16.3", "5.9.0.dev0"])
def test_an_old_release_is_refused_with_what_to_run(release: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(versions, "transformers_version", lambda: release)
    with pytest.raises(InputError, match=rf"transformers {release} is installed, 5\.17 or newer .* pip install"):
        tiny_lm()


@pytest.mark.parametrize("release", [OLDEST, "5.17.0rc1", "5.25.0.dev0", "6.0rc1", "10.2.1+local"])
def test_a_release_that_is_newer_than_tested_is_tried(release: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(versions, "transformers_version", lambda: release)
    check_installed()


def test_a_directory_loads_where_transformers_knows_nothing_of_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = save_model(tiny_lm(), tmp_path / "model")
    module: Any = type(transformers)
    found = module.__getattr__

    def without_gguf(self: Any, name: str) -> Any:
        if name == "GgufConfig":
            raise AttributeError(name)
        return found(self, name)

    monkeypatch.delitem(vars(transformers), "GgufConfig", raising=False)
    monkeypatch.setattr(module, "__getattr__", without_gguf)
    with pytest.raises(ImportError):
        from transformers import GgufConfig  # noqa: F401
    assert load_model(str(folder)).head_map.n_heads == 8


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_kernels_of_a_repository_that_a_configuration_names_are_not_looked_for(key: str, tmp_path: Path):
    lm = tiny_lm()
    folder = save_model(lm, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: "owner/repository"}))
    loaded = load_model(str(folder))  # without a network, and without the package that fetches kernels
    assert loaded.model.config._attn_implementation == "sdpa"
    ids = torch.arange(3, 12)[None]
    assert torch.equal(loaded.model(ids).logits, lm.model(ids).logits)


def test_kernels_are_torchs_own_in_every_part_of_a_configuration():
    config = shrunk("gemma3").config
    config.get_text_config()._attn_implementation_internal = "owner/repository"
    assert own_attention(config).get_text_config()._attn_implementation is None
    eager = transformers.LlamaConfig(attn_implementation="eager")
    assert own_attention(eager)._attn_implementation == "eager"


def test_what_is_missing_is_named_with_its_class_and_the_release():
    with pytest.raises(
        ModelError, match=rf"LlamaConfig: there is no widths \(transformers {transformers.__version__}; "
    ):
        required(transformers.LlamaConfig(), "widths")
    model: Any = tiny("llama-gqa")
    head_map = find_heads(model)
    twin: Any = type("Headless", (type(model),), {"get_output_embeddings": property(lambda self: _absent())})
    model.__class__ = twin
    with pytest.raises(ModelError, match="Headless: there is no get_output_embeddings"):
        find_heads(model)
    model.__class__ = type("Unreadable", (type(tiny("llama-gqa")),), {"get_input_embeddings": lambda self: None})
    with pytest.raises(ModelError, match="Unreadable: get_input_embeddings gives no embedding of tokens"):
        prove_head_order(model, head_map)


def _absent() -> Any:
    raise AttributeError


def test_an_accessor_that_fails_for_another_reason_is_not_taken_for_a_model_without_one():
    model: Any = tiny("llama-gqa")

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    model.__class__ = type("Failing", (type(model),), {"get_output_embeddings": fail})
    with pytest.raises(ZeroDivisionError):
        find_heads(model)


def test_slicing_says_what_the_library_objected_to_and_lets_other_errors_through(monkeypatch: pytest.MonkeyPatch):
    model: Any = tiny("llama-gqa")
    head_map = find_heads(model)
    mask = head_map.space().mask([0, 1, 4, 5])
    kind = type(model)
    for error, said in [(TypeError("no such argument"), "TypeError: no such argument"), (KeyError("odd"), None)]:

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        with monkeypatch.context() as patch, masked(model, mask, head_map):
            patch.setattr(kind, "__init__", fail)
            with pytest.raises(KeyError if said is None else ModelError, match=said or "odd"):
                slice_groups(model, mask, head_map)


def test_tokenizers_in_python_are_told_apart_by_more_than_their_vocabulary(tmp_path: Path):
    vocabulary = {"a": 0, "b</w>": 1, "ab</w>": 2, "<unk>": 3}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    described = []
    for merges in ("#version\na b</w> 1\n", "#version\n\n"):
        (tmp_path / "merges.txt").write_text(merges)
        tokenizer = CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
        assert not tokenizer.is_fast
        described.append(tokenizer_description(tokenizer))
    assert described[0] != described[1]
    assert tokenizer_description(word_tokenizer()) == tokenizer_description(word_tokenizer())


def test_torch_still_says_in_known_words_that_memory_ran_out():
    with pytest.raises(RuntimeError) as refusal:
        torch.empty(1 << 61, dtype=torch.uint8)
    assert is_out_of_memory(refusal.value)
    sizes = BatchSize("auto", torch.device("cpu"))

    def work(part: Any) -> int:
        if len(part) > 4:
            torch.empty(1 << 61, dtype=torch.uint8)
        return len(part)

    assert sum(count for _, count in sizes.run(work, range(16))) == 16
