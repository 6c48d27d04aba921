"""Judgements as cells of a table and as points of a picture: the same words in every file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fairmend.language.measurement.judging import AxisJudgement, Judgement, PerplexityChange
from fairmend.report import figures as pictures
from fairmend.report.figures import Point, Spot
from fairmend.report.tables import Cell, Column, fixed
from fairmend.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE = 8.0  # times: perplexities further apart than this are drawn on a logarithmic axis


class _Change(Column):
    """A change against the untouched model, of which the model itself shows none."""

    def text(self, row: Mapping[str, Cell]) -> str:
        """Its value for people, "" where no head is dropped."""
        return super().text(row) if row["heads"] else ""


JUDGED = (
    Column("bias", "bias", fixed(4), undefined="broken"),
    _Change("change", "change [95 %]", "{:+.4f}".format, interval=True, undefined=""),
    Column("perplexity", "perplexity", fixed(2), undefined="broken"),
    _Change("times", "times [95 %]", fixed(3), interval=True, undefined=""),
)
"""The columns that people see of `judgement_cells`; rows also need the number of dropped `heads`."""


def judgement_cells(judgement: Judgement) -> dict[str, Cell]:
    """Bias, perplexity and their changes, the repaired axis first; the columns of other axes end in [AXIS]."""
    others = (cells for axis in judgement.axes[1:] for cells in _bias_cells(axis, axis.axis).items())
    return {**_bias_cells(judgement.main, ""), **_perplexity_cells(judgement.perplexity), **dict(others)}


def spot_of(label: str, judgement: Judgement, hollow: bool = False) -> Spot:
    """Perplexity and bias with their intervals; the bias of a broken model is NaN."""
    read, change = judgement.perplexity, judgement.main.change
    y = Point(math.nan) if change is None else Point.of(change.after.value, change.after.interval)
    return Spot(label, Point.of(read.after, Interval.normal(read.after, read.after_error)), y, hollow)


def draw_judged(panels: Mapping[str, Sequence[Spot]], *, bias: str, title: str = "") -> Figure:
    """Draw bias against perplexity on held-out data; broken models are left out.

    Args:
        panels: spots by the title of their panel.
        bias: name of the figure.
        title: above the picture.
    """
    drawn = {
        name: [spot for spot in spots if math.isfinite(spot.x.value + spot.y.value)] for name, spots in panels.items()
    }
    reads = [spot.x.value for spots in drawn.values() for spot in spots]
    return pictures.draw_trade_off(
        drawn,
        x_label="perplexity of held-out text (lower is better)",
        y_label=f"{bias} (lower is better)",
        title=title,
        log_x=max(reads) > _WIDE * min(reads),
    )


def _bias_cells(judged: AxisJudgement, axis: str) -> dict[str, Cell]:
    change = judged.change
    after = None if change is None else change.after
    cells: dict[str, Cell] = {
        "bias": None if after is None else after.value,
        "bias_low": None if after is None else after.interval.low,
        "bias_high": None if after is None else after.interval.high,
        "floor": None if after is None else after.floor,
        "p_value": None if after is None else after.p_value,
        "change": None if change is None else change.change,
        "change_low": None if change is None else change.interval.low,
        "change_high": None if change is None else change.interval.high,
        "excess_removed": None if change is None else change.excess_removed,
    }
    return {f"{name}[{axis}]" if axis else name: value for name, value in cells.items()}


def _perplexity_cells(change: PerplexityChange) -> dict[str, Cell]:
    return {
        "perplexity": change.after,
        "perplexity_error": change.after_error,
        "times": change.ratio,
        "times_low": change.interval.low,
        "times_high": change.interval.high,
    }
