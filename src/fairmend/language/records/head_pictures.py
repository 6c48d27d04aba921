"""Head maps of scores and of repairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fairmend.language.heads.heads import HeadMap, gains_of
from fairmend.language.repair.head_ranking import HeadRanking
from fairmend.language.scores.head_scores import HeadScores
from fairmend.masks import Mask
from fairmend.report import figures
from fairmend.report.head_maps import HeadPanel, Heads, draw_head_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_scores(scores: HeadScores, head_map: HeadMap, mask: Mask | None = None, *, title: str = "") -> Figure:
    """Draw what the perplexity and the bias of every axis gain without each head; the heads of a mask are marked."""
    panels = [("perplexity", "mean loss gained without the head (nats)", scores.loss.effect)]
    panels += [(f"{axis.axis} bias", "bias gained without the head", axis.effect) for axis in scores.axes]
    return _draw([(*panel, True) for panel in panels], head_map, mask, title)


def draw_ranking(ranking: HeadRanking, head_map: HeadMap, mask: Mask, *, title: str = "") -> Figure:
    """Draw the scores that a repair ranked heads by, with the dropped heads marked."""
    if ranking.table is not None:
        return draw_scores(ranking.table, head_map, mask, title=title)
    panels = [(name, f"{name} of the head", values, False) for name, values in ranking.scores.items()]
    return _draw(panels or [("heads", "not scored", np.zeros(head_map.n_heads), True)], head_map, mask, title)


def pictures_of(figure: Figure, name: str = "head_map") -> Mapping[str, bytes]:
    """A picture as PNG and SVG, by file name."""
    return {f"{name}.png": figures.png(figure), f"{name}.svg": figures.svg(figure)}


def _draw(
    panels: Sequence[tuple[str, str, npt.NDArray[np.float64], bool]], head_map: HeadMap, mask: Mask | None, title: str
) -> Figure:
    off: list[int] = []
    if mask is not None:
        gains = gains_of(mask)[: head_map.n_heads]  # those of neurons are too many to be seen
        off = np.flatnonzero(gains == 0).tolist()
        turned = ("gains", "gain of the head minus 1", gains - 1, True)
        panels = [turned, *panels] if mask.dials else panels
    bounds = np.cumsum([site.n_heads for site in head_map.sites])[:-1]
    space = head_map.space()
    return draw_head_maps(
        [
            HeadPanel(name, label, [row.tolist() for row in np.split(values, bounds)], centred)
            for name, label, values, centred in panels
        ],
        Heads(
            [str(site.layer) for site in head_map.sites],
            [space.locate(unit) for unit in off],
        ),
        title=title,
    )
