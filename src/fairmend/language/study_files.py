"""What comparisons and sweeps leave in their directory at the end: a table, a picture and all figures as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fairmend.errors import RunError
from fairmend.files import read_json, write_atomically
from fairmend.language.models import LanguageModel
from fairmend.language.run_directories import Settings
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


def load_study(path: Path, schemas: Mapping[str, int], noun: str) -> dict[str, Any]:
    """Read the figures of a saved study.

    Args:
        path: of its JSON file.
        schemas: versions of what it may be, by schema.
        noun: what it is, for messages.

    Raises:
        RunError: no finished study is there, or its file is damaged or of another schema version.
    """
    try:
        result: dict[str, Any] = read_json(path)
    except FileNotFoundError as error:
        raise RunError(
            f"{path.parent} holds no finished {noun} (no {path.name}): run it again to go on with it"
        ) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): run the {noun} again, or restore it from a copy") from error
    schema, version = (result.get("schema"), result.get("schema_version")) if isinstance(result, dict) else (None, None)
    if not isinstance(schema, str) or schema not in schemas or schemas[schema] != version:
        expected = " or ".join(f"a {schema}, version {version}" for schema, version in schemas.items())
        raise RunError(f"{path} is not the result of {expected}: name the directory of one")
    return result
