"""The commands `fairmend lm ...`: audit, score, diff and apply; repair and compare have files of their own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairmend import __version__
from fairmend.cli.display import Screen, opened
from fairmend.cli.gates import FailAbove, Gate
from fairmend.cli.language.inputs import LanguageInputs, measuring, open_language_inputs, open_model
from fairmend.cli.language.options import (
    MEASURED,
    SCORED,
    SLICE_HELP,
    MeasureOptions,
    Model,
    ModelOptions,
)
from fairmend.cli.language.runs import SCORING, language_run
from fairmend.cli.options import CommonOptions, Given, WorkerOptions, whole
from fairmend.cli.tables import present
from fairmend.errors import InputError

if TYPE_CHECKING:
    from fairmend.language.repair.settings import RepairSettings
    from fairmend.language.scores.head_scores import HeadScores
    from fairmend.runs import Store


def audit(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    given: Annotated[Given, MEASURED],
    fail_above: FailAbove = None,
    asked: WorkerOptions,
    common: CommonOptions,
) -> None:
    """Measure how differently a model treats groups of people, in what it writes or prefers, and its perplexity.

    For every axis: the bias with its interval, the noise floor (what a model that treats all groups alike would show
    on as many prompts), the excess over it and the p-value of a permutation test; for every group the mean toxicity
    with counts and intervals and the share of toxic continuations; the perplexity with its protocol and standard
    error; and in words whether there is anything to repair. Nothing is changed. With --fail-above, every axis decides.

    Example: `fairmend lm audit smollm2 --bias pronouns`

    Example: `fairmend lm audit smollm2 --axis gender_and_sex --scorer lexical`

    Example: `fairmend lm audit ./my-model --prompts people.csv --scorer python:mine:score`
    """
    with opened(common, asked) as screen:
        gate = Gate(fail_above)
        settings = measuring(measure, common.seed, given)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        from fairmend.language.repair.audit import audit_model

        found = audit_model(inputs.on(inputs.prompts), settings, screen.steps, screen.workers)
        from fairmend.cli.language.tables import audit_parts

        lm = inputs.lm
        identity = {name: getattr(lm, name) for name in ("name", "source", "revision", "licence")}
        checked = gate.result({axis: figures.interval.low for axis, figures in found.axes.items()})
        screen.document(
            {"fairmend": __version__, "request": inputs.request}
            | {"model": identity | {"fingerprint": lm.fingerprint()}}
            | found.to_json()
            | checked
        )
        screen.show(*audit_parts(found))
        gate.close(checked, screen)


def score(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    given: Annotated[Given, MEASURED, SCORED],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.csv", help="File for the scores of all heads: new.")],
    top: Annotated[int, typer.Option("--top", metavar="N", parser=whole, help="Heads to show in each table.")] = 10,
    asked: WorkerOptions,
    common: CommonOptions,
) -> None:
    """Find what every attention head does to the bias of each axis and to the perplexity, one by one.

    The CSV has a row per head: its effect (what the figure gains without the head) on the bias of every axis and on
    the perplexity, each with a standard error; beside it lies a head map, layers by heads, as .png and .svg. The
    tables show the most influential heads. With them stands how far the rankings would repeat on another sample, with
    a warning where they are mostly noise, and how far first order agrees with ablating heads for good. Prompts and
    text are those that a repair with the same --seed scores heads with, so that `fairmend lm repair --scores FILE.csv`
    can go on from here.

    Ctrl-C keeps what is scored in FILE.csv.unfinished; the same command goes on from there.

    Example: `fairmend lm score smollm2 --axis gender_and_sex --scorer lexical --out heads.csv`
    """
    with opened(common, asked) as screen:
        files = _new_files(out)
        settings = measuring(measure, common.seed, given)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        from fairmend.language.records.run_directories import open_run

        unfinished = out.with_name(f"{out.name}.unfinished")
        again = "give the same command again to go on with it"

        def begin() -> Store:
            return open_run(unfinished, inputs.subject, settings, kind=SCORING, request=inputs.request)

        with language_run(unfinished, begin, screen, again) as store:
            found = _score(inputs, settings, store, screen)
        from fairmend.cli.language.tables import score_parts
        from fairmend.files import write_atomically
        from fairmend.language.records.head_pictures import draw_scores, pictures_of
        from fairmend.records import plain
        from fairmend.runs.directories import remove_run

        found.write(out)
        picture = draw_scores(found, inputs.lm.head_map, title=f"{inputs.lm.name}: what every head does")
        for path, content in zip(files[1:], pictures_of(picture).values(), strict=True):
            write_atomically(path, content)
        remove_run(unfinished)
        with suppress(OSError):  # somebody else put something there
            unfinished.rmdir()
        written = [str(path) for path in files]
        screen.document(
            {"fairmend": __version__, "request": inputs.request, "file": str(out), "files": written}
            | {"warnings": list(found.warnings), "scores": plain(found)}
        )
        screen.show(*score_parts(found, top))
        for warning in found.warnings:
            screen.warn(f"Warning: {warning}")
        screen.show("Written:", *(f"  {path}" for path in written))


def diff(
    model: Model,
    repaired: Annotated[
        str, typer.Argument(metavar="REPAIRED", help="The repaired model: a directory, or whatever MODEL can be.")
    ],
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    given: Annotated[Given, MEASURED],
    show: Annotated[
        int, typer.Option("--show", metavar="N", parser=whole, help="Pairs of continuations to print.")
    ] = 5,
    common: CommonOptions,
) -> None:
    """Put the same prompts through a model and its repaired copy, with the same noise: where do they differ?

    Bias, toxicity by group and perplexity of both with the paired change, and the continuations whose toxicity differs
    most, side by side. They are printed as they are and may offend. Of the prompts, some may have been searched with.

    Example: `fairmend lm diff smollm2 repaired --axis gender_and_sex --scorer lexical`
    """
    with opened(common) as screen:
        settings = measuring(measure, common.seed, given)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        other = open_model(repaired, replace(options, revision=None), screen)
        from fairmend.cli.language.tables import diff_parts
        from fairmend.language.repair.differences import compare_models

        found = compare_models(inputs.on(inputs.judged or inputs.prompts), other, settings, screen.steps)
        screen.document({"fairmend": __version__, "request": inputs.request, "repaired": repaired} | found.to_json())
        screen.show(*diff_parts(found, show))


def apply(
    model: Model,
    mask: Annotated[
        Path, typer.Argument(metavar="MASK.json", help="mask.json of a repair of this model, or its folder.")
    ],
    *,
    options: ModelOptions,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the checkpoint: new or empty.")],
    sliced: Annotated[bool, typer.Option("--slice", help=SLICE_HELP)] = False,
    common: CommonOptions,
) -> None:
    """Put a saved mask, its dropped heads and gains, on the model that it was made for, and save the checkpoint.

    The checkpoint is stored in the number formats of the model's own files, unless --dtype names another, and is
    loaded again with plain transformers and compared before it takes its place. A folder that holds anything, such as
    another repair, is refused. With --slice, a mask or model that cannot be sliced exactly is refused.

    Example: `fairmend lm apply smollm2 repaired/mask.json --out again`
    """
    with opened(common) as screen:
        from fairmend.language.models.writing import require_new

        require_new(out)
        lm = open_model(model, options, screen)
        from fairmend.language.heads.heads import gains_of
        from fairmend.language.heads.slicing import slice_groups
        from fairmend.language.records.checkpoints import read_mask, write_checkpoint
        from fairmend.language.records.results import (
            MASK,
            count_heads,
            describe_mask,
            describe_slicing,
            heads_in_words,
            slicing_in_words,
        )
        from fairmend.records import document

        chosen = read_mask(mask, lm)
        smaller = slice_groups(lm.model, chosen, lm.head_map) if sliced else None
        files = write_checkpoint(lm, chosen, out, {MASK.file: document(describe_mask(chosen, lm))}, sliced=smaller)
        slicing = None if smaller is None else describe_slicing(smaller)
        counts = count_heads(gains_of(chosen))
        said = [f"{heads_in_words(counts)}."]
        said += [] if slicing is None else [slicing_in_words(slicing)]
        present({**counts, "slicing": slicing}, said, screen, files)


def _new_files(out: Path) -> tuple[Path, Path, Path]:
    """The table and its two pictures, none of which may exist.

    Raises:
        InputError: one does, or there is no such folder.
    """
    files = (out, out.with_suffix(".png"), out.with_suffix(".svg"))
    taken = [path for path in files if path.exists()]
    if taken or not out.absolute().parent.is_dir() or out.suffix in (".png", ".svg"):
        said = f"{taken[0]} exists" if taken else "its folder does not exist, or it is named like a picture"
        raise InputError(f"--out {out}: {said}; name a new file such as heads.csv in a folder that exists")
    return files


def _score(inputs: LanguageInputs, settings: RepairSettings, store: Store, screen: Screen) -> HeadScores:
    """The scores of all heads, on what a repair searches with."""
    from fairmend.language.measurement.answers import answers_of
    from fairmend.language.repair.subject import halves, scoring_reading
    from fairmend.language.scores.head_scores import origin_of, score_heads
    from fairmend.runs.progress import Stages

    text = inputs.texts[0]
    reading = scoring_reading(inputs.lm, text, settings)
    parts: list[Any] = [inputs.prompts] if inputs.judged is None else [inputs.prompts, inputs.judged]
    searched = [halves(part, settings, *rest)[0] for part, *rest in zip(*parts, strict=True)]
    sampling = replace(settings.sampling, n_samples=settings.scoring_samples)
    answers = [answers_of(inputs.lm, part, inputs.scorer, sampling) for part in searched]
    with Stages(screen.steps, "heads one by one: ") as stages:
        found = score_heads(
            inputs.lm,
            reading.tokens,
            reading.protocol,
            answers,
            loss_method=settings.loss_scores,
            bias_method=settings.bias_method,
            group_mean=settings.group_mean,
            seed=settings.seed,
            rules=settings.finalists(),
            store=store,
            progress=stages,
            workers=screen.workers,
        )
    return replace(found, origin=origin_of(inputs.lm, text, searched))
