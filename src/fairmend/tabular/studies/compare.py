"""Compare searches: several of them, at an equal number of states, with several seeds, beside the honest rivals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtr

from fairmend import __version__
from fairmend.errors import InputError
from fairmend.report.tables import Cell, Column, Table, fixed, spread
from fairmend.runs.progress import Progress
from fairmend.settings import SearchName
from fairmend.statistics import Mean, holm, paired_t_interval, t_interval
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.repair import require_fit
from fairmend.tabular.repair.settings import RepairSettings
from fairmend.tabular.studies.outcomes import (
    THRESHOLD_ONLY,
    UNTOUCHED,
    Outcome,
    require_test_split,
    title_of,
    unfairness_title,
)
from fairmend.tabular.studies.trials import Finished, Loaded, Trial, run_trials

KIND = "tabular compare"
DEFAULT_SEARCHES: tuple[SearchName, ...] = ("annealing", "random-walk", "genetic", "random", "dice")
_SUBJECT = "network"
_NOT_RANDOM = ("dice", "exhaustive")


@dataclass(frozen=True)
class SearchRow:
    """One line of the comparison: a search over its seeds, or a rival.

    Attributes:
        name: the search's name, "threshold only" or "untouched".
        unfairness, utility: on the test split, over the seeds.
        search_unfairness, search_utility: the search's own figures, on the rows that it saw.
        dropped, states, distinct, cpu_seconds, states_per_second: means over the seeds, see `Outcome`.
        infeasible, worse: how many results are below the utility floor, or more unfair than the untouched network, on
            the search rows.
        seeds: number of results.
    """

    name: str
    unfairness: Mean
    utility: Mean
    search_unfairness: Mean
    search_utility: Mean
    dropped: float
    states: float
    distinct: float
    cpu_seconds: float
    states_per_second: float
    infeasible: int
    worse: int
    seeds: int

    def cells(self) -> dict[str, Cell]:
        """The row as raw values."""
        return {
            "search": self.name,
            "seeds": self.seeds,
            **spread("test_unfairness", self.unfairness),
            **spread("test_utility", self.utility),
            **spread("search_unfairness", self.search_unfairness),
            **spread("search_utility", self.search_utility),
            "dropped": self.dropped,
            "states": self.states,
            "distinct_states": self.distinct,
            "cpu_seconds": self.cpu_seconds,
            "states_per_second": self.states_per_second,
            "infeasible": self.infeasible,
            "worse_than_untouched": self.worse,
        }


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


@dataclass(frozen=True)
class SearchComparison:
    """The comparison of several searches on one network.

    Attributes:
        dataset: its name.
        settings: what all searches share, the number of states filled in.
        rows: one per search, in the order asked for, then the rivals.
        tests: every row but the reference against the reference.
        outcomes: the repairs behind the rows.
        planned: number of repairs of the whole comparison.
        interrupted: whether repairs are missing because of Ctrl-C.
    """

    dataset: str
    settings: RepairSettings
    rows: tuple[SearchRow, ...]
    tests: tuple[PairedTest, ...]
    outcomes: tuple[Outcome, ...]
    planned: int
    interrupted: bool

    def notes(self) -> tuple[str, ...]:
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
        if any(row.name in _NOT_RANDOM for row in self.rows):
            said.append("dice and exhaustive draw nothing at random: one run each, and only as many states as exist.")
        if self.interrupted:
            said.append(f"Stopped by Ctrl-C: {len(self.outcomes)} of {self.planned} repairs are in.")
        return tuple(said)

    def tables(self) -> tuple[Table, ...]:
        """For people."""
        return (self.table(),)

    def table(self) -> Table:
        """One line per search and rival."""
        title, utility = unfairness_title(self.settings.objective), title_of(self.settings.utility)
        return Table(
            f"{self.dataset}: {self.settings.states:,} states per search",
            (
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
            ),
            tuple(row.cells() for row in self.rows),
            (*self.notes(), *(test.words() for test in self.tests)),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready but for NaN."""
        return {
            "kind": KIND,
            "fairmend": __version__,
            "dataset": self.dataset,
            "settings": self.settings.to_json(),
            "interrupted": self.interrupted,
            "planned": self.planned,
            "rows": [row.cells() for row in self.rows],
            "tests": [
                {
                    "search": test.name,
                    "reference": test.reference,
                    **spread("difference", test.difference),
                    "p_value": test.p_value,
                    "holm_adjusted": test.adjusted,
                    "words": test.words(),
                }
                for test in self.tests
            ],
            "notes": list(self.notes()),
            "repairs": [outcome.to_json() for outcome in self.outcomes],
        }


def compare_searches(
    network: Network,
    dataset: Dataset,
    settings: RepairSettings | None = None,
    *,
    searches: Sequence[SearchName] = DEFAULT_SEARCHES,
    seeds: int = 5,
    out: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> SearchComparison:
    """Repair one network with several searches at an equal number of states.

    Args:
        network: a trained network.
        dataset: rows with groups and splits, test rows among them.
        settings: what all repairs share; the seeds count up from its seed.
        searches: the searches to compare. Options and restarts in the settings must suit all of them.
        seeds: runs per search; "dice" and "exhaustive" run once.
        out: directory for the record, so that the comparison can be gone on with.
        workers: number of processes.
        progress: counts finished repairs.

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
    require_fit(network, dataset)
    require_test_split(dataset)
    trials = [
        Trial(f"{search}, seed {seed}", _SUBJECT, _settings_of(search, settings, seed))
        for search in searches
        for seed in range(settings.seed, settings.seed + (1 if search in _NOT_RANDOM else seeds))
    ]
    trials.append(Trial(THRESHOLD_ONLY, _SUBJECT, replace(settings, search="annealing"), rival=True))
    subjects = {_SUBJECT: Loaded(network, dataset)}
    finished = run_trials(KIND, trials, subjects, out, workers=workers, progress=progress)
    return _summarise(dataset.name, settings, finished)


def _settings_of(search: SearchName, settings: RepairSettings, seed: int) -> RepairSettings:
    own = replace(settings, search=search, seed=seed)
    return replace(own, min_drop=0) if search == "dice" else own  # it drops one neuron, whatever the least is


def _summarise(dataset: str, settings: RepairSettings, finished: Finished) -> SearchComparison:
    outcomes = tuple(finished.outcomes.values())
    by_name: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_name.setdefault(outcome.procedure, []).append(outcome)
    rows = [_row(name, group, settings) for name, group in by_name.items()]
    if outcomes:
        rows.append(_untouched(outcomes[0], settings))
    values = {
        name: {outcome.seed: outcome.test.after.unfairness for outcome in group} for name, group in by_name.items()
    }
    if outcomes:
        values[UNTOUCHED] = {settings.seed: outcomes[0].test.before.unfairness}
    tests = _tests(values)
    return SearchComparison(dataset, settings, tuple(rows), tests, outcomes, finished.planned, finished.interrupted)


def _row(name: str, outcomes: Sequence[Outcome], settings: RepairSettings) -> SearchRow:
    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    return SearchRow(
        name=name,
        unfairness=t_interval([outcome.test.after.unfairness for outcome in outcomes]),
        utility=t_interval([outcome.test.after.utilities[settings.utility].value for outcome in outcomes]),
        search_unfairness=t_interval([outcome.search.bias_after for outcome in outcomes]),
        search_utility=t_interval([outcome.search.utility_after for outcome in outcomes]),
        dropped=mean([outcome.dropped for outcome in outcomes]),
        states=mean([outcome.states for outcome in outcomes]),
        distinct=mean([outcome.distinct for outcome in outcomes]),
        cpu_seconds=mean([outcome.cpu_seconds for outcome in outcomes]),
        states_per_second=mean([outcome.states_per_second for outcome in outcomes]),
        infeasible=sum(not outcome.search.feasible for outcome in outcomes),
        worse=sum(outcome.search.worse for outcome in outcomes),
        seeds=len(outcomes),
    )


def _untouched(outcome: Outcome, settings: RepairSettings) -> SearchRow:
    before = outcome.test.before
    return SearchRow(
        name=UNTOUCHED,
        unfairness=t_interval([before.unfairness]),
        utility=t_interval([before.utilities[settings.utility].value]),
        search_unfairness=t_interval([outcome.search.bias_before]),
        search_utility=t_interval([outcome.search.utility_before]),
        dropped=0.0,
        states=0.0,
        distinct=0.0,
        cpu_seconds=math.nan,
        states_per_second=math.nan,
        infeasible=0,
        worse=0,
        seeds=1,
    )


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
