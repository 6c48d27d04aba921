"""The directory of a repair: a run that goes on where it was killed, and the files that tell everything."""

import contextlib
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from repair_cases import PROMPTS, SETTINGS, TEXTS, repair, repaired_once, small, start
from tiny_lm import tiny_lm
from toy_scorer import WordScorer
from transformers import AutoModelForCausalLM

from fairmend.errors import InputError, ModelError, RunError
from fairmend.language import HeadRepair, RepairSettings, load_result, read_mask, save_repair
from fairmend.language.heads.folding import fold
from fairmend.language.models.models import LanguageModel, load_model, wrap_model
from fairmend.language.records.checkpoints import write_checkpoint
from fairmend.language.repair.repair import Repair


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return small()


@pytest.fixture(scope="module")
def repaired() -> Repair:
    return repaired_once()


class Killed(WordScorer):
    """A scorer that stops the run after so many texts."""

    def __init__(self, texts: float) -> None:
        super().__init__()
        self.left = texts

    def score(self, texts: Any) -> Any:
        self.left -= len(texts)
        if self.left < 0:
            raise KeyboardInterrupt
        return super().score(texts)


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("bias_scores", ["generated", "first-order"])
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, lm: LanguageModel, share: float, bias_scores: Any):
    settings = replace(SETTINGS, bias_scores=bias_scores)
    counter = Killed(math.inf)
    with start(tmp_path / "whole", lm, settings) as store:
        whole = repair(lm, scorer=counter, store=store, bias_scores=bias_scores)
    killed = Killed(share * counter.texts_seen)
    with start(tmp_path / "killed", lm, settings) as store, contextlib.suppress(KeyboardInterrupt):
        repair(lm, scorer=killed, store=store, bias_scores=bias_scores)
    rest = WordScorer()
    with start(tmp_path / "killed", lm, settings) as store:
        resumed = repair(lm, scorer=rest, store=store, bias_scores=bias_scores)
    assert resumed.mask == whole.mask
    assert resumed.held_out == whole.held_out
    assert rest.texts_seen < counter.texts_seen
    with start(tmp_path / "killed", lm, settings) as store:
        silent = Killed(0)
        assert repair(lm, scorer=silent, store=store, bias_scores=bias_scores).mask == whole.mask


def test_a_directory_is_never_given_to_another_run(tmp_path: Path, lm: LanguageModel):
    start(tmp_path / "run", lm).close()
    with pytest.raises(RunError, match=r"belongs to another run: settings\.alpha: was 0\.34, is 0\.2"):
        start(tmp_path / "run", lm, replace(SETTINGS, alpha=0.2))
    with pytest.raises(RunError, match=r"model\.weights_sha256"):
        start(tmp_path / "run", tiny_lm("llama-mha", seed=1, num_hidden_layers=3))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(RunError, match=r"holds no run of fairmend \(it has thesis.txt\)"):
        start(tmp_path / "other", lm)
    with pytest.raises(RunError, match="is a file, not a directory"):
        start(tmp_path / "other" / "thesis.txt", lm)


def test_saved_files_tell_everything_and_the_checkpoint_loads_plainly(
    tmp_path: Path, lm: LanguageModel, repaired: Repair
):
    files = save_repair(repaired, lm, tmp_path / "out", command="fairmend lm repair tiny")
    assert {"model.safetensors", "config.json", "tokenizer.json", "mask.json", "README.md", "result.json"} <= set(files)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(files)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.arange(4, 24)[None]
    folded: Any = fold(lm.model, repaired.mask, lm.head_map)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, folded(ids).logits)
    result = load_result(tmp_path / "out")
    assert result["outcome"]["dropped"] == repaired.mask.size
    assert result["held_out"]["axes"][0]["change"]["change"] == repaired.held_out.main.change.change  # type: ignore[union-attr]
    assert RepairSettings.from_json(result["settings"]) == SETTINGS
    assert read_mask(tmp_path / "out", lm) == repaired.mask
    assert load_model(str(tmp_path / "out")).head_map.n_heads == 12


def test_the_card_has_a_header_and_the_held_out_figures(tmp_path: Path, lm: LanguageModel, repaired: Repair):
    save_repair(repaired, replace(lm, licence="Apache-2.0"), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    header = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert header is not None
    assert "license: apache-2.0" in header[1]
    assert load_model(str(tmp_path / "out")).licence == "apache-2.0"
    change = repaired.held_out.main.change  # type: ignore[union-attr]
    assert f"{change.before.value:.3f}" in card  # type: ignore[union-attr]
    assert "## Held-out figures: other (not repaired for: did it move?)" in card
    assert "overstate the gain" in card
    assert "nan" not in card.lower().split()


def test_a_checkpoint_is_written_beside_its_run_and_nowhere_else(tmp_path: Path, lm: LanguageModel):
    with start(tmp_path / "out", lm) as store:
        found = repair(lm, store=store, held_out=False)
    save_repair(found, lm, tmp_path / "out")
    (tmp_path / "out" / ".part-killed").mkdir()
    save_repair(found, lm, tmp_path / "out")  # again, over itself
    assert not list((tmp_path / "out").glob(".part*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RunError, match="holds no run of fairmend"):
        write_checkpoint(lm, found.mask, tmp_path / "mine", {})
    with pytest.raises(RunError, match="no saved repair"):
        load_result(tmp_path / "mine")


def test_a_mask_of_another_model_is_refused(tmp_path: Path, lm: LanguageModel, repaired: Repair):
    save_repair(repaired, lm, tmp_path / "out")
    with pytest.raises(ModelError, match=r"made for tiny llama-mha \(12 heads\), not for tiny llama-mha \(8 heads"):
        read_mask(tmp_path / "out" / "mask.json", tiny_lm("llama-mha"))
    with pytest.raises(ModelError, match="weights_sha256 differ"):
        read_mask(tmp_path / "out", tiny_lm("llama-mha", seed=1, num_hidden_layers=3))
    half = small()
    half = wrap_model(half.model.to(torch.bfloat16), half.tokenizer, name="half")
    assert read_mask(tmp_path / "out", half) == repaired.mask
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a mask"):
        read_mask(tmp_path / "bad.json", lm)
    (tmp_path / "bad.json").write_text('{"schema": "x"}')
    with pytest.raises(ModelError, match="this is no mask of attention heads"):
        read_mask(tmp_path / "bad.json", lm)


def test_head_repair_fits_and_saves(tmp_path: Path, lm: LanguageModel, repaired: Repair):
    words = "".join(each.content for each in TEXTS).split()
    (tmp_path / "text.txt").write_text("\n".join(words))
    face = HeadRepair(scorer=WordScorer(), text=tmp_path / "text.txt", settings=SETTINGS, alpha=0.25)
    assert face.settings.alpha == 0.25
    with pytest.raises(InputError, match="call fit first"):
        face.save(tmp_path / "out")
    face.fit(lm.model, lm.tokenizer, prompts=PROMPTS, out=tmp_path / "out")
    face.save(tmp_path / "out")
    assert (tmp_path / "out" / "run.sqlite").is_file()
    assert load_result(tmp_path / "out")["outcome"]["dropped"] == face.mask_.size <= 3
    assert sum(map(len, face.dropped_.values())) == face.mask_.size
    assert type(face.model_) is type(lm.model)


def test_head_repair_refuses_unknown_settings_and_a_model_without_its_tokenizer(lm: LanguageModel):
    with pytest.raises(InputError, match="no setting 'alfa': there are method, alpha"):
        HeadRepair(alfa=0.1)
    with pytest.raises(InputError, match="needs its tokenizer"):
        HeadRepair(scorer=WordScorer()).fit(lm.model, prompts=PROMPTS)
