"""The front of a repair: the trade-offs between bias and perplexity among the sets of heads that were measured in full.

Which sets are on the front is decided on the search half, so that the held-out figures of each are not too rosy.
Whoever picks a point by its held-out figures has chosen on those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairmend.costs import UtilityFloor
from fairmend.evaluation import Figures, Measurement
from fairmend.language.heads.heads import n_changed
from fairmend.language.measurement.judging import JUDGED, Judgement, draw_judged, judgement_cells, spot_of
from fairmend.language.repair.finalists import Finalist
from fairmend.masks import Mask, Space
from fairmend.report.tables import Cell, Column, Table, fixed
from fairmend.search import Front

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAVEAT = (
    "the points were found on the search half, and the held-out figures are of prompts and text that no search saw. "
    "Whoever picks the point with the best held-out figures has chosen on them, and owes part of them to luck"
)


@dataclass(frozen=True)
class FrontPoint:
    """One trade-off between bias and perplexity.

    Attributes:
        mask: the dropped heads.
        measurement: on the whole search half.
        judgement: before against after on the held-out half; None if that was not asked for.
    """

    mask: Mask
    measurement: Measurement
    judgement: Judgement | None = None


@dataclass(frozen=True)
class RepairFront:
    """The trade-offs that a repair found, by ascending perplexity on the search half; point 0 is the untouched model.

    Attributes:
        points: the untouched model, then sets of heads with less bias that no other one beats in both figures.
        saved: number of the point that the repair saved; None if that is not one of them.
        space: the heads.
        figures: what bias and perplexity mean.
        n_judged: held-out prompts.
    """

    points: tuple[FrontPoint, ...]
    saved: int | None
    space: Space
    figures: Figures
    n_judged: int

    @classmethod
    def of(
        cls, points: Sequence[FrontPoint], saved: Mask, space: Space, figures: Figures, n_judged: int
    ) -> RepairFront:
        """The front of these points; `saved` is the mask that the repair saved."""
        masks = [point.mask for point in points]
        return cls(tuple(points), masks.index(saved) if saved in masks else None, space, figures, n_judged)

    @property
    def is_judged(self) -> bool:
        """Whether the points have held-out figures."""
        return self.points[0].judgement is not None

    def table(self) -> Table:
        """One row per point."""
        columns = (
            Column("point", "point", lambda number: f"{number}{' (saved)' if number == self.saved else ''}"),
            Column("heads", "heads"),
            *(JUDGED if self.is_judged else ()),
            Column("search_bias", "bias, search half", fixed(4)),
        )
        title = f"Trade-offs between {self.figures.bias.name} and perplexity: held-out prompts and text"
        notes = ("Point 0 is the untouched model.", f"{CAVEAT[:1].upper()}{CAVEAT[1:]}.")
        return Table(title, columns, tuple(self._cells()), notes)

    def _cells(self) -> list[dict[str, Cell]]:
        return [
            {
                "point": number,
                "saved": number == self.saved,
                "heads": n_changed(point.mask),
                "search_bias": point.measurement.bias,
                "search_bias_error": point.measurement.bias_se,
                "search_perplexity": point.measurement.utility,
                "search_perplexity_error": point.measurement.utility_se,
                **({} if point.judgement is None else judgement_cells(point.judgement)),
                "dropped": " ".join(map(str, point.mask.units())),
            }
            for number, point in enumerate(self.points)
        ]

    def draw(self) -> Figure:
        """Bias against perplexity on held-out data, one spot per point. Only for points that were judged."""
        counts = [n_changed(point.mask) for point in self.points]
        heads = [f"{count} head{'s' * (count != 1)}" for count in counts]
        labels = ["0: untouched", *(f"{number}: {said}" for number, said in enumerate(heads[1:], start=1))]
        if self.saved:
            labels[self.saved] += " (saved)"
        spots = [
            spot_of(label, point.judgement, hollow=number == 0)
            for number, (label, point) in enumerate(zip(labels, self.points, strict=True))
            if point.judgement is not None
        ]
        title = f"{self.n_judged:,} held-out prompts, 95 % intervals"
        return draw_judged({title: spots}, bias=self.figures.bias.name)


def front_of(
    untouched: Mask, before: Measurement, finalists: Sequence[Finalist], floor: UtilityFloor
) -> tuple[FrontPoint, ...]:
    """The untouched model and the finalists within the floor that no other set beats in bias and perplexity.

    A set with more bias than the untouched model is no repair, whatever its perplexity: it is left out.

    Args:
        untouched: the mask that drops nothing, which is always a point, the first one.
        before: its measurement.
        finalists: sets of heads that were measured on the whole search half.
        floor: the largest perplexity.

    Returns:
        Points by ascending perplexity, not judged yet.
    """
    front: Front[FrontPoint] = Front()
    front.offer(FrontPoint(untouched, before), before.bias, before.utility)
    for finalist in finalists:
        made = finalist.measurement
        if floor.admits(made) and made.bias <= before.bias:
            front.offer(FrontPoint(finalist.mask, made), made.bias, made.utility)
    changed = [point for point in front if not point.mask.is_untouched]
    return (FrontPoint(untouched, before), *reversed(changed))
