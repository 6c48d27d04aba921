"""What a comparison of pruning methods found: one line per method and setting, with its files and its picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fairmend.evaluation import Figures
from fairmend.language.measurement.judged_figures import draw_judged, judgement_cells, spot_of
from fairmend.language.measurement.judging import Judgement
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.records.results import describe_judgement, describe_study
from fairmend.masks import Mask, Space
from fairmend.report.tables import Cell, Column, Table, fixed
from fairmend.search import PruningRule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA, SCHEMA_VERSION = "fairmend language comparison", 1
CAVEAT = (
    "nothing was chosen among the lines: whoever picks the best of them has chosen on these prompts, and should judge "
    "it on others (another --seed, or fairmend lm repair)"
)
UNTOUCHED = "untouched"


@dataclass(frozen=True)
class ComparedSet:
    """One line: the heads that a rule drops, judged on held-out prompts and text.

    Attributes:
        rule: the method with its settings.
        mask: the dropped heads.
        judgement: before against after.
        same_as: the first rule that drops the very same heads, "" if it is this one.
    """

    rule: PruningRule
    mask: Mask
    judgement: Judgement
    same_as: str = ""


@dataclass(frozen=True)
class MethodComparison:
    """Pruning methods and settings side by side.

    Attributes:
        untouched: the model as it is, against itself.
        rows: one per method and setting.
        space: the heads.
        figures: what bias and perplexity mean.
        notes: what a reader should know: rankings that are mostly noise, rules that found too few heads.
        search_prompts: what heads were scored on.
        judge_prompts: what every set was judged on.
        texts: the text that heads were scored on, and the one judged on.
        seed: of everything random.
    """

    untouched: Judgement
    rows: tuple[ComparedSet, ...]
    space: Space
    figures: Figures
    notes: tuple[str, ...]
    search_prompts: PromptSet
    judge_prompts: PromptSet
    texts: tuple[Text, Text]
    seed: int

    def table(self) -> Table:
        """One row per method and setting, the untouched model first."""
        columns = (
            Column("method", "method"),
            Column("alpha", "alpha", "{:g}".format),
            Column("gamma", "gamma", "{:g}".format),
            Column("heads", "heads"),
            Column("bias", "bias", fixed(4)),
            Column("change", "change", "{:+.4f}".format),
            Column("perplexity", "perplexity", fixed(2)),
            Column("times", "times", fixed(3)),
        )
        title = f"{self.figures.bias.name} on {len(self.judge_prompts):,} held-out prompts"
        return Table(title, columns, tuple(self._cells()), (*self.notes, CAVEAT))

    def _cells(self) -> list[dict[str, Cell]]:
        rules = [(None, None, self.untouched, "")]
        lines = [*rules, *((row.rule, row.mask, row.judgement, row.same_as) for row in self.rows)]
        return [
            {
                "method": UNTOUCHED if rule is None else rule.method,
                "alpha": None if rule is None else rule.alpha,
                "gamma": rule.gamma if rule is not None and rule.method == "fasp" else None,
                "seed": rule.seed if rule is not None and rule.method == "random" else None,
                "heads": 0 if mask is None else mask.size,
                "same_heads_as": same_as,
                **judgement_cells(judgement),
                "dropped": "" if mask is None else " ".join(map(str, mask.units())),
            }
            for rule, mask, judgement, same_as in lines
        ]

    def to_json(
        self,
        lm: LanguageModel,
        settings: Mapping[str, Any],
        *,
        request: Mapping[str, Any] | None = None,
        command: str = "",
    ) -> dict[str, Any]:
        """Everything found, JSON-ready; two comparisons of the same things differ under "session" only."""
        own = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "caveat": CAVEAT,
            "rows": [
                asdict(row.rule)
                | {"dropped": list(row.mask.units()), "same_heads_as": row.same_as or None}
                | describe_judgement(row.judgement)
                for row in self.rows
            ],
            "notes": list(self.notes),
        }
        return describe_study(self, lm, settings, own, request=request, command=command)

    def draw(self) -> Figure:
        """Bias against perplexity on held-out data, one panel per share of dropped heads."""
        before = spot_of(UNTOUCHED, self.untouched, hollow=True)
        several_gammas = len({row.rule.gamma for row in self.rows if row.rule.method == "fasp"}) > 1
        panels = {}
        for alpha in dict.fromkeys(row.rule.alpha for row in self.rows):
            rows = [row for row in self.rows if row.rule.alpha == alpha]
            labels = [
                f"fasp, gamma {row.rule.gamma:g}" if row.rule.method == "fasp" and several_gammas else row.rule.method
                for row in rows
            ]
            name = f"alpha {alpha:g}: {rows[0].rule.count(self.space.n_units)} of {self.space.n_units} heads dropped"
            panels[name] = [before, *(spot_of(label, row.judgement) for label, row in zip(labels, rows, strict=True))]
        return draw_judged(
            panels,
            bias=self.figures.bias.name,
            title=f"held-out: {len(self.judge_prompts):,} prompts that no score saw, 95 % intervals",
        )
