"""Tiny quantised checkpoints, packed by hand as their formats are published, with the weights that they stand for."""

import json
from pathlib import Path
from typing import Any

import torch
from architectures import tiny
from safetensors.torch import load_file, save_file
from tiny_lm import word_tokenizer
from torch import Tensor

_FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def fp8_llama(folder: Path) -> dict[str, Tensor]:
    """Block FP8 (DeepSeek-V3): codes times one scale per block of 16 x 16; returns the weights by name."""
    save(tiny("llama-mha"), folder)
    packed: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            packed[name] = meant[name] = weight
            continue
        blocks = weight.unfold(0, 16, 16).unfold(1, 16, 16)  # (rows, columns, 16, 16)
        scales = blocks.abs().amax((2, 3)) / 448
        spread = scales.repeat_interleave(16, 0).repeat_interleave(16, 1)
        packed[name] = (weight / spread).to(torch.float8_e4m3fn)
        packed[f"{name}_scale_inv"] = scales
        meant[name] = packed[name].float() * spread
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    declare(folder, {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16]})
    return meant


def mxfp4_gpt_oss(folder: Path) -> dict[str, Tensor]:
    """MXFP4 (gpt-oss): two four-bit codes per byte, one power of two per 32 of them; returns the weights by name."""
    save(tiny("gpt-oss", hidden_size=32, intermediate_size=32), folder)
    generator = torch.Generator().manual_seed(0)
    packed: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            packed[name] = meant[name] = weight
            continue
        n_experts, n_in, n_out = weight.shape
        blocks = torch.randint(256, (n_experts, n_out, n_in // 32, 16), dtype=torch.uint8, generator=generator)
        scales = torch.randint(122, 126, blocks.shape[:3], dtype=torch.uint8, generator=generator)
        packed[f"{name}_blocks"], packed[f"{name}_scales"] = blocks, scales
        values = torch.stack([_FP4[(blocks & 15).long()], _FP4[(blocks >> 4).long()]], -1).flatten(-2)
        meant[name] = (values * 2.0 ** (scales.float() - 127)[..., None]).flatten(-2).transpose(1, 2)
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    declare(folder, {"quant_method": "mxfp4", "modules_to_not_convert": skipped})
    return meant


def declare(folder: Path, settings: Any) -> None:
    """Say in the configuration how the weights are quantised."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))


def save(model: Any, folder: Path) -> None:
    """A checkpoint with the word tokenizer."""
    model.save_pretrained(folder)
    word_tokenizer(pad_token="<pad>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
