"""The options of the commands that measure subsets of attention heads. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from fairmend.cli.options import real, whole

_SUBSETS = "Subsets (methods attention-pruning, active, genetic)"


@dataclass(frozen=True, kw_only=True)
class CollectingOptions:
    """Which subsets of heads are measured, and on how much."""

    eta: Annotated[
        float,
        typer.Option(
            "--eta",
            metavar="SHARE",
            parser=real,
            rich_help_panel=_SUBSETS,
            help="Share of the search half's prompts and text that every subset is measured on.",
        ),
    ] = 0.2
    fraction: Annotated[
        str,
        typer.Option(
            "--fraction",
            metavar="shared|own",
            rich_help_panel=_SUBSETS,
            help="Whether all subsets are measured on the same share, or each on a random one of its own, as published "
            "for Attention Pruning.",
        ),
    ] = "shared"
    min_drop: Annotated[
        int,
        typer.Option(
            "--min-drop", metavar="N", parser=whole, rich_help_panel=_SUBSETS, help="Least heads of a subset."
        ),
    ] = 1
    max_drop: Annotated[
        int | None,
        typer.Option(
            "--max-drop",
            metavar="N",
            parser=whole,
            rich_help_panel=_SUBSETS,
            help="Most heads of a subset. Default: 15 % of all heads.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SubsetSearchOptions(CollectingOptions):
    """How subsets of heads are searched, whatever their number."""

    epsilon: Annotated[
        float,
        typer.Option(
            "--epsilon",
            metavar="WEIGHT",
            parser=real,
            rich_help_panel=_SUBSETS,
            help="Weight of the bias against the perplexity, from 0 to 1.",
        ),
    ] = 0.5
    surrogate: Annotated[
        str,
        typer.Option(
            "--surrogate",
            metavar="NAME",
            rich_help_panel=_SUBSETS,
            help="What learns from the measured subsets: network (as published), additive or "
            "pairwise. auto: network for attention-pruning, pairwise for active.",
        ),
    ] = "auto"
    finalists: Annotated[
        int,
        typer.Option(
            "--finalists",
            metavar="N",
            parser=whole,
            rich_help_panel=_SUBSETS,
            help="Subsets to measure on the whole search half; the choice is made among them. With --front a ranking "
            "measures so many sets too, if its own are fewer.",
        ),
    ] = 8


@dataclass(frozen=True, kw_only=True)
class SubsetOptions(SubsetSearchOptions):
    """How subsets of heads are searched."""

    subsets: Annotated[
        int,
        typer.Option(
            "--subsets",
            metavar="N",
            parser=whole,
            rich_help_panel=_SUBSETS,
            help="Subsets to measure, the empty one included.",
        ),
    ] = 300
