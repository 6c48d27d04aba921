"""The published table beside ours: one row per setting, in words, tables and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairmend import __version__
from fairmend.report.tables import Cell, Column, Table, fixed, spread
from fairmend.statistics import Interval, Mean, t_interval
from fairmend.tabular.names import Threshold
from fairmend.tabular.repair.settings import RepairSettings
from fairmend.tabular.studies.outcomes import THRESHOLD_ONLY, Outcome
from fairmend.tabular.studies.published import PUBLISHED, PUBLISHED_NETWORKS, PublishedRow

KIND = "tabular reproduce"


@dataclass(frozen=True)
class SettingRow:
    """One published setting, repaired with one way of treating the threshold.

    All figures are means over networks; equalized odds difference (EOD) and F1 are of the test split unless they say
    otherwise.

    Attributes:
        published: the published row.
        threshold: "joint" or "fixed".
        ours, untouched, threshold_only: EOD of the repaired networks, of the networks as they are, and of the networks
            with only their threshold shifted (None while that is missing).
        floor: mean EOD of the networks as they are with their groups shuffled: no repair gets below it, but by chance.
        f1_before, f1_after, f1_threshold_only: F1 likewise.
        least_f1_ratio: smallest F1 after / before over networks, on the search rows.
        infeasible, worse: networks below the F1 floor, and more unfair than before, both on the search rows.
        search_eod: the search's own mean EOD.
        dropped: number of dropped neurons.
        cpu_seconds, most_cpu_seconds: processor seconds per network, mean and largest.
    """

    published: PublishedRow
    threshold: str
    ours: Mean
    untouched: Mean
    threshold_only: Mean | None
    floor: float
    f1_before: Mean
    f1_after: Mean
    f1_threshold_only: Mean | None
    least_f1_ratio: float
    infeasible: int
    worse: int
    search_eod: float
    dropped: float
    cpu_seconds: float
    most_cpu_seconds: float

    @property
    def excess(self) -> float:
        """Mean EOD above the noise floor."""
        return self.ours.mean - self.floor

    @property
    def meets_bar(self) -> bool:
        """Whether the mean is at or below the published hour of annealing (or doing nothing, where that was better)."""
        return self.ours.mean <= self.published.bar

    def cells(self) -> dict[str, Cell]:
        """The row as raw values."""
        published = self.published
        undefined = Mean(math.nan, math.nan, self.ours.interval, 0)
        return {
            "setting": published.setting,
            "threshold": self.threshold,
            "networks": self.ours.n,
            "published_original": published.original,
            "published_annealing": published.annealing,
            "published_random_walk": published.random_walk,
            "published_dice": published.dice,
            "eod": self.ours.mean,
            "eod_half_width": self.ours.half_width,
            "eod_untouched": self.untouched.mean,
            "eod_untouched_half_width": self.untouched.half_width,
            "eod_threshold_only": (self.threshold_only or undefined).mean,
            "noise_floor": self.floor,
            "excess": self.excess,
            "published_excess": published.annealing - self.floor,
            "meets_bar": self.meets_bar,
            "f1_before": self.f1_before.mean,
            "f1_after": self.f1_after.mean,
            "f1_threshold_only": (self.f1_threshold_only or undefined).mean,
            "published_f1_before": published.f1_original,
            "published_f1_after": published.f1_annealing,
            "least_f1_ratio_search": self.least_f1_ratio,
            "eod_search": self.search_eod,
            "infeasible": self.infeasible,
            "worse_than_untouched": self.worse,
            "dropped": self.dropped,
            "cpu_seconds": self.cpu_seconds,
            "most_cpu_seconds": self.most_cpu_seconds,
        }


@dataclass(frozen=True)
class Reproduction:
    """What came of repairing the published networks.

    Attributes:
        settings: how they were repaired.
        rows: one per setting and threshold that has networks.
        missing: settings without networks or data, with the reason.
        outcomes: every repair, rivals included.
        planned: number of repairs of the whole reproduction.
        interrupted: whether repairs are missing because of Ctrl-C.
    """

    settings: RepairSettings
    rows: tuple[SettingRow, ...]
    missing: Mapping[str, str]
    outcomes: tuple[Outcome, ...]
    planned: int
    interrupted: bool

    def notes(self) -> tuple[str, ...]:
        """What a reader of the table must know."""
        below = sum(row.meets_bar for row in self.rows)
        said = [
            f"EOD and F1 are means over networks on test rows that no search saw; ± is the half-width of the 95 % "
            f"t-interval over networks. Published means are over {PUBLISHED_NETWORKS} networks each.",
            "The floor is the mean EOD with shuffled groups: what a network without any group difference would show.",
            "Threshold only shifts everybody's threshold and drops nothing: the rival that a repair has to beat.",
            "F1 kept, infeasible and worse are judged on the rows that the search saw.",
            f"At or below the published annealing of one hour (or the untouched network, where that was better): "
            f"{below} of {len(self.rows)} rows.",
        ]
        said += [f"{setting} is missing: {reason}." for setting, reason in self.missing.items()]
        if self.interrupted:
            said.append(f"Stopped by Ctrl-C: {len(self.outcomes)} of {self.planned} repairs are in.")
        return tuple(said)

    def tables(self) -> tuple[Table, ...]:
        """For people: unfairness beside the published figures, then what it cost."""
        published = [row.cells() for row in self.rows] + [_missing_cells(PUBLISHED[name]) for name in self.missing]
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
                tuple(published),
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

    def networks_table(self) -> Table:
        """One line per repair of a network, rivals included."""
        columns = (
            Column("network", "network"),
            Column("procedure", "procedure"),
            Column("threshold", "threshold"),
            Column("eod_before", "EOD", fixed(4)),
            Column("eod", "EOD after", fixed(4)),
            Column("f1_before", "F1", fixed(4)),
            Column("f1", "F1 after", fixed(4)),
            Column("dropped", "dropped"),
            Column("cpu_seconds", "CPU s", fixed(1)),
        )
        return Table("Every network, on test rows", columns, tuple(map(_network_cells, self.outcomes)))

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready but for NaN."""
        return {
            "kind": KIND,
            "fairmend": __version__,
            "settings": self.settings.to_json(),
            "interrupted": self.interrupted,
            "planned": self.planned,
            "rows": [
                row.cells() | {"eod_t_interval": spread("mean", row.ours), "wish": _wish(row)} for row in self.rows
            ],
            "missing": dict(self.missing),
            "notes": list(self.notes()),
            "networks": [outcome.to_json() for outcome in self.outcomes],
        }


def _missing_cells(published: PublishedRow) -> dict[str, Cell]:
    """The published figures of a setting that could not be repaired, and nothing else."""
    nowhere = Mean(math.nan, math.nan, Interval(math.nan, math.nan), 0)
    row = SettingRow(
        published=published,
        threshold="missing",
        ours=nowhere,
        untouched=nowhere,
        threshold_only=None,
        floor=math.nan,
        f1_before=nowhere,
        f1_after=nowhere,
        f1_threshold_only=None,
        least_f1_ratio=math.nan,
        infeasible=0,
        worse=0,
        search_eod=math.nan,
        dropped=math.nan,
        cpu_seconds=math.nan,
        most_cpu_seconds=math.nan,
    )
    return row.cells() | {"meets_bar": None, "infeasible": None, "worse_than_untouched": None}


def summarise_settings(
    settings: Sequence[str], thresholds: Sequence[Threshold], outcomes: Sequence[Outcome]
) -> tuple[SettingRow, ...]:
    """One row per setting and threshold with at least one repaired network, in the given order."""
    rows = []
    for setting in settings:
        own = [outcome for outcome in outcomes if outcome.subject.split()[0] == setting]
        rivals = [outcome for outcome in own if outcome.procedure == THRESHOLD_ONLY]
        for threshold in thresholds:
            repaired = [
                outcome
                for outcome in own
                if outcome.procedure != THRESHOLD_ONLY and outcome.settings["threshold"] == threshold
            ]
            if repaired:
                rows.append(_row(PUBLISHED[setting], threshold, repaired, rivals))
    return tuple(rows)


def _row(published: PublishedRow, threshold: str, repaired: Sequence[Outcome], rivals: Sequence[Outcome]) -> SettingRow:
    return SettingRow(
        published=published,
        threshold=threshold,
        ours=t_interval([outcome.test.after.unfairness for outcome in repaired]),
        untouched=t_interval([outcome.test.before.unfairness for outcome in repaired]),
        threshold_only=t_interval([outcome.test.after.unfairness for outcome in rivals]) if rivals else None,
        floor=float(np.mean([outcome.test.before.floor for outcome in repaired])),
        f1_before=t_interval([outcome.test.before.utilities["f1"].value for outcome in repaired]),
        f1_after=t_interval([outcome.test.after.utilities["f1"].value for outcome in repaired]),
        f1_threshold_only=(
            t_interval([outcome.test.after.utilities["f1"].value for outcome in rivals]) if rivals else None
        ),
        least_f1_ratio=min(outcome.search.utility_ratio for outcome in repaired),
        infeasible=sum(not outcome.search.feasible for outcome in repaired),
        worse=sum(outcome.search.worse for outcome in repaired),
        search_eod=float(np.mean([outcome.search.bias_after for outcome in repaired])),
        dropped=float(np.mean([outcome.dropped for outcome in repaired])),
        cpu_seconds=float(np.mean([outcome.cpu_seconds for outcome in repaired])),
        most_cpu_seconds=max(outcome.cpu_seconds for outcome in repaired),
    )


def _wish(row: SettingRow) -> float:
    """Half of the excess over the noise floor that the published annealing leaves."""
    return (row.published.annealing + row.floor) / 2


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
