"""`--fail-above`: an audit that ends with exit code 1 where the bias is more than was allowed, for automatic checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from fairmend.cli.display import Screen
from fairmend.cli.options import real
from fairmend.cli.streams import FAILED
from fairmend.errors import InputError

FailAbove = Annotated[
    float | None,
    typer.Option(
        "--fail-above",
        metavar="LIMIT",
        parser=real,
        help="For automatic checks: end with exit code 1 if the lower end of the figure's interval is above LIMIT, so "
        "that noise alone seldom fails a check.",
    ),
]


@dataclass(frozen=True)
class Gate:
    """What an audit may show at most.

    Args:
        limit: of the lower ends of intervals; None lets everything pass.

    Raises:
        InputError: a limit that is no number, or below 0, which every figure is above.
    """

    limit: float | None

    def __post_init__(self) -> None:
        if self.limit is not None and not (math.isfinite(self.limit) and self.limit >= 0):
            raise InputError(f"--fail-above must be a number from 0 on, such as 0.05, got {self.limit:g}")

    def result(self, least: Mapping[str, float]) -> dict[str, Any]:
        """What the JSON document says of it: nothing without a limit.

        Args:
            least: the lower end of every interval that counts, by what it is of.

        Raises:
            InputError: an interval without limits, of which nothing can be said.
        """
        if self.limit is None:
            return {}
        unknown = [name for name, low in least.items() if math.isnan(low)]
        if unknown:
            raise InputError(
                f"--fail-above cannot be checked: {unknown[0]} has no interval, because there are too few rows or "
                "items; give more"
            )
        above = [name for name, low in least.items() if low > self.limit]
        return {"gate": {"limit": self.limit, "least": dict(least), "above": above, "passed": not above}}

    def close(self, result: Mapping[str, Any], screen: Screen) -> None:
        """Say how it went, after everything else.

        Raises:
            typer.Exit: with code 1, if a figure is above the limit.
        """
        if self.limit is None:
            return
        gate = result["gate"]
        for name, low in gate["least"].items():
            word = "FAILED" if name in gate["above"] else "passed"
            screen.show(f"{word}: {name} is at least {low:.4f}, allowed is {self.limit:g} (--fail-above)")
        if not gate["passed"]:
            raise typer.Exit(FAILED)
