"""The published table beside ours: one row per setting, in words, tables and JSON.

Published: Dasu, Kumar, Tizpaz-Niari and Tan, "NeuFair: Neural Network Fairness Repair with Dropout", ISSTA 2024,
equalized odds difference and F1 on the test split, means over 10 networks per setting; DICE after Monjezi, Trivedi,
Tan and Tizpaz-Niari, "Information-Theoretic Testing and Debugging of Fairness Defects in Deep Neural Networks",
ICSE 2023, as run by the NeuFair paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fairmend.report.figures import Point, Series, draw_forest
from fairmend.report.study import study_kind
from fairmend.report.tables import Cell, Column, Table, fixed, spread
from fairmend.statistics import Mean
from fairmend.tabular.studies.outcomes import (
    THRESHOLD_ONLY,
    Outcome,
    TabularStudy,
    cells_of,
    mean_of,
    mean_over,
    point_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PUBLISHED_NETWORKS = 10
"""Networks per setting behind every published mean."""

LEFT_OUT: Mapping[str, frozenset[int]] = {"default": frozenset({1210912848})}
"""Seeds of released networks that the published means leave out, by data set."""


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One published setting.

    Attributes:
        setting: the preset's name.
        original, annealing, random_walk, dice: mean equalized odds difference on the test split: nothing dropped,
            simulated annealing and random walk of one hour per network, DICE.
        f1_original, f1_annealing: mean F1 on the test split.
    """

    setting: str
    original: float
    annealing: float
    random_walk: float
    dice: float
    f1_original: float
    f1_annealing: float

    @property
    def bar(self) -> float:
        """What a repair has to match: the annealing of one hour, or doing nothing where that was better."""
        return min(self.original, self.annealing)


PUBLISHED: Mapping[str, PublishedRow] = {
    row.setting: row
    for row in (
        PublishedRow("adult-sex", 0.11639, 0.07259, 0.07358, 0.10453, 0.667, 0.652),
        PublishedRow("adult-race", 0.08251, 0.04976, 0.04785, 0.08092, 0.667, 0.656),
        PublishedRow("compas-sex", 0.02522, 0.02921, 0.02233, 0.03229, 0.967, 0.954),
        PublishedRow("compas-race", 0.02960, 0.02239, 0.02159, 0.02964, 0.967, 0.954),
        PublishedRow("bank-age", 0.14665, 0.07257, 0.07595, 0.12205, 0.553, 0.537),
        PublishedRow("default-sex", 0.08962, 0.02749, 0.03124, 0.05845, 0.530, 0.519),
        PublishedRow("meps16-race", 0.20641, 0.08426, 0.09860, 0.19204, 0.533, 0.507),
    )
}


@dataclass(frozen=True)
class SettingRow:
    """One published setting, repaired with one way of treating the threshold.

    All figures are means over networks; equalized odds difference (EOD) and F1 are of the test split unless they say
    otherwise, and undefined without networks.

    Attributes:
        published: the published row.
        threshold: "joint" or "fixed"; "missing" where nothing could be repaired.
        networks: how many.
        eod, eod_untouched, eod_threshold_only: EOD of the repaired networks, of the networks as they are, and of the
            networks with only their threshold shifted.
        noise_floor: mean EOD of the networks as they are with their groups shuffled: no repair gets below it, but by
            chance.
        f1_before, f1_after, f1_threshold_only: F1 likewise.
        least_f1_ratio_search: smallest F1 after / before over networks, on the search rows.
        eod_search: the search's own mean EOD.
        infeasible, worse_than_untouched: networks below the F1 floor, and more unfair than before, both on the search
            rows.
        dropped: number of dropped neurons.
        cpu_seconds, most_cpu_seconds: processor seconds per network, mean and largest.
    """

    published: PublishedRow
    threshold: str
    networks: int
    eod: Mean
    eod_untouched: Mean
    eod_threshold_only: Mean
    noise_floor: float
    f1_before: Mean
    f1_after: Mean
    f1_threshold_only: Mean
    least_f1_ratio_search: float
    eod_search: float
    infeasible: int
    worse_than_untouched: int
    dropped: float
    cpu_seconds: float
    most_cpu_seconds: float

    @classmethod
    def of(
        cls, published: PublishedRow, threshold: str, repaired: Sequence[Outcome], rivals: Sequence[Outcome]
    ) -> SettingRow:
        """The row of these repairs, and of the same networks with only their threshold shifted."""
        return cls(
            published=published,
            threshold=threshold,
            networks=len(repaired),
            eod=mean_over(repaired, lambda each: each.test.after.unfairness),
            eod_untouched=mean_over(repaired, lambda each: each.test.before.unfairness),
            eod_threshold_only=mean_over(rivals, lambda each: each.test.after.unfairness),
            noise_floor=mean_of(repaired, lambda each: each.test.before.floor),
            f1_before=mean_over(repaired, lambda each: each.test.before.utilities["f1"].value),
            f1_after=mean_over(repaired, lambda each: each.test.after.utilities["f1"].value),
            f1_threshold_only=mean_over(rivals, lambda each: each.test.after.utilities["f1"].value),
            least_f1_ratio_search=min((each.search.utility_ratio for each in repaired), default=math.nan),
            eod_search=mean_of(repaired, lambda each: each.search.bias_after),
            infeasible=sum(not each.search.feasible for each in repaired),
            worse_than_untouched=sum(each.search.worse for each in repaired),
            dropped=mean_of(repaired, lambda each: each.dropped),
            cpu_seconds=mean_of(repaired, lambda each: each.cpu_seconds),
            most_cpu_seconds=max((each.cpu_seconds for each in repaired), default=math.nan),
        )

    @property
    def excess(self) -> float:
        """Mean EOD above the noise floor."""
        return self.eod.mean - self.noise_floor

    @property
    def meets_bar(self) -> bool:
        """Whether the mean is at or below the published hour of annealing (or doing nothing, where that was better)."""
        return self.eod.mean <= self.published.bar

    def cells(self) -> dict[str, Cell]:
        """The row as raw values; what was not measured is None."""
        published = self.published
        cells: dict[str, Cell] = {
            "setting": published.setting,
            "published_original": published.original,
            "published_annealing": published.annealing,
            "published_random_walk": published.random_walk,
            "published_dice": published.dice,
            "published_f1_before": published.f1_original,
            "published_f1_after": published.f1_annealing,
            **cells_of(self),
            "excess": self.excess,
            "published_excess": published.annealing - self.noise_floor,
            "wish": (published.annealing + self.noise_floor) / 2,  # half of the published excess
            "meets_bar": self.meets_bar,
        }
        unknown = ("meets_bar", "infeasible", "worse_than_untouched")
        return cells if self.networks else cells | dict.fromkeys(unknown)


@dataclass(frozen=True)
class Reproduction(TabularStudy):
    """What came of repairing the published networks.

    Attributes:
        rows: one per setting and threshold that has networks.
        missing: settings without networks or data, with the reason.
    """

    kind = study_kind("tabular reproduce", "reproduce")
    rows: tuple[SettingRow, ...]
    missing: Mapping[str, str]

    def remarks(self) -> list[str]:
        """What a reader of the tables must know."""
        below = sum(row.meets_bar for row in self.rows)
        return [
            "EOD and F1 are means over networks on test rows that no search saw; ± is the half-width of the 95 % "
            f"t-interval over networks. Published means are over {PUBLISHED_NETWORKS} networks each.",
            "The floor is the mean EOD with shuffled groups: what a network without any group difference would show.",
            "Threshold only shifts everybody's threshold and drops nothing: the rival that a repair has to beat.",
            "F1 kept, infeasible and worse are judged on the rows that the search saw.",
            f"At or below the published annealing of one hour (or the untouched network, where that was better): "
            f"{below} of {len(self.rows)} rows.",
            *(f"{setting} is missing: {reason}." for setting, reason in self.missing.items()),
        ]

    def tables(self) -> tuple[Table, ...]:
        """For people: unfairness beside the published figures, then what it cost."""
        missing = (SettingRow.of(PUBLISHED[name], "missing", (), ()) for name in self.missing)
        return (
            Table(
                "Equalized odds difference on test rows: published (NeuFair, ISSTA 2024) beside ours",
                (
                    Column("setting", "setting"),
                    Column("threshold", "threshold"),
                    Column("networks", "n"),
                    Column("published_original", "original", fixed(4)),
                    Column("published_annealing", "SA 1 h", fixed(4)),
                    Column("published_random_walk", "RW 1 h", fixed(4)),
                    Column("published_dice", "DICE", fixed(4)),
                    Column("eod_untouched", "untouched", fixed(4)),
                    Column("eod_threshold_only", "thr. only", fixed(4)),
                    Column("eod", "ours", fixed(4)),
                    Column("eod_half_width", "±", fixed(4)),
                    Column("noise_floor", "floor", fixed(4)),
                    Column("excess", "excess", fixed(4)),
                ),
                tuple(row.cells() for row in (*self.rows, *missing)),
            ),
            Table(
                "What it cost",
                (
                    Column("setting", "setting"),
                    Column("threshold", "threshold"),
                    Column("published_f1_before", "published F1", fixed(3)),
                    Column("published_f1_after", "after", fixed(3)),
                    Column("f1_before", "F1, test", fixed(3)),
                    Column("f1_after", "after", fixed(3)),
                    Column("least_f1_ratio_search", "least F1 kept", fixed(3)),
                    Column("infeasible", "infeasible"),
                    Column("worse_than_untouched", "worse"),
                    Column("dropped", "dropped", fixed(1)),
                    Column("cpu_seconds", "CPU s", fixed(1)),
                    Column("most_cpu_seconds", "at most", fixed(1)),
                ),
                tuple(row.cells() for row in self.rows),
                self.notes(),
            ),
        )

    def spreadsheets(self) -> dict[str, Table]:
        """The settings, and every repair of a network with the rivals."""
        networks = Table("Every network, on test rows", (), tuple(map(_network_cells, self.outcomes)))
        return {"settings.csv": self.tables()[0], "networks.csv": networks}

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready but for NaN."""
        described = super().to_json()
        networks = described.pop("repairs")
        return described | {
            "rows": [row.cells() | {"eod_t_interval": spread("mean", row.eod)} for row in self.rows],
            "missing": dict(self.missing),
            "networks": networks,
        }

    def draw(self) -> Figure | None:
        """Draw the published figures beside ours, with intervals over networks and the noise floor."""
        rows = self.rows
        if not rows:
            return None
        settings = list(dict.fromkeys(row.published.setting for row in rows))
        published = {row.published.setting: row.published for row in rows}
        series = [
            Series(
                f"ours, threshold {threshold}",
                {r.published.setting: point_of(r.eod) for r in rows if r.threshold == threshold},
            )
            for threshold in dict.fromkeys(row.threshold for row in rows)
        ]
        series += [
            Series(
                "published annealing, 1 h", {name: Point(row.annealing) for name, row in published.items()}, hollow=True
            ),
            Series("published DICE", {name: Point(row.dice) for name, row in published.items()}, hollow=True),
            Series(
                "threshold only",
                {r.published.setting: point_of(r.eod_threshold_only) for r in rows if r.eod_threshold_only.n},
            ),
            Series("untouched", {row.published.setting: point_of(row.eod_untouched) for row in rows}),
        ]
        return draw_forest(
            settings,
            series,
            x_label="equalized odds difference on test rows, mean and 95 % t-interval over networks",
            floors={row.published.setting: row.noise_floor for row in rows},
            title="NeuFair's published networks repaired",
        )


def summarise_settings(
    settings: Sequence[str], thresholds: Sequence[str], outcomes: Sequence[Outcome]
) -> tuple[SettingRow, ...]:
    """One row per setting and threshold with at least one repaired network, in the given order."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        procedure = THRESHOLD_ONLY if outcome.procedure == THRESHOLD_ONLY else outcome.settings["threshold"]
        groups.setdefault((outcome.subject.split()[0], procedure), []).append(outcome)
    return tuple(
        SettingRow.of(PUBLISHED[name], threshold, groups[name, threshold], groups.get((name, THRESHOLD_ONLY), ()))
        for name in settings
        for threshold in thresholds
        if (name, threshold) in groups
    )


def _network_cells(outcome: Outcome) -> dict[str, Cell]:
    before, after = outcome.test.before, outcome.test.after
    return {
        "network": outcome.subject,
        "procedure": outcome.procedure,
        "threshold": "joint" if outcome.procedure == THRESHOLD_ONLY else outcome.settings["threshold"],
        "eod_before": before.unfairness,
        "eod": after.unfairness,
        "eod_low": after.value.interval.low,
        "eod_high": after.value.interval.high,
        "noise_floor": before.floor,
        "p_value_before": before.p_value,
        "p_value": after.p_value,
        "f1_before": before.utilities["f1"].value,
        "f1": after.utilities["f1"].value,
        "accuracy_before": before.utilities["accuracy"].value,
        "accuracy": after.utilities["accuracy"].value,
        "eod_search_before": outcome.search.bias_before,
        "eod_search": outcome.search.bias_after,
        "utility_ratio_search": outcome.search.utility_ratio,
        "feasible": outcome.search.feasible,
        "worse_than_untouched": outcome.search.worse,
        "dropped": outcome.dropped,
        "shift": outcome.shift[0] if outcome.shift else 0.0,
        "states": outcome.states,
        "search_seconds": outcome.search_seconds,
        "cpu_seconds": outcome.cpu_seconds,
    }
