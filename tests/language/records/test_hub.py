"""The header of a card is what huggingface_hub reads back: no network is asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from repair_cases import repaired_once, small

from fairmend.language import save_repair
from fairmend.language.models.models import LanguageModel, Origin
from fairmend.language.records.hub import base_model, hub_header
from fairmend.language.records.results import describe_data
from fairmend.language.repair.repair import Repair

HUB = Origin("owner/name", None, "cpu", None, False, None, None)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return replace(small(), origin=HUB, revision="0" * 40, licence="Apache-2.0")


@pytest.fixture
def repaired() -> Repair:
    return repaired_once()


def header(lm: LanguageModel, repaired: Repair, formats: tuple[str, ...] = ("checkpoint",), **changes: Any) -> Any:
    data = describe_data(repaired.search_prompts, repaired.judge_prompts, repaired.texts)
    for name, source in changes.items():
        data[name]["source"] = source
    return ModelCard(hub_header(lm, formats, "name, repaired", repaired.held_out, data) + "\n\n# Title\n").data


def test_the_saved_card_is_read_back_with_base_licence_tags_and_results(
    tmp_path: Path, lm: LanguageModel, repaired: Repair
) -> None:
    save_repair(repaired, lm, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    read = card.data
    assert (read.base_model, read.base_model_relation) == ("owner/name", "finetune")
    assert (read.license, read.library_name, read.pipeline_tag) == ("apache-2.0", "transformers", "text-generation")
    assert {"fairmend", "bias-mitigation"} <= set(read.tags)
    held_out = repaired.held_out
    assert held_out is not None
    values = {result.metric_name: result for result in read.eval_results}
    change = held_out.main.change
    assert change is not None
    bias = values[f"bias, {held_out.main.axis}"]
    assert bias.metric_value == pytest.approx(change.after.value, abs=1e-6)
    assert bias.metric_args["before"] == pytest.approx(change.before.value, abs=1e-6)
    assert bias.metric_args["change_high"] == pytest.approx(change.interval.high, abs=1e-6)
    perplexity = next(result for result in read.eval_results if result.metric_type == "perplexity")
    assert perplexity.metric_value == pytest.approx(held_out.perplexity.after, abs=1e-6)
    name, results = model_index_to_eval_results(read.to_dict()["model-index"])
    assert results == read.eval_results
    assert name == f"{lm.name}, repaired"


def test_adapters_say_so_and_what_only_lies_here_has_no_base(lm: LanguageModel, repaired: Repair) -> None:
    read = header(lm, repaired, ("adapter", "ia3"))
    assert (read.library_name, read.base_model_relation) == ("peft", "adapter")
    here = replace(lm, origin=replace(HUB, name="/models/mine"), revision=None, licence=None)
    read = header(here, repaired)
    assert read.base_model is None
    assert "base_model_relation" not in read
    assert read.license is None
    assert base_model(replace(lm, origin=replace(HUB, name="smollm2"), revision=None)) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct"
    )
    assert base_model(replace(lm, origin=None)) is None


def test_data_sets_of_the_hub_are_named_by_their_ids(lm: LanguageModel, repaired: Repair) -> None:
    assert header(lm, repaired).datasets is None
    read = header(
        lm, repaired, search_prompts="StereoSet, development set, intrasentence", judge_text="WikiText-2, test"
    )
    assert read.datasets == ["McGill-NLP/stereoset", "Salesforce/wikitext"]


def test_names_of_others_cannot_add_entries(lm: LanguageModel, repaired: Repair) -> None:
    evil = replace(lm, licence='mit"\ninference: true\n---\nx: &a [*a', name="x: y\n---")
    read = header(evil, repaired)
    assert "inference" not in read
    assert read.license.startswith("mit")


def test_without_held_out_figures_there_are_no_results(lm: LanguageModel, repaired: Repair) -> None:
    read = header(lm, replace(repaired, held_out=None))
    assert read.eval_results is None
    assert "model-index" not in read.to_dict()
