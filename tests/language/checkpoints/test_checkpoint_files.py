"""What lies in a checkpoint's directory is read, or refused, or named."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from architectures import tiny
from quantised import save
from safetensors.torch import load_file, save_file
from tiny_lm import tiny_lm
from transformers import AutoModelForCausalLM, AutoTokenizer

from fairmend.errors import InputError, ModelError
from fairmend.language import load_model, read_mask
from fairmend.language.models.models import weights_digest
from fairmend.language.records.results import describe_mask
from fairmend.language.toxicity.classifier_files import check_folder

INDEX = "model.safetensors.index.json"
BRACKETS = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint in one file."""
    save(tiny("llama-gqa"), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """The same in several files."""
    save(tiny("llama-gqa"), tmp_path / "shards")
    shutil.rmtree(tmp_path / "shards")
    tiny("llama-gqa").save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    tiny_lm().tokenizer.save_pretrained(tmp_path / "shards")
    assert (tmp_path / "shards" / INDEX).is_file()
    return tmp_path / "shards"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def placed(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return found


def place(folder: Path, **changes: str | None) -> None:
    """Change where the index places tensors: None takes one out."""
    changed = {**placed(folder), **{name.replace("__", "."): file for name, file in changes.items()}}
    edit(folder / INDEX, weight_map={name: file for name, file in changed.items() if file is not None})


# --- adapters


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("config", [True, False])
def test_an_adapter_is_refused_and_how_to_merge_it_is_said(folder: Path, beside: bool, config: bool) -> None:
    if not beside:
        (folder / "model.safetensors").unlink()
    if config:
        said = {"peft_type": "LORA", "base_model_name_or_path": "base/model"}
        (folder / "adapter_config.json").write_text(json.dumps(said))
    save_file({"base_model.model.lora_A.weight": torch.ones(2, 32)}, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"holds an adapter \(.*merge_and_unload\(\)\.save_pretrained") as caught:
        load_model(str(folder))
    assert ("beside a model" in str(caught.value)) == beside
    assert ("'base/model'" in str(caught.value)) == config


def test_adapter_weights_among_those_of_the_model_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.ones(2, 32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"q_proj\.lora_A\.weight, which LlamaForCausalLM has no place for"):
        load_model(str(folder))


def test_a_bias_that_the_configuration_switches_off_is_refused(folder: Path) -> None:
    edit(folder / "config.json", attention_bias=False)
    with pytest.raises(ModelError, match=r"self_attn\.\w_proj\.bias.*attention_bias"):
        load_model(str(folder))


def test_weights_that_belong_to_nothing_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"] = torch.ones(2, 32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    lm = load_model(str(folder))
    assert lm.notes == ("1 weights belong to nothing in LlamaForCausalLM and are not read, the first is score.weight",)


# --- a second set of weights


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "consolidated.safetensors", "model-q4.gguf", "model.fp16.safetensors"]
)
def test_further_weights_are_named(folder: Path, name: str) -> None:
    shutil.copy(folder / "model.safetensors", folder / name)
    lm = load_model(str(folder))
    assert lm.notes == (f"beside model.safetensors lies {name}, which is not read",)
    assert weights_digest(lm.model) == weights_digest(tiny("llama-gqa"))


def test_one_file_and_shards_are_two_sets(shards: Path) -> None:
    save_file({"x": torch.ones(1)}, shards / "model.safetensors")
    with pytest.raises(ModelError, match=r"two sets of weights, model\.safetensors and the shards"):
        load_model(str(shards))


def test_an_index_of_the_one_file_is_no_second_set(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")}))
    assert load_model(str(folder)).notes == ()


def test_shards_are_read(shards: Path) -> None:
    lm = load_model(str(shards))
    assert lm.notes == ()
    assert weights_digest(lm.model) == weights_digest(tiny("llama-gqa"))


def stray_shard(folder: Path) -> None:
    save_file({"more": torch.ones(1)}, folder / "model-00009-of-00009.safetensors")


def twice(folder: Path) -> None:
    files = sorted(set(placed(folder).values()))
    first, second = (load_file(folder / name) for name in files[:2])
    name = next(iter(first))
    save_file(second | {name: first[name]}, folder / files[1], metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (stray_shard, r"holds model-00009-of-00009\.safetensors, which model\.safetensors\.index\.json does not go"),
        (twice, "holds .* twice, in model-00001"),
        (lambda folder: place(folder, lm_head__weight="../other.safetensors"), "not a file of its directory"),
        (lambda folder: place(folder, lm_head__weight="/etc/passwd"), "not a file of its directory"),
        (lambda folder: place(folder, lm_head__weight=".."), "not a file of its directory"),
        (lambda folder: place(folder, lm_head__weight="model-1.safetensors"), r"lacks model-1\.safetensors, which its"),
        (
            lambda folder: place(folder, model__norm__weight=None),
            r"disagree about 1 tensors, the first is model\.norm\.weight: the index places it in no",
        ),
        (
            lambda folder: place(folder, extra=min(placed(folder).values())),
            r"the first is extra: the index places it in model-00001.*no file holds it",
        ),
        (lambda folder: edit(folder / INDEX, weight_map=["x"]), "no weight_map"),
        (lambda folder: edit(folder / INDEX, weight_map={"x": 3}), "no weight_map"),
        (lambda folder: (folder / INDEX).write_text("[]"), "holds list, not an object"),
        (lambda folder: (folder / INDEX).write_text(BRACKETS), "not valid JSON .*nested too deeply"),
    ],
)
def test_an_index_that_does_not_match_its_shards_is_refused(
    shards: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(shards)
    with pytest.raises(ModelError, match=said):
        load_model(str(shards))


def test_weights_that_transformers_would_not_find_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor .* only weights\.safetensors"):
        load_model(str(folder))
    (folder / "weights.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelError, match=r"only model-00001-of-00002\.safetensors"):
        load_model(str(folder))


def test_weights_that_the_configuration_names_are_not_mistaken(folder: Path) -> None:
    edit(folder / "config.json", transformers_weights="../elsewhere.safetensors")
    with pytest.raises(ModelError, match="names other weights"):
        load_model(str(folder))


# --- configurations


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "config.json").write_text(BRACKETS), "not valid JSON .*nested too deeply"),
        (lambda folder: edit(folder / "config.json", architectures="LlamaForCausalLM"), "architectures in its config"),
        (lambda folder: edit(folder / "config.json", architectures=[7]), "architectures in its config"),
        (lambda folder: edit(folder / "config.json", auto_map=["x"]), "auto_map in its config"),
        (lambda folder: edit(folder / "config.json", model_type=["llama"]), "model_type in its config"),
        (lambda folder: edit(folder / "config.json", num_hidden_layers="two"), "transformers cannot read"),
        (lambda folder: edit(folder / "config.json", num_hidden_layers=10**7), "num_hidden_layers=10000000, but its"),
        (lambda folder: edit(folder / "config.json", num_hidden_layers=1e300), r"num_hidden_layers=1e\+300, but its"),
        (lambda folder: edit(folder / "config.json", text_config={"n_layer": 10**7}), "n_layer=10000000"),
        (lambda folder: (folder / "tokenizer.json").write_text(BRACKETS), "cannot read .* its tokenizer"),
        (lambda folder: (folder / "generation_config.json").write_text(BRACKETS), "transformers cannot read"),
    ],
)
def test_hostile_configurations_end_in_a_message(folder: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=said):
        load_model(str(folder))


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_pipe_in_the_directory_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"{name} is neither a file nor a directory but a pipe"):
        load_model(str(folder))


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_a_pipe_as_model_or_mask_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="neither a file nor a directory but a pipe"):
        load_model(str(tmp_path / "pipe"))
    with pytest.raises(InputError, match=r"cannot be read as a mask .*no regular file"):
        read_mask(tmp_path / "pipe", tiny_lm())
    (tmp_path / "mask.json").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="no regular file"):
        read_mask(tmp_path, tiny_lm())


def test_a_gguf_file_with_more_layers_than_tensors_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "deep.gguf", arch="llama")
    writer.add_block_count(10**7)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"deep\.gguf: its configuration says block_count=10000000, but .* 1 tensors"):
        load_model(str(tmp_path / "deep.gguf"))


# --- tokenizers and code


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "LlamaTokenizer", "BertTokenizer", "T5Tokenizer"])
def test_a_tokenizer_that_transformers_makes_up_is_refused(folder: Path, kind: str) -> None:
    """Its files are missing but for the description, and all words would be one token or none."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    with pytest.raises(ModelError, match=r"directory model is empty: it has no words.*Is its vocabulary missing"):
        load_model(str(folder))


@pytest.mark.parametrize("has_reader", [False, True])
def test_a_tokenizer_of_sentencepiece_says_what_reads_it(
    folder: Path, has_reader: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    monkeypatch.setattr("fairmend.language.backend.tokenizers.find_spec", lambda name: has_reader or None)
    error, said = (ModelError, "its tokenizer") if has_reader else (InputError, "pip install sentencepiece protobuf")
    with pytest.raises(error, match=said):
        load_model(str(folder))
    if not has_reader:
        with pytest.raises(InputError, match=said):
            check_folder(folder, "the scorer")


CODE = {
    "config.json": {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
        "architectures": ["Model"],
    },
    "tokenizer_config.json": {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}},
}


@pytest.mark.parametrize("name", CODE)
def test_code_beside_a_model_is_not_run_unasked_and_how_to_ask_is_said(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder / name, **CODE[name])
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ModelError, match=r"Python code that comes with its .*give --trust-remote-code"):
        load_model(str(folder))
    assert not (folder / "ran").exists()


def test_code_that_is_not_needed_does_not_excuse_damage(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "own.Model"}, num_attention_heads="four")
    with pytest.raises(ModelError, match=r"Either its files are damaged"):
        load_model(str(folder))


# --- a library that changed


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("loader", [AutoModelForCausalLM, AutoTokenizer])
@pytest.mark.parametrize(
    "error", [TypeError("unexpected keyword argument 'dtype'"), KeyError("rope"), Exception("of tokenizers")]
)
def test_what_transformers_raises_is_said_without_blaming_the_files_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, loader: type, error: Exception
) -> None:
    monkeypatch.setattr(loader, "from_pretrained", raising(error))
    with pytest.raises(ModelError, match=r"Either its files are damaged.*or this release") as caught:
        load_model(str(folder))
    assert f"{type(error).__name__}: {error}" in str(caught.value)
    assert transformers.__version__ in str(caught.value)
    assert caught.value.__cause__ is error


def test_too_little_memory_is_not_the_files_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", raising(MemoryError()))
    with pytest.raises(ModelError, match="does not fit the memory"):
        load_model(str(folder))


@pytest.mark.parametrize("absent", ["missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"])
def test_a_report_that_says_less_than_it_did_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    def load(*_: Any, **__: Any) -> Any:
        report = dict.fromkeys(("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"), ())
        del report[absent]  # type: ignore[arg-type]
        return tiny("llama-gqa"), report

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(ModelError, match=f"no longer reports {absent}"):
        load_model(str(folder))


@pytest.mark.parametrize("entry", ["mismatched_keys", "error_msgs"])
def test_what_transformers_reports_as_wrong_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    report = {"missing_keys": (), "unexpected_keys": (), "mismatched_keys": (), "error_msgs": (), entry: ("x.weight",)}
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: (tiny("llama-gqa"), report))
    with pytest.raises(ModelError, match=r"does not fit LlamaForCausalLM: x\.weight"):
        load_model(str(folder))


# --- masks


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dropped": [0]}, "the two disagree: it was edited"),
        ({"dropped": []}, "the two disagree"),
        ({"dropped": [6, 1]}, "the two disagree"),
        ({"dropped": [1, 1, 6]}, "the two disagree"),
        ({"dropped": [True, 6]}, "no list of whole numbers"),
        ({"dropped": [1.0, 6.0]}, "no list of whole numbers"),
        ({"dropped": {"1": 6}}, "no list of whole numbers"),
        ({"dropped": [10**30]}, "does not exist"),
        ({"dropped_by_site": {}}, "the two disagree"),
        ({"dropped_by_site": None}, "the two disagree"),
        ({"dropped_by_site": ...}, "KeyError: 'dropped_by_site'"),
        ({"meaning": ...}, "lacks the entry 'meaning'"),
        ({"dials": [0.5]}, "has the entry 'dials'"),
        ({"schema_version": 2}, "version 2"),
        ({"schema_version": ...}, "KeyError: 'schema_version'"),
        ({"schema": ["x"]}, "no mask of attention heads"),
        ({"space": {"sites": "x"}}, "no mask of attention heads"),
        ({"space": None}, "no mask of attention heads"),
        ({"model": None}, "no mask of attention heads"),
        ({"model": {"fingerprint": 3}}, "no mask of attention heads"),
    ],
)
def test_an_edited_mask_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    lm = tiny_lm()
    whole = describe_mask(lm.head_map.space().mask([1, 6]), lm)
    changed = {name: value for name, value in {**whole, **changes}.items() if value is not ...}
    (tmp_path / "mask.json").write_text(json.dumps(changed))
    with pytest.raises(ModelError, match=said):
        read_mask(tmp_path, lm)
    (tmp_path / "mask.json").write_text(json.dumps(whole))
    assert read_mask(tmp_path, lm).units() == (1, 6)


@pytest.mark.parametrize("text", [BRACKETS, "1" * 5000, '{"dropped": ' + "1" * 5000 + "}", "\xff", "NaN"])
def test_a_file_that_is_no_mask_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "mask.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="mask"):
        read_mask(tmp_path, tiny_lm())
