"""A repair as a GGUF file: plain transformers reads the very weights, logits and tokens that were measured from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from architectures import tiny
from tiny_lm import tiny_lm
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from fairmend.errors import ModelError
from fairmend.language import LanguageModel, load_model, masked
from fairmend.language.backend.stored_formats import Storage
from fairmend.language.models.models import wrap_model
from fairmend.language.records.checkpoints import require_formats, write_checkpoint
from fairmend.masks import Mask

TEXT = "The nurse, 12 % naïve & new_line\n said"
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "t")]
VOCABULARY = ["<pad>", "</s>", *ALPHABET, *(a + b for a, b in MERGES), "<tool>", "<|x|>"]


def byte_tokenizer() -> Any:
    """A byte-level BPE of three merges, with special and other added tokens."""
    words = {token: number for number, token in enumerate(VOCABULARY)}
    backend = Tokenizer(models.BPE(words, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")
    made.add_tokens(["<tool>"])
    return made


def tiny_model(kind: str, **changes: Any) -> LanguageModel:
    """Of a vocabulary that is three embeddings wider than the tokenizer, as Qwen's is."""
    size = len(VOCABULARY) + 3
    changes = {"vocab_size": size, "eos_token_id": 1, "bos_token_id": None, "pad_token_id": 0} | changes
    return wrap_model(tiny(kind, **changes), byte_tokenizer(), name=f"tiny {kind}")


def gains(lm: LanguageModel) -> Mask:
    values = np.random.default_rng(1).uniform(0.3, 1.4, lm.head_map.n_heads)
    values[0] = 0
    return lm.head_map.mask(values)


@torch.no_grad()
def logits(model: Any, ids: Tensor) -> Tensor:
    found: Tensor = model(input_ids=ids).logits
    return found


def check(lm: LanguageModel, mask: Mask, out: Path) -> Any:
    """Write the mask as GGUF and compare what plain transformers reads; the loaded model."""
    files = write_checkpoint(lm, mask, out, {}, formats=["gguf"])
    assert set(files) == {"model.gguf"}
    model = AutoModelForCausalLM.from_pretrained(out, gguf_file="model.gguf", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(out, gguf_file="model.gguf")
    ids = lm.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    assert torch.equal(tokenizer(TEXT, return_tensors="pt")["input_ids"], ids)
    with masked(lm.model, mask, lm.head_map):
        torch.testing.assert_close(logits(model, ids), logits(lm.model, ids), rtol=1e-4, atol=1e-4)
    return model


@pytest.mark.parametrize("kind", ["llama-mha", "llama-grouped", "llama-odd-head-dim", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_reads_the_measured_model_back(kind: str, tied: bool, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"attention_bias": False} if kind == "llama-grouped" else {}
    changes |= {"head_dim": 128} if kind == "qwen3" else {}  # as all published ones have; transformers reads no other
    lm = tiny_model(kind.replace("grouped", "gqa"), tie_word_embeddings=tied, **changes)
    require_formats(lm, ["gguf"])
    check(lm, gains(lm), tmp_path / "out")


def test_weights_are_stored_as_their_checkpoint_stores_them_where_that_loses_nothing(tmp_path: Path) -> None:
    lm = tiny_model("llama-mha")
    for parameter in lm.model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    names = [name for name, _ in lm.model.named_parameters()]
    lm = replace(lm, storage=Storage(dict.fromkeys(names, torch.bfloat16), "bfloat16"))
    kinds = {}
    for what, mask in (("dropped", lm.head_map.space().mask([1, 5])), ("soft", gains(lm))):
        check(lm, mask, tmp_path / what)
        read = gguf.GGUFReader(tmp_path / what / "model.gguf").tensors
        kinds[what] = {each.tensor_type.name for each in read if len(each.shape) > 1}
    assert kinds == {"dropped": {"BF16"}, "soft": {"F32"}}


def test_other_kinds_are_refused_before_anything_is_measured() -> None:
    for lm, reason in (
        (tiny_lm("gpt2"), "is of the kind 'gpt2'"),
        (tiny_model("llama-gqa"), "has biases"),
        (tiny_model("llama-mha", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}), "scales"),
        (tiny_lm("llama-mha"), "has no byte-level tokenizer"),
    ):
        with pytest.raises(ModelError, match=rf"cannot be saved as GGUF: it {reason}.*convert_hf_to_gguf"):
            require_formats(lm, ["checkpoint", "gguf"])


def test_what_transformers_would_read_otherwise_is_refused() -> None:
    with pytest.raises(ModelError, match=r"transformers reads head_dim back as 128, which is 12; save it as"):
        require_formats(tiny_model("qwen3"), ["gguf"])
    odd = tiny_model("llama-mha")
    odd.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)]
    )
    with pytest.raises(ModelError, match="reads another tokenizer back than was written"):
        require_formats(odd, ["gguf"])


def test_a_file_that_is_not_the_measured_model_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = gguf.GGUFWriter.add_tensor

    def damaged(self: Any, name: str, tensor: Any, **more: Any) -> None:
        add(self, name, tensor * np.float32(0.9) if name == "blk.1.attn_output.weight" else tensor, **more)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", damaged)
    lm = tiny_model("llama-mha")
    with pytest.raises(ModelError, match=r"GGUF file as written is not .* model.layers.1.self_attn.o_proj.weight has"):
        write_checkpoint(lm, gains(lm), tmp_path / "out", {}, formats=["gguf"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_real_model_goes_through_gguf(tmp_path: Path) -> None:
    lm = load_model("smollm2", device="cpu")
    require_formats(lm, ["gguf"])
    check(lm, lm.head_map.space().sample(np.random.default_rng(0), 20), tmp_path / "out")
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    assert fields["general.license"].contents() == "apache-2.0"
