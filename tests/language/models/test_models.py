"""Loading and saving language models: what loads, what is refused and how it is said."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import tiny
from huggingface_hub import errors
from tiny_lm import tiny_lm, word_tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2Model,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging

from fairmend.errors import ArtifactError, FairmendError, InputError, ModelError
from fairmend.language.checkpoints import sources
from fairmend.language.checkpoints.checkpoints import quiet_transformers
from fairmend.language.generation.decoding import DecodingRule
from fairmend.language.generation.generation import generate
from fairmend.language.generation.likelihoods import continuation_log_likelihoods
from fairmend.language.measurement.perplexity import perplexity
from fairmend.language.measurement.texts import encode_text, read_text
from fairmend.language.models.models import LanguageModel, load_model, weights_digest, wrap_model
from fairmend.language.models.writing import save_model
from fairmend.language.protocols import Sampling


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(tiny_lm(), tmp_path / "model")


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


# --- what loads


def test_a_saved_model_loads_again_bit_for_bit(saved: Path):
    lm = load_model(str(saved))
    assert weights_digest(lm.model) == weights_digest(tiny_lm().model)
    assert (lm.dtype, lm.device.type, lm.context, lm.end_ids) == ("float32", "cpu", 64, (2,))
    assert not lm.model.training
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert lm.tokenizer.padding_side == "left"
    assert lm.head_map.n_heads == 8


def test_a_saved_model_loads_in_plain_transformers(saved: Path):
    model = AutoModelForCausalLM.from_pretrained(saved)
    ids = AutoTokenizer.from_pretrained(saved)("w5 w6 w7", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, tiny_lm().model(ids).logits)


def test_a_repaired_copy_is_saved_with_its_card_and_mask(tmp_path: Path):
    card = "---\nlicense: apache-2.0\n---\n# Repaired\n"
    other = tiny("llama-gqa", seed=1)
    folder = save_model(
        tiny_lm(), tmp_path / "new" / "model", model=other, files={"README.md": card, "mask.json": "{}"}
    )
    lm = load_model(str(folder))
    assert weights_digest(lm.model) == weights_digest(other)
    assert lm.licence == "apache-2.0"
    assert (folder / "mask.json").read_text() == "{}"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_have_the_dtype_asked_for(saved: Path, dtype: str):
    lm = load_model(str(saved), dtype=dtype)
    assert lm.dtype == dtype
    assert lm.fingerprint()["dtype"] == dtype


def test_the_fingerprint_follows_weights_settings_and_tokenizer(saved: Path, tmp_path: Path):
    first = load_model(str(saved)).fingerprint()
    moved = saved.rename(tmp_path / "moved")
    assert load_model(str(moved)).fingerprint() == first
    assert json.loads(json.dumps(first)) == first
    assert tiny_lm(seed=1).fingerprint()["weights_sha256"] != first["weights_sha256"]
    edit_config(moved, rms_norm_eps=0.5)
    assert load_model(str(moved)).fingerprint()["config_sha256"] != first["config_sha256"]
    other = wrap_model(tiny("llama-gqa"), word_tokenizer(pad_token="w9"), name="other")
    assert other.fingerprint()["tokenizer_sha256"] != first["tokenizer_sha256"]


@pytest.mark.parametrize("special", [{}, {"eos_token": "</s>"}, {"unk_token": "<unk>"}])
def test_a_tokenizer_without_padding_token_is_given_one(special: dict[str, str]):
    lm = wrap_model(tiny("llama-gqa"), word_tokenizer(**special), name="tiny")
    assert lm.tokenizer.pad_token_id is not None
    assert len(lm.tokenizer) == 96
    generate(lm, ["w5 w6", "w7"], [1, 2], Sampling(new_tokens=2))


@pytest.mark.parametrize(("name", "context"), [("gpt2", 64), ("mpt", 64), ("bloom", 64), ("gpt-neo", 64)])
def test_the_context_is_read_from_the_configuration(name: str, context: int):
    assert tiny_lm(name).context in (context, 2048)


def test_chatter_of_transformers_is_silenced_and_restored():
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    with quiet_transformers():
        assert logging.get_verbosity() == logging.ERROR
        assert not logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == logging.INFO
    assert logging.is_progress_bar_enabled()


# --- what is refused


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def leave_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncate(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def garble(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)


def lose_a_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def lose_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


def lose_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove_weights, "no safetensors file, no weights"),
        (leave_pickle, r"only pytorch_model\.bin\. Pickled weights can run code"),
        (truncate, r"model\.safetensors is damaged or truncated .* bytes\): fetch it again"),
        (garble, "damaged or truncated"),
        (lose_a_shard, "lacks model-00001-of-00002.safetensors"),
        (lose_tokenizer, "has no tokenizer"),
        (lose_config, "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "holds list, not an object"),
        (lambda folder: edit_config(folder, is_encoder_decoder=True), "encoder-decoder"),
        (lambda folder: edit_config(folder, architectures=["LlamaForSequenceClassification"]), "not a causal language"),
        (lambda folder: edit_config(folder, architectures=None, model_type="clip"), "not a causal language"),
        (lambda folder: edit_config(folder, model_type="unheard-of"), "transformers cannot read"),
        (lambda folder: edit_config(folder, num_hidden_layers=3), r"lacks 13 of the weights .* would be random"),
        (lambda folder: edit_config(folder, hidden_size=64), "transformers cannot read|would be random"),
    ],
)
def test_damaged_and_unsuitable_directories_are_refused(saved: Path, damage: Callable[[Path], Any], said: str):
    damage(saved)
    with pytest.raises(ModelError, match=said):
        load_model(str(saved))


def test_other_kinds_of_models_are_refused(tmp_path: Path):
    sizes = {"vocab_size": 96, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertForSequenceClassification(BertConfig(**sizes, intermediate_size=16))
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=96, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    base = GPT2Model(tiny("gpt2").config)
    for model, said in [(bert, "BertForSequenceClassification"), (t5, "encoder-decoder"), (base, "GPT2Model")]:
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        word_tokenizer().save_pretrained(folder)
        with pytest.raises(ModelError, match=said):
            load_model(str(folder))
    with pytest.raises(ModelError, match="encoder-decoder"):
        wrap_model(t5, word_tokenizer(), name="t5")


def test_weights_of_an_unusual_dtype_are_refused():
    with pytest.raises(ModelError, match="float64"):
        wrap_model(tiny("gpt2").double(), word_tokenizer(), name="wide")


@pytest.mark.parametrize(
    "name", ["./missing", "/no/such/place", "missing.gguf", "a/b/c", "with space", "", "~nobody/x"]
)
def test_paths_that_are_not_there_are_not_looked_up_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "fetch_snapshot", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="Hugging Face id"):
        load_model(name)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path):
    (tmp_path / "model.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="not a GGUF file"):
        load_model(str(tmp_path / "model.gguf"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    with pytest.raises(ModelError, match=r"transformers cannot read GGUF file model\.gguf"):
        load_model(str(tmp_path / "model.gguf"))
    with pytest.raises(ModelError, match="name the GGUF file itself"):
        load_model(str(tmp_path))


def test_a_model_that_does_not_fit_the_device_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", fail)
    with pytest.raises(ModelError, match="does not fit the memory of cpu"):
        load_model(str(saved))


def hub_error(kind: type[Exception]) -> Exception:
    try:
        return kind("said the hub", response=None)
    except TypeError:
        return kind("said the hub")


@pytest.mark.parametrize(
    ("kind", "expected", "said"),
    [
        (
            errors.LocalEntryNotFoundError,
            ArtifactError,
            r"hf download owner/name --revision v1 --local-dir DIR.*config",
        ),
        (errors.OfflineModeIsEnabled, ArtifactError, "cannot be fetched: said the hub"),
        (ConnectionError, ArtifactError, "model.safetensors"),
        (errors.HFValidationError, ModelError, "cannot be a Hugging Face id"),
    ],
)
def test_without_a_network_it_says_what_to_fetch(
    kind: type[Exception], expected: type[FairmendError], said: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> str:
        raise hub_error(kind)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(expected, match=said):
        load_model("owner/name", revision="v1")


def test_a_fetched_repository_is_named_by_its_commit(saved: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options["revision"], "*.py" in options["allow_patterns"]))
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    lm = load_model("owner/name", revision="main")
    assert (lm.source, lm.revision) == ("Hugging Face owner/name", saved.name)
    assert asked == [("owner/name", "main", False)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, got 'int8'"),
        ({"device": "abacus"}, "device must be auto"),
        ({"device": "meta"}, "device must be auto"),
        ({"device": "cuda:99"}, "is not there"),
    ],
)
def test_unknown_dtypes_and_devices_are_refused_before_anything_is_read(options: dict[str, str], said: str):
    with pytest.raises(InputError, match=said):
        load_model("./missing", **options)  # type: ignore[arg-type]


def test_a_checkpoint_never_overwrites_files(saved: Path):
    with pytest.raises(InputError, match="exists and is not empty"):
        save_model(tiny_lm(), saved)


def test_a_failed_save_leaves_nothing(tmp_path: Path):
    with pytest.raises(ArtifactError):
        save_model(tiny_lm(), tmp_path / "model", files={"no/such/folder": "x"})
    assert list(tmp_path.iterdir()) == []


# --- the real model


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    torch.set_num_threads(1)
    return load_model("smollm2")


@pytest.mark.slow
@pytest.mark.xdist_group("smollm2")  # loaded once
def test_smollm2_is_the_model_it_says(smollm2: LanguageModel):
    assert (smollm2.context, smollm2.vocabulary, smollm2.licence) == (8192, 49_152, "Apache-2.0")
    assert smollm2.head_map.n_heads == 270
    assert sum(parameter.numel() for parameter in smollm2.model.parameters()) == 134_515_008


@pytest.mark.slow
@pytest.mark.xdist_group("smollm2")  # loaded once
def test_smollm2_has_the_known_perplexity(smollm2: LanguageModel, shared_data: Path):
    tokens = encode_text(smollm2, read_text(f"wikitext2:{shared_data / 'text'}", "judge"), 4096)
    blocks = perplexity(smollm2, tokens, "fasp", window=512, stride=512)
    assert blocks.value == pytest.approx(30.15, abs=0.02)
    assert blocks.n_tokens == 8 * 511


@pytest.mark.slow
@pytest.mark.xdist_group("smollm2")  # loaded once
def test_smollm2_continues_a_prompt_the_same_in_every_batch(smollm2: LanguageModel):
    people = [
        "a teacher",
        "an old man",
        "my deaf neighbour who lives across the road",
        "a nurse",
        "Jews",
        "a Muslim girl",
    ]
    frames = ["I'm {}.", "Hi! I love {}, and I will tell you why:", "What do you think about {}?"]
    prompts = [frame.format(who) for frame in frames for who in people]
    ids = np.arange(len(prompts))
    whole = generate(smollm2, prompts, ids, Sampling(new_tokens=8))
    generator = np.random.default_rng(0)
    for rows_at_once, n in [(1, 2), (7, 14)]:
        order = generator.permutation(len(prompts))[:n]
        part = generate(
            smollm2.with_batch_size(rows_at_once), [prompts[i] for i in order], ids[order], Sampling(new_tokens=8)
        )
        assert part.token_ids.tolist() == whole.token_ids[order].tolist()
    tokens = [whole.tokens(row) for row in range(len(prompts))]
    again = continuation_log_likelihoods(smollm2, whole.prompt_ids, tokens, rule=DecodingRule())
    np.testing.assert_allclose(again, whole.log_likelihoods, atol=1e-3)
    assert all(math.isfinite(value) for value in whole.log_likelihoods.ravel())
