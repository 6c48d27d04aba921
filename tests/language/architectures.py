"""Tiny random causal language models: hand-made ones of many architectures, and one of every type by shrinking."""

import warnings
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

VOCABULARY = 96
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
DEEPSEEK = {
    **SIZES,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}

# name: (config class, its arguments)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {**SIZES, **GPT2}),
    "gpt2-upcast": (
        "GPT2Config",
        {**SIZES, **GPT2, "reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
    ),
    "gpt-neo": (
        "GPTNeoConfig",
        {**SIZES, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 3},
    ),
    "gptj": ("GPTJConfig", {**SIZES, **GPT2, "rotary_dim": 4}),
    "gpt-neox-parallel": ("GPTNeoXConfig", {**SIZES, "use_parallel_residual": True}),
    "gpt-neox-sequential": ("GPTNeoXConfig", {**SIZES, "use_parallel_residual": False}),
    "opt-prenorm": ("OPTConfig", {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "do_layer_norm_before": True}),
    "opt-postnorm": ("OPTConfig", {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "llama-mha": ("LlamaConfig", SIZES),
    "llama-gqa": ("LlamaConfig", {**GROUPED, "attention_bias": True}),
    "llama-odd-head-dim": ("LlamaConfig", {**GROUPED, "head_dim": 6}),
    "mistral-sliding": ("MistralConfig", {**GROUPED, "sliding_window": 3}),
    "mixtral": ("MixtralConfig", {**GROUPED, **EXPERTS}),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 12}),
    "gemma": ("GemmaConfig", {**SIZES, "num_key_value_heads": 1, "head_dim": 12}),
    "gemma2": ("Gemma2Config", {**GROUPED, "head_dim": 8, "sliding_window": 3}),
    "gemma3": ("Gemma3TextConfig", {**GROUPED, "head_dim": 8, "sliding_window": 3}),
    "phi": ("PhiConfig", SIZES),
    "phi3": ("Phi3Config", GROUPED),
    "bloom": ("BloomConfig", {**SIZES, "n_layer": 2, "n_head": 4}),
    "falcon-multi-query": ("FalconConfig", {**SIZES, "alibi": False, "multi_query": True}),
    "falcon-alibi": ("FalconConfig", {**SIZES, "alibi": True, "multi_query": False, "parallel_attn": False}),
    "falcon-new-decoder": ("FalconConfig", {**SIZES, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "mpt": ("MptConfig", {**SIZES, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}),
    "stablelm": ("StableLmConfig", {**GROUPED, "use_parallel_residual": True, "qk_layernorm": True}),
    "olmo2": ("Olmo2Config", GROUPED),
    "gpt-bigcode": ("GPTBigCodeConfig", {**SIZES, **GPT2, "multi_query": True}),
    "deepseek-v3": ("DeepseekV3Config", DEEPSEEK),
    "bitnet": ("BitNetConfig", GROUPED),
    "granite": ("GraniteConfig", GROUPED),
    "cohere": ("CohereConfig", GROUPED),
    "gpt-oss": ("GptOssConfig", {**GROUPED, **EXPERTS, "head_dim": 8, "sliding_window": 3}),
    "smollm3": ("SmolLM3Config", {**GROUPED, "no_rope_layers": [1, 0]}),
}


def tiny(name: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A two-layer random model of one of `ARCHITECTURES` in evaluation mode, with weights large enough to matter."""
    config_class, arguments = ARCHITECTURES[name]
    return build(getattr(transformers, config_class)(**{**arguments, **changes}), seed)


def build(config: Any, seed: int = 0) -> PreTrainedModel:
    """A random model of `config`; every parameter is redrawn so that biases, sinks and norms are not at their start."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Of importing gpt-bigcode as it was in transformers 5.17, with a torch that is newer than it.
        warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)
        torch.manual_seed(seed)
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                spread = 0.1 if parameter.dim() < 2 else min(0.3, parameter.shape[-1] ** -0.5)
                parameter.add_(torch.randn(parameter.shape) * spread)
    return model.eval()
