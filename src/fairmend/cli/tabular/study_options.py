"""The options of the commands that run many repairs: compare, reproduce and sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from fairmend.cli.options import SearchOptions, real, whole
from fairmend.errors import InputError

_STUDY = "Study"
_GRID = "Grid (lists, every combination is repaired)"
_SEARCH = "Search"
_Value = TypeVar("_Value", float, int, str)


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How many repairs are run, and where they are kept."""

    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            metavar="N",
            parser=whole,
            rich_help_panel=_STUDY,
            help="Processes that repair side by side, one thread each. The results do not depend on it.",
        ),
    ] = 1
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            rich_help_panel=_STUDY,
            help="Folder for tables, pictures and a store of the repairs, each kept as it finishes: the same command "
            "again goes on where it stopped. Default: ./fairmend-COMMAND, with the data's name.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ComparedOptions(SearchOptions):
    """`SearchOptions` with several searches."""

    search: Annotated[
        str,
        typer.Option(
            "--search",
            metavar="NAME[,NAME]",
            rich_help_panel=_SEARCH,
            help="The searches to compare, all with the same --states: annealing, random-walk, genetic, exhaustive, "
            "dice, random.",
        ),
    ] = "annealing,random-walk,genetic,random,dice"


@dataclass(frozen=True, kw_only=True)
class ReproducedOptions(SearchOptions):
    """`SearchOptions` with one or both ways of treating the threshold."""

    threshold: Annotated[
        str,
        typer.Option(
            "--threshold",
            metavar="joint|fixed|both",
            rich_help_panel=_SEARCH,
            help="joint: the search also shifts everybody's decision threshold. fixed: the threshold stays, NeuFair as "
            "published. both: one row of each.",
        ),
    ] = "joint"


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """The axes of a sweep, and what all its repairs share."""

    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            metavar="SHARE[,SHARE]",
            rich_help_panel=_GRID,
            help="Shares of the utility to keep (NeuFair's threshold multiplier), such as 0.95,0.98,1.",
        ),
    ] = None
    penalty: Annotated[
        str | None,
        typer.Option(
            "--penalty", metavar="P[,P]", rich_help_panel=_GRID, help="Penalties below that floor, such as 1,3,10."
        ),
    ] = None
    max_drop: Annotated[
        str | None,
        typer.Option(
            "--max-drop",
            metavar="N[,N]",
            rich_help_panel=_GRID,
            help="Size limits of the dropped set, such as 6,12,24.",
        ),
    ] = None
    states: Annotated[
        str | None,
        typer.Option(
            "--states", metavar="N[,N]", rich_help_panel=_GRID, help="Numbers of states to measure, such as 1000,10000."
        ),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule",
            metavar="NAME[,NAME]",
            rich_help_panel=_GRID,
            help="Cooling schedules of annealing: geometric, logarithmic, exponential.",
        ),
    ] = None
    min_drop: Annotated[
        int,
        typer.Option("--min-drop", metavar="N", parser=whole, rich_help_panel=_SEARCH, help="Fewest neurons to drop."),
    ] = 0
    search_on: Annotated[
        str | None,
        typer.Option(
            "--search-on",
            metavar="train+validation|validation",
            rich_help_panel=_SEARCH,
            help="Rows that the search sees; as in `fairmend tabular repair`.",
        ),
    ] = None
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            metavar="NAME",
            rich_help_panel=_SEARCH,
            help="What to make fair; as in `fairmend tabular repair`.",
        ),
    ] = None
    utility: Annotated[
        str | None,
        typer.Option(
            "--utility", metavar="NAME", rich_help_panel=_SEARCH, help="What to keep; as in `fairmend tabular repair`."
        ),
    ] = None
    drop: Annotated[
        str | None,
        typer.Option(
            "--drop",
            metavar="output|weights",
            rich_help_panel=_SEARCH,
            help="What a dropped neuron emits; as in `fairmend tabular repair`.",
        ),
    ] = None
    threshold: Annotated[
        str | None,
        typer.Option(
            "--threshold",
            metavar="joint|fixed",
            rich_help_panel=_SEARCH,
            help="Whether the search also shifts the decision threshold; as in `fairmend tabular repair`.",
        ),
    ] = None

    def grid(self) -> dict[str, list[float] | list[int] | list[str]]:
        """The axes with more than a default; `--keep` and `--schedule` if none was given.

        Raises:
            InputError: a level that is no number where numbers are needed.
        """
        given: dict[str, list[float] | list[int] | list[str]] = {}
        if self.keep is not None:
            given["keep"] = levels("--keep", self.keep, real)
        if self.penalty is not None:
            given["penalty"] = levels("--penalty", self.penalty, real)
        if self.max_drop is not None:
            given["max_drop"] = levels("--max-drop", self.max_drop, whole)
        if self.states is not None:
            given["states"] = levels("--states", self.states, whole)
        if self.schedule is not None:
            given["schedule"] = levels("--schedule", self.schedule, str)
        return given or {"keep": [0.95, 0.98, 1.0], "schedule": ["geometric", "logarithmic"]}

    def shared(self) -> dict[str, object]:
        """What all repairs share, where it was given."""
        names = ("search_on", "objective", "utility", "drop", "threshold")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {"min_drop": self.min_drop, **given}


def levels(option: str, text: str, read: Callable[[str], _Value]) -> list[_Value]:
    """Read a list whose parts are separated by commas.

    Raises:
        InputError: nothing, or a part that cannot be read.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError(f"{option} needs at least one value, got {text!r}: separate several by commas")
    try:
        return [read(part) for part in parts]
    except typer.BadParameter as error:
        raise InputError(f"{option} {text!r}: {error.message}; separate several values by commas") from error
