"""A study: several judged repairs side by side, with one table, one picture and one saved form in both wings.

The result of every study (compare, equal cost, sweep, reproduce) is a `Study`. Its tables are defined once, as
`fairmend.report.tables.Table`: the screen shows their texts, the CSV files hold their raw values, and the saved JSON
holds the texts too, so that a folder is shown again without anything that made it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fairmend.errors import RunError
from fairmend.files import write_atomically
from fairmend.report import figures
from fairmend.report.tables import Table, defined, json_bytes
from fairmend.runs.directories import read_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Study(ABC):
    """What a study found: a frozen dataclass of a wing that says what its rows mean.

    Attributes:
        stem: of the names of its files: "compare" for compare.json, compare.csv, compare.png and compare.svg.
        schema, schema_version: of its saved form; the schema is "fairmend " and the kind of run.
    """

    stem: ClassVar[str]
    schema: ClassVar[str]
    schema_version: ClassVar[int] = 1

    @abstractmethod
    def tables(self) -> tuple[Table, ...]:
        """For people, the main one first."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Everything found, JSON-ready but for NaN."""

    @abstractmethod
    def draw(self) -> Figure | None:
        """The same as a picture; None where there is nothing to draw."""

    def spreadsheets(self) -> Mapping[str, Table]:
        """Tables by the name of their CSV file."""
        return {f"{self.stem}.csv": self.tables()[0]}


def describe_study(study: Study, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The saved form, ready for strict JSON.

    Args:
        study: what was found.
        extra: what else belongs to it, such as the model and the session.
    """
    payload: dict[str, Any] = defined(
        {
            "schema": study.schema,
            "schema_version": study.schema_version,
            **study.to_json(),
            **(extra or {}),
            "tables": [table.to_json() for table in study.tables()],
        }
    )
    return payload


def save_study(study: Study, out: Path, extra: Mapping[str, Any] | None = None) -> dict[str, Path]:
    """Write the CSV files, the picture as .png and .svg and, last, the JSON file; return the paths by name.

    Args:
        study: what was found.
        out: the folder.
        extra: see `describe_study`.

    Raises:
        RunError: a file cannot be written.
    """
    contents = {name: table.csv() for name, table in study.spreadsheets().items()}
    picture = study.draw()
    if picture is not None:
        contents |= {f"{study.stem}.png": figures.png(picture), f"{study.stem}.svg": figures.svg(picture)}
    contents[f"{study.stem}.json"] = json_bytes(describe_study(study, extra))
    for name, content in contents.items():
        write_atomically(out / name, content)
    return {name: out / name for name in contents}


def load_study(folder: Path, *kinds: type[Study]) -> dict[str, Any]:
    """Read the saved form back.

    Args:
        folder: where it is.
        kinds: what it may be.

    Raises:
        RunError: there is none, it is damaged, or another kind or version of fairmend wrote it.
    """
    stem = next((kind.stem for kind in kinds if (folder / f"{kind.stem}.json").is_file()), kinds[0].stem)
    schemas = {kind.schema: kind.schema_version for kind in kinds if kind.stem == stem}
    return read_result(folder / f"{stem}.json", schemas, f"finished {stem}", "give its command")


def tables_of(payload: Mapping[str, Any]) -> tuple[Table, ...]:
    """The tables of a saved form, as people see them.

    Raises:
        RunError: there are none.
    """
    try:
        return tuple(map(Table.from_json, payload["tables"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            "the saved study has no tables that can be read: fairmend 0.1 wrote none. Give its command again, which "
            "goes on from what is kept, or open its CSV files"
        ) from error
