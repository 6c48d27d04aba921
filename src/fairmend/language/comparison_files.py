"""What a comparison of pruning methods leaves in its directory at the end: tables and picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairmend.errors import RunError
from fairmend.files import write_atomically
from fairmend.language.compare import ComparisonSettings
from fairmend.language.comparison import SCHEMA, SCHEMA_VERSION, MethodComparison
from fairmend.language.models import LanguageModel
from fairmend.report import figures
from fairmend.report.tables import json_bytes

KIND = "language comparison"
RESULT = "compare.json"


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
