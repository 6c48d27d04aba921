"""The names that settings and options of the tabular wing choose among. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal, get_args

DropName = Literal["output", "weights", "clamp"]
SearchOn = Literal["train+validation", "validation"]
Threshold = Literal["joint", "fixed"]
DROPS: tuple[DropName, ...] = get_args(DropName)
SEARCH_ON: tuple[SearchOn, ...] = get_args(SearchOn)
THRESHOLDS: tuple[Threshold, ...] = get_args(Threshold)
OBJECTIVE_NAMES = (
    "equalized_odds_difference",
    "equal_opportunity_difference",
    "demographic_parity_difference",
    "equalized_odds_ratio",
    "equal_opportunity_ratio",
    "demographic_parity_ratio",
    "worst_group_accuracy",
)
UTILITY_NAMES = ("f1", "balanced_accuracy", "accuracy", "log_loss")
PRESET_NAMES = (
    *("adult-sex", "adult-race", "compas-sex", "compas-race"),
    *("bank-age", "default-sex", "meps16-race", "german-sex"),
)
