"""A repair as an adapter: loaded by plain PEFT it computes what was measured, merged by PEFT it is the checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file, save_file
from tiny_lm import tiny_lm
from torch import Tensor

from fairmend.errors import InputError, ModelError
from fairmend.language import LanguageModel, fold, load_model, masked
from fairmend.language.heads.adapter import low_rank_adapter
from fairmend.language.models.adapter_writing import WEIGHTS, base_of, write_adapter
from fairmend.language.models.writing import logits_of
from fairmend.language.records.checkpoints import formats_in_words, write_checkpoint
from fairmend.language.records.formats import formats_of
from fairmend.masks import Mask

# peft 0.21 asks transformers 5.24 by a name that 6 drops
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

IDS = torch.arange(4, 52)[None]
KINDS = ("adapter", "ia3")


def changes(lm: LanguageModel) -> dict[str, Mask]:
    """Dropped heads, a gain for every head, and both in one layer only."""
    n = lm.head_map.n_heads
    gains = np.random.default_rng(1).uniform(0.3, 1.4, n)
    few = np.ones(n)
    few[[n - 1, n - 2]] = 0, 1.3
    return {
        "dropped": lm.head_map.space().mask([0, n - 1]),
        "soft": lm.head_map.mask(gains),
        "few": lm.head_map.mask(few),
        "none": lm.head_map.space().untouched(),
    }


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model(input_ids=IDS).logits
    return found


def base(lm: LanguageModel, folder: Path) -> Any:
    """The untouched model as anybody loads it."""
    from transformers import AutoModelForCausalLM

    if not folder.exists():
        lm.model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_peft_loads_the_measured_model_and_merges_it_to_the_checkpoint(name: str, tmp_path: Path) -> None:
    lm = tiny_lm(name)
    for what, mask in changes(lm).items():
        out = tmp_path / what
        write_checkpoint(lm, mask, out, {}, formats=KINDS)
        with masked(lm.model, mask, lm.head_map):
            wanted = logits(lm.model)
        folded = fold(lm.model, mask, lm.head_map).state_dict()
        for kind in KINDS:
            model: Any = PeftModel.from_pretrained(base(lm, tmp_path / "base"), str(out / kind))
            torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-4)
            merged = model.merge_and_unload().state_dict()
            assert merged.keys() == folded.keys()
            for weight, tensor in merged.items():
                torch.testing.assert_close(tensor, folded[weight], rtol=1e-5, atol=1e-6)


def test_its_rank_is_the_features_of_the_heads_that_change_in_the_layer(tmp_path: Path) -> None:
    lm = tiny_lm("llama-gqa")
    dim = lm.head_map.sites[0].head_dim
    adapter = low_rank_adapter(lm.model, lm.head_map.space().mask([0, 1, lm.head_map.n_heads - 1]), lm.head_map)
    first, last = (site.name for site in (lm.head_map.sites[0], lm.head_map.sites[-1]))
    assert adapter.config["r"] == adapter.config["lora_alpha"] == 2 * dim
    assert adapter.config["rank_pattern"] == adapter.config["alpha_pattern"] == {last: dim}
    assert adapter.config["target_modules"] == [first, last]
    assert [tensor.shape[0] for name, tensor in adapter.tensors.items() if "lora_A" in name] == [2 * dim, dim]


def test_it_says_its_size_and_what_is_too_large_to_be_served() -> None:
    lm = tiny_lm("llama-gqa")
    (small,) = formats_in_words(lm, changes(lm)["dropped"], ["checkpoint", "adapter"])
    assert "rank up to 8" in small
    assert "vLLM" not in small
    wide = tiny_lm("llama-mha", hidden_size=1024, num_attention_heads=16, num_key_value_heads=16, num_hidden_layers=1)
    low, scaling = formats_in_words(wide, changes(wide)["soft"], KINDS)
    assert "rank up to 1024" in low
    assert "512" in low
    assert "vLLM" not in scaling
    assert formats_in_words(lm, changes(lm)["dropped"], ["checkpoint"]) == ()


def test_peft_finds_the_base_by_itself(tmp_path: Path) -> None:
    made = tiny_lm("llama-gqa")
    made.model.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    lm = load_model(str(tmp_path / "model"), device="cpu")
    mask = changes(lm)["soft"]
    files = write_checkpoint(lm, mask, tmp_path / "out", {}, formats=["adapter"])
    assert set(files) == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    assert base_of(lm) == str(tmp_path / "model")
    with masked(lm.model, mask, lm.head_map):
        wanted = logits(lm.model)
    model = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "out" / "adapter"), dtype=torch.float32)
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_beside_an_adapter_is_loaded_without_it(tmp_path: Path) -> None:
    lm = tiny_lm("llama-gqa")
    mask = changes(lm)["soft"]
    write_checkpoint(lm, mask, tmp_path / "out", {}, formats=("checkpoint", *KINDS))
    with masked(lm.model, mask, lm.head_map):
        torch.testing.assert_close(logits(base(lm, tmp_path / "out")), logits(lm.model))


def test_an_adapter_that_is_not_the_measured_model_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("llama-gqa")
    mask = changes(lm)["dropped"]

    def damaged(tensors: dict[str, Tensor], path: Path, **more: Any) -> None:
        save_file({name: tensor * 0.9 for name, tensor in tensors.items()}, path, **more)

    monkeypatch.setattr("fairmend.language.models.adapter_writing.save_file", damaged)
    with pytest.raises(ModelError, match=r"adapter as written is not the model .* merged, .*o_proj.weight differs"):
        write_checkpoint(lm, mask, tmp_path / "out", {}, formats=["adapter"])
    assert not (tmp_path / "out").exists()


def test_the_model_stays_as_it_is(tmp_path: Path) -> None:
    lm = tiny_lm("gpt2")
    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    mask = changes(lm)["soft"]
    with masked(lm.model, mask, lm.head_map):
        wanted = logits_of(lm.model, lm)
    write_adapter(lm, mask, low_rank_adapter(lm.model, mask, lm.head_map), wanted, tmp_path, "")
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.model.state_dict().items())
    assert json.loads((tmp_path / "adapter_config.json").read_bytes())["fan_in_fan_out"] is True
    assert all(tensor.dtype == torch.float32 for tensor in load_file(tmp_path / WEIGHTS).values())


@pytest.mark.parametrize("said", ["", "lora", "adapter,adapter", "checkpoint,,adapter"])
def test_other_formats_are_refused(said: str) -> None:
    with pytest.raises(InputError, match=r"--save .* checkpoint, adapter, ia3"):
        formats_of(said)
