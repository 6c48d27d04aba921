"""The directory of a comparison of pruning methods: its run from the start; tables and picture at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fairmend
from fairmend.errors import RunError
from fairmend.files import write_atomically
from fairmend.language.compare import ComparisonSettings
from fairmend.language.comparison import SCHEMA, SCHEMA_VERSION, MethodComparison
from fairmend.language.head_scores import HeadScores
from fairmend.language.models import LanguageModel
from fairmend.language.prompts import PromptSet
from fairmend.language.saving import describe_subject
from fairmend.language.texts import Text
from fairmend.language.toxicity import Scorer
from fairmend.report import figures
from fairmend.report.tables import json_bytes
from fairmend.runs.directories import open_directory
from fairmend.runs.store import Store

KIND = "language comparison"
RESULT = "compare.json"
_IDENTITY = ("kind", "settings", "model", "prompts", "judge_prompts", "others", "texts", "scorer", "scores")


def open_comparison(
    out: str | Path,
    *,
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    settings: ComparisonSettings,
    texts: tuple[Text, Text],
    others: Sequence[PromptSet] = (),
    judge_prompts: PromptSet | None = None,
    scores: HeadScores | None = None,
    request: Mapping[str, Any] | None = None,
) -> Store:
    """Start a comparison in a directory, or open the same one there to go on with it.

    Args:
        out: the directory; made if it does not exist.
        lm, prompts, scorer, settings, texts, others, judge_prompts, scores: see `compare_methods`.
        request: JSON-ready: how they were named by the person who asked.

    Raises:
        RunError: the directory holds another run (what differs is named) or other files, or cannot be written.
    """
    header = {
        "kind": KIND,
        "fairmend": fairmend.__version__,
        "settings": settings.to_json(),
        **describe_subject(lm, prompts, scorer, texts, others, judge_prompts, scores),
        "request": dict(request or {}),
    }
    return open_directory(Path(out), header, identity=_IDENTITY)


def save_comparison(
    comparison: MethodComparison,
    lm: LanguageModel,
    settings: ComparisonSettings,
    out: str | Path,
    *,
    request: Mapping[str, Any] | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Write compare.csv, compare.png, compare.svg and, last, compare.json; return the paths by name.

    Raises:
        RunError: a file cannot be written.
    """
    picture = comparison.draw()
    result = comparison.to_json(lm, settings.to_json(), request=request, command=command)
    contents = {
        "compare.csv": comparison.table().csv(),
        "compare.png": figures.png(picture),
        "compare.svg": figures.svg(picture),
        RESULT: json_bytes(result),
    }
    folder = Path(out)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return {name: folder / name for name in contents}


def load_comparison(out: str | Path) -> dict[str, Any]:
    """Read the figures of a saved comparison.

    Raises:
        RunError: no finished comparison is there, or its file is damaged or of another schema version.
    """
    path = Path(out) / RESULT
    try:
        result = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunError(f"{out} holds no finished comparison (no {RESULT}): run it again to go on with it") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): compare again, or restore it from a copy") from error
    if not isinstance(result, dict) or (result.get("schema"), result.get("schema_version")) != (SCHEMA, SCHEMA_VERSION):
        raise RunError(f"{path} is not the result of a {SCHEMA}, version {SCHEMA_VERSION}: name the directory of one")
    return result
