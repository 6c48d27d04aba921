"""The options of `fairmend lm compare`. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from fairmend.cli.language.options import ScoringOptions
from fairmend.cli.options import whole

_COMPARED = "Compared (lists)"


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions(ScoringOptions):
    """What is compared."""

    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME[,NAME]",
            rich_help_panel=_COMPARED,
            help="The methods, see repair --help. Default: all that rank heads; with --tokens fasp, attention-pruning, "
            "active and random.",
        ),
    ] = None
    alpha: Annotated[
        str | None,
        typer.Option(
            "--alpha",
            metavar="SHARE[,SHARE]",
            rich_help_panel=_COMPARED,
            help="Shares of the heads to drop: every method drops exactly so many. Default: 0.02,0.05,0.1. With "
            "--tokens one, the largest share that a ranking may drop; default 0.1.",
        ),
    ] = None
    gamma: Annotated[
        str | None,
        typer.Option(
            "--gamma",
            metavar="SHARE[,SHARE]",
            rich_help_panel=_COMPARED,
            help="Shares of the heads that are critical to the perplexity; fasp is shown at every one of them. "
            "Default: 0.3. With --tokens one.",
        ),
    ] = None
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            metavar="N",
            parser=whole,
            rich_help_panel=_COMPARED,
            help="Compare whole repairs, each of which may generate so many tokens: rankings search with more prompts "
            "for it, searches over subsets with more subsets. The methods that search subsets need it.",
        ),
    ] = None
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            metavar="N",
            parser=whole,
            rich_help_panel=_COMPARED,
            help="With --tokens: repairs by every method, each with prompts, noise and a search of its own.",
        ),
    ] = 3
    random_draws: Annotated[
        int,
        typer.Option(
            "--random-draws",
            metavar="N",
            parser=whole,
            rich_help_panel=_COMPARED,
            help="Sets that the method random draws at every alpha.",
        ),
    ] = 3
