"""Searches that measure units one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fairmend.errors import InputError
from fairmend.masks import Mask, Space
from fairmend.search.base import MakeCost
from fairmend.search.sampling import BatchSearcher


class SingleInterventions(BatchSearcher):
    """Every droppable unit alone: the repair of DICE (Monjezi et al., ICSE 2023) as a baseline.

    The best single intervention that keeps the utility is the incumbent: the cost carries the utility floor. How a
    unit is intervened on, switched off or clamped, is the evaluator's matter; dials stay at 0.

    Args:
        space: what may be dropped; its size limits must admit one unit.
        make_cost: builds the cost from the untouched mask's measurement.
        batch: masks per ask.

    Raises:
        InputError: the size limits do not admit a single unit.
    """

    name = "dice"

    def __init__(self, space: Space, make_cost: MakeCost | None, *, batch: int = 256) -> None:
        super().__init__(space, make_cost, batch)
        if not space.min_drop <= 1 <= space.largest:
            raise InputError(
                f"single interventions drop exactly one unit, but the space admits {space.min_drop} to "
                f"{space.largest}: set min_drop to 0 or 1 and max_drop to at least 1"
            )

    def _masks(self) -> Iterator[Mask]:
        untouched = self.space.untouched()
        return (untouched.flip(unit) for unit in self.space.droppable)

    def settings(self) -> dict[str, Any]:
        """The name and every option, JSON-ready: enough to build an equal searcher. Nothing is random."""
        return {"name": self.name, "batch": self.batch}
