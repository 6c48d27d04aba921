"""Compare searches: several of them, at an equal number of states, with several seeds, beside the honest rivals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scipy.special import stdtr

from fairmend.errors import InputError
from fairmend.report.figures import Spot, draw_trade_off
from fairmend.report.study import study_kind
from fairmend.report.tables import Column, Table, fixed, spread
from fairmend.runs.jobs import Finished
from fairmend.search.names import SearchName
from fairmend.statistics import Mean, holm, paired_t_interval
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.metrics import title_of
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.settings import RepairSettings
from fairmend.tabular.studies.outcomes import (
    TEST_ROWS,
    Outcome,
    StudyRow,
    TabularStudy,
    point_of,
    unfairness_title,
)
from fairmend.tabular.studies.trials import Session, run_on_one

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_SEARCHES: tuple[SearchName, ...] = ("annealing", "random-walk", "genetic", "random", "dice")
_NOT_RANDOM = ("dice", "exhaustive")


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Whether a search is better than the reference, seed by seed.

    Attributes:
        name: the search that is tested.
        reference: the search that it is tested against.
        difference: its test unfairness minus the reference's.
        p_value, adjusted: of the paired t-test, and after Holm's adjustment for the number of tests; NaN when a test
            needs more seeds.
    """

    name: str
    reference: str
    difference: Mean
    p_value: float
    adjusted: float

    def words(self) -> str:
        """The result in a sentence."""
        gap = self.difference.mean
        opening = f"{self.name} against {self.reference}: {gap:+.4f}"
        if math.isnan(self.adjusted):
            return f"{opening}; one seed cannot tell a difference from chance."
        opening = f"{opening} {self.difference.interval}, Holm-adjusted p = {self.adjusted:.3f}"
        if self.adjusted > 1 - self.difference.interval.level:
            return f"{opening}: cannot be told apart with {self.difference.n} seeds."
        return f"{opening}: {'less' if gap < 0 else 'more'} unfair."

    def to_json(self) -> dict[str, Any]:
        """JSON-ready but for NaN."""
        return {
            "search": self.name,
            "reference": self.reference,
            **spread("difference", self.difference),
            "p_value": self.p_value,
            "holm_adjusted": self.adjusted,
            "words": self.words(),
        }


@dataclass(frozen=True)
class SearchComparison(TabularStudy):
    """The comparison of several searches on one network.

    Attributes:
        dataset: its name.
        rows: one per search, in the order asked for, then the rivals; {"search": NAME} tells them apart.
        tests: every row but the reference against the reference.
    """

    kind = study_kind("tabular compare", "compare")
    dataset: str
    rows: tuple[StudyRow, ...]
    tests: tuple[PairedTest, ...]

    def remarks(self) -> list[str]:
        """What a reader of the table must know."""
        said = [
            f"Test figures are of rows that no search saw; the figure of the {self.settings.search_on} rows is what "
            "the search optimised, and flatters.",
            "Intervals and tests are over seeds of the search: they say how far the search repeats on this network "
            "and this split, nothing about other data.",
        ]
        if self.tests:
            count = len(self.tests)
            said.append(
                f"{count} paired tests, p-values adjusted for their number (Holm): unadjusted, one test in twenty "
                "finds a difference by chance."
            )
        if any(row.levels["search"] in _NOT_RANDOM for row in self.rows):
            said.append("dice and exhaustive draw nothing at random: one run each, and only as many states as exist.")
        return said

    def tables(self) -> tuple[Table, ...]:
        """One line per search and rival."""
        title, utility = unfairness_title(self.settings.objective), title_of(self.settings.utility)
        columns = (
            Column("search", "search"),
            Column("test_unfairness", f"{title}, test", fixed(4)),
            Column("test_unfairness_half_width", "± (95 %)", fixed(4)),
            Column("search_unfairness", f"on {self.settings.search_on}", fixed(4)),
            Column("test_utility", f"{utility}, test", fixed(4)),
            Column("dropped", "dropped", fixed(1)),
            Column("states", "states", fixed(0)),
            Column("cpu_seconds", "CPU s", fixed(2)),
            Column("states_per_second", "states/s", fixed(0)),
            Column("infeasible", "infeasible"),
            Column("worse_than_untouched", "worse"),
            Column("seeds", "runs"),
        )
        heading = f"{self.dataset}: {self.settings.states:,} states per search"
        notes = (*self.notes(), *(test.words() for test in self.tests))
        return (Table(heading, columns, tuple(row.cells() for row in self.rows), notes),)

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready but for NaN."""
        return super().to_json() | {
            "dataset": self.dataset,
            "rows": [row.cells() for row in self.rows],
            "tests": [test.to_json() for test in self.tests],
        }

    def draw(self) -> Figure | None:
        """Unfairness against utility of every search: on the rows it optimised, and on the test rows."""
        if not self.rows:
            return None

        def spot(row: StudyRow, unfairness: Mean, utility: Mean) -> Spot:
            return Spot(str(row.levels["search"]), point_of(utility), point_of(unfairness), hollow=row.states == 0)

        settings = self.settings
        better = "lower" if settings.utility == "log_loss" else "higher"
        return draw_trade_off(
            {
                f"{settings.search_on} rows (optimised)": [
                    spot(row, row.search_unfairness, row.search_utility) for row in self.rows
                ],
                TEST_ROWS: [spot(row, row.test_unfairness, row.test_utility) for row in self.rows],
            },
            x_label=f"{title_of(settings.utility)} ({better} is better)",
            y_label=f"{unfairness_title(settings.objective)} (lower is better)",
            title=f"{self.dataset}: {settings.states:,} states per search",
        )


def compare_searches(
    network: Network,
    dataset: Dataset,
    settings: RepairSettings | None = None,
    *,
    searches: Sequence[SearchName] = DEFAULT_SEARCHES,
    seeds: int = 5,
    session: Session | None = None,
) -> SearchComparison:
    """Repair one network with several searches at an equal number of states.

    Args:
        network: a trained network.
        dataset: rows with groups and splits, test rows among them.
        settings: what all repairs share; the seeds count up from its seed.
        searches: the searches to compare. Options and restarts in the settings must suit all of them.
        seeds: runs per search; "dice" and "exhaustive" run once.
        session: how to run it, and where the results are kept so that it can be gone on with.

    Raises:
        InputError: no or repeated searches, no seeds, a time limit (it would not be equal), or settings that a search
            refuses.
        DataError: a data set that does not fit the network, or has no test rows.
        RunError: the directory belongs to something else, or cannot be written.
    """
    settings = settings or RepairSettings()
    settings = replace(settings, states=settings.budget)
    if not searches or len(set(searches)) < len(searches):
        raise InputError(f"name each search once, at least one; got {list(searches)}")
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}")
    if settings.seconds is not None:
        raise InputError("searches are compared at an equal number of states: give states instead of seconds")
    repairs = {
        f"{search}, seed {seed}": _settings_of(search, settings, seed)
        for search in searches
        for seed in range(settings.seed, settings.seed + (1 if search in _NOT_RANDOM else seeds))
    }
    rival = replace(settings, search="annealing")
    finished = run_on_one(SearchComparison.kind, network, dataset, repairs, rival, session)
    return _summarise(dataset.name, settings, finished)


def _settings_of(search: SearchName, settings: RepairSettings, seed: int) -> RepairSettings:
    own = replace(settings, search=search, seed=seed)
    return replace(own, min_drop=0) if search == "dice" else own  # it drops one neuron, whatever the least is


def _summarise(dataset: str, settings: RepairSettings, finished: Finished[Outcome]) -> SearchComparison:
    outcomes = list(finished.results.values())
    by_name: dict[str, list[Outcome]] = {}
    for outcome in [*outcomes, *(each.undone() for each in outcomes[:1])]:
        by_name.setdefault(outcome.procedure, []).append(outcome)
    rows = tuple(StudyRow.of({"search": name}, group, settings.utility) for name, group in by_name.items())
    values = {name: {each.seed: each.test.after.unfairness for each in group} for name, group in by_name.items()}
    return SearchComparison(settings, finished, dataset, rows, _tests(values))


def _tests(values: dict[str, dict[int, float]]) -> tuple[PairedTest, ...]:
    """Everything against annealing, or against the first search where annealing was not asked for."""
    if not values:
        return ()
    reference = "annealing" if "annealing" in values else next(iter(values))
    base = values[reference]
    pairs = []
    for name, own in values.items():
        if name == reference:
            continue
        # What draws nothing at random would give the same result with every seed.
        alike = len(own) == 1 or len(base) == 1
        shared = sorted(base.keys() | own.keys()) if alike else sorted(base.keys() & own.keys())
        if shared:
            first, second = ([each.get(seed, next(iter(each.values()))) for seed in shared] for each in (base, own))
            pairs.append((name, paired_t_interval(first, second)))
    raw = [_p_value(difference) for _, difference in pairs]
    defined = [p for p in raw if not math.isnan(p)]
    adjusted = iter(holm(defined).tolist() if defined else ())
    return tuple(
        PairedTest(name, reference, difference, p, math.nan if math.isnan(p) else next(adjusted))
        for (name, difference), p in zip(pairs, raw, strict=True)
    )


def _p_value(difference: Mean) -> float:
    """Two-sided p-value of the paired t-test."""
    if difference.n < 2:
        return math.nan
    if difference.standard_error == 0:
        return 1.0 if difference.mean == 0 else 0.0
    return float(2 * stdtr(difference.n - 1, -abs(difference.mean) / difference.standard_error))
