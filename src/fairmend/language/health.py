"""Can language models be repaired with what is installed? Checked in seconds on a tiny random model made in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fairmend.health import Check, Unsound, check

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fairmend.language.models.models import LanguageModel
    from fairmend.masks import Mask

_WORDS = 64
_SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_DROPPED = (1, 6)  # one head of each layer
_ROUNDING = 1e-4  # of float32 logits near 1, folded or masked


def self_check(seed: int = 0) -> Iterator[Check]:
    """Decoding, gates, folding and saving, on a random Llama of two layers; nothing where the extra is left out."""
    if find_spec("transformers") is None:
        return
    made: list[LanguageModel] = []
    yield check("self-check", "model: cache and padding", partial(_decodes, seed, made))
    if made:
        yield check("self-check", "model: gates", partial(_gates, made[0]))
        yield check("self-check", "model: folded as masked", partial(_folds, made[0]))
        yield check("self-check", "model: saved and reloaded", partial(_reloads, made[0]))


def _decodes(seed: int, made: list[LanguageModel]) -> str:
    """Make the model, which proves its decoding, and leave it in `made`."""
    from fairmend.language.backend.versions import NEWEST_TESTED, OLDEST, transformers_version
    from fairmend.language.models.models import wrap_model

    lm = wrap_model(*_tiny(seed), name="tiny random Llama")
    made.append(lm)
    cache, padding = lm.decoding.cache, lm.decoding.padding
    return (
        f"one pass and the cache differ by {cache.difference:.0e}, padding changes {padding.difference:.0e} "
        f"({cache.allowed:.0e} allowed); transformers {transformers_version()}, tested from {OLDEST} to {NEWEST_TESTED}"
    )


def _gates(lm: LanguageModel) -> str:
    from fairmend.language.models.proof import prove_gates

    found = prove_gates(lm.model, lm.head_map)
    return f"each of {lm.head_map.n_heads} switches off its head; {found.difference:.0e} ({found.allowed:.0e} allowed)"


def _folds(lm: LanguageModel) -> str:
    from fairmend.language.heads.folding import fold
    from fairmend.language.heads.gates import masked

    mask = _mask(lm)
    with masked(lm.model, mask, lm.head_map):
        expected = _logits(lm.model)
    return _same(_logits(fold(lm.model, mask, lm.head_map)), expected, "the folded model and the masked one")


def _reloads(lm: LanguageModel) -> str:
    from transformers import AutoModelForCausalLM

    from fairmend.language.checkpoints.checkpoints import quiet_transformers
    from fairmend.language.heads.folding import fold
    from fairmend.language.models.writing import save_model

    folded = fold(lm.model, _mask(lm), lm.head_map)
    with tempfile.TemporaryDirectory(prefix="fairmend-") as folder, quiet_transformers():
        saved = save_model(lm, Path(folder) / "model", model=cast("PreTrainedModel", folded))
        loaded = AutoModelForCausalLM.from_pretrained(saved, local_files_only=True)
        return _same(
            _logits(loaded.train(False)), _logits(folded), "the model that plain transformers loads and the saved one"
        )


def _tiny(seed: int) -> tuple[Any, Any]:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers import PreTrainedTokenizerFast as untyped

    fast_tokenizer: Any = untyped

    words = {word: number for number, word in enumerate(["<pad>", "</s>", *(f"w{n}" for n in range(2, _WORDS))])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = fast_tokenizer(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")
    config = LlamaConfig(
        **_SIZES,
        vocab_size=_WORDS,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).train(False)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(4)  # as made, they are so small that nothing depends on anything
    return model, tokenizer


def _mask(lm: LanguageModel) -> Mask:
    return lm.head_map.space().mask(_DROPPED)


def _logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.arange(2, 14)[None]).logits


def _same(found: Any, expected: Any, which: str) -> str:
    difference = float((found - expected).abs().max())
    if not difference <= _ROUNDING * max(1.0, float(expected.abs().max())):
        raise Unsound(f"logits of {which} differ by up to {difference:.1e}: do not trust what this installation saves")
    return f"logits differ by {difference:.0e}"
