"""Every causal-LM type of transformers ends in a proven head map or in a clear error, never in a wrong map."""

from collections import defaultdict
from typing import Any

import pytest
import torch
import transformers
from head_order import LARGEST_RESIDUAL, prove_head_order
from packaging.version import Version
from shrinking import shrunk
from silent_heads import with_silent_head
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fairmend.errors import ModelError
from fairmend.language.heads.folding import fold
from fairmend.language.heads.gates import masked
from fairmend.language.heads.heads import HeadMap, find_heads

IDS = torch.arange(3, 15).view(1, -1)
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention", "indexed_attention"}
# Types whose default configuration cannot be shrunk to a tiny model, or that need packages beyond transformers.
NOT_BUILT = {
    *["blt", "dots3_note", "gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "moss_transcribe_diarize"],
    *["cohere_compass_text", "musicgen", "musicgen_melody", "phi4_multimodal", "qwen4_exp", "qwen4_exp_text"],
}
# Mamba, RWKV and xLSTM have no attention; the others' heads are no slices of a projection's input, or look ahead.
REFUSED = {
    *["falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm", "reformer"],
    *["deepseek_v4", "diffllama", "jetmoe", "prophetnet", "cpmant", "xlnet"],
}
# These look ahead in transformers 5.17, with a mask or without, and not in 5.24.
if Version(transformers.__version__) < Version("5.24"):
    REFUSED |= {"big_bird", "doge", "megatron-bert", "rembert", "roformer"}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return result


def proven_by_attention_matrices(model: PreTrainedModel, head_map: HeadMap) -> bool:
    order = prove_head_order(model, head_map)
    assert all(residual < LARGEST_RESIDUAL for residual in order.residuals.values())
    return not order.unread


def proven_by_silent_heads(model: PreTrainedModel, head_map: HeadMap) -> bool:
    """Whether the architecture lets its kernel be replaced; raises when a gate is not what silence in the kernel is."""
    base, n_layers = with_silent_head(model, lambda: logits(model), None)
    if n_layers != len(head_map.sites):
        return False
    unit = 0
    for layer, site in enumerate(head_map.sites):
        for head in {0, 1, site.n_heads - 1}:
            wanted, _ = with_silent_head(model, lambda: logits(model), (layer, head))
            with masked(model, head_map.space().mask([unit + head]), head_map):
                # By the same kernel: without a padding mask, Moshi's of transformers 5.17 looks ahead and its SDPA not.
                gated, _ = with_silent_head(model, lambda: logits(model), None)
            error = float((gated - wanted).abs().max())
            assert error < 1e-3 * float((wanted - base).abs().max())
        unit += site.n_heads
    return True


def check_layers(model: PreTrainedModel, head_map: HeadMap) -> None:
    """Compare the layers found with the configuration's account of them, where it gives one."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None)
    if kinds and set(kinds) <= ATTENTION | {"linear_attention", "conv", "mlp", "moe"}:
        assert [site.layer for site in head_map.sites] == [i for i, kind in enumerate(kinds) if kind in ATTENTION]
    n_heads = vars(config).get("num_attention_heads")
    per_layer = {"num_attention_heads_per_layer", "_heterogeneity_spec"}
    if isinstance(n_heads, int) and not any(vars(config).get(name) for name in per_layer):
        assert {site.n_heads for site in head_map.sites} == {n_heads}


def check_folding(model: PreTrainedModel, head_map: HeadMap) -> None:
    mask = head_map.space().mask([0, head_map.n_heads - 1])
    if model.config.model_type == "zamba":  # its layers share one block's weights
        with pytest.raises(ModelError, match="shares its memory"):
            fold(model, mask, head_map)
        return
    folded = fold(model, mask, head_map)
    with masked(model, mask, head_map):
        assert torch.equal(logits(model), logits(folded))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # remarks of 189 architectures on their shrunk configurations
def test_every_causal_language_model_is_right_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes: dict[str, list[str]] = defaultdict(list)
    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            model = shrunk(kind)
            logits(model)
        except Exception:  # whatever transformers raises for a configuration it cannot build
            outcomes["not built"].append(kind)
            continue
        try:
            head_map = find_heads(model)
        except ModelError:
            outcomes["refused"].append(kind)
            continue
        check_layers(model, head_map)
        check_folding(model, head_map)
        if any(site.is_coupled for site in head_map.sites):
            if kind == "dory":  # whose blocks run several times, so that the order cannot be read
                assert set(prove_head_order(model, head_map).unread) == {site.name for site in head_map.sites}
            else:
                with pytest.raises(ModelError, match="a norm over all heads"):
                    prove_head_order(model, head_map)
            outcomes["coupled"].append(kind)
            continue
        proofs = [proven_by_attention_matrices(model, head_map), proven_by_silent_heads(model, head_map)]
        outcomes[{2: "right, proven twice", 1: "right, proven once", 0: "unproven"}[sum(proofs)]].append(kind)
    with capsys.disabled():
        print("", *(f"{outcome}: {len(kinds)}" for outcome, kinds in sorted(outcomes.items())), sep="\n  ")
        print(f"  not built: {', '.join(outcomes['not built'])}\n  refused: {', '.join(outcomes['refused'])}")
    assert outcomes["unproven"] == []
    assert set(outcomes["coupled"]) - {"dory"} == {"bitnet"}  # dory came with transformers 5.24
    assert set(outcomes["not built"]) <= NOT_BUILT
    assert set(outcomes["refused"]) <= REFUSED
