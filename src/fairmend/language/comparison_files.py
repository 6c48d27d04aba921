"""What a comparison leaves in its directory at the end: tables and picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairmend.errors import RunError
from fairmend.files import write_atomically
from fairmend.language import comparison, equal_cost_report
from fairmend.language.comparison import MethodComparison
from fairmend.language.equal_cost_report import CostComparison
from fairmend.language.models import LanguageModel
from fairmend.language.run_directories import Settings
from fairmend.report import figures
from fairmend.report.tables import json_bytes

KIND, COST_KIND = "language comparison", "language comparison at equal cost"
RESULT = "compare.json"
_SCHEMAS = {module.SCHEMA: module.SCHEMA_VERSION for module in (comparison, equal_cost_report)}


def save_comparison(
    compared: MethodComparison | CostComparison,
    lm: LanguageModel,
    settings: Settings,
    out: str | Path,
    *,
    request: Mapping[str, Any] | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Write compare.csv, compare.png, compare.svg and, last, compare.json; return the paths by name.

    Raises:
        RunError: a file cannot be written.
    """
    picture = compared.draw()
    result = compared.to_json(lm, settings.to_json(), request=request, command=command)
    contents = {
        "compare.csv": compared.table().csv(),
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
    if not isinstance(result, dict) or _SCHEMAS.get(result.get("schema", "")) != result.get("schema_version", 0):
        expected = " or ".join(f"a {schema}, version {version}" for schema, version in _SCHEMAS.items())
        raise RunError(f"{path} is not the result of {expected}: name the directory of one")
    return result
