"""What a repair is saved as on the command line: `--save` of lm repair, resume, pick and apply."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from ..conftest import Run
from ..language_desk import REPAIR, UNRANKED, llama, lm, logits, tokenizer, words

DROPPING = UNRANKED | {"--method": "random"}


def adapted(folder: str) -> object:
    """What plain PEFT makes of an adapter on the desk's model."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("model"), folder)
    ids = tokenizer()(words(12, 5), return_tensors="pt")["input_ids"]
    return model(input_ids=ids).logits.detach().numpy()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_repair_is_saved_as_an_adapter_and_the_card_says_how_it_is_loaded(run: Run, office: Path) -> None:
    options = {name: value for name, value in DROPPING.items() if name != "--quiet"}
    done = lm(run, "repair", options | {"--save": "adapter,ia3"})
    assert done.code == 0, done.message
    assert "LoRA adapter: " in done.err
    assert not Path("out/model.safetensors").exists()
    card = Path("out/README.md").read_text()
    assert 'PeftModel.from_pretrained(base, "DIRECTORY/adapter")' in card
    assert "model.safetensors, config.json" not in card
    assert lm(run, "apply", {"--out": "whole", "--quiet": True}, "model", "out").code == 0
    np.testing.assert_allclose(adapted("out/adapter"), logits("whole"), atol=1e-4)
    np.testing.assert_allclose(adapted("out/ia3"), logits("whole"), atol=1e-4)
    assert run("show", "out").code == 0


def test_resume_saves_what_was_asked_for(run: Run, office: Path) -> None:
    assert lm(run, "repair", DROPPING | {"--save": "checkpoint,adapter"}).code == 0
    shutil.rmtree("out/adapter")
    Path("out/result.json").unlink()  # as if it had been stopped before the end
    assert run("resume", "out", "--quiet", "--scorer", str(DROPPING["--scorer"])).code == 0
    assert Path("out/adapter/adapter_model.safetensors").is_file()
    assert Path("out/model.safetensors").is_file()


def test_a_point_is_picked_and_a_mask_applied_as_an_adapter(run: Run, office: Path) -> None:
    front = REPAIR | {"--front": True, "--max-perplexity": 3.0, "--alpha": 0.5}
    assert lm(run, "repair", front).code == 0
    picked = run("lm", "pick", "out", "--point", "1", "--out", "picked", "--save", "adapter", "--json")
    assert picked.code == 0, picked.message
    assert set(picked.document["files"]) >= {"adapter/adapter_config.json", "README.md"}
    applied = lm(run, "apply", {"--out": "again", "--save": "adapter"}, "model", "picked/mask.json")
    assert "LoRA adapter: " in applied.out
    ours, theirs = (Path(folder, "adapter/adapter_model.safetensors").read_bytes() for folder in ("picked", "again"))
    assert ours == theirs
    assert json.loads(Path("again/adapter/adapter_config.json").read_text())["peft_type"] == "LORA"


def test_what_cannot_be_saved_is_refused_before_work_starts(run: Run, office: Path) -> None:
    refused = lm(run, "repair", DROPPING | {"--save": "onnx"})
    assert refused.code == 2
    assert "--save 'onnx': give one or several of checkpoint, adapter" in refused.message
    llama("llama")
    sliced = lm(run, "repair", DROPPING | {"--save": "adapter", "--slice": True}, "llama")
    assert sliced.code == 2
    assert "--slice makes a model of another shape" in sliced.message
    assert not Path("out").exists()
