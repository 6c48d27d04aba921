"""The commands `fairmend lm compare` and `sweep`, and what `fairmend resume` and `show` do with their folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairmend.cli.display import Screen, opened
from fairmend.cli.language.inputs import (
    LanguageInputs,
    absolute,
    measuring,
    open_language_inputs,
    reopen_language_inputs,
    stored_settings,
)
from fairmend.cli.language.options import (
    COLLECTED,
    MEASURED,
    SCORED,
    SCORES_HELP,
    SEARCHED,
    ComparisonOptions,
    MeasureOptions,
    Model,
    ModelOptions,
)
from fairmend.cli.language.runs import command_line, go_on, language_run, read_collection, read_scores
from fairmend.cli.options import RARE, CommonOptions, Given, WorkerOptions, levels, of, real, whole
from fairmend.cli.tables import leave_report, present_study
from fairmend.cli.trust import TrustOptions
from fairmend.errors import InputError
from fairmend.language.repair.settings import SUBSET_METHODS, RepairSettings

if TYPE_CHECKING:
    from fairmend.language.scores.head_scores import HeadScores
    from fairmend.language.studies.compare import ComparisonSettings
    from fairmend.language.studies.equal_cost import EqualCostSettings
    from fairmend.language.studies.study import JudgedStudy
    from fairmend.language.studies.sweep import SweepSettings
    from fairmend.report.page import Page
    from fairmend.runs import Store

    StudySettings = ComparisonSettings | EqualCostSettings | SweepSettings

_SWEPT = "Swept (lists)"
_LEARNED = of(RepairSettings, "subsets.surrogate", "max_perplexity", panel="Repair")


def compare(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    compared: ComparisonOptions,
    given: Annotated[Given, MEASURED, SCORED, COLLECTED, SEARCHED],
    scores: Annotated[Path | None, typer.Option("--scores", metavar="FILE.csv", help=SCORES_HELP), RARE] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the result; made if need be. One that holds this very comparison goes on with it. "
            "Default: ./fairmend-compare-NAME, NAME being the model.",
        ),
    ] = None,
    asked: WorkerOptions,
    common: CommonOptions,
) -> None:
    """Compare methods: at equal numbers of heads, or, with --tokens, whole repairs at an equal number of tokens.

    At equal numbers of heads: every head is scored once, on the search half of prompts and text, and all methods share
    the scores; FASP is shown at every alpha and gamma. Every set of heads is then measured on the judging half, which
    no score saw, with the same prompts and the same noise; sets that coincide are measured once. Nothing is chosen
    among the lines: whoever picks the best of them has chosen on the judging half.

    At an equal number of generated tokens (--tokens): every method repairs the model several times (--seeds), as
    fairmend lm repair does, each time with other prompts, noise and random numbers, and all repairs are judged on the
    same held-out prompts and text.

    Written to --out: compare.csv, compare.json, compare.png and .svg (bias against perplexity), and run.sqlite, which
    has every measurement. Ctrl-C keeps everything measured so far; the same command or `fairmend resume DIR` goes on
    with it.

    Example: `fairmend lm compare smollm2 --scorer lexical --alpha 0.05,0.1 --gamma 0.3,0.6 --out compared`

    Or: `fairmend lm compare smollm2 --scorer lexical --method fasp,active --tokens 100000 --out costs`
    """
    with opened(common, asked) as screen:
        settings = _settings(compared, measure, given, common.seed)
        if scores is not None and compared.tokens is not None:
            raise InputError("--scores is for comparisons at equal numbers of heads: with --tokens scores are paid for")
        table = read_scores(scores)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        folder = out or Path(f"fairmend-compare-{_slug(inputs.lm.name)}")
        extra = {"scores": None if scores is None else absolute(scores)}
        _carry_out(folder, inputs, settings, table, extra, screen)


def sweep(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    given: Annotated[Given, MEASURED, COLLECTED, _LEARNED],
    collected: Annotated[
        Path,
        typer.Option("--from", metavar="DIR", help="Folder of fairmend lm collect, made with the same options."),
    ],
    epsilon: Annotated[
        str,
        typer.Option(
            "--epsilon",
            metavar="WEIGHT[,WEIGHT]",
            rich_help_panel=_SWEPT,
            help="Weights of the bias against the perplexity, from 0 to 1. 0 and 1, one surrogate alone, are shown "
            "without the perplexity floor too.",
        ),
    ] = "0,0.25,0.5,0.75,1",
    subsets: Annotated[
        str | None,
        typer.Option(
            "--subsets",
            metavar="N[,N]",
            rich_help_panel=_SWEPT,
            help="Numbers of collected subsets to learn from, the first ones. Default: a quarter, half and all.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the result; made if need be. One that holds this very sweep goes on with it.",
        ),
    ],
    asked: WorkerOptions,
    common: CommonOptions,
) -> None:
    """Answer the design questions of Attention Pruning from collected subsets: which weight, and how many of them?

    For every number of subsets and every weight, surrogates are fitted and annealed on, and the winner is measured on
    held-out prompts and text, each set of heads once. Written to --out: sweep.csv, sweep.json, sweep.png and .svg (bias
    and perplexity against the weight) and run.sqlite, which has every measurement.

    Ctrl-C keeps everything measured so far; the same command or `fairmend resume DIR` goes on with it.

    Example: `fairmend lm sweep smollm2 --scorer lexical --from collected --epsilon 0,0.5,1 --out swept`
    """
    with opened(common, asked) as screen:
        from fairmend.language.studies.sweep import SweepSettings

        shared = measuring(measure, common.seed, given, method="attention-pruning")
        budgets = _quarters(collected, shared) if subsets is None else levels("--subsets", subsets, whole)
        settings = SweepSettings(tuple(budgets), tuple(levels("--epsilon", epsilon, real)), shared)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        _carry_out(out, inputs, settings, None, {"from": absolute(collected)}, screen)


def resume(folder: Path, header: Mapping[str, Any], trust: TrustOptions, screen: Screen) -> None:
    """Go on with the study in a folder, whose store has this header."""
    from fairmend.records import built

    _, kind = _studies()[header["kind"]]
    settings: StudySettings = stored_settings(lambda payload: built(payload, kind), header)
    inputs = reopen_language_inputs(header, folder, trust, screen, settings.shared.seed)
    extra = {name: header["request"][name] for name in ("scores", "from") if name in header["request"]}
    _carry_out(folder, inputs, settings, read_scores(extra.get("scores")), extra, screen)


def show(folder: Path, screen: Screen) -> None:
    """Show the study saved in a folder."""
    present_study(_saved(folder), screen, tight=True)


def page(folder: Path) -> Page:
    """The report of the study saved in a folder."""
    from fairmend.report.study import study_page

    return study_page(_saved(folder), folder)


def _saved(folder: Path) -> Mapping[str, Any]:
    from fairmend.report.study import load_study

    return load_study(folder, *(study for study, _ in _studies().values()))


def _studies() -> dict[str, tuple[type[JudgedStudy[Any]], type[StudySettings]]]:
    """What is found and how it is set, by kind of run."""
    from fairmend.language.studies import compare, equal_cost, sweep

    return {
        compare.ComparisonSettings.kind: (compare.MethodComparison, compare.ComparisonSettings),
        equal_cost.EqualCostSettings.kind: (equal_cost.CostComparison, equal_cost.EqualCostSettings),
        sweep.SweepSettings.kind: (sweep.SubsetSweep, sweep.SweepSettings),
    }


def _settings(
    compared: ComparisonOptions, measure: MeasureOptions, given: Given, seed: int
) -> ComparisonSettings | EqualCostSettings:
    """The settings that the options amount to.

    Raises:
        InputError: an option outside its range, or one that does not go with the others.
    """
    from fairmend.language.studies.compare import ComparisonSettings
    from fairmend.language.studies.equal_cost import EqualCostSettings

    lists = {
        "methods": None if compared.method is None else tuple(levels("--method", compared.method, str)),
        "alphas": None if compared.alpha is None else tuple(levels("--alpha", compared.alpha, real)),
        "gammas": None if compared.gamma is None else tuple(levels("--gamma", compared.gamma, real)),
    }
    named: dict[str, Any] = {name: value for name, value in lists.items() if value is not None}
    if compared.tokens is None:
        searching_subsets = sorted(set(named.get("methods", ())) & set(SUBSET_METHODS))
        if searching_subsets:
            raise InputError(
                f"--method {searching_subsets[0]} measures as many subsets as it may, so it is compared at equal cost: "
                "add --tokens N, such as --tokens 100000"
            )
        return ComparisonSettings(**named, random_draws=compared.random_draws, shared=measuring(measure, seed, given))
    rule: dict[str, float] = {}
    for name, option in (("alphas", "alpha"), ("gammas", "gamma")):
        values = named.pop(name, ())
        if len(values) > 1:
            raise InputError(f"--tokens compares whole repairs with one --{option}, got {len(values)}: give one")
        rule |= dict.fromkeys([option] if values else [], *values)
    shared = measuring(measure, seed, given, **rule)
    return EqualCostSettings(**named, tokens=compared.tokens, seeds=compared.seeds, shared=shared)


def _quarters(collected: Path, settings: RepairSettings) -> list[int]:
    """A quarter, half and all of the collected subsets."""
    with read_collection(str(collected), settings) as context:
        count = 0 if context is None else len(context)
    return sorted({max(2, count // 4), max(2, count // 2), max(2, count)})


def _carry_out(
    out: Path,
    inputs: LanguageInputs,
    settings: StudySettings,
    scores: HeadScores | None,
    extra: Mapping[str, str | None],
    screen: Screen,
) -> None:
    """Begin the study that the settings are of, or go on with it; save it, and show it.

    Args:
        out: its folder.
        inputs, settings, scores: what it is of.
        extra: further options for the record: the file of the scores, the folder of collected subsets.
        screen: where it is shown.
    """
    from fairmend.language.records.run_directories import open_run
    from fairmend.language.studies import compare, equal_cost, sweep

    request = {**inputs.request, **extra}
    found: JudgedStudy[Any]

    def begin() -> Store:
        return open_run(out, inputs.subject, settings, scores=scores, kind=settings.kind, request=request)

    with (
        read_collection(extra.get("from"), settings.shared) as collected,
        language_run(out, begin, screen, go_on(out, request)) as store,
    ):
        given: dict[str, Any] = {"store": store, "progress": screen.steps, "workers": screen.workers}
        if isinstance(settings, compare.ComparisonSettings):
            found = compare.compare_methods(inputs.subject, settings, scores=scores, **given)
        elif isinstance(settings, equal_cost.EqualCostSettings):
            found = equal_cost.compare_at_equal_cost(inputs.subject, settings, **given)
        else:
            assert collected is not None
            found = sweep.sweep_subsets(inputs.subject, settings, collected, **given)
        screen.steps.close()
        files = found.save(settings, out, request=request, command=command_line())
    present_study(_saved(out), screen, {**files, **leave_report(out, page, screen)}, tight=True)


def _slug(name: str) -> str:
    """A model's name as part of a folder's name."""
    return re.sub(r"[^\w.-]+", "-", Path(name).name).strip("-.") or "model"
