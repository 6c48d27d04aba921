"""What a repaired model can be saved as: the formats of --save. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fairmend.errors import InputError

CHECKPOINT, ADAPTER, IA3, GGUF = "checkpoint", "adapter", "ia3", "gguf"
GGUF_FILE = "model.gguf"


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        help: what it is, for the command line.
        file: what it is in the directory.
        content: what that holds.
        how: how it is loaded, in words.
        loading: the code for that.
    """

    help: str
    file: str
    content: str
    how: str
    loading: str


_ADAPTER_LOADING = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("BASE_MODEL")
model = PeftModel.from_pretrained(base, "DIRECTORY/{}")
merged = model.merge_and_unload()  # an ordinary model, if you like
"""
_CHANGES = "on top of the untouched base model, by PEFT"
FORMATS = {
    CHECKPOINT: Format(
        "a whole model for transformers",
        "model.safetensors, config.json, tokenizer",
        "the repaired model; dropped heads and gains are in its weights",
        "No code of fairmend is needed",
        """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("DIRECTORY")
tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")
""",
    ),
    ADAPTER: Format(
        "a LoRA of PEFT, exact, of a rank of heads changed in a layer x features per head: megabytes where few heads "
        "are dropped, full rank where gains change every head (more than the 512 that vLLM serves, mostly)",
        "adapter/",
        "a LoRA of PEFT that changes the base model into the repaired one",
        f"As a LoRA {_CHANGES}",
        _ADAPTER_LOADING.format("adapter"),
    ),
    IA3: Format(
        "an (IA)3 adapter of PEFT, exact and kilobytes whatever is changed; other programs than peft rarely read it",
        "ia3/",
        "an (IA)3 adapter of PEFT that changes the base model into the repaired one",
        f"As an (IA)3 adapter {_CHANGES}",
        _ADAPTER_LOADING.format("ia3"),
    ),
    GGUF: Format(
        "one file for llama.cpp, not quantised (models of the kinds of Llama, Qwen2 and Qwen3 with a byte-level "
        "tokenizer)",
        GGUF_FILE,
        "the repaired model and its tokenizer for llama.cpp, not quantised",
        "From the GGUF file, which llama.cpp reads too",
        f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("DIRECTORY", gguf_file="{GGUF_FILE}")
tokenizer = AutoTokenizer.from_pretrained("DIRECTORY", gguf_file="{GGUF_FILE}")
""",
    ),
}


def formats_of(names: str | Iterable[str]) -> tuple[str, ...]:
    """The formats that a list names, separated by commas if it is a text.

    Raises:
        InputError: none, one that is not known, or one twice.
    """
    found = [part.strip() for part in (names.split(",") if isinstance(names, str) else names)]
    if not found or not set(found) <= FORMATS.keys() or len(set(found)) < len(found):
        raise InputError(
            f"--save {','.join(found)!r}: give one or several of {', '.join(FORMATS)}, separated by commas, each once"
        )
    return tuple(found)
