"""What is saved is what was measured: judged by plain transformers, which loads every saved checkpoint."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import tiny
from quantised import declare, fp8_llama, mxfp4_gpt_oss, save
from repair_cases import SETTINGS, repair, repaired_once, small, start
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny_lm import tiny_lm
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.quantizers import auto

from fairmend.errors import ArtifactError, InputError, ModelError, RunError
from fairmend.language import fold, load_model, masked, save_repair, slice_groups
from fairmend.language.models.models import LanguageModel
from fairmend.language.models.writing import require_savable, save_model
from fairmend.language.records.checkpoints import write_checkpoint
from fairmend.masks import Mask

IDS = torch.arange(4, 52)[None]


def a_mask(lm: LanguageModel) -> Mask:
    """The second head of the first layer and the last of the last one."""
    return lm.head_map.space().mask([1, lm.head_map.n_heads - 1])


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(IDS).logits
    return found


def masked_logits(lm: LanguageModel) -> Tensor:
    with masked(lm.model, a_mask(lm), lm.head_map):
        return logits(lm.model)


def plainly(folder: Path, **options: Any) -> PreTrainedModel:
    """As anybody loads it; every weight must be there, and no other."""
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(report.values()), report
    loaded: PreTrainedModel = model
    return loaded


def shrink(model: Any, dtype: torch.dtype, *but: str) -> Any:
    """The model in `dtype`, but for the parameters with these endings."""
    for name, parameter in model.named_parameters():
        if not name.endswith(but or ("nothing",)):
            parameter.data = parameter.data.to(dtype)
    return model


# --- quantised checkpoints


@pytest.mark.parametrize("make", [fp8_llama, mxfp4_gpt_oss])
def test_a_quantised_checkpoint_is_measured_and_saved_dense(
    tmp_path: Path, make: Callable[[Path], dict[str, Tensor]]
) -> None:
    meant = make(tmp_path / "codes")
    lm = load_model(str(tmp_path / "codes"))
    for name, weight in lm.model.state_dict().items():
        if name in meant:
            torch.testing.assert_close(weight, meant[name], rtol=1e-6, atol=0)
    require_savable(lm)
    write_checkpoint(lm, a_mask(lm), tmp_path / "out", {})
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    again = plainly(tmp_path / "out")
    assert torch.equal(logits(again), masked_logits(lm))
    assert load_model(str(tmp_path / "out")).fingerprint()["weights_sha256"] != lm.fingerprint()["weights_sha256"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, r"quantised \(bitsandbytes\)"),
        ({"load_in_8bit": True}, r"quantised \(load_in_8bit=True\)"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, r"quantised \(gptq\)"),
        ({"quant_method": "awq", "bits": 4}, r"quantised \(awq\).*dequantize\(\)"),
        ({"quant_method": "tomorrows-method"}, r"tomorrows-method"),
        ({"quant_method": "gguf"}, r"quantised \(gguf\)"),
        pytest.param(
            {"quant_method": "compressed-tensors", "config_groups": {}},
            r"does not take its quantization_config \(compressed-tensors; ImportError",
            marks=pytest.mark.skipif(find_spec("compressed_tensors") is not None, reason="unpacked with that package"),
        ),
        ({"group_size": 64, "bits": 4}, r"quantised \(bits=4\)"),
        ("yes", "by a method that config.json does not name"),
        ({}, "by a method"),
        ({"quant_method": ["fp8"]}, "quantised"),
        ({"quant_method": "fp8", "weight_block_size": [0]}, "does not take its quantization_config"),
    ],
)
def test_other_quantised_checkpoints_are_refused_before_their_weights_are_read(
    tmp_path: Path, settings: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tiny("llama-mha"), tmp_path)
    declare(tmp_path, settings)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("was loaded"))
    with pytest.raises(ModelError, match=said):
        load_model(str(tmp_path))


def test_a_method_that_transformers_no_longer_unpacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fp8_llama(tmp_path)
    monkeypatch.delitem(auto.AUTO_QUANTIZATION_CONFIG_MAPPING, "fp8")
    with pytest.raises(ModelError, match=r"quantised \(fp8\).*does not unpack"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("mark", ["quantize_config.json", "hf_quant_config.json", None])
def test_codes_that_nothing_says_how_to_unpack_are_refused(tmp_path: Path, mark: str | None) -> None:
    save(tiny("llama-mha"), tmp_path)
    if mark:
        (tmp_path / mark).write_text("{}")
    else:
        weights = load_file(tmp_path / "model.safetensors")
        name = "model.layers.0.self_attn.o_proj.weight"
        save_file(weights | {name: weights[name].mul(9).to(torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=f"is quantised .*({mark}|o_proj.weight holds I8)"):
        load_model(str(tmp_path))


def test_scales_without_a_word_about_them_are_refused(tmp_path: Path) -> None:
    fp8_llama(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"proj\.weight_scale_inv, which LlamaForCausalLM has no place for"):
        load_model(str(tmp_path))


# --- number formats


@pytest.mark.parametrize(
    ("name", "dtype"), [("llama-gqa", torch.bfloat16), ("gpt2", torch.float16), ("mixtral", torch.bfloat16)]
)
@pytest.mark.parametrize("declared", [True, False])
def test_a_checkpoint_keeps_its_number_format_and_its_bits(
    tmp_path: Path, name: str, dtype: torch.dtype, declared: bool
) -> None:
    save(tiny(name).to(dtype), tmp_path / "model")
    if not declared:
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"dtype": None}))
    lm = load_model(str(tmp_path / "model"))
    assert lm.dtype == "float32"
    write_checkpoint(lm, a_mask(lm), tmp_path / "out", {})
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("model", "out"))
    assert {tensor.dtype for tensor in after.values()} == {dtype}
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert before.keys() == after.keys()
    assert len(changed) == 2
    assert all((after[key][after[key] != before[key]] == 0).all() for key in changed)
    torch.testing.assert_close(logits(plainly(tmp_path / "out", dtype=torch.float32)), masked_logits(lm))
    original = plainly(tmp_path / "model")
    wanted = logits(fold(original, a_mask(lm)))
    assert original.dtype == dtype
    assert torch.equal(logits(plainly(tmp_path / "out")), wanted)


def test_a_mixed_checkpoint_stays_mixed(tmp_path: Path) -> None:
    save(shrink(tiny("llama-gqa"), torch.bfloat16, "norm.weight"), tmp_path / "model")
    lm = load_model(str(tmp_path / "model"))
    write_checkpoint(lm, a_mask(lm), tmp_path / "out", {})
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("model", "out"))
    assert {key: tensor.dtype for key, tensor in after.items()} == {key: each.dtype for key, each in before.items()}
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16, torch.float32}
    torch.testing.assert_close(logits(plainly(tmp_path / "out", dtype=torch.float32)), masked_logits(lm))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_named_number_format_is_saved(tmp_path: Path, dtype: str) -> None:
    save(tiny("llama-gqa").to(torch.float16), tmp_path / "model")
    lm = load_model(str(tmp_path / "model"), dtype=dtype)
    write_checkpoint(lm, a_mask(lm), tmp_path / "out", {})
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        getattr(torch, dtype)
    }
    assert torch.equal(logits(plainly(tmp_path / "out")), masked_logits(lm))


def test_weights_that_a_narrow_format_would_round_are_not_narrowed(tmp_path: Path) -> None:
    save(tiny("llama-gqa").to(torch.bfloat16), tmp_path / "model")
    lm = load_model(str(tmp_path / "model"))
    lm.model.lm_head.weight.mul_(1 + 2**-20)
    write_checkpoint(lm, a_mask(lm), tmp_path / "out", {})
    assert torch.equal(logits(plainly(tmp_path / "out")), masked_logits(lm))


def test_a_sliced_checkpoint_keeps_the_number_format_too(tmp_path: Path) -> None:
    save(tiny("llama-gqa").to(torch.bfloat16), tmp_path / "model")
    lm = load_model(str(tmp_path / "model"))
    mask = lm.head_map.space().mask([0, 1, 4, 5])
    write_checkpoint(lm, mask, tmp_path / "out", {}, sliced=slice_groups(lm.model, mask, lm.head_map))
    again = plainly(tmp_path / "out")
    assert again.dtype == torch.bfloat16
    assert again.config.num_attention_heads == 2
    with masked(lm.model, mask, lm.head_map):
        torch.testing.assert_close(logits(again.float()), logits(lm.model), rtol=1e-4, atol=1e-4)


# --- the proof


def spoil_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def lose_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def add_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight_scale"] = torch.ones(1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))


def garble(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"nothing")


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], None]:
    """Let transformers write something else than it was given, as it did with quantised models."""
    written = PreTrainedModel.save_pretrained

    def spoil(damage: Callable[[Path], None]) -> None:
        def write(self: Any, folder: Any, **options: Any) -> None:
            written(self, folder, **options)
            damage(Path(folder))

        monkeypatch.setattr(PreTrainedModel, "save_pretrained", write)

    return spoil


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (spoil_weights, r"model\.layers\.1\.mlp\.up_proj\.weight has other values"),
        (lose_a_weight, r"reports 1 missing_keys, the first is model\.layers\.1\.mlp\.up_proj\.weight"),
        (add_a_weight, "1 unexpected_keys"),
        (change_config, r"its logits differ by .* of their size"),
        (garble, "does not load again, SafetensorError"),
    ],
)
def test_a_checkpoint_that_is_not_what_was_measured_is_not_put_in_place(
    tmp_path: Path, spoilt: Any, damage: Callable[[Path], None], said: str
) -> None:
    lm = tiny_lm("llama-gqa")
    spoilt(damage)
    for write in (lambda out: write_checkpoint(lm, a_mask(lm), out, {}), lambda out: save_model(lm, out)):
        with pytest.raises(ModelError, match=rf"not the model that was measured: .*{said}.*[Nn]othing was put into"):
            write(tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


def test_another_tokenizer_read_back_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("llama-gqa")
    other = tiny_lm("llama-gqa").tokenizer
    other.add_tokens(["w5 w6"])
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: other)
    with pytest.raises(ModelError, match="its tokenizer gives other tokens"):
        write_checkpoint(lm, a_mask(lm), tmp_path / "out", {})
    with pytest.raises(ModelError, match="reads another tokenizer back"):
        require_savable(lm)


def test_a_run_whose_checkpoint_fails_is_kept_and_saves_later(tmp_path: Path, spoilt: Any) -> None:
    lm = small()
    with start(tmp_path / "out", lm) as store:
        found = repair(lm, store=store, held_out=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", _writing_nonsense)
        with pytest.raises(ModelError, match=r"everything measured is kept there: `fairmend resume .*out` saves it"):
            save_repair(found, lm, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.sqlite"]
    save_repair(found, lm, tmp_path / "out")
    assert (tmp_path / "out" / "result.json").is_file()


def _writing_nonsense(self: Any, folder: Any, **_: Any) -> None:
    Path(folder).mkdir()
    self.config.save_pretrained(folder)
    garble(Path(folder))


def test_what_transformers_refuses_to_write_is_refused_before_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("llama-gqa")
    lm.model.generation_config.temperature = 0.5  # without sampling: transformers does not write that
    with pytest.raises(ModelError, match=r"could not be saved after its repair: transformers .* refuses"):
        require_savable(lm)


# --- where it is written


def test_no_checkpoint_is_written_into_a_run_or_beside_other_files(tmp_path: Path) -> None:
    lm, repaired = small(), repaired_once()
    start(tmp_path / "run", lm, replace(SETTINGS, alpha=0.2)).close()
    before = (tmp_path / "run" / "run.sqlite").read_bytes()
    with pytest.raises(RunError, match="not empty and holds a run of fairmend, which stays as it is"):
        write_checkpoint(lm, repaired.mask, tmp_path / "run", {})
    with pytest.raises(RunError, match=r"run of another repair \(settings\.alpha: was 0\.2, is 0\.34\)"):
        save_repair(repaired, lm, tmp_path / "run")
    with pytest.raises(InputError, match="exists and is not empty"):
        save_model(lm, tmp_path / "run")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        write_checkpoint(lm, repaired.mask, tmp_path / "file", {})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.sqlite"]
    assert (tmp_path / "run" / "run.sqlite").read_bytes() == before


def test_a_directory_that_fills_while_a_checkpoint_is_made_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_lm()
    written = PreTrainedModel.save_pretrained

    def write(self: Any, folder: Any, **options: Any) -> None:
        written(self, folder, **options)
        (tmp_path / "out" / "config.json").write_text("somebody else's")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", write)
    with pytest.raises(RunError, match=r"written into meanwhile \(config\.json\)"):
        write_checkpoint(lm, a_mask(lm), tmp_path / "out", {})
    assert (tmp_path / "out" / "config.json").read_text() == "somebody else's"


KILLED = """
import sys, time
from pathlib import Path
from fairmend.language.models.writing import unfinished
with unfinished(Path(sys.argv[1]), "") as folder:
    (folder / "model.safetensors").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is writing into the directory `out`."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="without locks on folders nothing is swept")
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    lm = tiny_lm()
    with pytest.raises(RunError, match="not empty"):
        write_checkpoint(lm, a_mask(lm), tmp_path / "out", {})
    assert [path.name[:6] for path in (tmp_path / "out").iterdir()] == [".part-"]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    time.sleep(0.05)
    files = write_checkpoint(lm, a_mask(lm), tmp_path / "out", {})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(files)


@pytest.mark.skipif(sys.platform == "win32", reason="no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o027, 0o640), (0o022, 0o644)])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    lm, before = tiny_lm(), os.umask(umask)
    try:
        write_checkpoint(lm, a_mask(lm), tmp_path / "out", {"mask.json": b"{}"})
        save_model(lm, tmp_path / "model", files={"README.md": "x"})
    finally:
        os.umask(before)
    for folder in ("out", "model"):
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / folder).iterdir()} == {mode}


@pytest.mark.parametrize(
    "error", [SafetensorError("I/O error: No space left on device"), OSError(errno.ENOSPC, "full")]
)
def test_a_full_disk_is_said_with_the_folder_that_is_full(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    lm, repaired = small(), repaired_once()
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", fail)
    for write in (
        lambda out: write_checkpoint(lm, a_mask(lm), out, {}),
        lambda out: save_repair(repaired, lm, out),
        lambda out: save_model(lm, out),
    ):
        with pytest.raises(ArtifactError, match=rf"cannot write to {tmp_path}.*([Nn]o space|full)") as caught:
            write(tmp_path / "out")
        assert "CACHE" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []
