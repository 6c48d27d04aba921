"""What a comparison leaves in its directory at the end: tables and picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairmend.language.models.models import LanguageModel
from fairmend.language.records.run_directories import Settings
from fairmend.language.studies import comparison, equal_cost_report
from fairmend.language.studies.comparison import MethodComparison
from fairmend.language.studies.equal_cost_report import CostComparison
from fairmend.language.studies.study_files import save_study
from fairmend.runs.directories import read_result

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
    return save_study("compare", compared, lm, settings, out, request=request, command=command)


def load_comparison(out: str | Path) -> dict[str, Any]:
    """Read the figures of a saved comparison.

    Raises:
        RunError: no finished comparison is there, or its file is damaged or of another schema version.
    """
    return read_result(Path(out) / RESULT, _SCHEMAS, "finished comparison", "run the comparison")
