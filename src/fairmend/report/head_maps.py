"""Head maps: a cell per attention head, layers downwards, coloured by what the head does; dropped ones crossed out."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fairmend.errors import InputError
from fairmend.escaping import LONGEST_TITLE, picture_text
from fairmend.report.figures import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = "PuOr"  # purple and orange stay apart under colour vision deficiencies; white is no effect
_ABSENT = "#DDDDDD"
_CLIP = 99.0  # per cent: beyond this the few strongest heads would leave all others white
_MOST_TICKS = 16


@dataclass(frozen=True)
class HeadPanel:
    """The effects of all heads on one figure.

    Attributes:
        title: above the map.
        label: beside the colours: what is shown and its unit.
        rows: effects by layer, ``(n_heads,)`` each, which may differ in length; NaN where there is none.
        centred: whether 0 means no effect, so that colours run to both sides of it.
    """

    title: str
    label: str
    rows: Sequence[Sequence[float]]
    centred: bool = True


@dataclass(frozen=True)
class Heads:
    """The heads of a model, as all panels show them.

    Attributes:
        layers: name of every row.
        dropped: (row, head) of the heads that are switched off.
    """

    layers: Sequence[str]
    dropped: Collection[tuple[int, int]] = field(default_factory=tuple)


def draw_head_maps(panels: Sequence[HeadPanel], heads: Heads, *, title: str = "") -> Figure:
    """Draw head maps side by side.

    Raises:
        InputError: nothing to draw, or a panel with other rows than the heads have.
    """
    if not panels or not heads.layers:
        raise InputError("there is nothing to draw: a head map needs panels and layers")
    for panel in panels:
        if len(panel.rows) != len(heads.layers):
            raise InputError(
                f"the map {panel.title!r} has {len(panel.rows)} rows: give one for each of {len(heads.layers)} layers"
            )
    widest = max(len(row) for panel in panels for row in panel.rows)
    with drawing(len(panels) * (1.9 + 0.2 * widest), max(3.8, 1.6 + 0.16 * len(heads.layers))) as figure:
        grid: Any = figure.subplots(1, len(panels), squeeze=False, sharey=True)
        for axes, panel in zip(grid[0], panels, strict=True):
            values = _table(panel.rows, widest)
            low, high = _limits(values, panel.centred)
            axes.set_facecolor(_ABSENT)
            image = axes.imshow(
                np.ma.masked_invalid(values),
                cmap=_COLOURS if panel.centred else "Greys",
                vmin=low,
                vmax=high,
                aspect="auto",
                interpolation="nearest",
            )
            if heads.dropped:
                rows, columns = zip(*sorted(heads.dropped), strict=True)
                axes.scatter(columns, rows, marker="x", s=34, color="white", linewidths=3.4)  # a rim on dark cells
                axes.scatter(columns, rows, marker="x", s=28, color="black", linewidths=1.4, label="dropped")
            axes.set_title(picture_text(panel.title), loc="left")
            axes.set_xlabel("head")
            axes.set_xticks(_ticks(widest))
            axes.set_yticks(
                _ticks(len(heads.layers)), [picture_text(heads.layers[row]) for row in _ticks(len(heads.layers))]
            )
            for side in ("left", "bottom"):
                axes.spines[side].set_visible(False)
            axes.tick_params(length=0)
            figure.colorbar(
                image, ax=axes, label=picture_text(panel.label, LONGEST_TITLE), extend="both", fraction=0.08
            )
        grid[0][0].set_ylabel("layer")
        if heads.dropped:
            figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
        figure.suptitle(picture_text(title, LONGEST_TITLE))
        return figure


def _table(rows: Sequence[Sequence[float]], width: int) -> Any:
    table = np.full((len(rows), width), math.nan)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return table


def _limits(values: Any, centred: bool) -> tuple[float, float]:
    """Of the colours: the strongest effects but for the last per cent; never the same twice."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return -1.0, 1.0
    if centred:
        reach = float(np.percentile(np.abs(finite), _CLIP)) or 1.0
        return -reach, reach
    low, high = float(finite.min()), float(np.percentile(finite, _CLIP))
    return low, high if high > low else low + 1.0


def _ticks(count: int) -> list[int]:
    return list(range(0, count, max(1, math.ceil(count / _MOST_TICKS))))
