"""What comparisons and sweeps leave in their directory at the end: a table, a picture and all figures as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fairmend.files import write_atomically
from fairmend.language.models.models import LanguageModel
from fairmend.language.records.run_directories import Settings
from fairmend.report import figures
from fairmend.report.tables import Table, json_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Study(Protocol):
    """What was found: `MethodComparison`, `CostComparison` or `SubsetSweep`."""

    def table(self) -> Table:
        """One line per thing that was judged."""

    def draw(self) -> Figure:
        """The same as a picture."""

    def to_json(
        self,
        lm: LanguageModel,
        settings: Mapping[str, Any],
        *,
        request: Mapping[str, Any] | None = None,
        command: str = "",
    ) -> dict[str, Any]:
        """Everything found, JSON-ready."""


def save_study(
    name: str,
    found: Study,
    lm: LanguageModel,
    settings: Settings,
    out: str | Path,
    *,
    request: Mapping[str, Any] | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Write NAME.csv, NAME.png, NAME.svg and, last, NAME.json; return the paths by name.

    Raises:
        RunError: a file cannot be written.
    """
    picture = found.draw()
    result = found.to_json(lm, settings.to_json(), request=request, command=command)
    contents = {
        f"{name}.csv": found.table().csv(),
        f"{name}.png": figures.png(picture),
        f"{name}.svg": figures.svg(picture),
        f"{name}.json": json_bytes(result),
    }
    folder = Path(out)
    for file, content in contents.items():
        write_atomically(folder / file, content)
    return {file: folder / file for file in contents}
