"""What a sweep over weights and budgets found: one line per winner, and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fairmend.evaluation import Figures
from fairmend.language.measurement.judged_figures import judgement_cells, spot_of
from fairmend.language.measurement.judging import Judgement
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.records.results import describe_judgement, describe_study
from fairmend.masks import Mask, Space
from fairmend.report import figures as pictures
from fairmend.report.figures import Panel, Point, Series
from fairmend.report.tables import Cell, Column, Table, fixed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND, STEM = "language sweep", "sweep"
RESULT = f"{STEM}.json"
SCHEMA, SCHEMA_VERSION = f"fairmend {KIND}", 1
CAVEAT = (
    "nothing was chosen among the lines: whoever picks the best of them has chosen on these prompts, and should judge "
    "it on others. Figures that surrogates predict for their own winner are too good: it was chosen by them"
)
UNTOUCHED = "untouched"


@dataclass(frozen=True, slots=True)
class Winner:
    """What annealing on surrogates ends with.

    Attributes:
        subsets: that the surrogates learned from.
        epsilon: weight of the bias.
        floored: whether the perplexity floor was kept on the surrogates.
        mask: the dropped heads.
        predicted_bias, predicted_perplexity: what the surrogates believe of them.
        tokens: generated to measure the subsets, continuations counted at their full length.
        seconds: that measuring them took.
    """

    subsets: int
    epsilon: float
    floored: bool
    mask: Mask
    predicted_bias: float
    predicted_perplexity: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class JudgedWinner:
    """A winner with its held-out figures."""

    winner: Winner
    judgement: Judgement


@dataclass(frozen=True)
class SubsetSweep:
    """Winners for every budget, weight and floor, side by side.

    Attributes:
        untouched: the model as it is, against itself.
        rows: one per budget and case.
        space: the heads.
        figures: what bias and perplexity mean.
        surrogate: what learned from the subsets.
        max_perplexity: the floor, as a multiple of the untouched model's perplexity; None for none.
        search_prompts: those that subsets were measured on a part of.
        judge_prompts: what every winner was judged on.
        texts: the text searched with and the one judged on.
    """

    untouched: Judgement
    rows: tuple[JudgedWinner, ...]
    space: Space
    figures: Figures
    surrogate: str
    max_perplexity: float | None
    search_prompts: PromptSet
    judge_prompts: PromptSet
    texts: tuple[Text, Text]

    def table(self) -> Table:
        """One row per budget and case, the untouched model first."""
        columns = (
            Column("subsets", "subsets"),
            Column("epsilon", "epsilon", "{:g}".format),
            Column("floored", "floor"),
            Column("heads", "heads"),
            Column("bias", "bias", fixed(4)),
            Column("change", "change", "{:+.4f}".format),
            Column("perplexity", "perplexity", fixed(2)),
            Column("times", "times", fixed(3)),
        )
        title = f"{self.figures.bias.name} on {len(self.judge_prompts):,} held-out prompts, by weight and budget"
        return Table(title, columns, tuple(self._cells()), (CAVEAT,))

    def _cells(self) -> list[dict[str, Cell]]:
        nothing: dict[str, Cell] = dict.fromkeys(
            ("subsets", "epsilon", "floored", "predicted_bias", "predicted_perplexity", "tokens", "seconds")
        )
        return [
            {**nothing, "heads": 0, **judgement_cells(self.untouched), "dropped": ""},
            *(
                {
                    **{name: getattr(row.winner, name) for name in nothing},
                    "heads": row.winner.mask.size,
                    **judgement_cells(row.judgement),
                    "dropped": " ".join(map(str, row.winner.mask.units())),
                }
                for row in self.rows
            ),
        ]

    def to_json(
        self,
        lm: LanguageModel,
        settings: Mapping[str, Any],
        *,
        request: Mapping[str, Any] | None = None,
        command: str = "",
    ) -> dict[str, Any]:
        """Everything found, JSON-ready; two sweeps of the same things differ under "session" only."""
        own = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "caveat": CAVEAT,
            "surrogate": self.surrogate,
            "max_perplexity": self.max_perplexity,
            "rows": [
                {name: value for name, value in asdict(row.winner).items() if name != "mask"}
                | {"dropped": list(row.winner.mask.units())}
                | describe_judgement(row.judgement)
                for row in self.rows
            ],
        }
        return describe_study(self, lm, settings, own, request=request, command=command)

    def draw(self) -> Figure:
        """Bias and perplexity against the weight of the bias, one line per budget.

        Winners without the floor are left out where there are others: their perplexities would dwarf the rest.
        """
        drawn = [row for row in self.rows if row.winner.floored] or list(self.rows)
        spots = [(row.winner, spot_of("", row.judgement)) for row in drawn]
        start = spot_of(UNTOUCHED, self.untouched)

        def panel(y_label: str, points: list[tuple[Winner, Point]], untouched: Point) -> Panel:
            levels = list(dict.fromkeys(f"{winner.epsilon:g}" for winner, _ in points))
            by_budget = [
                Series(
                    f"{budget:,} subsets",
                    {
                        f"{winner.epsilon:g}": point
                        for winner, point in points
                        if winner.subsets == budget and math.isfinite(point.value)
                    },
                )
                for budget in dict.fromkeys(winner.subsets for winner, _ in points)
            ]
            before = Series(UNTOUCHED, {level: Point(untouched.value) for level in levels}, hollow=True)
            return Panel("", "epsilon: weight of the bias", y_label, [before, *by_budget])

        rows = [
            [panel(f"{self.figures.bias.name}", [(winner, spot.y) for winner, spot in spots], start.y)],
            [panel("perplexity", [(winner, spot.x) for winner, spot in spots], start.x)],
        ]
        return pictures.draw_panels(rows, title=f"{len(self.judge_prompts):,} held-out prompts, 95 % intervals")
