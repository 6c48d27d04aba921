"""What is known about a predictor's fairness: records of figures with their uncertainty, and their JSON form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fairmend.evaluation import Direction
from fairmend.report.tables import defined
from fairmend.statistics import Interval
from fairmend.tabular.fairness.confusion import GroupRates


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval and the direction that is better."""

    value: float
    interval: Interval
    better: Direction


@dataclass(frozen=True, slots=True)
class FairnessFigures:
    """How unfair and how good a predictor is on one split.

    Attributes:
        objective: fairlearn's name of the fairness figure.
        value: its raw value, with its interval and direction.
        unfairness: the same as something to minimise: the difference, 1 - ratio, 1 - accuracy.
        floor: mean unfairness of a network without any group difference on as many people (shuffled group labels).
        excess: unfairness - floor.
        p_value: of the permutation test against "no group difference".
        n, n_compared: number of rows, and of those within the compared groups.
        rows_needed: compared rows at which a difference of this size would be told from chance with power 0.8;
            None when it is already, or when there is no difference.
        utilities: by name.
        groups: rates of every compared group with counts.
        n_boot, n_perm: numbers of bootstrap and permutation draws.
    """

    objective: str
    value: Estimate
    unfairness: float
    floor: float
    excess: float
    p_value: float
    n: int
    n_compared: int
    rows_needed: int | None
    utilities: dict[str, Estimate]
    groups: tuple[GroupRates, ...]
    n_boot: int
    n_perm: int

    @property
    def is_significant(self) -> bool:
        """Whether the group difference can be told from chance at the interval's level."""
        return self.p_value <= 1 - self.value.interval.level

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description, undefined figures as null; `from_json` reads it back."""
        return _to_plain(self)

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> FairnessFigures:
        """The figures that `to_json` described."""
        numbers = ("unfairness", "floor", "excess", "p_value")
        rates = ("true_positive_rate", "false_positive_rate", "selection_rate", "accuracy")
        groups = [dict(row) | {rate: _to_float(row[rate]) for rate in rates} for row in payload["groups"]]
        read: dict[str, Any] = dict(payload) | {name: _to_float(payload[name]) for name in numbers}
        read["value"] = _to_estimate(payload["value"])
        read["utilities"] = {name: _to_estimate(estimate) for name, estimate in payload["utilities"].items()}
        read["groups"] = tuple(GroupRates(**row) for row in groups)
        return cls(**read)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two predictors on the same rows.

    Attributes:
        before, after: the figures of each.
        change: after - before of the objective's raw value.
        utility_changes: after - before of every utility, by name.
    """

    before: FairnessFigures
    after: FairnessFigures
    change: Estimate
    utility_changes: dict[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description, undefined figures as null; `from_json` reads it back."""
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "change": _to_plain(self.change),
            "utility_changes": {name: _to_plain(change) for name, change in self.utility_changes.items()},
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Comparison:
        """The comparison that `to_json` described."""
        return cls(
            before=FairnessFigures.from_json(payload["before"]),
            after=FairnessFigures.from_json(payload["after"]),
            change=_to_estimate(payload["change"]),
            utility_changes={name: _to_estimate(change) for name, change in payload["utility_changes"].items()},
        )


def _to_plain(record: Any) -> dict[str, Any]:
    plain: dict[str, Any] = defined(asdict(record))
    return plain


def _to_float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _to_estimate(payload: Mapping[str, Any]) -> Estimate:
    interval = {name: _to_float(limit) for name, limit in payload["interval"].items()}
    return Estimate(_to_float(payload["value"]), Interval(**interval), payload["better"])
