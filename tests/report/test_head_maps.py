"""Head maps: every head has its cell, dropped heads are crossed out, files are valid and repeatable."""

import math

import pytest

from fairmend.errors import InputError
from fairmend.report.figures import png, svg
from fairmend.report.head_maps import HeadPanel, Heads, draw_head_maps

PANELS = [
    HeadPanel("perplexity", "loss gained", [[0.1, -0.2, 0.3], [0.0, math.nan]]),
    HeadPanel("magnitude", "size", [[1.0, 2.0, 3.0], [4.0, 5.0]], centred=False),
]
HEADS = Heads(["0", "2"], [(0, 2), (1, 0)])


def test_files_are_pictures_and_the_same_each_time():
    assert png(draw_head_maps(PANELS, HEADS)).startswith(b"\x89PNG\r\n\x1a\n")
    assert svg(draw_head_maps(PANELS, HEADS)) == svg(draw_head_maps(PANELS, HEADS))


def test_cells_hold_the_effects_and_layers_of_fewer_heads_have_gaps():
    first, second, *_ = draw_head_maps(PANELS, HEADS).axes
    drawn = first.images[0].get_array()
    assert drawn.filled(9).tolist() == [[0.1, -0.2, 0.3], [0.0, 9, 9]]
    assert first.images[0].get_clim()[0] == -first.images[0].get_clim()[1]
    assert second.images[0].get_clim()[0] == 1.0
    assert [label.get_text() for label in first.get_yticklabels()] == ["0", "2"]


def test_dropped_heads_are_crossed_out_and_only_they():
    crosses = draw_head_maps(PANELS, HEADS).axes[0].collections[-1]
    assert crosses.get_offsets().tolist() == [[2, 0], [0, 1]]
    plain = draw_head_maps(PANELS, Heads(["0", "2"]))
    assert not plain.axes[0].collections
    assert not plain.legends


@pytest.mark.parametrize("values", [[[0.0, 0.0]], [[math.nan, math.nan]]])
@pytest.mark.parametrize("centred", [True, False])
def test_maps_without_any_effect_are_drawn(values, centred):
    low, high = draw_head_maps([HeadPanel("x", "y", values, centred)], Heads(["0"])).axes[0].images[0].get_clim()
    assert low < high


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="nothing to draw"):
        draw_head_maps([], HEADS)
    with pytest.raises(InputError, match="has 2 rows: give one for each of 1 layers"):
        draw_head_maps(PANELS, Heads(["0"]))
