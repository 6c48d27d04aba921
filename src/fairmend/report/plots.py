"""Pictures of a report as marks: lines, boxes, circles and texts that a template writes as inline SVG.

Drawn here and not by matplotlib, whose files carry their letters as outlines and their colours in every element: these
marks have classes, so that one picture suits light, dark and print, real texts, and a title on whatever can be pointed
at. A name is escaped where the template writes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairmend.escaping import short
from fairmend.report.figures import Point

WIDTH = 460.0  # of every picture, in its own units: a phone shows 13 of them as 9 pixels
_LEFT, _RIGHT = 8.0, 452.0
_LETTER = 6.6  # units that a letter of a label takes
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Mark:
    """One element: `tag` is line, rect, circle or text, and `at` its attributes.

    Attributes:
        tag: the element.
        at: its numbers by attribute.
        look: its class.
        text: of a text.
        tip: what pointing at it shows.
        goes_to: the number of the panel that it opens, if it can be picked.
    """

    tag: str
    at: Mapping[str, float]
    look: str
    text: str = ""
    tip: str = ""
    goes_to: int | None = None


@dataclass(frozen=True)
class Picture:
    """Marks with what they say in words, for those who do not see them."""

    label: str
    height: float
    marks: tuple[Mark, ...]
    legend: tuple[tuple[str, str], ...] = ()
    width: float = WIDTH

    @property
    def is_picked(self) -> bool:
        """Whether some marks open panels."""
        return any(mark.goes_to is not None for mark in self.marks)


@dataclass(frozen=True)
class Row:
    """One figure or group of a picture: points by the name of their series.

    Attributes:
        label: what it is.
        points: in the order of the series.
        floor: what chance alone would show; NaN if that is unknown.
    """

    label: str
    points: Mapping[str, Point]
    floor: float = math.nan


def draw_forest(rows: Sequence[Row], label: str) -> Picture:
    """Points with intervals, a scale of its own below each row, since figures have units of their own."""
    marks: list[Mark] = []
    top = 0.0
    for row in rows:
        names = list(row.points)
        scale = _Scale.over([row], from_zero=False)
        marks.append(Mark("text", {"x": _LEFT, "y": top + 16}, "name", short(row.label, 58), row.label))
        base = top + 26 + 20 * len(names)
        if math.isfinite(row.floor):
            x, start = scale.at(row.floor), scale.at(scale.low)
            marks.append(
                Mark(
                    "rect",
                    {"x": start, "y": top + 24, "width": max(0.0, x - start), "height": base - top - 24},
                    "floor",
                    tip=f"{row.label}: chance alone would show {row.floor:.4g}",
                )
            )
        marks += scale.axis(base)
        for number, (name, point) in enumerate(row.points.items()):
            marks += _whisker(scale, point, top + 34 + 20 * number, f"s{number}", f"{row.label}, {name}")
        top = base + 26
    return Picture(label, top, tuple(marks), _legend(rows))


def draw_bars(rows: Sequence[Row], label: str) -> Picture:
    """A bar per series and row, with its interval, all on one scale from 0."""
    marks: list[Mark] = []
    scale = _Scale.over(rows, from_zero=True)
    zero, top = scale.at(0.0), 0.0
    for row in rows:
        marks.append(Mark("text", {"x": _LEFT, "y": top + 15}, "name", short(row.label, 58), row.label))
        for number, (name, point) in enumerate(row.points.items()):
            y = top + 22 + 15 * number
            if math.isfinite(point.value):
                end = scale.at(point.value)
                where = {"x": min(zero, end), "y": y, "width": abs(end - zero), "height": 11.0}
                marks.append(Mark("rect", where, f"bar s{number}", tip=_said(f"{row.label}, {name}", point)))
                marks += _whisker(scale, point, y + 5.5, "ink", f"{row.label}, {name}", dot=False)
        top += 26 + 15 * len(row.points)
    marks += scale.axis(top)
    if scale.low < 0:
        marks.append(Mark("line", {"x1": zero, "x2": zero, "y1": 0, "y2": top}, "axis"))
    return Picture(label, top + 24, tuple(marks), _legend(rows))


@dataclass(frozen=True)
class Spot:
    """A point of a front.

    Attributes:
        number: of its panel.
        label: what pointing at it shows.
        x, y: where it lies, with their intervals.
        look: "saved", "untouched" or "other".
    """

    number: int
    label: str
    x: Point
    y: Point
    look: str = "other"


def draw_front(spots: Sequence[Spot], label: str, x_label: str, y_label: str) -> Picture:
    """Spots on two scales, each of which opens its panel."""
    left, right, top, bottom = 54.0, 448.0, 26.0, 290.0
    across = _Scale.of([end for spot in spots for end in _ends(spot.x)], left, right)
    up = _Scale.of([end for spot in spots for end in _ends(spot.y)], bottom, top)
    marks = [
        Mark("text", {"x": 4, "y": 14}, "tick", short(y_label, 64), y_label),
        Mark("text", {"x": right, "y": bottom + 36}, "tick end", short(x_label, 64), x_label),
        *across.axis(bottom, length=top - bottom),
    ]
    for tick, said in up.ticks():
        y = up.at(tick)
        marks.append(Mark("line", {"x1": left, "x2": right, "y1": y, "y2": y}, "grid"))
        marks.append(Mark("text", {"x": left - 6, "y": y + 4}, "tick end", said))
    for spot in spots:
        x, y = across.at(spot.x.value), up.at(spot.y.value)
        for point, scale, is_across in ((spot.x, across, True), (spot.y, up, False)):
            if _is_known(point):
                low, high = scale.at(point.low), scale.at(point.high)
                ends = (
                    {"x1": low, "x2": high, "y1": y, "y2": y}
                    if is_across
                    else {"x1": x, "x2": x, "y1": low, "y2": high}
                )
                marks.append(Mark("line", ends, "whisker faint"))
        marks.append(Mark("circle", {"cx": x, "cy": y, "r": 6}, f"spot {spot.look}", "", spot.label, spot.number))
    return Picture(label, bottom + 44, tuple(marks))


@dataclass(frozen=True)
class Units:
    """One row of a map: a layer with its units.

    Attributes:
        label: of the layer.
        gains: of every unit; 0 is off, 1 is as it was.
    """

    label: str
    gains: Sequence[float]


def draw_map(layers: Sequence[Units], unit: str, label: str) -> Picture:
    """A cell per unit, layers downwards: off, turned down, as it was, or turned up."""
    widest = max((len(layer.gains) for layer in layers), default=1)
    names = [short(layer.label, 22) for layer in layers]
    start = 12 + _LETTER * max(map(len, names), default=0)
    size = min(16.0, (WIDTH - start - 4) / widest)
    height = min(14.0, max(size, 8.0)) if len(layers) > 8 else 14.0
    marks = []
    for row, (layer, name) in enumerate(zip(layers, names, strict=True)):
        y = 4 + row * (height + 2)
        marks.append(Mark("text", {"x": start - 6, "y": y + height - 3}, "tick end", name, layer.label))
        for place, gain in enumerate(layer.gains):
            look = "off" if gain == 0 else "kept" if gain == 1 else "down" if gain < 1 else "up"
            said = {"off": "off", "kept": "as it was"}.get(look, f"turned {look} to {gain:.2f}")
            where = {"x": start + place * size, "y": y, "width": max(0.8, size - 1), "height": height}
            if look in ("down", "up"):
                where["fill-opacity"] = 0.12 + 0.88 * min(1.0, abs(gain - 1))
            marks.append(Mark("rect", where, f"cell {look}", tip=f"{layer.label}, {unit} {place}: {said}"))
    present = {mark.look.split()[1] for mark in marks if mark.tag == "rect"}
    legend = (
        ("off", "switched off"),
        ("down", "turned down, the more the darker"),
        ("kept", "as it was"),
        ("up", "turned up, likewise"),
    )
    return Picture(
        label, 8 + len(layers) * (height + 2), tuple(marks), tuple((f"cell {k}", v) for k, v in legend if k in present)
    )


@dataclass(frozen=True)
class _Scale:
    """From values to places along one direction."""

    low: float
    high: float
    step: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float) -> _Scale:
        """One that holds all values, with round ends."""
        known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(known), max(known)
        reach = (high - low) or abs(high) or 1.0
        power = 10.0 ** math.floor(math.log10(reach / 4))
        step = next(power * factor for factor in _STEPS if reach / (power * factor) <= 5)
        return cls(math.floor(low / step) * step, math.ceil(high / step) * step or step, step, start, end)

    @classmethod
    def over(cls, rows: Sequence[Row], *, from_zero: bool) -> _Scale:
        """One for these rows."""
        values = [end for row in rows for point in row.points.values() for end in _ends(point)]
        values += [row.floor for row in rows]
        return cls.of([*values, 0.0] if from_zero else values, _LEFT + 12, _RIGHT - 12)

    def at(self, value: float) -> float:
        """Its place, within the ends."""
        span = (self.high - self.low) or 1.0
        share = min(1.0, max(0.0, (value - self.low) / span))
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values with what they say."""
        count = round((self.high - self.low) / self.step)
        digits = max(
            0, -math.floor(math.log10(self.step) + 1e-9) + (self.step / 10 ** math.floor(math.log10(self.step)) == 2.5)
        )
        return [
            (self.low + number * self.step, f"{self.low + number * self.step:,.{digits}f}")
            for number in range(count + 1)
        ]

    def axis(self, y: float, length: float = -6.0) -> list[Mark]:
        """A line with ticks and their numbers below it; `length` of the grid lines."""
        marks = [Mark("line", {"x1": self.start, "x2": self.end, "y1": y, "y2": y}, "axis")]
        for tick, said in self.ticks():
            x = self.at(tick)
            marks.append(Mark("line", {"x1": x, "x2": x, "y1": y, "y2": y + length}, "grid"))
            marks.append(Mark("text", {"x": x, "y": y + 14}, "tick middle", said))
        return marks


def _whisker(scale: _Scale, point: Point, y: float, look: str, name: str, dot: bool = True) -> list[Mark]:
    marks = []
    if _is_known(point):
        low, high = scale.at(point.low), scale.at(point.high)
        marks.append(Mark("line", {"x1": low, "x2": high, "y1": y, "y2": y}, f"whisker {look}"))
        marks += [Mark("line", {"x1": x, "x2": x, "y1": y - 3, "y2": y + 3}, f"whisker {look}") for x in (low, high)]
    if dot and math.isfinite(point.value):
        where = {"cx": scale.at(point.value), "cy": y, "r": 5.0}
        marks.append(Mark("circle", where, f"dot {look}", tip=_said(name, point)))
    return marks


def _legend(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    names = dict.fromkeys(name for row in rows for name in row.points)
    floor = [("floor", "chance alone")] if any(math.isfinite(row.floor) for row in rows) else []
    return (*((f"s{number}", name) for number, name in enumerate(names)), *floor)


def _ends(point: Point) -> tuple[float, float, float]:
    return point.value, point.low, point.high


def _is_known(point: Point) -> bool:
    return math.isfinite(point.low) and math.isfinite(point.high)


def _said(name: str, point: Point) -> str:
    limits = f" [{point.low:.4g}, {point.high:.4g}]" if _is_known(point) else ""
    return f"{name}: {point.value:.4g}{limits}"
