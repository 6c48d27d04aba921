"""What a study leaves in its directory beside the records of its repairs: JSON, CSV and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fairmend.files import write_atomically
from fairmend.report import figures
from fairmend.report.figures import Panel, Point, Series, Spot
from fairmend.report.tables import json_bytes
from fairmend.statistics import Mean
from fairmend.tabular.studies.compare import SearchComparison, SearchRow
from fairmend.tabular.studies.outcomes import title_of, unfairness_title
from fairmend.tabular.studies.reproduction import Reproduction
from fairmend.tabular.studies.sweep import Sweep, SweepRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEST = "test rows (never searched on)"


def write_comparison(comparison: SearchComparison, out: Path) -> dict[str, Path]:
    """Write compare.json, compare.csv and the trade-off as compare.png and .svg; return the paths by name.

    Raises:
        RunError: a file cannot be written.
    """
    contents = {"compare.json": json_bytes(comparison.to_json()), "compare.csv": comparison.table().csv()}
    return _written(out, contents, "compare", draw_comparison(comparison) if comparison.rows else None)


def write_reproduction(reproduction: Reproduction, out: Path) -> dict[str, Path]:
    """Write reproduce.json, settings.csv, networks.csv and reproduce.png and .svg; return the paths by name.

    Raises:
        RunError: a file cannot be written.
    """
    contents = {
        "reproduce.json": json_bytes(reproduction.to_json()),
        "settings.csv": reproduction.tables()[0].csv(),
        "networks.csv": reproduction.networks_table().csv(),
    }
    return _written(out, contents, "reproduce", draw_reproduction(reproduction) if reproduction.rows else None)


def write_sweep(sweep: Sweep, out: Path) -> dict[str, Path]:
    """Write sweep.json, sweep.csv and sweep.png and .svg; return the paths by name.

    Raises:
        RunError: a file cannot be written.
    """
    contents = {"sweep.json": json_bytes(sweep.to_json()), "sweep.csv": sweep.table().csv()}
    return _written(out, contents, "sweep", draw_sweep(sweep) if sweep.rows else None)


def draw_comparison(comparison: SearchComparison) -> Figure:
    """Draw unfairness against utility of every search: on the rows it optimised, and on the test rows."""
    settings = comparison.settings

    def spot(row: SearchRow, unfairness: Mean, utility: Mean) -> Spot:
        return Spot(row.name, _point(utility), _point(unfairness), hollow=row.states == 0)

    title = unfairness_title(settings.objective)
    better = "lower" if settings.utility == "log_loss" else "higher"
    return figures.draw_trade_off(
        {
            f"{settings.search_on} rows (optimised)": [
                spot(row, row.search_unfairness, row.search_utility) for row in comparison.rows
            ],
            _TEST: [spot(row, row.unfairness, row.utility) for row in comparison.rows],
        },
        x_label=f"{title_of(settings.utility)} ({better} is better)",
        y_label=f"{title} (lower is better)",
        title=f"{comparison.dataset}: {settings.states:,} states per search",
    )


def draw_reproduction(reproduction: Reproduction) -> Figure:
    """Draw the published figures beside ours, with intervals over networks and the noise floor."""
    rows = reproduction.rows
    settings = list(dict.fromkeys(row.published.setting for row in rows))
    published = {row.published.setting: row.published for row in rows}
    series = [
        Series(
            f"ours, threshold {threshold}",
            {r.published.setting: _point(r.ours) for r in rows if r.threshold == threshold},
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
            {r.published.setting: _point(r.threshold_only) for r in rows if r.threshold_only is not None},
        ),
        Series("untouched", {row.published.setting: _point(row.untouched) for row in rows}),
    ]
    return figures.draw_forest(
        settings,
        series,
        x_label="equalized odds difference on test rows, mean and 95 % t-interval over networks",
        floors={row.published.setting: row.floor for row in rows},
        title="NeuFair's published networks repaired",
    )


def draw_sweep(sweep: Sweep) -> Figure:
    """Draw unfairness and utility by setting, search rows beside test rows: one column per swept setting."""
    settings = sweep.settings
    # A grid of one point has no effects to show; its one level of the first axis then stands alone.
    effects = sweep.effects or dict.fromkeys(list(sweep.grid)[:1], sweep.rows)

    def panel(
        axis: str, rows: Sequence[SweepRow], what: str, figures_of: Callable[[SweepRow], tuple[Mean, Mean]]
    ) -> Panel:
        lines = [
            Series(label, {str(row.levels[axis]): _point(figures_of(row)[index]) for row in rows})
            for index, label in enumerate((_TEST, f"{settings.search_on} rows (optimised)"))
        ]
        return Panel(axis.replace("_", " "), "", what, lines)

    title = unfairness_title(settings.objective)
    return figures.draw_panels(
        [
            [
                panel(axis, rows, title, lambda row: (row.test_unfairness, row.search_unfairness))
                for axis, rows in effects.items()
            ],
            [
                panel(axis, rows, title_of(settings.utility), lambda row: (row.test_utility, row.search_utility))
                for axis, rows in effects.items()
            ],
        ],
        title=f"{sweep.dataset}: effect of each setting, over all the others",
    )


def _point(mean: Mean) -> Point:
    return Point.of(mean.mean, mean.interval)


def _written(out: Path, contents: Mapping[str, bytes], picture: str, figure: Figure | None) -> dict[str, Path]:
    contents = dict(contents)
    if figure is not None:
        contents |= {f"{picture}.png": figures.png(figure), f"{picture}.svg": figures.svg(figure)}
    for name, content in contents.items():
        write_atomically(out / name, content)
    return {name: out / name for name in contents}
