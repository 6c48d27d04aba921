"""The directory of a run of the language wing: what the run is about, so that the same one is gone on with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fairmend
from fairmend.errors import InputError
from fairmend.language.repair.objectives import Objective
from fairmend.language.repair.subject import Subject
from fairmend.language.scores.head_scores import HeadScores
from fairmend.records import plain
from fairmend.runs.directories import open_directory
from fairmend.runs.store import Store

REPAIR = "language repair"
_SUBJECT = ("model", "prompts", "judge_prompts", "others", "knowledge", "texts", "scorer", "second_scorer")
_IDENTITY = ("kind", "settings", *_SUBJECT, "scores", "objectives")


def open_run(
    out: str | Path,
    subject: Subject,
    settings: object,
    *,
    scores: HeadScores | None = None,
    objectives: Sequence[Objective] = (),
    request: Mapping[str, Any] | None = None,
    kind: str = REPAIR,
) -> Store:
    """Start a run in a directory, or open the same run there to go on with it.

    Args:
        out: the directory; made if it does not exist.
        subject, settings, scores, objectives: what is repaired, compared or measured, on what and how; see
            `repair_model`.
        request: JSON-ready: how they were named by the person who asked, so that the run can be resumed.
        kind: of run; a directory holds one kind.

    Raises:
        RunError: the directory holds another run (what differs is named) or other files, or cannot be written.
        ModelError: a model without heads to drop.
        InputError: its path is not UTF-8, which no tokenizer can be saved under.
    """
    _ = subject.lm.head_map  # a model without heads to drop is refused before a folder is made
    try:
        os.fspath(Path(out).absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"a model cannot be saved in {os.fspath(out)!r}: the path has bytes that are not UTF-8, and tokenizers "
            "cannot be written there. Name another folder"
        ) from None
    header = {
        "kind": kind,
        "fairmend": fairmend.__version__,
        "settings": plain(settings),
        **subject.fingerprint(),
        "scores": None if scores is None else scores.digest(),
        "objectives": [objective.fingerprint() for objective in objectives] or None,
        "request": dict(request or {}),
    }
    return open_directory(Path(out), header, identity=_IDENTITY)
