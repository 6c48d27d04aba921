"""A repaired model as one GGUF file, for llama.cpp and its kin: written, read again by transformers and compared.

Models of the kinds of Llama, Qwen2 and Qwen3 with a byte-level tokenizer; nothing is quantised, so nothing is lost.
llama-quantize of llama.cpp makes a smaller file of it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairmend.artifacts import staging
from fairmend.errors import FairmendError, ModelError
from fairmend.language.backend.stored_formats import in_storage
from fairmend.language.checkpoints.checkpoints import Checkpoint, quiet_transformers
from fairmend.language.checkpoints.reading import read_checkpoint, reading
from fairmend.language.checkpoints.sources import BUILT_IN, PLANTED
from fairmend.language.models.models import LanguageModel
from fairmend.language.models.writing import allowed_change, logits_of, relative_change, same_tokens

_KINDS = ("llama", "qwen2", "qwen3")
_SHAPE = ("hidden_size", "intermediate_size", "head_dim", "num_key_value_heads", "hidden_act", "vocab_size")
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # types of tokens
_REMEDY = "save it as a checkpoint, and convert that with convert_hf_to_gguf.py of llama.cpp"


def require_gguf(lm: LanguageModel) -> None:
    """Refuse, before hours of search, a model that could not be written at their end; its tokenizer is tried out.

    Raises:
        ModelError: another kind of model or tokenizer, or transformers reads another tokenizer back.
        ArtifactError: there is no room for a small file in the folder for temporary ones.
    """
    config = lm.model.config
    rope = getattr(config, "rope_parameters", None) or {}
    unlike = {
        f"is of the kind {config.model_type!r}": config.model_type not in _KINDS,
        "scales its rotary positions": rope.get("rope_type", "default") != "default",
        "has a sliding window": bool(getattr(config, "use_sliding_window", False)),
        "has biases": config.model_type == "llama" and (config.attention_bias or config.mlp_bias),
        "has no byte-level tokenizer": _description(lm)["model"].get("type") != "BPE"
        or "ByteLevel" not in json.dumps(_description(lm)["pre_tokenizer"]),
    }
    found = [reason for reason, holds in unlike.items() if holds]
    if found:
        raise ModelError(
            f"{lm.name} cannot be saved as GGUF: it {found[0]}, and fairmend writes models of the kinds "
            f"{', '.join(_KINDS)} with a byte-level tokenizer; {_REMEDY}"
        )
    from transformers import AutoConfig, AutoTokenizer

    with staging(Path(tempfile.gettempdir()), "Free space there, or name another folder in TMPDIR") as folder:
        _write(lm, {}, folder / "vocabulary.gguf")
        file: dict[str, Any] = {"gguf_file": "vocabulary.gguf", "local_files_only": True}
        with quiet_transformers(), reading(f"the GGUF file of {lm.name}", "its configuration or tokenizer"):
            again = AutoConfig.from_pretrained(folder, **file)
            tokenizer = AutoTokenizer.from_pretrained(folder, **file)
    lost = [name for name in _SHAPE if getattr(again, name, None) != getattr(config, name, None)]
    if lost:
        raise ModelError(
            f"{lm.name} cannot be saved as GGUF: transformers reads {lost[0]} back as {getattr(again, lost[0], None)}, "
            f"which is {getattr(config, lost[0], None)}; {_REMEDY}"
        )
    if not same_tokens(lm.tokenizer, tokenizer, padded=True):
        raise ModelError(
            f"{lm.name} cannot be saved as GGUF: transformers reads another tokenizer back than was written; {_REMEDY}"
        )


def write_gguf(lm: LanguageModel, state: Mapping[str, Tensor], wanted: Tensor, path: Path, unharmed: str) -> None:
    """Write a GGUF file, load it with transformers and compare every weight, some logits and tokens.

    Args:
        lm: the untouched model, and the tokenizer to write.
        state: the repaired weights by name. They are stored as their checkpoint stores them (float16 and bfloat16 as
            such) where that loses nothing, else in float32.
        wanted: from `logits_of`, of the masked model.
        path: the file.
        unharmed: what is kept if it is not the same, for messages.

    Raises:
        ModelError: what was written is not what was measured.
        OSError: it cannot be written, or the disk is full.
    """
    stored = None if lm.storage is None else in_storage(state, lm.storage)
    _write(lm, state if stored is None else stored, path)
    wrong = _difference(lm, state, wanted, path)
    if wrong:
        raise ModelError(f"the GGUF file as written is not the model that was measured: {wrong}. {unharmed}")


def _difference(lm: LanguageModel, state: Mapping[str, Tensor], wanted: Tensor, path: Path) -> str:
    """What of a file is not as it was measured, in words; "" if all is."""
    try:
        with quiet_transformers():
            read = read_checkpoint(Checkpoint(path, "the file"), getattr(torch, lm.dtype))
    except FairmendError as error:
        return str(error)
    again = read.model.to(lm.device).train(False)
    found = again.state_dict()
    if found.keys() != state.keys():
        return f"it has other weights, for example {sorted(found.keys() ^ state.keys())[0]}"
    for name, tensor in state.items():
        if not torch.equal(found[name], tensor):
            return f"{name} has other values"
    change, allowed = relative_change(logits_of(again, lm), wanted), allowed_change(lm)
    if not change <= allowed:
        return f"its logits differ by {change:.1e} of their size, {allowed:.0e} is allowed"
    return "" if same_tokens(lm.tokenizer, read.tokenizer, padded=True) else "its tokenizer gives other tokens"


def _write(lm: LanguageModel, state: Mapping[str, Tensor], path: Path) -> None:
    import gguf

    config: Any = lm.model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type("model")
    writer.add_name(lm.name)
    if lm.licence:
        writer.add_license(lm.licence.lower())
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(lm.vocabulary)
    _add_tokenizer(writer, lm)
    kind = next(each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for name, tensor in state.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        called = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if called is None:
            raise ModelError(f"{lm.name} has {name}, which has no place in a GGUF file; {_REMEDY}")
        values = tensor.detach().cpu()
        for part, n_heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if config.model_type == "llama" and name.endswith(
                f"{part}.weight"
            ):  # pairs of rotary positions side by side
                values = values.view(n_heads, 2, -1, values.shape[1]).transpose(1, 2).reshape(values.shape)
        values = values.float().contiguous() if values.dim() == 1 else values.contiguous()
        if values.dtype == torch.bfloat16:  # numpy has none
            writer.add_tensor(called, values.view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(called, values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, lm: LanguageModel) -> None:
    described, tokenizer = _description(lm), lm.tokenizer
    tokens = [f"[PAD{number}]" for number in range(lm.vocabulary)]  # embeddings that no token has
    types = [_UNUSED] * lm.vocabulary
    for token, number in tokenizer.get_vocab().items():
        tokens[number], types[number] = token, _NORMAL
    for added in described["added_tokens"]:
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    merges = described["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitting(lm))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in merges])
    named = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    named |= {"unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id}
    for name, number in named.items():
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id is not None)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _splitting(lm: LanguageModel) -> str:
    """What llama.cpp calls the way in which a text is split into words."""
    origin = "" if lm.origin is None else lm.origin.name
    if Path(origin).is_file():  # a GGUF file, which says so itself
        import gguf

        field = gguf.GGUFReader(origin).fields.get("tokenizer.ggml.pre")
        return "default" if field is None else str(field.contents())
    pattern = json.dumps(_description(lm)["pre_tokenizer"])
    if lm.model.config.model_type.startswith("qwen"):
        return "qwen2"
    if origin in (BUILT_IN, PLANTED) or "Digits" in pattern:
        return "smollm"
    return "llama-bpe" if "{1,3}" in pattern else "gpt-2"


def _description(lm: LanguageModel) -> dict[str, Any]:
    """The tokenizer's own description, with nothing in it for one that is not of the library tokenizers."""
    backend = getattr(lm.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {"model": {}, "pre_tokenizer": None, "added_tokens": []}
    described: dict[str, Any] = json.loads(backend.to_str())
    return described
