"""Tables, figures and studies for people, whichever wing they are from."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from fairmend.cli.display import Screen
from fairmend.errors import FairmendError, first_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fairmend.records import Kind
    from fairmend.report.page import Page
    from fairmend.report.tables import Shown


def plain_table(title: str, *columns: str, numbers_from: int = 1, tight: bool = False) -> Table:
    """An empty table; the columns from `numbers_from` on are aligned to the right.

    Tables should fit into the 80 columns of an ordinary terminal; a tight one has one space between columns.
    """
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 0) if tight else (0, 1, 0, 0),
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place >= numbers_from else "left")
    return table


def number(value: float, sign: str = "") -> str:
    """A figure with four decimals, or n/a where it is undefined."""
    return "n/a" if math.isnan(value) else format(value, f"{sign}.4f")


def p_value(value: float) -> str:
    """A p-value, small ones as a bound."""
    return "n/a" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def table_parts(table: Shown, tight: bool = False) -> list[RenderableType]:
    """A table with its notes below it."""
    shown = plain_table(table.title, *table.headings, tight=tight)
    for row in table.rows:
        shown.add_row(*row)
    return [shown, *(f"* {note}" for note in table.notes)]


def present_study(
    result: Mapping[str, Any], screen: Screen, files: Mapping[str, Path] | None = None, *, tight: bool = False
) -> None:
    """Show a study, as `fairmend.report.study.load_study` reads it.

    Args:
        result: the study.
        screen: where.
        files: what was just written, by name; None if nothing was.
        tight: one space between columns instead of two.

    Raises:
        RunError: a study without tables.
    """
    present(result, saved_parts(result, tight), screen, files)


def saved_parts(result: Mapping[str, Any], tight: bool = False) -> list[RenderableType]:
    """The tables that a saved form holds.

    Raises:
        RunError: it has none.
    """
    from fairmend.report.study import tables_of

    return [part for table in tables_of(result) for part in table_parts(table, tight)]


def save_audit(
    out: Path | None, kind: Kind, content: Mapping[str, Any], page: Callable[[Path], Page], screen: Screen
) -> dict[str, Path]:
    """Save what an audit found, if a folder was named; return the files by name.

    Args:
        out: the folder, see `fairmend.files.require_empty`.
        kind: of the audit's record.
        content: what was found.
        page: makes its report.
        screen: where problems with the report are said.

    Raises:
        RunError: it cannot be written.
    """
    if out is None:
        return {}
    from fairmend.cli.language.runs import command_line
    from fairmend.files import make_folder
    from fairmend.records import session, versions, write

    make_folder(out)
    made = {"session": session(content["request"], command_line()), "versions": versions("numpy", "scipy", "torch")}
    write(out / kind.file, kind, {**content, **made})
    return {"result": out / kind.file} | leave_report(out, page, screen)


def leave_report(folder: Path, page: Callable[[Path], Page], screen: Screen) -> dict[str, Path]:
    """Write report.html beside a result; return its path by its name, for the list of what was written.

    The result is saved already, and no picture of it is worth losing it: what goes wrong is said.
    """
    from fairmend.report.page import REPORT, write_report

    try:
        return {"report": write_report(folder / REPORT, [page(folder)])}
    except (FairmendError, LookupError, TypeError, ValueError, ArithmeticError, OSError) as error:
        screen.warn(
            f"The result is saved, but {REPORT} is not written ({first_line(error)}): try `fairmend report "
            f"{shlex.quote(str(folder))}`"
        )
        return {}


def present(
    result: Mapping[str, Any],
    parts: Iterable[RenderableType],
    screen: Screen,
    files: Mapping[str, Path] | None = None,
) -> None:
    """Show a result: its parts for people, or the document with --json, and the files that were just written."""
    written = {name: str(path) for name, path in (files or {}).items()}
    screen.document({**result, "files": written} if written else result)
    screen.show(*parts)
    if written:
        screen.show("Written:", *(f"  {path}" for path in written.values()))
