"""Pictures of results: trade-offs, effects of settings, and figures beside published ones, as PNG and SVG.

matplotlib is imported when the first picture is drawn, and only its Figure: no window, no global state. Colours are
those of Okabe and Ito, which people with colour vision deficiencies can tell apart; markers differ too. Names come
from outside: each goes through `picture_text`.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fairmend.errors import InputError
from fairmend.escaping import LONGEST_TITLE, picture_text
from fairmend.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#767676"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "text.usetex": False,  # whatever a user's matplotlibrc says: names are no LaTeX
    "svg.hashsalt": "fairmend",  # the same picture gives the same file
}


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its interval; without one the limits are NaN."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, value: float, interval: Interval | None = None) -> Point:
        """A value with the limits of an interval, if there is one."""
        return cls(value) if interval is None else cls(value, interval.low, interval.high)

    @property
    def reach(self) -> tuple[float, float]:
        """Distances to the lower and the upper limit; 0 without an interval."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return 0.0, 0.0
        return max(0.0, self.value - self.low), max(0.0, self.high - self.value)


@dataclass(frozen=True)
class Series:
    """Points under one name; the key of a point is the row or level that it belongs to."""

    label: str
    points: Mapping[str, Point]
    hollow: bool = False


@dataclass(frozen=True)
class Spot:
    """A point of a trade-off, with an interval in both directions."""

    label: str
    x: Point
    y: Point
    hollow: bool = False


@dataclass(frozen=True)
class Panel:
    """One small picture: series over the levels of a setting."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]


def draw_trade_off(
    panels: Mapping[str, Sequence[Spot]], *, x_label: str, y_label: str, title: str = "", log_x: bool = False
) -> Figure:
    """Draw unfairness against utility, one panel per set of rows, all with the same axes.

    A label has the same colour and marker in every panel. `log_x` is for utilities that differ by orders of magnitude.

    Raises:
        InputError: nothing to draw.
    """
    labels = list(dict.fromkeys(spot.label for spots in panels.values() for spot in spots))
    if not labels:
        raise InputError("there is nothing to draw: the trade-off has no points")
    with _style():
        figure = _figure(4.6 * len(panels) + 1.6, 4.2)
        grid: Any = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
        for axes, (name, spots) in zip(grid[0], panels.items(), strict=True):
            for place, spot in enumerate(spots):
                colour, marker = _look(labels.index(spot.label))
                # Of spots in the same place the earlier are drawn larger, so that a rim of each is seen.
                covering = sum(
                    (later.x.value, later.y.value) == (spot.x.value, spot.y.value) for later in spots[place + 1 :]
                )
                axes.errorbar(
                    spot.x.value,
                    spot.y.value,
                    xerr=_reaches([spot.x]),
                    yerr=_reaches([spot.y]),
                    fmt=marker,
                    color=colour,
                    markerfacecolor="white" if spot.hollow else colour,
                    markersize=7 + 5 * covering,
                    elinewidth=1,
                    capsize=2,
                    label=picture_text(spot.label),
                )
            _dress(axes, name, x_label, y_label if axes is grid[0][0] else "")
            if log_x:
                axes.set_xscale("log")
        if all(spot.y.value >= 0 for spots in panels.values() for spot in spots):
            grid[0][0].set_ylim(bottom=max(0.0, grid[0][0].get_ylim()[0]))  # t-intervals know no limit at 0
        handles, names = _unique(grid[0])
        figure.legend(handles, names, loc="outside right upper", frameon=False)
        figure.suptitle(picture_text(title, LONGEST_TITLE))
        return figure


def draw_panels(rows: Sequence[Sequence[Panel]], *, title: str = "") -> Figure:
    """Draw small multiples, one row of panels after the other; the panels of a row share their y axis.

    Levels that are all numbers are placed evenly in the order given, like names: settings are compared level by level.

    Raises:
        InputError: nothing to draw, or rows of different lengths.
    """
    widths = {len(row) for row in rows}
    if not rows or widths == {0} or len(widths) > 1:
        raise InputError(f"small multiples need rows of the same number of panels, got {[len(row) for row in rows]}")
    n_columns = widths.pop()
    with _style():
        figure = _figure(max(5.2, 2.9 * n_columns + 0.6), 2.5 * len(rows) + 0.9)
        grid: Any = figure.subplots(len(rows), n_columns, sharey="row", squeeze=False)
        for axes_row, row in zip(grid, rows, strict=True):
            for column, (axes, panel) in enumerate(zip(axes_row, row, strict=True)):
                levels = list(dict.fromkeys(level for series in panel.series for level in series.points))
                for index, series in enumerate(panel.series):
                    colour, marker = _look(index)
                    points = list(series.points.values())
                    axes.errorbar(
                        [levels.index(level) + 0.06 * (index - (len(panel.series) - 1) / 2) for level in series.points],
                        [point.value for point in points],
                        yerr=_reaches(points),
                        fmt=f"{marker}-",
                        color=colour,
                        markerfacecolor="white" if series.hollow else colour,
                        markersize=5,
                        linewidth=1.2,
                        elinewidth=1,
                        capsize=2,
                        label=picture_text(series.label),
                    )
                axes.set_xticks(range(len(levels)), list(map(picture_text, levels)))
                axes.margins(x=0.15)
                _dress(axes, panel.title, panel.x_label, panel.y_label if column == 0 else "")
        handles, names = _unique(grid.ravel())
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        figure.suptitle(picture_text(title, LONGEST_TITLE))
        return figure


def draw_forest(
    rows: Sequence[str],
    series: Sequence[Series],
    *,
    x_label: str,
    floors: Mapping[str, float] | None = None,
    floor_label: str = "noise floor",
    title: str = "",
) -> Figure:
    """Draw one line per row with the points of every series below each other, and a grey bar up to the noise floor.

    Args:
        rows: their names, from top to bottom.
        series: points by row; a row may be missing.
        x_label: what is measured.
        floors: noise floor by row.
        floor_label: what the grey bars mean.
        title: above the picture.

    Raises:
        InputError: nothing to draw, or a point of a row that is not there.
    """
    strangers = sorted({key for each in series for key in each.points} - set(rows))
    if not rows or not series or strangers:
        raise InputError(f"a forest plot needs rows and series of those rows; got rows {list(rows)}, extra {strangers}")
    with _style():
        figure = _figure(8.0, max(2.6, 0.17 * len(rows) * (len(series) + 1.5) + 1.3))
        axes: Any = figure.subplots()
        for position, row in enumerate(rows):
            if position % 2:
                axes.axhspan(position - 0.5, position + 0.5, color="#F5F5F5", zorder=0, linewidth=0)
            if floors is not None and row in floors:
                axes.barh(position, floors[row], height=0.96, color="#DDDDDD", zorder=1, label=floor_label, linewidth=0)
        gap = 0.8 / len(series)
        for index, each in enumerate(series):
            colour, marker = _look(index)
            points = list(each.points.values())
            axes.errorbar(
                [point.value for point in points],
                [rows.index(row) - 0.4 + gap * (index + 0.5) for row in each.points],
                xerr=_reaches(points),
                fmt=marker,
                color=colour,
                markerfacecolor="white" if each.hollow else colour,
                markersize=5,
                elinewidth=1.2,
                capsize=2,
                label=picture_text(each.label),
                zorder=3,
            )
        axes.set_yticks(range(len(rows)), list(map(picture_text, rows)))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.tick_params(axis="y", length=0)
        _dress(axes, "", x_label, "", grid="x")
        handles, names = _unique([axes])
        figure.legend(handles, names, loc="outside right upper", frameon=False)
        figure.suptitle(picture_text(title, LONGEST_TITLE))
        return figure


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many inches, to be drawn on in the style of all pictures."""
    with _style():
        yield _figure(width, height)


def png(figure: Figure) -> bytes:
    """The picture as PNG, 150 dots per inch."""
    return _saved(figure, "png", dpi=150, metadata={"Software": None})


def svg(figure: Figure) -> bytes:
    """The picture as SVG; the same picture gives the same bytes."""
    return _saved(figure, "svg", metadata={"Date": None})


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with _style(), warnings.catch_warnings():
        # Names in a script that the font lacks are drawn as boxes, and very long ones leave less room: the tables
        # beside the picture have them in full.
        for remark in (r"Glyph \d+ .*missing from", "constrained_layout not applied"):
            warnings.filterwarnings("ignore", remark, UserWarning)
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def _style() -> Any:
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)  # type: ignore[arg-type]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _look(index: int) -> tuple[str, str]:
    # The second round of colours has other markers than the first.
    return COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def _reaches(points: Sequence[Point]) -> Any:
    """Distances below and above as matplotlib wants them, shape (2, n_points)."""
    return np.array([point.reach for point in points]).T.reshape(2, -1)


def _dress(axes: Axes, title: str, x_label: str, y_label: str, grid: Any = "both") -> None:
    axes.set_title(picture_text(title), loc="left")
    axes.set_xlabel(picture_text(x_label, LONGEST_TITLE))
    axes.set_ylabel(picture_text(y_label, LONGEST_TITLE))
    axes.grid(True, axis=grid, color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GREY)
    axes.tick_params(color=_GREY)


def _unique(many: Iterable[Axes]) -> tuple[list[Any], list[str]]:
    """One legend entry per label over all axes."""
    found: dict[str, Any] = {}
    for axes in many:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
