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
from fairmend.files import read_if_there, write_atomically
from fairmend.records import Kind, built, document, plain, read
from fairmend.report import figures
from fairmend.report.page import Chapter, Notes, Page, Part, Stored, made_chapter
from fairmend.report.tables import Shown, Table
from fairmend.report.tracking import flat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LARGEST_PICTURE = 1_200_000  # bytes that a report carries
_UNCHOSEN = (
    "None of them was chosen here. Whoever picks the best line has chosen on these very figures, which flatter it: "
    "judge it on data that are not in them."
)
_LIMITS = (
    "A study says which line is better on these data, at these settings; other data may order them otherwise.",
    "Differences within the intervals could not be told from chance.",
)


class Study(ABC):
    """What a study found: a frozen dataclass of a wing that says what its rows mean.

    Attributes:
        kind: of its saved form. Its file "compare.json" also names compare.csv, compare.png and compare.svg.
    """

    kind: ClassVar[Kind]

    @abstractmethod
    def tables(self) -> tuple[Table, ...]:
        """For people, the main one first."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Everything found, as `fairmend.records.plain` takes it."""

    @abstractmethod
    def draw(self) -> Figure | None:
        """The same as a picture; None where there is nothing to draw."""

    def spreadsheets(self) -> Mapping[str, Table]:
        """Tables by the name of their CSV file."""
        return {f"{stem(self.kind)}.csv": self.tables()[0]}


def study_kind(name: str, command: str) -> Kind:
    """The kind of what a command that makes studies leaves: `study_kind("tabular compare", "compare")`."""
    return Kind(name, 1, f"{command}.json", f"finished {command}", "give its command")


def stem(kind: Kind) -> str:
    """The name of a study's files without their endings."""
    return kind.file.removesuffix(".json")


def describe_study(study: Study, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The saved form, ready for strict JSON.

    Args:
        study: what was found.
        extra: what else belongs to it, such as the model and the session.
    """
    shown = [table.shown() for table in study.tables()]
    described: dict[str, Any] = plain({**study.kind.head, **study.to_json(), **(extra or {}), "tables": shown})
    return described


def save_study(study: Study, out: Path, extra: Mapping[str, Any] | None = None) -> dict[str, Path]:
    """Write the CSV files, the picture as .png and .svg and, last, the JSON file; return the paths by name.

    Args:
        study: what was found.
        out: the folder.
        extra: see `describe_study`.

    Raises:
        RunError: a file cannot be written.
    """
    name = stem(study.kind)
    contents = {file: table.csv() for file, table in study.spreadsheets().items()}
    picture = study.draw()
    if picture is not None:
        contents |= {f"{name}.png": figures.png(picture), f"{name}.svg": figures.svg(picture)}
    contents[study.kind.file] = document(describe_study(study, extra))
    for file, content in contents.items():
        write_atomically(out / file, content)
    return {file: out / file for file in contents}


def load_study(folder: Path, *kinds: type[Study]) -> dict[str, Any]:
    """Read the saved form back.

    Args:
        folder: where it is.
        kinds: what it may be.

    Raises:
        RunError: there is none, it is damaged, or another kind or version of fairmend wrote it.
    """
    known = [study.kind for study in kinds]
    file = next((kind.file for kind in known if (folder / kind.file).is_file()), known[0].file)
    return read(folder / file, *(kind for kind in known if kind.file == file))


def tables_of(payload: Mapping[str, Any]) -> tuple[Shown, ...]:
    """The tables of a saved form, as people see them.

    Raises:
        RunError: there are none.
    """
    try:
        return built(payload["tables"], tuple[Shown, ...])
    except (KeyError, ValueError) as error:
        raise RunError(
            f"the saved study has no tables that can be read ({error}): give its command again, which goes on from "
            "what is kept, or open its CSV files"
        ) from error


def study_page(payload: Mapping[str, Any], folder: Path) -> Page:
    """The report of a saved study.

    Args:
        payload: the saved form, see `load_study`.
        folder: where its picture lies.

    Raises:
        RunError: it has no tables, or its picture is no plain file.
    """
    name = str(payload["schema"]).removeprefix("fairmend ")
    tables = tables_of(payload)
    file = next((path for path in sorted(folder.glob("*.svg")) if path.stem in name.split()), None)
    picture = None if file is None else read_if_there(file, _LARGEST_PICTURE)
    parts: list[Part] = (
        [] if picture is None else [Stored(picture, f"{tables[0].title}: the same figures as a picture")]
    )
    model = payload.get("model")
    about = model.get("name") if isinstance(model, Mapping) else payload.get("dataset") or folder.absolute().name
    lines = sum(len(table.rows) for table in tables[:1])
    session = payload.get("session") or {}
    request = session.get("request") or payload.get("request") or {}
    entries = flat(payload.get("settings") or {}) | flat(request, "asked: ")
    if isinstance(model, Mapping):
        entries |= flat(model.get("fingerprint") or {}, "model: ")
    return Page(
        title=str(about),
        kind=f"Study: {name}",
        headline=f"{lines} lines side by side",
        tone="unsure",
        verdict=(_UNCHOSEN,),
        chapters=(
            Chapter("Figures", (*parts, *tables)),
            Chapter("What this does not show", (Notes(_LIMITS),)),
            made_chapter(payload, entries),
        ),
    )
