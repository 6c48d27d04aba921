"""A tiny model of every causal-LM type of transformers, made by shrinking the type's default configuration."""

from typing import Any

import torch
from architectures import VOCABULARY, build
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HIDDEN, HEADS, LAYERS = 32, 4, 2
LARGEST = 40_000_000
SMALL: dict[str, int] = {}
for value, names in [
    (VOCABULARY, "vocab_size vocab_size_per_layer_input unpadded_vocab_size shape_vocab_size pronunciation_vocab_size"),
    (HIDDEN, "hidden_size n_embd d_model dim emb_dim embedding_size n_embed attention_hidden_size lru_width dim_model"),
    (HIDDEN, "input_embedding_size output_embedding_size embedding_dim word_embed_proj_dim mamba_d_ssm"),
    (48, "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner d_inner dim_ff dff ffn_hidden_size"),
    (48, "intermediate_size_mlp feed_forward_size dense_intermediate_size shared_intermediate_size"),
    (HEADS, "num_attention_heads n_head num_heads n_heads decoder_attention_heads encoder_attention_heads"),
    (HEADS, "swa_num_attention_heads linear_num_heads linear_num_value_heads linear_num_key_heads mamba_num_heads"),
    (HEADS, "num_decoder_attention_heads num_encoder_attention_heads attention_heads index_n_heads"),
    (HEADS, "num_experts num_local_experts n_routed_experts moe_num_experts o_groups rotary_dim qk_rope_head_dim"),
    (LAYERS, "num_hidden_layers n_layer num_layers n_layers decoder_layers encoder_layers num_decoder_layers"),
    (LAYERS, "num_encoder_layers num_key_value_heads swa_num_key_value_heads num_kv_heads num_query_groups"),
    (LAYERS, "num_experts_per_tok num_experts_per_token moe_k top_k moe_topk mamba_expand expand"),
    (64, "max_position_embeddings n_positions n_ctx max_seq_len context_length model_max_length"),
    (64, "original_max_position_embeddings max_source_positions max_target_positions"),
    (8, "head_dim swa_head_dim d_head linear_head_dim linear_key_head_dim linear_value_head_dim index_head_dim"),
    (8, "dim_head mamba_d_head mamba_head_dim mamba_headdim attention_head_size attention_head_dim kv_channels"),
    (8, "hidden_size_per_layer_input qk_nope_head_dim mamba_d_state ssm_state_size state_size laurel_rank"),
    (16, "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size kv_lora_rank q_lora_rank"),
    (16, "moe_shared_expert_intermediate_size shared_experts_intermediate_size o_lora_rank mamba_n_heads"),
    (16, "n_mamba_heads adapter_rank router_hidden_size pronunciation_embed_dim shape_embed_dim"),
    (12, "v_head_dim"),
    (1, "n_group topk_group mamba_n_groups mamba_ngroups n_groups first_k_dense_replace n_shared_experts"),
    (1, "num_nextn_predict_layers prompt_length prompt_types time_step_rank mamba_dt_rank bos_token_id eos_token_id"),
    (0, "pad_token_id num_kv_shared_layers num_dense_layers"),
]:
    SMALL.update(dict.fromkeys(names.split(), value))


# Latent attention has as many values as heads, and its head_dim means the rotary part.
LATENT = {"num_key_value_heads": HEADS, "head_dim": 4, "qk_rope_head_dim": 4}
WIDE = {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": HEADS}
ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
# What a type's configuration asks for beyond small sizes, and hybrids that show only one kind of layer by default.
SPECIAL: dict[str, dict[str, Any]] = {
    "deepseek_v2": {**LATENT, "num_experts_per_tok": 2},
    "bailing_hybrid": {**LATENT, "head_dim": 8, "n_group": 1, "topk_group": 1, "num_local_experts": HEADS},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": ROTARY, "full_attention": ROTARY},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 48},
    },
    "cpmant": {"prompt_length": 32, "prompt_types": 32, "segment_types": 32},
    "dots1": {"n_routed_experts": HEADS, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note": {"num_key_value_heads": HEADS},
    "dots3_note_text": {"num_key_value_heads": HEADS},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 3},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 8, "layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "laguna": {"num_attention_heads_per_layer": [4, 8]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "local"]},
    "xlm": {"causal": True},
    "zamba": {**WIDE, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "num_hidden_layers": 4},
    "zamba2": {"n_mamba_heads": 8, "mamba_headdim": 8, **WIDE},
    "zaya": {"num_experts_per_tok": 1},
}
SPECIAL |= dict.fromkeys(("axk1", "axk2", "deepseek_v3", "deepseek_v32", "glm_moe_dsa", "glm4_moe_lite"), LATENT)
SPECIAL |= dict.fromkeys(("kimi_linear", "longcat_flash", "minicpm3", "sarvam_mla", "youtu"), LATENT)
VISION = {"hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": HEADS}


def shrunk(kind: str) -> PreTrainedModel:
    """A random model of a causal-LM type with as few layers as show every kind of layer the type has."""
    config_class = CONFIG_MAPPING[kind]
    default = config_class()
    text = getattr(default, "text_config", None)
    arguments = small_arguments(text or default) | SPECIAL.get(kind, {})
    if text is not None:
        arguments = {"text_config": arguments}
    if "vision_config" in default.sub_configs:
        arguments["vision_config"] = VISION
    config = config_class(**arguments)
    for flag, value in {"is_decoder": True, "is_encoder_decoder": False}.items():
        if hasattr(config, flag):
            setattr(config, flag, value)
    with torch.device("meta"):
        size = AutoModelForCausalLM.from_config(config).num_parameters()
    if size > LARGEST:
        raise MemoryError(f"{size:,} parameters after shrinking")
    model = build(config)
    if kind == "xmod":
        model.set_default_language("en_XX")
    return model


def small_arguments(default: Any) -> dict[str, Any]:
    """Arguments that shrink a default configuration: sizes by name, one layer of each kind it has."""
    arguments = {name: value for name, value in SMALL.items() if isinstance(vars(default).get(name), int)}
    if "head_dim" in vars(default) and "qk_rope_head_dim" not in arguments:
        arguments["head_dim"] = HIDDEN // HEADS  # often None by default, and then derived from what is being shrunk
    for name in ("layer_types", "layers_block_type"):
        kinds = getattr(default, name, None)
        stored = default.attribute_map.get(name, name)
        if kinds and not isinstance(getattr(type(default), stored, None), property):
            distinct = list(dict.fromkeys(kinds))
            arguments[stored] = (distinct * LAYERS)[: max(LAYERS, len(distinct))]
            arguments["num_hidden_layers"] = len(arguments[stored])
    return arguments
