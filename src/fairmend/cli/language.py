"""The commands `fairmend lm ...`: audit, repair, apply, score and diff of language models."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairmend import __version__
from fairmend.cli.display import Interrupted, Screen, opened
from fairmend.cli.language_inputs import LanguageInputs, open_language_inputs, open_model, sampled
from fairmend.cli.language_options import MODEL_HELP, MeasureOptions, ModelOptions, RepairOptions, ScoringOptions
from fairmend.cli.options import CommonOptions, command, whole
from fairmend.errors import InputError

if TYPE_CHECKING:
    from fairmend.language.settings import RepairSettings

app = typer.Typer(
    name="lm",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Language models: find the attention heads to drop so that continuations about all groups are alike.",
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]


@app.command()
@command
def audit(model: Model, *, options: ModelOptions, measure: MeasureOptions, common: CommonOptions) -> None:
    """Measure how differently toxic a model's continuations are for groups of people, and its perplexity.

    For every axis: the bias with its interval, the noise floor (what a model that treats all groups alike would show
    on as many prompts), the excess over it and the p-value of a permutation test; for every group the mean toxicity
    with counts and intervals and the share of toxic continuations; the perplexity with its protocol and standard
    error; and in words whether there is anything to repair. Nothing is changed.

    Example: `fairmend lm audit smollm2 --axis gender_and_sex --scorer lexical`

    Example: `fairmend lm audit ./my-model --prompts people.csv --scorer python:mine:score`
    """
    with opened(common) as screen:
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        from fairmend.language.audit import audit_model
        from fairmend.language.reading import ReadingSettings
        from fairmend.language.samples import Sampling

        found = audit_model(
            inputs.lm,
            [sampled(part, measure.prompt_count, common.seed) for part in inputs.prompts],
            inputs.scorer,
            inputs.texts[1],
            sampling=Sampling(measure.new_tokens, measure.samples, common.seed),
            reading=ReadingSettings(tokens=measure.text_tokens),
            seed=common.seed,
            batch_size=options.batch_size,
            progress=screen.steps,
        )
        from fairmend.cli.language_tables import audit_parts

        lm = inputs.lm
        identity = {name: getattr(lm, name) for name in ("name", "source", "revision", "licence")}
        screen.document(
            {"fairmend": __version__, "request": inputs.request}
            | {"model": identity | {"fingerprint": lm.fingerprint()}}
            | found.to_json()
        )
        screen.show(*audit_parts(found))


@app.command()
@command
def repair(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    settings: RepairOptions,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the result; made if need be. One that holds this very run goes on with it, one that holds "
            "anything else is refused.",
        ),
    ],
    common: CommonOptions,
) -> None:
    """Rank the attention heads, choose those to drop, judge on held-out prompts and text, and save the checkpoint.

    Saved in --out: the repaired checkpoint (dropped heads are zeros in its weights, so that plain transformers loads
    it), mask.json, result.json, run.sqlite and README.md, a model card in words. The tables show before and after on
    prompts that the search never saw, further axes of --axis among them. If nothing less biased is found that keeps
    the perplexity, the model stays as it is, and the output says so.

    Ctrl-C keeps everything measured so far; the same command with the same --out goes on with it.

    Example: `fairmend lm repair smollm2 --axis gender_and_sex,race_ethnicity --scorer lexical --out repaired`
    """
    with opened(common) as screen:
        chosen = _settings(measure, settings, common.seed)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        _repair(out, inputs, chosen, options, screen)


@app.command()
@command
def apply(
    model: Model,
    mask: Annotated[
        Path, typer.Argument(metavar="MASK.json", help="mask.json of a repair of this model, or its folder.")
    ],
    *,
    options: ModelOptions,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the checkpoint: new or empty.")],
    common: CommonOptions,
) -> None:
    """Drop the heads of a saved mask from the model that it was made for, and save the checkpoint.

    Example: `fairmend lm apply smollm2 repaired/mask.json --out again`
    """
    with opened(common) as screen:
        lm = open_model(model, options, screen)
        from fairmend.language.results import describe_mask
        from fairmend.language.saving import MASK, read_mask, write_checkpoint
        from fairmend.report.tables import json_bytes

        chosen = read_mask(mask, lm)
        files = write_checkpoint(lm, chosen, out, {MASK: json_bytes(describe_mask(chosen, lm)).decode()})
        written = {name: str(path) for name, path in files.items()}
        screen.document({"dropped": chosen.size, "heads": lm.head_map.n_heads, "files": written})
        screen.show(f"{chosen.size} of {lm.head_map.n_heads} heads dropped.")
        _show_files(written, screen)


@app.command()
@command
def score(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    scoring: ScoringOptions,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.csv", help="File for the scores of all heads: new.")],
    top: Annotated[int, typer.Option("--top", metavar="N", parser=whole, help="Heads to show in each table.")] = 10,
    common: CommonOptions,
) -> None:
    """Find what every attention head does to the bias of each axis and to the perplexity, one by one.

    The CSV has a row per head: its effect (what the figure gains without the head) on the bias of every axis and on
    the perplexity, each with a standard error. The tables show the most influential heads. Beside them stands how far
    the rankings would repeat on another sample, with a warning where they are mostly noise. Prompts and text are those
    that a repair with the same --seed searches with.

    Example: `fairmend lm score smollm2 --axis gender_and_sex --scorer lexical --out heads.csv`
    """
    with opened(common) as screen:
        if out.exists() or not out.absolute().parent.is_dir():
            raise InputError(f"--out {out} exists, or its folder does not: name a new file in a folder that exists")
        settings = _settings(measure, RepairOptions(**asdict(scoring)), common.seed)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        from fairmend.cli.language_tables import score_parts
        from fairmend.language.head_ranking import HeadRanking
        from fairmend.language.head_scores import score_heads
        from fairmend.language.reading import Reading
        from fairmend.language.repair import halves

        reading = Reading(inputs.lm, inputs.texts[0], settings.reading, options.batch_size)
        found = score_heads(
            inputs.lm,
            reading.tokens,
            reading.protocol,
            [halves(part, settings)[0] for part in inputs.prompts],
            inputs.scorer,
            loss_method=settings.loss_scores,
            bias_method=settings.bias_method,
            sampling=settings.sampling,
            seed=common.seed,
            batch_size=options.batch_size,
            progress=screen.steps.stage,
        )
        screen.steps.close()
        found.write(out)
        screen.document(
            {"fairmend": __version__, "request": inputs.request, "file": str(out), "warnings": list(found.warnings)}
            | {"scores": HeadRanking({}, found).to_json()["table"]}
        )
        screen.show(*score_parts(found, top))
        for warning in found.warnings:
            screen.warn(f"Warning: {warning}")
        screen.show("Written:", f"  {out}")


@app.command()
@command
def diff(
    model: Model,
    repaired: Annotated[
        str, typer.Argument(metavar="REPAIRED", help="The repaired model: a directory, or whatever MODEL can be.")
    ],
    *,
    options: ModelOptions,
    measure: MeasureOptions,
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
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        other = open_model(repaired, replace(options, revision=None), screen)
        from fairmend.cli.language_tables import diff_parts
        from fairmend.language.differences import compare_models
        from fairmend.language.reading import ReadingSettings
        from fairmend.language.samples import Sampling

        found = compare_models(
            inputs.lm,
            other,
            [sampled(part, measure.prompt_count, common.seed) for part in inputs.prompts],
            inputs.scorer,
            inputs.texts[1],
            sampling=Sampling(measure.new_tokens, measure.samples, common.seed),
            reading=ReadingSettings(tokens=measure.text_tokens),
            seed=common.seed,
            batch_size=options.batch_size,
            progress=screen.steps,
        ).to_json()
        screen.document({"fairmend": __version__, "request": inputs.request, "repaired": repaired} | found)
        screen.show(*diff_parts(found, show))


def _settings(measure: MeasureOptions, settings: RepairOptions, seed: int) -> RepairSettings:
    from fairmend.language.reading import ReadingSettings
    from fairmend.language.samples import Sampling
    from fairmend.language.settings import RepairSettings

    return RepairSettings(
        **asdict(settings),
        prompts=measure.prompt_count,
        sampling=Sampling(measure.new_tokens, measure.samples),
        scoring_samples=measure.samples,
        scoring_tokens=min(2048, measure.text_tokens),
        reading=ReadingSettings(tokens=measure.text_tokens),
        seed=seed,
    )


def _repair(out: Path, inputs: LanguageInputs, settings: RepairSettings, options: ModelOptions, screen: Screen) -> None:
    from fairmend.cli.folders import tidy
    from fairmend.language.repair import repair_model
    from fairmend.language.saving import load_result, open_run, save_repair

    lm, scorer, texts = inputs.lm, inputs.scorer, inputs.texts
    prompts, others = inputs.prompts[0], inputs.prompts[1:]
    _ = lm.head_map  # a model without heads to drop is refused before a folder is made
    again = "run the same command again with the same --out to go on"
    with tidy(out):
        try:
            store = open_run(
                out,
                lm=lm,
                prompts=prompts,
                scorer=scorer,
                settings=settings,
                texts=texts,
                others=others,
                request=inputs.request,
            )
            with closing(store):
                repaired = repair_model(
                    lm,
                    prompts,
                    scorer,
                    settings,
                    texts=texts,
                    others=others,
                    store=store,
                    progress=screen.steps,
                    batch_size=options.batch_size,
                )
            screen.steps.close()
            command_line = shlex.join(["fairmend", *sys.argv[1:]])
            files = save_repair(repaired, lm, out, request=inputs.request, command=command_line)
        except KeyboardInterrupt:
            screen.warn(f"Stopped by Ctrl-C. Everything measured so far is kept in {out}; {again}.")
            raise Interrupted from None
    _present(load_result(out), files, screen)
    if repaired.run.stopped == "interrupted":
        screen.warn(f"Stopped by Ctrl-C: this is the best so far, not judged on held-out prompts; {again}.")
        raise Interrupted


def _present(result: Mapping[str, Any], files: Mapping[str, Path], screen: Screen) -> None:
    from fairmend.cli.language_tables import repair_parts

    written = {name: str(path) for name, path in files.items()}
    screen.document({**result, "files": written})
    for note in result["scores"]["notes"]:
        screen.note(f"Note: {note}")
    screen.show(*repair_parts(result))
    _show_files(written, screen)


def _show_files(written: Mapping[str, str], screen: Screen) -> None:
    screen.show("Written:", *(f"  {path}" for path in written.values()))
