"""Pictures: everything given is drawn, files are valid and repeatable."""

import math
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from matplotlib.text import Text

from fairmend.errors import InputError
from fairmend.escaping import visible
from fairmend.report.figures import (
    COLOURS,
    MARKERS,
    Panel,
    Point,
    Series,
    Spot,
    draw_forest,
    draw_panels,
    draw_trade_off,
    png,
    svg,
)
from fairmend.report.head_maps import HeadPanel, Heads, draw_head_maps
from fairmend.statistics import Interval

SPOTS = [
    Spot("annealing", Point(0.9, 0.88, 0.92), Point(0.02, -0.01, 0.05)),
    Spot("threshold only", Point(0.95), Point(0.1), hollow=True),
    Spot("untouched", Point(0.95), Point(0.1), hollow=True),
]
PANEL = Panel("keep", "", "EOD", [Series("test", {"0.9": Point(0.1, 0.05, 0.15), "1.0": Point(0.2)})])
FOREST = [
    Series("ours", {"adult": Point(0.05, 0.02, 0.08), "bank": Point(0.07)}),
    Series("published", {"adult": Point(0.07)}, hollow=True),
]


def trade_off():
    return draw_trade_off({"search": SPOTS, "test": SPOTS[:1]}, x_label="F1", y_label="EOD", title="trade-off")


def panels():
    return draw_panels([[PANEL, PANEL], [PANEL, PANEL]], title="effects")


def forest():
    return draw_forest(["adult", "bank"], FOREST, x_label="EOD", floors={"adult": 0.03}, title="published")


def texts(figure):
    drawn = svg(figure).decode()
    return [line.strip(" <!->") for line in drawn.splitlines() if line.strip().startswith("<!--")]


@pytest.mark.parametrize("draw", [trade_off, panels, forest])
def test_files_are_pictures_and_the_same_each_time(draw):
    assert png(draw()).startswith(b"\x89PNG\r\n\x1a\n")
    assert svg(draw()) == svg(draw())
    assert svg(draw()).lstrip().startswith(b"<?xml")


def test_names_are_written():
    assert {"search", "test", "annealing", "threshold only", "untouched", "F1", "EOD", "trade-off"} <= set(
        texts(trade_off())
    )
    assert {"adult", "bank", "ours", "published", "noise floor", "EOD"} <= set(texts(forest()))
    assert {"keep", "0.9", "1.0", "effects"} <= set(texts(panels()))


def test_every_interval_is_drawn_where_it_lies():
    axes = forest().axes[0]
    spans = [tuple(segment[:, 0]) for container in axes.containers[1:] for segment in segments(container)]
    assert (pytest.approx(0.02), pytest.approx(0.08)) in spans


def segments(container):
    return [part for lines in getattr(container, "lines", (0, 0, ()))[2] for part in lines.get_segments()]


def test_unfairness_is_not_drawn_below_zero():
    assert trade_off().axes[0].get_ylim()[0] == 0.0


def test_panels_of_a_trade_off_share_axes_and_colours():
    left, right = trade_off().axes
    assert left.get_ylim() == right.get_ylim()
    colours = [[container.lines[0].get_color() for container in axes.containers] for axes in (left, right)]
    assert colours[0][0] == colours[1][0] == COLOURS[0]


def test_spots_in_the_same_place_can_both_be_seen():
    sizes = {c.get_label(): c.lines[0].get_markersize() for c in trade_off().axes[0].containers}
    assert sizes["threshold only"] > sizes["untouched"] == sizes["annealing"]


def test_colours_and_markers_tell_series_apart():
    assert len(set(COLOURS)) == len(set(MARKERS)) == 7


def test_a_point_knows_its_reach():
    assert Point.of(2.0, Interval(1.5, 3.0)).reach == (0.5, 1.0)
    assert Point.of(2.0).reach == (0.0, 0.0)
    assert Point(2.0, math.nan, 3.0).reach == (0.0, 0.0)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_trade_off({}, x_label="", y_label=""),
        lambda: draw_panels([]),
        lambda: draw_panels([[PANEL], [PANEL, PANEL]]),
        lambda: draw_forest([], FOREST, x_label=""),
        lambda: draw_forest(["adult"], FOREST, x_label=""),
    ],
)
def test_nothing_to_draw_is_refused(draw):
    with pytest.raises(InputError):
        draw()


def test_matplotlib_is_imported_when_something_is_drawn_and_never_its_windows():
    script = (
        "import sys; import fairmend.report.figures as f; assert 'matplotlib' not in sys.modules\n"
        "f.draw_forest(['a'], [f.Series('s', {'a': f.Point(1.0)})], x_label='x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


HOSTILE = [
    "$\\foo$",
    "$",
    "a $x$ b $",
    "\x1b[31mF\u202e\x00",
    "caf\udce9",
    "中文 🙂",
    "<b>--></b>",
    "_hidden",
    "x" * 5000,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_drawn_as_they_are(name):
    spot, point = Spot(name, Point(0.9), Point(0.1)), {name: Point(0.1)}
    panel = Panel(name, name, name, [Series(name, point)])
    heads = Heads([name], [(0, 0)])
    for figure in (
        draw_trade_off({name: [spot]}, x_label=name, y_label=name, title=name, log_x=True),
        draw_panels([[panel]], title=name),
        draw_forest([name], [Series(name, point)], x_label=name, title=name),
        draw_head_maps([HeadPanel(name, name, [[0.1]])], heads, title=name),
    ):
        drawn = svg(figure)
        ElementTree.fromstring(drawn)
        assert png(figure).startswith(b"\x89PNG")
        labels = [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]
        assert all(visible(label) == label for label in labels)


def test_a_users_latex_is_not_asked_for_names():
    with mpl.rc_context({"text.usetex": True}):
        assert svg(trade_off()).lstrip().startswith(b"<?xml")


def test_a_name_that_begins_with_an_underscore_is_in_the_legend():
    (legend,) = draw_trade_off({"": [Spot("_x", Point(1), Point(1))]}, x_label="", y_label="").legends
    assert [text.get_text() for text in legend.get_texts()] == [" _x"]
