"""The commands `fairmend lm collect` and `fit`: measured subsets of heads, and what surrogates learn of them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairmend import __version__
from fairmend.cli.display import Interrupted, Screen, opened
from fairmend.cli.language.inputs import (
    LanguageInputs,
    measuring,
    open_language_inputs,
    reopen_language_inputs,
    stored_settings,
)
from fairmend.cli.language.options import COLLECTED, MEASURED, MeasureOptions, Model, ModelOptions
from fairmend.cli.options import CommonOptions, Given, WorkerOptions, real, whole
from fairmend.cli.tables import plain_table
from fairmend.cli.trust import TrustOptions, resume_command
from fairmend.errors import InputError, RunError

if TYPE_CHECKING:
    from fairmend.language.repair.settings import RepairSettings
    from fairmend.language.studies.collecting import Collected
    from fairmend.surrogates.validation import HeldOutScore, MeasurementNoise

_HOUR = 3600.0
_ASKED = "collecting"  # the event that says how much was asked for


def collect(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    given: Annotated[Given, MEASURED, COLLECTED],
    samples_wanted: Annotated[
        int | None,
        typer.Option("--subsets", metavar="N", parser=whole, help="Subsets in all, of all sessions together."),
    ] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", metavar="H", parser=real, help="Longest duration of this session.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Folder of the collection; one that holds this very one goes on."),
    ],
    asked: WorkerOptions,
    common: CommonOptions,
) -> None:
    """Measure bias and perplexity of many subsets of heads: what surrogates learn from.

    Sizes are spread over the limits, with a share of small subsets; all are measured on the same prompts, noise and
    text, and some again on others, so that the noise is known. Stop with Ctrl-C whenever you like and go on another
    day, with another budget: nothing is measured twice. `fairmend lm fit DIR` says how much can be learned of it.

    Example: `fairmend lm collect smollm2 --scorer lexical --subsets 300 --prompt-count 500 --out collected`
    """
    with opened(common, asked) as screen:
        if samples_wanted is None and hours is None:
            raise InputError("collecting needs an end: give --subsets N, or --hours H, or both")
        if samples_wanted is not None and samples_wanted < 2:
            raise InputError(f"--subsets must be at least 2, got {samples_wanted}")
        if hours is not None and not 0 < hours < float("inf"):
            raise InputError(f"--hours must be more than 0, got {hours:g}")
        settings = measuring(measure, common.seed, given)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        _collect(out, inputs, settings, samples_wanted, hours, screen)


def resume(folder: Path, header: Mapping[str, Any], trust: TrustOptions, screen: Screen) -> None:
    """Go on with the collection in a folder, whose store has this header, to the end that was asked for last."""
    from fairmend.language.repair.settings import RepairSettings

    settings = stored_settings(RepairSettings.from_json, header)
    subsets, hours = _last_end(folder)
    if subsets is None and hours is None:
        raise RunError(f"{folder} does not say when it is to end: go on with fairmend lm collect and --subsets N")
    inputs = reopen_language_inputs(header, folder, trust, screen, settings.seed)
    _collect(folder, inputs, settings, subsets, hours, screen)


def show(folder: Path, screen: Screen) -> None:
    """Show how far the collection in a folder is."""
    from fairmend.language.repair.subset_search import CONTEXT
    from fairmend.language.studies.collecting import REPEATS
    from fairmend.runs import Store
    from fairmend.runs.directories import RUN

    with closing(Store.open(folder / RUN, read_only=True)) as store:
        known = store.contexts()
        counts = [len(store.context(name)) if name in known else 0 for name in (CONTEXT, REPEATS)]
        request = store.header["request"]
        model = request.get("called", "")
    subsets, hours = _last_end(folder)
    screen.document(
        {"folder": str(folder), "samples": counts[0], "repeats": counts[1], "subsets": subsets, "hours": hours}
    )
    wanted = "" if subsets is None else f" of {subsets:,} asked for"
    screen.show(
        f"{model}: {counts[0]:,} subsets measured{wanted}, {counts[1]:,} of them again.",
        f"More: {resume_command(folder, request)}, or fairmend lm collect with a larger --subsets.",
        f"What can be learned of them: fairmend lm fit {shlex.quote(str(folder))}",
    )


def _last_end(folder: Path) -> tuple[int | None, float | None]:
    """Subsets in all and hours of a session, as they were asked for last; None where they were not."""
    from fairmend.runs import Store
    from fairmend.runs.directories import RUN

    with closing(Store.open(folder / RUN, read_only=True)) as store:
        asked = store.events(_ASKED)
    if not asked:
        raise RunError(
            f"{folder} does not say how many subsets were wanted: go on with fairmend lm collect --subsets N"
        )
    subsets, hours = (asked[-1].payload.get(name) for name in ("subsets", "hours"))
    if not isinstance(subsets, int | None) or not isinstance(hours, int | float | None):
        raise RunError(f"{folder} asks for {subsets!r} subsets in {hours!r} hours: go on with lm collect --subsets N")
    return subsets, hours


def _collect(
    out: Path,
    inputs: LanguageInputs,
    settings: RepairSettings,
    samples: int | None,
    hours: float | None,
    screen: Screen,
) -> None:
    from fairmend.language.studies.collecting import collect as collect_subsets
    from fairmend.language.studies.collecting import open_collection
    from fairmend.runs.directories import tidy

    subject = replace(inputs.subject, others=(), judge_prompts=None)
    settings.subsets.space(
        subject.lm.head_map.space()
    )  # limits that leave no subset are refused before a folder is made
    with tidy(out):
        store = open_collection(out, subject, settings, inputs.request)
        with closing(store):
            store.record(_ASKED, {"subsets": samples, "hours": hours})
            found = collect_subsets(
                subject,
                settings,
                store,
                samples=samples,
                seconds=None if hours is None else hours * _HOUR,
                progress=screen.steps,
                workers=screen.workers,
            )
    _present(found, out, inputs, screen)


def _present(found: Collected, out: Path, inputs: LanguageInputs, screen: Screen) -> None:
    share = found.model_seconds / found.seconds if found.seconds > 0 and found.new else 1.0
    rate = found.new / found.seconds * _HOUR if found.seconds > 0 else 0.0
    screen.document({"fairmend": __version__, "request": inputs.request, "folder": str(out), **asdict(found)})
    screen.show(
        f"{found.samples:,} subsets measured, {found.repeats:,} of them again; {found.new:,} measurements in this "
        f"session, {rate:,.0f} an hour, {share:.0%} of the time spent on measuring.",
        f"Next: fairmend lm fit {shlex.quote(str(out))}",
    )
    if found.stopped == "interrupted":
        again = resume_command(out, inputs.request)
        screen.warn(f"Stopped by Ctrl-C. Everything measured is kept; go on with: {again}")
        raise Interrupted


def fit(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The --out folder of collect, or of a repair that searched subsets."),
    ],
    *,
    folds: Annotated[
        int, typer.Option("--folds", metavar="N", parser=whole, help="Parts of the cross-validation.")
    ] = 5,
    common: CommonOptions,
) -> None:
    """Fit every kind of surrogate to collected subsets, and show how well it predicts subsets that it did not see.

    Errors are on the [0, 1] scale over the measured subsets, as published; beside them stands the part that is noise
    of the measurements themselves, which no surrogate can predict, from subsets that were measured twice.

    Example: `fairmend lm fit collected`
    """
    with opened(common) as screen:
        from fairmend.language.repair.subset_search import CONTEXT
        from fairmend.language.studies.collecting import measured_noise
        from fairmend.runs import Store
        from fairmend.runs.directories import RUN
        from fairmend.surrogates.fitting import make_surrogate
        from fairmend.surrogates.names import SURROGATE_NAMES
        from fairmend.surrogates.samples import Samples
        from fairmend.surrogates.validation import cross_validate

        if not folder.is_dir():
            raise RunError(f"{folder} is not a directory: name the --out folder of fairmend lm collect")
        with closing(Store.open(folder / RUN, read_only=True)) as store:
            noise = measured_noise(store)
            measured = store.context(CONTEXT)
            samples, figures = Samples.of(measured, measured.figures), measured.figures
        screen.steps.start(None, "cross-validation")
        scores = cross_validate(
            samples,
            figures,
            {name: make_surrogate(name) for name in SURROGATE_NAMES},
            folds=folds,
            noise=noise,
            seed=common.seed,
        )
        screen.steps.close()
        screen.document(_fit_document(folder, samples.broken, len(samples), noise, scores))
        screen.show(*_fit_parts(len(samples), samples.broken, noise, scores))


def _fit_document(
    folder: Path, broken: int, n: int, noise: MeasurementNoise | None, scores: list[HeldOutScore]
) -> Mapping[str, Any]:
    from fairmend.records import plain

    return {
        "fairmend": __version__,
        "folder": str(folder),
        "subsets": n,
        "broken": broken,
        "noise": None if noise is None else asdict(noise),
        "scores": plain(scores),
    }


def _fit_parts(n: int, broken: int, noise: MeasurementNoise | None, scores: list[HeldOutScore]) -> list[Any]:
    from fairmend.surrogates.validation import PUBLISHED_MSE

    parts: list[Any] = []
    for (target, title), published in zip(
        (("bias", "Bias"), ("loss", "Perplexity")), zip(*PUBLISHED_MSE.values(), strict=True), strict=True
    ):
        table = plain_table(
            f"{title}: predicted for subsets held out",
            *("surrogate", "MSE", "of it noise", "R2", "highest R2", "rank corr.", "spread", "within 90 %"),
        )
        for score in scores:
            if score.target == target:
                values = (score.mse, score.noise_mse, score.r2, score.r2_ceiling, score.spearman, score.z_spread)
                table.add_row(score.surrogate, *(_figure(value) for value in values), f"{score.coverage:.0%}")
        models = f"over {len(published)} models: {min(published):g} to {max(published):g}"
        parts += [table, f"Published MSE of Attention Pruning, {models}.\n"]
    known = (
        f"Noise of one measurement, from {noise.n} subsets measured twice: {noise.bias:.4f} of bias."
        if noise is not None
        else "The noise is that of the measurements' own standard errors: too few subsets were measured twice."
    )
    return [
        f"{n:,} measured subsets{f', {broken} more broke the model' if broken else ''}. {known}\n",
        *parts,
        "spread: how far off the surrogate is, in units of what it expects: 1 is right, more is too sure of itself.",
    ]


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.2f}"
